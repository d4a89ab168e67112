use std::fmt;
use std::sync::Arc;

use tarndb_catalog::{Catalog, Storage};

use crate::manifest::ManifestCache;

/// What every table of a lake shares.
pub(crate) struct Environment {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) storage: Storage,
    pub(crate) manifests: ManifestCache,
}

impl Environment {
    pub(crate) fn new(catalog: Arc<dyn Catalog>) -> Self {
        let storage = catalog.storage().clone();
        Self { catalog, manifests: ManifestCache::new(storage.clone()), storage }
    }

    /// For a table in another storage, which is not in the catalog.
    pub(crate) fn with_storage(&self, storage: Storage) -> Self {
        Self { catalog: Arc::clone(&self.catalog), manifests: self.manifests.for_storage(storage.clone()), storage }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("storage", &self.storage).finish_non_exhaustive()
    }
}
