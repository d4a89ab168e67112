use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemTable, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result as EngineResult};
use datafusion::logical_expr::TableType;
use iceberg::{NamespaceIdent, TableIdent};
use tarndb_catalog::{Error, ErrorKind, Result};

use super::blocking;
use super::relation::{self, FILE_COLUMN, POSITION_COLUMN, Suffix};
use super::session::{CATALOG, DEFAULT_NAMESPACE};
use super::table_provider::IcebergTableProvider;
use crate::error::{engine_error, to_engine_error};
use crate::scan::{MetadataColumn, MetadataColumns};
use crate::table::inspect::MetadataTable;
use crate::table::{Environment, Table, Version};

/// Tables that a user registered with the session, beside those of the lake.
type Registered = Arc<RwLock<HashMap<String, Arc<dyn TableProvider>>>>;

/// What a statement has resolved already.
#[derive(Debug, Default)]
struct Statement {
    tables: tokio::sync::Mutex<HashMap<TableIdent, Table>>,
    missing: Mutex<Vec<(String, Error)>>,
    /// Metadata columns that the statement names, and the tables without a catalog that have them too, by their paths.
    metadata_columns: OnceLock<(Vec<MetadataColumn>, HashSet<String>)>,
}

#[derive(Clone)]
struct Shared {
    env: Arc<Environment>,
    registered: Registered,
    statement: Option<Arc<Statement>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("env", &self.env).finish_non_exhaustive()
    }
}

impl Shared {
    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        // One lock for all: a statement resolves its tables one after the other.
        let mut resolved = match &self.statement {
            Some(statement) => Some(statement.tables.lock().await),
            None => None,
        };
        if let Some(table) = resolved.as_ref().and_then(|resolved| resolved.get(ident)) {
            return Ok(Some(table.clone()));
        }
        let loaded = match self.env.catalog.load_table(ident).await {
            Ok(loaded) => loaded,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let table = Table::new(Arc::clone(&self.env), loaded);
        if let Some(resolved) = &mut resolved {
            resolved.insert(ident.clone(), table.clone());
        }
        Ok(Some(table))
    }

    /// A table with the metadata columns that the statement names.
    fn provider(&self, table: Table, path: Option<&str>) -> Result<IcebergTableProvider> {
        let provider = IcebergTableProvider::try_new(table)?;
        match self.statement.as_ref().and_then(|statement| statement.metadata_columns.get()) {
            Some((named, paths)) if path.is_none_or(|path| paths.contains(path)) => {
                let metadata = MetadataColumns::all(provider.table(), |column| named.contains(&column))?;
                Ok(provider.with_metadata_columns(metadata))
            }
            _ => Ok(provider),
        }
    }
}

/// The catalogs of a lake's session: the lake itself, and, for names such as `ns.table.snapshots`, every namespace.
#[derive(Debug)]
pub(super) struct LakeCatalogs {
    shared: Shared,
}

impl LakeCatalogs {
    pub(super) fn new(env: Arc<Environment>) -> Self {
        Self { shared: Shared { env, registered: Registered::default(), statement: None } }
    }

    /// Those of a lake's session.
    pub(super) fn of(catalogs: &dyn CatalogProviderList) -> Option<&Self> {
        (catalogs as &dyn std::any::Any).downcast_ref()
    }

    /// The same catalogs for one statement, which sees one state of each table.
    pub(super) fn for_statement(&self) -> Self {
        Self { shared: Shared { statement: Some(Arc::default()), ..self.shared.clone() } }
    }

    /// Gives these metadata columns to the tables that the statement reads from now on; of those that are read by a path, to
    /// these.
    pub(super) fn expose(&self, columns: Vec<MetadataColumn>, paths: HashSet<String>) {
        if let Some(statement) = &self.shared.statement {
            // Once for a statement.
            let _ = statement.metadata_columns.set((columns, paths));
        }
    }

