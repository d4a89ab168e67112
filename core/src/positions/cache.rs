use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::directory::Directory;
use crate::byte_cache::ByteCache;

/// Memory for sets that a query may need again, in bytes.
const BUDGET: u64 = 64 * 1024 * 1024;

/// Memory for directories, in bytes.
const DIRECTORY_BUDGET: u64 = 32 * 1024 * 1024;

/// Memory that a set takes beside its bitmap, roughly.
const ENTRY_BYTES: usize = 128;

/// Positions by data file.
pub(crate) type PositionsByFile = HashMap<String, Arc<RoaringTreemap>>;

/// A file that holds sets, or the part of one that a set is: its path, offset and length.
pub(crate) type Part = (String, Option<(u64, u64)>);

/// Sets of positions, shared by all tables and queries of a lake.
///
/// As manifests, the files that hold them are immutable and their names are unique, so nothing here goes stale.
#[derive(Debug)]
pub(crate) struct PositionCache {
    root: String,
    sets: ByteCache<(String, Part), Arc<PositionsByFile>>,
    /// By data file; `None` where it has none.
    directories: ByteCache<(String, String), Option<Arc<Directory>>>,
}

/// Memory that positions take, roughly.
pub(crate) fn memory_size(positions: &PositionsByFile) -> usize {
    positions.iter().map(|(path, positions)| ENTRY_BYTES + path.len() + positions.serialized_size()).sum()
}

impl PositionCache {
    /// For tables below this root.
    pub(crate) fn new(root: &str) -> Self {
        Self { root: root.to_string(), sets: ByteCache::new(BUDGET), directories: ByteCache::new(DIRECTORY_BUDGET) }
    }

    /// The same cache for tables below another root: tables that were moved may share their old locations.
    pub(crate) fn for_root(&self, root: &str) -> Self {
        Self { root: root.to_string(), sets: self.sets.clone(), directories: self.directories.clone() }
    }

    /// What is known of a file or a part.
    pub(crate) async fn get(&self, part: &Part) -> Option<Arc<PositionsByFile>> {
        self.sets.get(&(self.root.clone(), part.clone())).await
    }

    /// Remembers what a file or a part holds, if there is room.
    pub(crate) async fn put(&self, part: Part, positions: Arc<PositionsByFile>) {
        let bytes = self.root.len() + part.0.len() + memory_size(&positions);
        self.sets.put((self.root.clone(), part), positions, bytes).await;
    }

    /// Gives up what a whole file holds, which the newest snapshot does not have any more.
    pub(crate) async fn forget(&self, path: &str) {
        self.sets.forget(&(self.root.clone(), (path.to_string(), None))).await;
        self.directories.forget(&(self.root.clone(), path.to_string())).await;
    }

    /// The directory of a data file, if it is known, which may be that it has none.
    pub(crate) async fn directory(&self, path: &str) -> Option<Option<Arc<Directory>>> {
        self.directories.get(&(self.root.clone(), path.to_string())).await
    }

    pub(crate) async fn put_directory(&self, path: &str, directory: Option<Arc<Directory>>) {
        let bytes = self.root.len() + path.len() + directory.as_ref().map_or(0, |directory| directory.memory_size());
        self.directories.put((self.root.clone(), path.to_string()), directory, bytes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tables_of_another_root_have_other_positions() {
        let cache = PositionCache::new("memory://");
        let part: Part = ("a".to_string(), Some((0, 1)));
        cache.put(part.clone(), Arc::new(PositionsByFile::new())).await;
        assert!(cache.get(&part).await.is_some());
        assert!(cache.for_root("other://").get(&part).await.is_none());
    }
}
