use iceberg::spec::{SnapshotRef, TableMetadata};
use tarndb_catalog::Result;

use super::reachable::{self, ReachableFiles};
use crate::table::Table;
use crate::transaction::{Caller, ExpireSnapshots, Transaction};

/// Options of [`expire_snapshots`]. What is not given comes from the table's `history.expire.*` properties.
#[derive(Debug, Clone, Default)]
pub struct ExpireSnapshotsOptions {
    /// Snapshots older than this, in milliseconds since the epoch, may go.
    pub older_than_ms: Option<i64>,
    /// The newest snapshots of each branch that stay whatever their age.
    pub retain_last: Option<usize>,
}

/// What expiry deleted, in Spark's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpireSnapshotsResult {
    /// Snapshots forgotten.
    pub deleted_snapshots_count: usize,
    /// Data files deleted.
    pub deleted_data_files_count: usize,
    /// Position delete files deleted.
    pub deleted_position_delete_files_count: usize,
    /// Equality delete files deleted.
    pub deleted_equality_delete_files_count: usize,
    /// Manifests deleted.
    pub deleted_manifest_files_count: usize,
    /// Manifest lists deleted.
    pub deleted_manifest_lists_count: usize,
    /// Statistics files deleted.
    pub deleted_statistics_files_count: usize,
}

/// The files that [`expire_snapshots`] would delete now.
///
/// # Errors
/// As [`expire_snapshots`].
pub async fn expirable_files(table: &Table, options: &ExpireSnapshotsOptions) -> Result<Vec<String>> {
    let now = table.refresh().await?;
    let action = ExpireSnapshots::new(options.older_than_ms, options.retain_last);
    let expired = action.expired(now.metadata(), table.env().storage.clock().now_ms())?;
    Ok(only_of(&now, &expired, now.metadata()).await?.all().cloned().collect())
}

/// The files of the table's own folder that of all its snapshots only those `expired` refer to.
async fn only_of(table: &Table, expired: &[SnapshotRef], now: &TableMetadata) -> Result<ReachableFiles> {
    let env = table.env();
    let retained: Vec<SnapshotRef> =
        now.snapshots().filter(|s| !expired.iter().any(|e| e.snapshot_id() == s.snapshot_id())).cloned().collect();
    let kept = reachable::hashes_of_snapshots(env, now, &retained).await?;
    let mut gone = reachable::of_snapshots(env, table.metadata(), expired, &kept).await?;
    // A file elsewhere was brought in from where it was, and may be another table's too.
    let own = env.storage.path(table.location())?;
    gone.retain(|file| !kept.contains(file) && env.storage.path(file).is_ok_and(|path| path.prefix_matches(&own)));
    env.forget(gone.all().map(String::as_str)).await;
    Ok(gone)
}

/// Forgets old snapshots and deletes the files that only they referred to.
///
/// The files go after the commit, and only when it is known that it took effect. A file that cannot be deleted is left
/// to [`super::remove_orphan_files`].
///
/// # Errors
/// `InvalidInput` when `gc.enabled` is false; `CommitConflict`, `CommitStateUnknown`; the storage's.
pub async fn expire_snapshots(table: &Table, options: &ExpireSnapshotsOptions) -> Result<ExpireSnapshotsResult> {
    table.check_writable()?;
    let before = table.refresh().await?;
    let action = ExpireSnapshots::new(options.older_than_ms, options.retain_last);
    let committed = Transaction::new(&before, Caller::Upkeep).with(action).commit().await?;
    let after = committed.table.metadata;
    let env = table.env();
    // A snapshot that another writer expired in the same moment is that writer's to clean up after; its files fail to
    // be found or are found by orphan removal.
    let expired: Vec<SnapshotRef> =
        before.metadata().snapshots().filter(|s| after.snapshot_by_id(s.snapshot_id()).is_none()).cloned().collect();
    if expired.is_empty() {
        return Ok(ExpireSnapshotsResult::default());
    }
    let gone = only_of(&before, &expired, &after).await?;
    for (location, error) in env.storage.delete_all(gone.all().cloned().collect::<Vec<_>>()).await {
        tracing::warn!(location, %error, "a file of an expired snapshot stays behind as an orphan");
    }
    Ok(ExpireSnapshotsResult {
        deleted_snapshots_count: expired.len(),
        deleted_data_files_count: gone.data_files.len(),
        deleted_position_delete_files_count: gone.position_delete_files.len(),
        deleted_equality_delete_files_count: gone.equality_delete_files.len(),
        deleted_manifest_files_count: gone.manifests.len(),
        deleted_manifest_lists_count: gone.manifest_lists.len(),
        deleted_statistics_files_count: gone.statistics_files.len(),
    })
}
