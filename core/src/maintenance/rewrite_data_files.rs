use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use tarndb_catalog::{Error, Result};

use super::rewrite_group::RewriteGroup;
use crate::scan::{Deletes, Pruner, ReadSchema, ScanTask, plan};
use crate::table::{Table, engine_schema, properties};
use crate::transaction::{Backoff, Caller, RewriteFiles, Transaction, WrittenFile, met_another_writer};

/// Options of [`rewrite_data_files`], with Spark's names and defaults.
#[derive(Debug, Clone)]
pub struct RewriteDataFilesOptions {
    /// Size of the files to write; `write.target-file-size-bytes` unless given.
    pub target_file_size_bytes: Option<u64>,
    /// Smaller files are rewritten; 75 % of the target unless given.
    pub min_file_size_bytes: Option<u64>,
    /// Larger files are rewritten; 180 % of the target unless given.
    pub max_file_size_bytes: Option<u64>,
    /// A group of this many files is rewritten whatever its size.
    pub min_input_files: usize,
    /// Files with this many delete files are rewritten.
    pub delete_file_threshold: usize,
    /// Files of which at least this share of rows is deleted are rewritten.
    pub delete_ratio_threshold: f64,
    /// Rewrites all files.
    pub rewrite_all: bool,
    /// The most bytes in one group.
    pub max_file_group_size_bytes: u64,
    /// Groups rewritten at the same time.
    pub max_concurrent_file_group_rewrites: usize,
    /// Columns by which the rows of each group are sorted, in this order; NULLs come first. Unsorted unless given.
    pub sort_by: Vec<String>,
}

impl Default for RewriteDataFilesOptions {
    fn default() -> Self {
        Self {
            target_file_size_bytes: None,
            min_file_size_bytes: None,
            max_file_size_bytes: None,
            min_input_files: 5,
            delete_file_threshold: usize::MAX,
            delete_ratio_threshold: 0.3,
            rewrite_all: false,
            max_file_group_size_bytes: 100 * 1024 * 1024 * 1024,
            max_concurrent_file_group_rewrites: 5,
            sort_by: Vec::new(),
        }
    }
}

/// What a rewrite did, in Spark's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RewriteDataFilesResult {
    /// Files replaced.
    pub rewritten_data_files_count: usize,
    /// Files written in their place.
    pub added_data_files_count: usize,
    /// Bytes of the files replaced.
    pub rewritten_bytes_count: u64,
    /// Files that could not be rewritten.
    pub failed_data_files_count: usize,
    /// Delete files that went with the files replaced.
    pub removed_delete_files_count: usize,
}

/// Replaces small, large and much-deleted files by files of the target size (binpack), deletes applied.
///
/// `filters` restrict it to files that can hold matching rows. When another writer removes, or deletes rows of, one of
/// the files meanwhile, the rewrite is planned again on the new state.
///
/// # Errors
/// `InvalidInput` for impossible options; `CommitConflict` when others always came first; `CommitStateUnknown`; the
/// storage's.
pub async fn rewrite_data_files(
    table: &Table,
    options: &RewriteDataFilesOptions,
    filters: &[Arc<dyn PhysicalExpr>],
) -> Result<RewriteDataFilesResult> {
    table.check_writable()?;
    let mut backoff = Backoff::new(table.metadata(), Caller::Upkeep)?;
    loop {
        let current = table.refresh().await?;
        match rewrite_once(&current, options, filters).boxed().await {
            Err(e) if met_another_writer(&e, &current).await => {
                tracing::info!(table = %table.ident(), error = %e, "a rewrite met another writer and is planned again");
                backoff.pause(table.env().storage.ids(), &e.to_string()).await?;
            }
            other => return other,
        }
    }
}

async fn rewrite_once(
    table: &Table,
    options: &RewriteDataFilesOptions,
    filters: &[Arc<dyn PhysicalExpr>],
) -> Result<RewriteDataFilesResult> {
    let groups = plan_rewrite(table, options, filters, |_, _| true).await?;
    if groups.is_empty() {
        return Ok(RewriteDataFilesResult::default());
    }
    let replaced: HashSet<String> = groups.iter().flat_map(RewriteGroup::files).map(str::to_string).collect();
    let rewritten_bytes_count = groups.iter().flat_map(RewriteGroup::sizes).sum();
    let written = write_groups(table, groups, options.max_concurrent_file_group_rewrites.max(1)).await?;
    let result = RewriteDataFilesResult {
        rewritten_data_files_count: replaced.len(),
        added_data_files_count: written.len(),
        rewritten_bytes_count,
        ..RewriteDataFilesResult::default()
    };
    let committed = Transaction::new(table, Caller::Upkeep).with(RewriteFiles::new(table, replaced, written)).commit().await?;
    let summary = committed.table.metadata.current_snapshot().map(|s| s.summary().additional_properties.clone());
    let removed = summary.as_ref().and_then(|summary| summary.get("removed-delete-files")?.parse().ok());
    Ok(RewriteDataFilesResult { removed_delete_files_count: removed.unwrap_or(0), ..result })
}

