//! Upkeep of an index's own tables, which get a commit, and a few small files, with each batch of changes.

use tarndb_core::maintenance::{ExpireSnapshotsOptions, RewriteDataFilesOptions, expire_snapshots, rewrite_data_files};
use tarndb_core::{Lakehouse, Result};

/// Batches after which there is upkeep.
pub(super) const EVERY: u64 = 64;

/// Upkeep in which files are brought to their target size, and not only small ones together: each time, what was written since the
/// last one would be written again.
pub(super) const MAJOR: u64 = 16;

/// Files below this size are put together each time.
const SMALL: u64 = 4 * 1024 * 1024;

/// Small files of a partition that are left alone.
const FILES_LEFT: usize = 8;

/// Snapshots that stay at most, however young: the whole list is part of each commit.
const SNAPSHOTS: usize = 500;

/// Puts small files together and applies deletes, and forgets snapshots that are older than `history.expire.max-snapshot-age-ms`, or
/// too many.
///
/// # Errors
/// Those of maintenance.
pub(super) async fn keep_up(lake: &Lakehouse, table: &str, is_major: bool) -> Result<()> {
    let before = lake.table(table).await?;
    let min_file_size_bytes = (!is_major).then_some(SMALL);
    let options =
        RewriteDataFilesOptions { min_file_size_bytes, min_input_files: FILES_LEFT, ..RewriteDataFilesOptions::default() };
    rewrite_data_files(&before, &options, &[]).await?;
    expire_snapshots(&before, &ExpireSnapshotsOptions { older_than_ms: None, retain_last: Some(1) }).await?;
    let now = lake.table(table).await?;
    let mut times: Vec<i64> = now.metadata().snapshots().map(|snapshot| snapshot.timestamp_ms()).collect();
    times.sort_unstable();
    if let Some(too_many) = times.len().checked_sub(SNAPSHOTS)
        && let Some(older_than_ms) = times.get(too_many).copied()
    {
        expire_snapshots(&now, &ExpireSnapshotsOptions { older_than_ms: Some(older_than_ms), retain_last: Some(1) }).await?;
    }
    Ok(())
}