    /// A table that is read by its path, with the metadata columns that the statement names.
    pub(super) fn provider(&self, table: Table, path: &str) -> Result<IcebergTableProvider> {
        self.shared.provider(table, Some(path))
    }
}

/// Why planning a statement failed: when it was over a table that was not found, what was missing.
pub(super) fn planning_error(catalogs: &dyn CatalogProviderList, error: DataFusionError) -> Error {
    let statement = LakeCatalogs::of(catalogs).and_then(|catalogs| catalogs.shared.statement.as_ref());
    if let Some(statement) = statement {
        let text = error.strip_backtrace();
        let mut missing = statement.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |(name, _): &(String, Error)| text.contains("not found") && text.contains(&format!(".{name}'"));
        if let Some(index) = missing.iter().position(named) {
            return missing.swap_remove(index).1;
        }
    }
    engine_error(error)
}

impl CatalogProviderList for LakeCatalogs {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_string()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let namespace = (name != CATALOG).then(|| name.to_string());
        Some(Arc::new(LakeCatalog { shared: self.shared.clone(), namespace }))
    }
}

/// The lake as a catalog, or a namespace as one, whose schemas are then its tables.
#[derive(Debug)]
struct LakeCatalog {
    shared: Shared,
    namespace: Option<String>,
}

impl CatalogProvider for LakeCatalog {
    fn schema_names(&self) -> Vec<String> {
        if self.namespace.is_some() {
            return Vec::new();
        }
        let listed = blocking::wait(self.shared.env.catalog.list_namespaces());
        match listed {
            Ok(namespaces) => namespaces.into_iter().map(|namespace| namespace.join(".")).collect(),
            Err(error) => {
                tracing::warn!(%error, "the namespaces cannot be listed");
                Vec::new()
            }
        }
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let shared = self.shared.clone();
        Some(match &self.namespace {
            None => Arc::new(LakeSchema { shared, namespace: name.to_string(), table: None }),
            Some(namespace) => Arc::new(LakeSchema { shared, namespace: namespace.clone(), table: Some(name.to_string()) }),
        })
    }
}

/// A namespace and its tables; or a table and its metadata tables.
#[derive(Debug)]
struct LakeSchema {
    shared: Shared,
    namespace: String,
    table: Option<String>,
}

impl LakeSchema {
    fn ident(&self, name: &str) -> Result<TableIdent> {
        Ok(TableIdent::new(NamespaceIdent::from_strs(self.namespace.split('.'))?, name.to_string()))
    }

