//! Which files manifests and lists of them name, kept in memory: a small part of what they say, which expiry asks for again and again,
//! of each of the snapshots that stay.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::byte_cache::ByteCache;

/// Memory for hashes, in bytes.
const BUDGET: u64 = 32 * 1024 * 1024;

/// Stands for the location of a file: of a billion, two are the same by a chance of one in a hundred billion billion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileHash([u64; 2]);

impl FileHash {
    pub(crate) fn of(file: &str) -> Self {
        Self([0, 1].map(|seed: u8| {
            let mut hasher = DefaultHasher::new();
            (seed, file).hash(&mut hasher);
            hasher.finish()
        }))
    }
}

/// What manifests and lists name, for all tables and upkeep of a lake.
///
/// Both kinds of file are immutable and their names are unique, so nothing here goes stale.
#[derive(Debug, Clone)]
pub(crate) struct NamedFiles {
    /// By the root of the table, and the manifest or list.
    files: ByteCache<(String, FileHash), Arc<[FileHash]>>,
}

impl NamedFiles {
    pub(crate) fn new() -> Self {
        Self { files: ByteCache::new(BUDGET) }
    }

    /// What a manifest or a list names, if it is known.
    pub(crate) async fn get(&self, root: &str, of: FileHash) -> Option<Arc<[FileHash]>> {
        self.files.get(&(root.to_string(), of)).await
    }

    /// Remembers what a manifest or a list names.
    pub(crate) async fn put(&self, root: &str, of: FileHash, files: impl Iterator<Item = &str>) -> Arc<[FileHash]> {
        let files: Arc<[FileHash]> = files.map(FileHash::of).collect();
        self.files.put((root.to_string(), of), Arc::clone(&files), root.len() + size_of_val(&*files)).await;
        files
    }
}