/// The data files of a table that are to be rewritten, in groups, for whoever commits each by itself: see [`RewriteGroup`].
/// Files of which `may_be`, of their location and their size in bytes, is false are left alone: those of groups that are being written.
///
/// # Errors
/// `InvalidInput` for impossible options; `DataInvalid` for damaged metadata.
pub async fn plan_rewrite(
    table: &Table,
    options: &RewriteDataFilesOptions,
    filters: &[Arc<dyn PhysicalExpr>],
    may_be: impl Fn(&str, u64) -> bool + Send,
) -> Result<Vec<RewriteGroup>> {
    table.check_writable()?;
    let sizes = Sizes::new(table, options)?;
    let schema = engine_schema(table.schema())?;
    let pruner = Pruner::new(Arc::clone(table.schema()), schema, filters)?;
    let (mut tasks, _) = plan(table, &pruner, None).await?;
    tasks.retain(|task| may_be(&task.path, task.file_size));
    let plain = table.arrow_schema()?;
    let read = ReadSchema::new(table, Arc::clone(&plain), plain)?;
    let deletes = Arc::new(Deletes::new(table, &read, tasks.iter(), &table.env().memory)?);
    let groups = groups(tasks, options, &sizes, &deletes).await?;
    let group = |tasks| RewriteGroup::new(table, tasks, &read, &deletes, &options.sort_by);
    Ok(groups.into_iter().map(group).collect())
}

struct Sizes {
    target: u64,
    min: u64,
    max: u64,
}

impl Sizes {
    fn new(table: &Table, options: &RewriteDataFilesOptions) -> Result<Self> {
        let property = properties::get_or(table.metadata(), properties::TARGET_FILE_SIZE_BYTES, 512 * 1024 * 1024_u64)?;
        let target = options.target_file_size_bytes.unwrap_or(property);
        let min = options.min_file_size_bytes.unwrap_or(target / 4 * 3);
        let max = options.max_file_size_bytes.unwrap_or(target.saturating_add(target / 5 * 4));
        if !(min < target && target < max) {
            return Err(Error::invalid_input(format!(
                "min_file_size_bytes ({min}) < target_file_size_bytes ({target}) < max_file_size_bytes ({max}) does not hold"
            )));
        }
        Ok(Self { target, min, max })
    }
}

/// The files to rewrite, each group within one partition of one spec.
async fn groups(
    tasks: Vec<ScanTask>,
    options: &RewriteDataFilesOptions,
    sizes: &Sizes,
    deletes: &Deletes,
) -> Result<Vec<Vec<ScanTask>>> {
    let mut partitions: BTreeMap<(i32, String), Vec<(ScanTask, bool)>> = BTreeMap::new();
    for task in tasks {
        let much_deleted = is_much_deleted(&task, options, deletes).await?;
        let wanted = options.rewrite_all || much_deleted || task.file_size < sizes.min || task.file_size > sizes.max;
        if wanted {
            let key = (task.spec_id, format!("{:?}", task.partition));
            partitions.entry(key).or_default().push((task, much_deleted));
        }
    }
    let mut result = Vec::new();
    for (_, candidates) in partitions {
        for bin in bins(candidates, options.max_file_group_size_bytes) {
            let bytes: u64 = bin.iter().map(|(task, _)| task.file_size).sum();
            let enough_files = bin.len() > 1 && bin.len() >= options.min_input_files;
            let enough_bytes = bin.len() > 1 && bytes > sizes.target;
            let deletes = bin.iter().any(|(_, much_deleted)| *much_deleted);
            if options.rewrite_all || enough_files || enough_bytes || bytes > sizes.max || deletes {
                result.push(bin.into_iter().map(|(task, _)| task).collect());
            }
        }
    }
    Ok(result)
}

fn bins(candidates: Vec<(ScanTask, bool)>, max_bytes: u64) -> Vec<Vec<(ScanTask, bool)>> {
    let mut bins: Vec<Vec<(ScanTask, bool)>> = Vec::new();
    let mut bytes = 0;
    for candidate in candidates {
        let size = candidate.0.file_size;
        match bins.last_mut() {
            Some(bin) if bytes + size <= max_bytes => {
                bytes += size;
                bin.push(candidate);
            }
            _ => {
                bytes = size;
                bins.push(vec![candidate]);
            }
        }
    }
    bins
}

async fn is_much_deleted(task: &ScanTask, options: &RewriteDataFilesOptions, deletes: &Deletes) -> Result<bool> {
    if task.deletes.is_empty() {
        return Ok(false);
    }
    if task.deletes.len() >= options.delete_file_threshold {
        return Ok(true);
    }
    let deleted = deletes.positions.positions(task).await?.len();
    #[allow(clippy::cast_precision_loss)] // a ratio
    let ratio = deleted as f64 / task.record_count.max(1) as f64;
    Ok(ratio >= options.delete_ratio_threshold)
}

async fn write_groups(table: &Table, groups: Vec<RewriteGroup>, concurrency: usize) -> Result<Vec<WrittenFile>> {
    let mut written = Vec::new();
    let mut results = stream::iter(groups).map(RewriteGroup::write).buffer_unordered(concurrency);
    let mut failure = None;
    while let Some(result) = results.next().await {
        match result {
            Ok(group) => written.extend(group.into_written()),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(results);
    match failure {
        None => Ok(written),
        Some(error) => {
            let files = written.iter().map(|file: &WrittenFile| file.file.file_path().to_string()).collect::<Vec<_>>();
            table.env().storage.delete_all(files).await;
            Err(error)
        }
    }
}
