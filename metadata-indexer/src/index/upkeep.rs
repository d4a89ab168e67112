//! Upkeep of an index's own tables, which get a commit, and a few small files, with each batch of changes.

use tarndb_core::maintenance::{ExpireSnapshotsOptions, RewriteDataFilesOptions, expire_snapshots, rewrite_data_files};
use tarndb_core::{Lakehouse, Result};

/// Batches after which there is upkeep.
pub(super) const EVERY: u64 = 16;

/// Up to which size files are put together, and how often, in batches: the larger, the rarer, so that no row is written again often.
const LEVELS: [(u64, u64); 2] = [(128, 16 * MIB), (EVERY, MIB)];

const MIB: u64 = 1024 * 1024;

/// Batches after which files are brought to their target size.
const MAJOR: u64 = 2048;

/// Small files of a partition that are left alone.
const FILES_LEFT: usize = 8;

/// Snapshots that stay, but for those that somebody may be reading: the whole list is part of each commit.
const SNAPSHOTS: usize = 500;

/// How long a query may take, in milliseconds.
const LONGEST_QUERY: i64 = 10 * 60 * 1000;

/// Files below this size are put together after this batch; `None` for those that are below what they should have.
fn small(batch: u64) -> Option<u64> {
    let level = LEVELS.iter().find(|(every, _)| batch.is_multiple_of(*every));
    if batch.is_multiple_of(MAJOR) { None } else { level.map(|(_, size)| *size) }
}

/// Puts small files together and applies deletes, and forgets snapshots that are older than `history.expire.max-snapshot-age-ms`, or
/// too many.
///
/// # Errors
/// Those of maintenance.
pub(super) async fn keep_up(lake: &Lakehouse, table: &str, batch: u64) -> Result<()> {
    let before = lake.table(table).await?;
    let min_file_size_bytes = small(batch);
    let options =
        RewriteDataFilesOptions { min_file_size_bytes, min_input_files: FILES_LEFT, ..RewriteDataFilesOptions::default() };
    rewrite_data_files(&before, &options, &[]).await?;
    expire_snapshots(&before, &ExpireSnapshotsOptions { older_than_ms: None, retain_last: Some(1) }).await?;
    let now = lake.table(table).await?;
    let mut times: Vec<i64> = now.metadata().snapshots().map(|snapshot| snapshot.timestamp_ms()).collect();
    times.sort_unstable();
    if let Some(too_many) = times.len().checked_sub(SNAPSHOTS)
        && let Some(too_old) = times.get(too_many).copied()
    {
        let older_than_ms = too_old.min(lake.storage().clock().now_ms() - LONGEST_QUERY);
        expire_snapshots(&now, &ExpireSnapshotsOptions { older_than_ms: Some(older_than_ms), retain_last: Some(1) }).await?;
    }
    Ok(())
}
