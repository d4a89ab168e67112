use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use iceberg::NamespaceIdent;
use tarndb_catalog::{
    Catalog, Clock, Error, ErrorKind, Ids, Location, RandomIds, Result, Storage, StoreLayer, SystemClock, memory_catalog,
    sqlite_catalog,
};

use super::Lakehouse;
use crate::extension::Extension;
use crate::table::Environment;

/// Wraps the catalog of a lake, for instance to fail its commits.
pub type CatalogLayer = Arc<dyn Fn(Arc<dyn Catalog>) -> Arc<dyn Catalog> + Send + Sync>;

/// Opens the lake at `url`, and creates it when there is none: `./dir` or `file:///dir` (a SQLite catalog in
/// `dir/catalog.db`, data beside it) or `memory://`.
///
/// # Errors
/// `Unsupported` for other locations; `Unavailable` when the folder cannot be used; `DataInvalid` when its catalog is
/// damaged; `InvalidInput` when it was moved or copied from where its tables were made.
pub async fn connect(url: &str) -> Result<Lakehouse> {
    Lakehouse::builder(url).build().await
}

/// Configures a [`Lakehouse`].
#[derive(Clone)]
pub struct LakehouseBuilder {
    url: String,
    store_layer: Option<StoreLayer>,
    catalog_layer: Option<CatalogLayer>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    extensions: Vec<Arc<dyn Extension>>,
}

impl fmt::Debug for LakehouseBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakehouseBuilder").field("url", &self.url).finish_non_exhaustive()
    }
}

impl LakehouseBuilder {
    pub(super) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            store_layer: None,
            catalog_layer: None,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            extensions: Vec::new(),
        }
    }

    /// Wraps the object store of the lake.
    #[must_use]
    pub fn with_store_layer(mut self, layer: StoreLayer) -> Self {
        self.store_layer = Some(layer);
        self
    }

    /// Wraps the catalog of the lake.
    #[must_use]
    pub fn with_catalog_layer(mut self, layer: CatalogLayer) -> Self {
        self.catalog_layer = Some(layer);
        self
    }

    /// Takes the time from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes identifiers from `ids`.
    #[must_use]
    pub fn with_ids(mut self, ids: Arc<dyn Ids>) -> Self {
        self.ids = ids;
        self
    }

    /// Adds the statements and background work of `extension`.
    #[must_use]
    pub fn with_extension(mut self, extension: Arc<dyn Extension>) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Opens the lake.
    ///
    /// # Errors
    /// Those of [`connect`].
    pub async fn build(self) -> Result<Lakehouse> {
        let location = Location::parse(&self.url)?;
        let folder = location.local_path();
        let storage = Storage::with_components(location, self.store_layer.as_ref(), self.clock, self.ids);
        let mut catalog: Arc<dyn Catalog> = match folder {
            None => Arc::new(memory_catalog(storage)),
            Some(folder) => {
                let failed = |e: std::io::Error| {
                    let message = format!("the folder `{}` cannot be used as a lake", folder.display());
                    Error::new(ErrorKind::Unavailable, message).with_source(e)
                };
                if !folder.is_dir() {
                    std::fs::create_dir_all(&folder).map_err(failed)?;
                }
                Arc::new(sqlite_catalog(&folder.join("catalog.db"), storage).await?)
            }
        };
        if let Some(layer) = &self.catalog_layer {
            catalog = layer(catalog);
        }
        ensure_default_namespace(catalog.as_ref()).await?;
        Lakehouse::new(Environment::new(catalog), self.extensions)
    }
}

/// Names without a namespace mean `default`, so it is always there where the lake can be written.
async fn ensure_default_namespace(catalog: &dyn Catalog) -> Result<()> {
    let default = NamespaceIdent::new("default".to_string());
    if catalog.namespace_exists(&default).await? {
        return Ok(());
    }
    match catalog.create_namespace(&default, HashMap::new()).await {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}
