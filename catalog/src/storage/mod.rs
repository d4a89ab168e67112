//! The objects of a lake.

mod file_io;
mod location;
mod relocation;
mod synced_local;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

pub use location::Location;
pub use synced_local::SyncedLocalStore;

use relocation::Relocation;

use crate::{Clock, Error, Ids, RandomIds, Result, SystemClock};

/// Wraps the object store of a lake, for instance to count, slow down or fail its requests.
pub type StoreLayer = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

/// How many deletions run at once.
const DELETE_CONCURRENCY: usize = 16;

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Absolute location, in the form that [`Storage`] takes.
    pub location: String,
    /// Size in bytes.
    pub size: u64,
    /// Last modification by the store's clock, in milliseconds since the epoch.
    pub last_modified_ms: i64,
}

/// The objects of one lake: absolute locations (`file:///…`, `memory:///…`) mapped to an object store.
///
/// Only locations under an allowed root can be read or written, whatever a metadata file says: the warehouse, and the
/// folders of tables that the catalog itself names. Clones share everything.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    location: Location,
    store: Arc<dyn ObjectStore>,
    roots: RwLock<BTreeSet<String>>,
    /// Where the files of a table lie that was moved since its metadata was written.
    relocation: Option<Relocation>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("root", &self.root()).finish_non_exhaustive()
    }
}

impl Storage {
    /// The storage at `location`, with the machine's clock and random ids.
    pub fn new(location: Location) -> Self {
        Self::with_components(location, None, Arc::new(SystemClock), Arc::new(RandomIds))
    }

    /// The storage at `location`, with `layer` around its object store.
    pub fn with_components(location: Location, layer: Option<&StoreLayer>, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        let mut store = location.object_store();
        if let Some(layer) = layer {
            store = layer(store);
        }
        let roots = BTreeSet::from([location.url().to_string()]);
        Self(Arc::new(Inner { location, store, roots: RwLock::new(roots), relocation: None, clock, ids }))
    }

    /// The storage of one table in the folder `folder`, opened by its path. The metadata of the table says that it lies at
    /// `said`; what lay there is found in the folder.
    pub(crate) fn of_table(&self, folder: Location, said: &str) -> Self {
        let root = folder.url().to_string();
        let store = if folder.is_memory() { Arc::clone(&self.0.store) } else { folder.object_store() };
        let (clock, ids) = (Arc::clone(&self.0.clock), Arc::clone(&self.0.ids));
        let relocation = Some(Relocation::new(said, &root));
        let roots = RwLock::new(BTreeSet::from([root.clone()]));
        Self(Arc::new(Inner { location: folder, store, roots, relocation, clock, ids }))
    }

    /// The warehouse's own location, without a slash at its end.
    pub fn root(&self) -> &str {
        self.0.location.url()
    }

    pub(crate) fn location(&self) -> &Location {
        &self.0.location
    }

    /// The warehouse's folder on the local file system, if it is one.
    pub fn local_folder(&self) -> Option<PathBuf> {
        self.0.location.local_path()
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        self.0.clock.as_ref()
    }

    /// The source of ids.
    pub fn ids(&self) -> &dyn Ids {
        self.0.ids.as_ref()
    }

    /// The object store below.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.0.store)
    }

    /// Vouches for a folder beside the warehouse. Only the catalog's own word is a reason to call this.
    pub fn allow(&self, root: &str) {
        // A root of another store than this one's is no root.
        let Ok(root) = self.0.location.canonical(root.trim_end_matches('/')) else { return };
        // Never a whole file system.
        let has_folder = !root.trim_start_matches("file:").trim_start_matches("memory:").trim_matches('/').is_empty();
        if has_folder && !self.is_allowed(&root) {
            self.0.roots.write().unwrap_or_else(PoisonError::into_inner).insert(root);
        }
    }

    fn is_allowed(&self, location: &str) -> bool {
        let roots = self.0.roots.read().unwrap_or_else(PoisonError::into_inner);
        roots.iter().any(|root| {
            location
                .strip_prefix(root.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || root.ends_with('/'))
        })
    }

    /// The path in the object store of an absolute location. Nothing is decoded or encoded.
    ///
    /// # Errors
    /// `DataInvalid` for a location outside the lake or with `..` in it, `Unsupported` for another scheme.
    pub fn path(&self, location: &str) -> Result<Path> {
        let location = match &self.0.relocation {
            None => self.0.location.canonical(location)?,
            Some(relocation) => self.0.location.canonical(&relocation.apply(location))?,
        };
        let path = Path::parse(self.0.location.key(&location))
            .map_err(|e| Error::data_invalid(format!("`{location}` is not a valid location")).with_source(e))?;
        if !self.is_allowed(&location) {
            return Err(Error::data_invalid(format!("`{location}` lies outside the lake at `{}`", self.root())));
        }
        Ok(path)
    }

    /// Reads a whole object. Errors: `NotFound` and the storage's.
    pub async fn read(&self, location: &str) -> Result<Bytes> {
        let found = self.0.store.get(&self.path(location)?).await?;
        let size = found.meta.size;
        match found.payload {
            GetResultPayload::File(file, _) => synced_local::read_file(file, size).await,
            GetResultPayload::Stream(_) => found.bytes().await,
        }
        .map_err(|e| Error::from(e).with_context("file", location))
    }

    /// Writes an object; it is durable when this returns. An object of that name is replaced.
    pub async fn write(&self, location: &str, content: Bytes) -> Result<()> {
        let options = PutOptions { mode: PutMode::Overwrite, ..PutOptions::default() };
        self.0.store.put_opts(&self.path(location)?, content.into(), options).await?;
        Ok(())
    }

    /// Deletes an object. One that is gone already counts as deleted.
    pub async fn delete(&self, location: &str) -> Result<()> {
        match self.0.store.delete(&self.path(location)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Deletes many objects, going on after failures. Returns the locations that were not deleted and why.
    pub async fn delete_all(&self, locations: impl IntoIterator<Item = String>) -> Vec<(String, Error)> {
        stream::iter(locations)
            .map(|location| async move {
                let deleted = self.delete(&location).await;
                deleted.err().map(|error| (location, error))
            })
            .buffer_unordered(DELETE_CONCURRENCY)
            .filter_map(|failed| async move { failed })
            .collect()
            .await
    }

    /// Size in bytes of an object. Errors: `NotFound` and the storage's.
    pub async fn size(&self, location: &str) -> Result<u64> {
        Ok(self.0.store.head(&self.path(location)?).await?.size)
    }

    /// All objects below a location.
    ///
    /// # Errors
    /// As [`Storage::path`]; the stream yields the storage's.
    pub fn list(&self, location: &str) -> Result<BoxStream<'static, Result<ObjectInfo>>> {
        let prefix = self.path(location)?;
        let scheme = self.0.location.clone();
        let listed = self.0.store.list(Some(&prefix)).map_ok(move |meta| ObjectInfo {
            location: scheme.location_of(&meta.location),
            size: meta.size,
            last_modified_ms: meta.last_modified.timestamp_millis(),
        });
        Ok(listed.map_err(Error::from).boxed())
    }

    /// This storage in the form that the `iceberg` crate takes.
    pub fn file_io(&self) -> iceberg::io::FileIO {
        file_io::file_io(self.clone())
    }
}
