use std::fmt;
use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryPool;
use tarndb_catalog::{Catalog, Storage};

use super::memory::MEMORY_POOL;
use crate::bloom_filters::BloomFilterCache;
use crate::manifest::ManifestCache;
use crate::named_files::NamedFiles;
use crate::positions::PositionCache;

/// What every table of a lake shares.
pub(crate) struct Environment {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) storage: Storage,
    pub(crate) manifests: ManifestCache,
    pub(crate) positions: PositionCache,
    pub(crate) bloom_filters: BloomFilterCache,
    pub(crate) named_files: NamedFiles,
    /// For whatever grows with the data and belongs to no session; sessions begin with it.
    pub(crate) memory: Arc<dyn MemoryPool>,
}

impl Environment {
    pub(crate) fn new(catalog: Arc<dyn Catalog>) -> Self {
        let storage = catalog.storage().clone();
        let (manifests, positions) = (ManifestCache::new(storage.clone()), PositionCache::new(storage.root()));
        let bloom_filters = BloomFilterCache::new(storage.root());
        let (named_files, memory) = (NamedFiles::new(), Arc::clone(&MEMORY_POOL));
        Self { catalog, manifests, positions, bloom_filters, named_files, storage, memory }
    }

    /// Gives up what is known of files that a commit took out of its table's newest state: with a commit each second, caches would be full
    /// of it. Who reads an older snapshot reads them again.
    pub(crate) async fn forget(&self, paths: impl Iterator<Item = &str>) {
        for path in paths {
            self.manifests.forget(path).await;
            self.positions.forget(path).await;
            self.bloom_filters.forget(path).await;
        }
    }

    /// For a table in another storage, which is not in the catalog.
    pub(crate) fn with_storage(&self, storage: Storage) -> Self {
        let manifests = self.manifests.for_storage(storage.clone());
        let positions = self.positions.for_root(storage.root());
        let bloom_filters = self.bloom_filters.for_root(storage.root());
        let (catalog, memory) = (Arc::clone(&self.catalog), Arc::clone(&self.memory));
        let named_files = self.named_files.clone();
        Self { catalog, manifests, positions, bloom_filters, named_files, storage, memory }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("storage", &self.storage).finish_non_exhaustive()
    }
}
