use std::collections::HashMap;
use std::sync::Arc;

use moka::future::Cache;
use roaring::RoaringTreemap;

/// Memory for positions that a query may need again, in bytes.
const BUDGET: u64 = 64 * 1024 * 1024;

/// Memory that the positions of a data file take beside their bitmap, roughly.
const ENTRY_BYTES: usize = 128;

/// The deleted positions of each data file that a delete file is about.
pub(crate) type PositionsByFile = HashMap<String, Arc<RoaringTreemap>>;

/// A delete file, or the part of one that a deletion vector is: its path, offset and length.
pub(crate) type Part = (String, Option<(u64, u64)>);

/// What delete files hold, shared by all tables and queries of a lake.
///
/// As manifests, these files are immutable and their names are unique, so nothing here goes stale.
#[derive(Debug)]
pub(crate) struct DeletedPositions {
    root: String,
    items: Cache<(String, Part), Arc<PositionsByFile>>,
}

/// Memory that positions take, roughly.
pub(crate) fn memory_size(positions: &PositionsByFile) -> usize {
    positions.iter().map(|(path, positions)| ENTRY_BYTES + path.len() + positions.serialized_size()).sum()
}

impl DeletedPositions {
    /// For tables below this root.
    pub(super) fn new(root: &str) -> Self {
        let weigh = |(root, part): &(String, Part), positions: &Arc<PositionsByFile>| {
            u32::try_from(root.len() + part.0.len() + memory_size(positions)).unwrap_or(u32::MAX)
        };
        Self { root: root.to_string(), items: Cache::builder().max_capacity(BUDGET).weigher(weigh).build() }
    }

    /// The same cache for tables below another root: tables that were moved may share their old locations.
    pub(super) fn for_root(&self, root: &str) -> Self {
        Self { root: root.to_string(), items: self.items.clone() }
    }

    /// What is known of a delete file.
    pub(crate) async fn get(&self, part: &Part) -> Option<Arc<PositionsByFile>> {
        self.items.get(&(self.root.clone(), part.clone())).await
    }

    /// Remembers what a delete file holds, if there is room.
    pub(crate) async fn put(&self, part: Part, positions: Arc<PositionsByFile>) {
        self.items.insert((self.root.clone(), part), positions).await;
    }
}
