use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt;
use iceberg::spec::{ManifestContentType, Struct};
use tarndb_catalog::Result;

use super::deletes::{DeleteFile, DeleteIndex};
use super::equality::TaskEquality;
use super::pruning::Pruner;
use crate::manifest::{FileContent, FileFormat, ManifestColumns};
use crate::table::Table;

/// A data file to read, with the deletes that apply to it.
#[derive(Debug, Clone)]
pub(crate) struct ScanTask {
    pub(crate) path: String,
    pub(crate) file_size: u64,
    pub(crate) format: FileFormat,
    pub(crate) record_count: u64,
    pub(crate) spec_id: i32,
    pub(crate) partition: Struct,
    pub(crate) snapshot_id: i64,
    pub(crate) sequence_number: i64,
    /// The id of the file's first row, in tables with row lineage.
    pub(super) first_row_id: Option<i64>,
    /// Position deletes and deletion vectors.
    pub(crate) deletes: Vec<Arc<DeleteFile>>,
    pub(super) equality: Option<TaskEquality>,
    /// The manifest that lists the file, and its row there: where its statistics are.
    pub(crate) columns: Arc<ManifestColumns>,
    pub(crate) row: usize,
}

impl ScanTask {
    /// Whether none of the file's rows is deleted.
    pub(crate) fn is_whole(&self) -> bool {
        self.deletes.is_empty() && self.equality.is_none()
    }

    /// Whether positions alone tell how many rows are left.
    pub(crate) fn has_known_rows(&self) -> bool {
        self.equality.is_none()
    }
}

/// What planning read and what it could leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PlanCounts {
    pub(crate) manifests: usize,
    pub(crate) manifests_pruned: usize,
    pub(crate) files: usize,
    pub(crate) files_pruned: usize,
}

/// The data files of the table's snapshot that the pruner keeps, in the order of the manifests. Manifests are read as they
/// are needed: with `rows`, only until the files are sure to have so many. What planning holds in memory grows with the
/// files that are kept, and not with those that there are.
///
/// # Errors
/// `DataInvalid` for missing or damaged metadata, `Unsupported` for files that cannot be read.
pub(crate) async fn plan(table: &Table, pruner: &Pruner, rows: Option<u64>) -> Result<(Vec<ScanTask>, PlanCounts)> {
    plan_inner(table, pruner, rows).await.map_err(|e| e.with_context("table", table.ident().to_string()))
}

async fn plan_inner(table: &Table, pruner: &Pruner, rows: Option<u64>) -> Result<(Vec<ScanTask>, PlanCounts)> {
    let mut counts = PlanCounts::default();
    let Some(snapshot) = table.snapshot() else {
        return Ok((Vec::new(), counts));
    };
    let (metadata, manifests) = (table.metadata(), &table.env().manifests);
    let list = manifests.manifest_list(snapshot).await?;
    let (data, deletes): (Vec<_>, Vec<_>) =
        list.iter().cloned().partition(|manifest| manifest.content == ManifestContentType::Data);
    counts.manifests = data.len();
    let keep = pruner.keep_manifests(metadata, &data);
    let data: Vec<_> = data.into_iter().zip(keep).filter_map(|(manifest, keep)| keep.then_some(manifest)).collect();
    counts.manifests_pruned = counts.manifests - data.len();

    let mut index = DeleteIndex::default();
    let mut deletes = pin!(manifests.stream(deletes));
    while let Some((manifest, columns)) = deletes.try_next().await? {
        index.add(metadata, &manifest, &columns);
    }
    let mut tasks = Vec::new();
    let mut sure_rows = 0_u64;
    let mut data = pin!(manifests.stream(data));
    while let Some((manifest, columns)) = data.try_next().await? {
        let is_live =
            |row: &usize| columns.entries().get(*row).is_some_and(|entry| entry.is_live() && entry.content == FileContent::Data);
        let live: Vec<usize> = (0..columns.entries().len()).filter(is_live).collect();
        counts.files += live.len();
        let keep = pruner.keep_files(metadata, manifest.partition_spec_id, &columns, &live);
        for (row, keep) in live.into_iter().zip(keep) {
            let Some(entry) = columns.entries().get(row).filter(|_| keep) else {
                counts.files_pruned += 1;
                continue;
            };
            let spec_id = manifest.partition_spec_id;
            let (deletes, equality) = index.of(&entry.path, spec_id, &entry.partition, entry.sequence_number);
            let task = ScanTask {
                path: entry.path.clone(),
                file_size: entry.file_size,
                format: entry.format,
                record_count: entry.record_count,
                spec_id,
                partition: entry.partition.clone(),
                snapshot_id: entry.snapshot_id,
                sequence_number: entry.sequence_number,
                first_row_id: entry.first_row_id,
                deletes,
                equality,
                columns: Arc::clone(&columns),
                row,
            };
            if task.is_whole() {
                sure_rows = sure_rows.saturating_add(task.record_count);
            }
            tasks.push(task);
            if rows.is_some_and(|rows| sure_rows >= rows) {
                return Ok((tasks, counts));
            }
        }
    }
    Ok((tasks, counts))
}
