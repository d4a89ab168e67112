use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use iceberg::TableIdent;
use tarndb_catalog::{Error, Result};

use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult};
use crate::maintenance::{
    ExpireSnapshotsOptions, RemoveOrphanFilesOptions, expirable_files, expire_snapshots, remove_orphan_files,
};

/// `VACUUM t [RETAIN n HOURS] [DRY RUN]`: expires snapshots, deletes their files, and orphans older than three days. A dry
/// run lists all these files.
pub(super) async fn run(lake: &Lakehouse, ident: &TableIdent, retain_ms: Option<i64>, dry_run: bool) -> Result<QueryResult> {
    let table = lake.load(ident).await?;
    let now_ms = lake.env().storage.clock().now_ms();
    let older_than_ms = match retain_ms {
        None => None,
        Some(retain) if retain < 0 => return Err(Error::invalid_input("VACUUM cannot retain a negative time")),
        // A snapshot of this very millisecond is not younger than zero hours.
        Some(retain) => Some(now_ms.saturating_sub(retain).saturating_add(1)),
    };
    let options = ExpireSnapshotsOptions { older_than_ms, retain_last: retain_ms.map(|_| 1) };
    if dry_run {
        let mut files = expirable_files(&table, &options).await?;
        let orphans = RemoveOrphanFilesOptions { dry_run: true, ..RemoveOrphanFilesOptions::default() };
        files.extend(remove_orphan_files(&table, &orphans).await?);
        let files: ArrayRef = Arc::new(StringArray::from(files));
        let batch = RecordBatch::try_from_iter(vec![("file_location", files)]).map_err(|e| engine_error(e.into()))?;
        return Ok(QueryResult::from_batches(batch.schema(), vec![batch]));
    }
    let expired = expire_snapshots(&table, &options).await?;
    let orphans = remove_orphan_files(&table, &RemoveOrphanFilesOptions::default()).await?;
    QueryResult::counts(&[
        ("deleted_snapshots_count", expired.deleted_snapshots_count as u64),
        ("deleted_data_files_count", expired.deleted_data_files_count as u64),
        ("deleted_position_delete_files_count", expired.deleted_position_delete_files_count as u64),
        ("deleted_equality_delete_files_count", expired.deleted_equality_delete_files_count as u64),
        ("deleted_manifest_files_count", expired.deleted_manifest_files_count as u64),
        ("deleted_manifest_lists_count", expired.deleted_manifest_lists_count as u64),
        ("deleted_statistics_files_count", expired.deleted_statistics_files_count as u64),
        ("deleted_orphan_files_count", orphans.len() as u64),
    ])
}