    fn registered(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        if self.namespace != DEFAULT_NAMESPACE || self.table.is_some() {
            return None;
        }
        self.shared.registered.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    async fn resolve(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        if let Some(table) = self.registered(name) {
            return Ok(table);
        }
        let (plain, suffix) = relation::decode(name)?;
        if let Some(of) = &self.table {
            return self.metadata_of(&self.ident(of)?, plain, None).await;
        }
        let ident = self.ident(plain)?;
        if let Some(table) = self.shared.load(&ident).await? {
            return match suffix {
                None => Ok(Arc::new(self.shared.provider(table, None)?)),
                Some(Suffix::Version(version)) => Ok(Arc::new(self.shared.provider(table.at(&version)?, None)?)),
                Some(Suffix::Positions) => {
                    let named = [(MetadataColumn::File, FILE_COLUMN), (MetadataColumn::Position, POSITION_COLUMN)];
                    let positions = MetadataColumns::named(&table, named)?;
                    Ok(Arc::new(self.shared.provider(table, None)?.with_metadata_columns(positions)))
                }
            };
        }
        let version = match suffix {
            Some(Suffix::Version(version)) => Some(version),
            _ => None,
        };
        if let Some((table, metadata)) = plain.rsplit_once('$') {
            return self.metadata_of(&self.ident(table)?, metadata, version).await;
        }
        // `t.snapshots` and `t.branch_b` where there is no such table.
        let is_branch = plain.starts_with("branch_") || plain.starts_with("tag_");
        if is_branch || MetadataTable::from_name(plain).is_some() || MetadataTable::is_known(plain) {
            let of = TableIdent::new(NamespaceIdent::new(DEFAULT_NAMESPACE.to_string()), self.namespace.clone());
            if self.shared.env.catalog.table_exists(&of).await? {
                if is_branch {
                    let message = format!("`{}.{plain}`, a branch or tag by name, is not supported yet", self.namespace);
                    return Err(Error::unsupported(format!("{message}: read it with FOR VERSION AS OF '…'")));
                }
                return self.metadata_of(&of, plain, version).await;
            }
        }
        if !self.shared.env.catalog.namespace_exists(ident.namespace()).await? {
            return Err(Error::not_found(format!("namespace `{}` does not exist", self.namespace)));
        }
        Err(Error::not_found(format!("table `{ident}` does not exist")))
    }

    async fn metadata_of(&self, ident: &TableIdent, name: &str, version: Option<Version>) -> Result<Arc<dyn TableProvider>> {
        let metadata = MetadataTable::from_name(name).ok_or_else(|| {
            let known = MetadataTable::ALL.map(MetadataTable::name).join(", ");
            if MetadataTable::is_known(name) {
                return Error::unsupported(format!("the metadata table `{name}` is not supported yet; there are {known}"));
            }
            Error::not_found(format!("there is no metadata table `{name}`; there are {known}"))
        })?;
        let table = self.shared.load(ident).await?;
        let mut table = table.ok_or_else(|| Error::not_found(format!("table `{ident}` does not exist")))?;
        if let Some(version) = version {
            table = table.at(&version)?;
        }
        let rows = metadata.rows(&table).await?;
        let provider = MemTable::try_new(rows.schema(), vec![vec![rows]]);
        Ok(Arc::new(provider.map_err(engine_error)?))
    }
}

#[async_trait]
impl SchemaProvider for LakeSchema {
    fn table_names(&self) -> Vec<String> {
        if self.table.is_some() {
            return Vec::new();
        }
        let listed = NamespaceIdent::from_strs(self.namespace.split('.'))
            .map_err(Error::from)
            .and_then(|namespace| blocking::wait(async move { self.shared.env.catalog.list_tables(&namespace).await }));
        match listed {
            Ok(tables) => tables.into_iter().map(|ident| ident.name).collect(),
            Err(error) => {
                tracing::warn!(%error, namespace = %self.namespace, "the tables cannot be listed");
                Vec::new()
            }
        }
    }

    async fn table(&self, name: &str) -> EngineResult<Option<Arc<dyn TableProvider>>> {
        match self.resolve(name).await {
            Ok(table) => Ok(Some(table)),
            // DataFusion asks here for the names of table functions too, so that a missing table is no failure yet.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if let Some(statement) = &self.shared.statement {
                    statement.missing.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_string(), e));
                }
                Ok(None)
            }
            Err(e) => Err(to_engine_error(e)),
        }
    }

    async fn table_type(&self, name: &str) -> EngineResult<Option<TableType>> {
        if let Some(table) = self.registered(name) {
            return Ok(Some(table.table_type()));
        }
        // Listing tables reads none of them.
        let exists = match self.ident(name) {
            Ok(ident) => self.shared.env.catalog.table_exists(&ident).await,
            Err(error) => Err(error),
        };
        Ok(exists.map_err(to_engine_error)?.then_some(TableType::Base))
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> EngineResult<Option<Arc<dyn TableProvider>>> {
        if self.namespace != DEFAULT_NAMESPACE || self.table.is_some() {
            return Err(DataFusionError::NotImplemented("tables of the session are registered without a namespace".to_string()));
        }
        Ok(self.shared.registered.write().unwrap_or_else(PoisonError::into_inner).insert(name, table))
    }

    fn deregister_table(&self, name: &str) -> EngineResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.shared.registered.write().unwrap_or_else(PoisonError::into_inner).remove(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.registered(name).is_some() || self.table_names().iter().any(|table| table == name)
    }
}
