use std::collections::HashMap;
use std::sync::Arc;

use moka::future::Cache;
use moka::policy::EvictionPolicy;
use roaring::RoaringTreemap;

use super::directory::Directory;

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
    sets: Cache<(String, Part), Arc<PositionsByFile>>,
    /// By data file; `None` where it has none.
    directories: Cache<(String, String), Option<Arc<Directory>>>,
}

/// Memory that positions take, roughly.
pub(crate) fn memory_size(positions: &PositionsByFile) -> usize {
    positions.iter().map(|(path, positions)| ENTRY_BYTES + path.len() + positions.serialized_size()).sum()
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl PositionCache {
    /// For tables below this root.
    pub(crate) fn new(root: &str) -> Self {
        let of_set = |(root, part): &(String, Part), positions: &Arc<PositionsByFile>| {
            weight(root.len() + part.0.len() + memory_size(positions))
        };
        let of_directory = |(root, path): &(String, String), directory: &Option<Arc<Directory>>| {
            let directory = directory.as_ref().map_or(0, |directory| directory.memory_size());
            weight(ENTRY_BYTES + root.len() + path.len() + directory)
        };
        let lru = EvictionPolicy::lru;
        let sets = Cache::builder().max_capacity(BUDGET).weigher(of_set).eviction_policy(lru());
        let directories = Cache::builder().max_capacity(DIRECTORY_BUDGET).weigher(of_directory).eviction_policy(lru());
        Self { root: root.to_string(), sets: sets.build(), directories: directories.build() }
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
        if memory_size(&positions) as u64 > BUDGET / 4 {
            return;
        }
        self.sets.insert((self.root.clone(), part), positions).await;
        // Else what is too much goes some time, when others come.
        if self.sets.weighted_size() > BUDGET {
            self.sets.run_pending_tasks().await;
        }
    }

    /// The directory of a data file, if it is known, which may be that it has none.
    pub(crate) async fn directory(&self, path: &str) -> Option<Option<Arc<Directory>>> {
        self.directories.get(&(self.root.clone(), path.to_string())).await
    }

    pub(crate) async fn put_directory(&self, path: &str, directory: Option<Arc<Directory>>) {
        self.directories.insert((self.root.clone(), path.to_string()), directory).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_used_last_stays() {
        let cache = PositionCache::new("memory://");
        let set = Arc::new(RoaringTreemap::from_sorted_iter((0..2_000_000).map(|position| position * 2)).unwrap());
        let positions = Arc::new(PositionsByFile::from([("a".to_string(), set)]));
        let part = |number: u64| ("a".to_string(), Some((number, 1)));
        let fit = BUDGET / memory_size(&positions) as u64;
        for number in 0..2 * fit {
            cache.put(part(number), Arc::clone(&positions)).await;
            // In use all the time.
            assert!(cache.get(&part(0)).await.is_some());
        }
        assert!(cache.sets.weighted_size() <= BUDGET);
        assert!(cache.get(&part(2 * fit - 1)).await.is_some(), "what came last");
        assert!(cache.get(&part(1)).await.is_none(), "what came first and was not used");
        assert!(PositionCache::for_root(&cache, "other://").get(&part(0)).await.is_none());
    }
}
