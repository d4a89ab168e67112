use std::fmt;
use std::sync::Arc;

use datafusion::common::Result as EngineResult;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::physical_plan::parquet::{PagePruningAccessPlanFilter, ParquetAccessPlan, ParquetFileMetrics};
use datafusion::physical_expr_common::physical_expr::is_dynamic_physical_expr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::morsel::{MorselPlan, MorselPlanner, Morselizer};
use datafusion_physical_expr_adapter::PhysicalExprAdapterFactory;
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;

use super::deletes::{DeleteLoader, Rows, access_plan};
use super::field_ids::{self, Absent, FieldIdAdapterFactory};
use super::files::footer::span_of_page_indexes;
use super::files::guard::FileGuard;
use super::plan::ScanTask;
use super::running_filter::RunningFilter;
use super::source::IcebergSource;
use crate::error::to_engine_error;

/// Rows are few among the others when they are this part of them: to pass over what is between many takes longer than to read it.
const FEW_ROWS: u64 = 4;

/// And runs of them are few when they are this part: there are rows of nearly every page else.
const FEW_RUNS: u64 = 32;

/// Deletes of a file beyond which only those are looked at that lie in pages which the filter leaves.
const MANY_DELETES: u64 = 4096;

/// What a data file needs beside its own content, found out when it is opened.
#[derive(Debug)]
pub(super) struct FileContext {
    pub(super) loader: Arc<DeleteLoader>,
    pub(super) task: ScanTask,
}

/// How many runs the positions lie in.
fn runs(positions: &RoaringTreemap) -> u64 {
    let mut next = None;
    let starts = positions.iter().filter(|position| next.replace(position + 1) != Some(*position));
    starts.count() as u64
}

/// Hands files to the inner morselizer together with the rows that are left of them, and with the values of their partition.
#[derive(Debug)]
pub(super) struct FileMorselizer(pub(super) Arc<Opening>);

/// What it takes to open files.
pub(super) struct Opening {
    pub(super) inner: Arc<dyn Morselizer>,
    pub(super) source: IcebergSource,
    pub(super) filter: Option<RunningFilter>,
    /// Whether expressions of the query are evaluated with the reading.
    pub(super) evaluates: bool,
    pub(super) object_store: Arc<dyn ObjectStore>,
    /// Without the files.
    pub(super) config: FileScanConfig,
    pub(super) partition: usize,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl Morselizer for FileMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> EngineResult<Box<dyn MorselPlanner>> {
        let opening = &self.0;
        let Some(context) = file.extension::<FileContext>() else {
            return opening.inner.plan_file(file);
        };
        let guard = FileGuard::new("data file", &context.task.path, opening.evaluates);
        if opening.filter.as_ref().is_some_and(|filter| !filter.keeps(&context.task)) {
            opening.source.pruned.add(1);
            return Ok(Box::new(NoRows));
        }
        let is_plain = context.task.deletes.is_empty()
            && opening.source.lookup.is_none()
            && !opening.source.read.has_identity(context.task.spec_id);
        guard.planner(|| match is_plain {
            true => opening.inner.plan_file(file),
            false => Ok(Box::new(FilePlanner { opening: Arc::clone(opening), file })),
        })
    }
}

/// A file that need not be opened.
#[derive(Debug)]
struct NoRows;

impl MorselPlanner for NoRows {
    fn plan(self: Box<Self>) -> EngineResult<Option<MorselPlan>> {
        Ok(None)
    }
}

#[derive(Debug)]
struct FilePlanner {
    opening: Arc<Opening>,
    file: PartitionedFile,
}

impl FilePlanner {
    async fn open(self) -> EngineResult<Box<dyn MorselPlanner>> {
        let Self { opening, file } = self;
        let Some(context) = file.extension::<FileContext>() else {
            return opening.inner.plan_file(file);
        };
        let source = &opening.source;
        let deleted = context.loader.positions(&context.task).await.map_err(to_engine_error)?;
        let absent = source.read.absent(&context.task);
        if deleted.is_empty() && absent.partition.is_empty() && source.lookup.is_none() {
            return opening.inner.plan_file(file);
        }
        // The footer tells which columns there are and how many rows each row group has; the opener finds it in the cache.
        let mut reader = source.readers.create_reader(opening.partition, file.clone(), None, source.inner.metrics())?;
        let footer = reader.get_metadata(None).await?;
        let kept = opening.kept(&context.task, &deleted, reader.as_mut(), &footer).await?;
        if kept.as_ref().is_some_and(RoaringTreemap::is_empty) {
            source.pruned.add(1);
            return Ok(Box::new(NoRows));
        }
        let lacks = |id: &i32| !field_ids::has_id(footer.file_metadata().schema_descr(), *id);
        let morselizer =
            if absent.partition.keys().any(lacks) { opening.with_absent(absent)? } else { Arc::clone(&opening.inner) };
        let wanted = match &kept {
            Some(kept) => Some(Rows::Only(kept)),
            None => (!deleted.is_empty()).then_some(Rows::AllBut(&deleted)),
        };
        let plan = wanted.map(|wanted| match wanted {
            Rows::AllBut(deleted) if deleted.len() > MANY_DELETES => {
                access_plan(&footer, wanted, opening.pages_left(&context.task, &file, &footer).as_ref())
            }
            _ => access_plan(&footer, wanted, None),
        });
        morselizer.plan_file(match plan {
            Some(plan) => file.with_extension(plan),
            None => file,
        })
    }
}

impl Opening {
    /// The rows of the task's file that may match by its values, when they are few.
    async fn kept(
        &self,
        task: &ScanTask,
        deleted: &RoaringTreemap,
        reader: &mut (dyn AsyncFileReader + Send),
        footer: &ParquetMetaData,
    ) -> EngineResult<Option<RoaringTreemap>> {
        let Some(lookup) = &self.source.lookup else { return Ok(None) };
        if !lookup.may_match(self.source.table.env(), task, reader, footer).await.map_err(to_engine_error)? {
            return Ok(Some(RoaringTreemap::new()));
        }
        let found = lookup.rows(self.source.table.env(), task, reader, footer).await.map_err(to_engine_error)?;
        let rows = u64::try_from(footer.file_metadata().num_rows()).unwrap_or(0);
        let is_few = |found: &RoaringTreemap| found.len() <= rows / FEW_ROWS && runs(found) <= rows / FEW_RUNS;
        let Some(kept) = found.filter(is_few) else { return Ok(None) };
        self.source.rows_pruned.add(usize::try_from(rows - kept.len()).unwrap_or(usize::MAX));
        // Without the places of pages, all pages of a row group would be read.
        if footer.offset_index().is_none()
            && let Some(indexes) = span_of_page_indexes(footer)
        {
            reader.get_bytes(indexes).await?;
        }
        Ok(Some(kept - deleted))
    }

    /// The rows of a file that the filter leaves by the bounds of its pages, of which DataFusion finds the same: a row selection of all
    /// deletes takes longer than to read what is looked for. `None` when nothing is known.
    fn pages_left(&self, task: &ScanTask, file: &PartitionedFile, footer: &Arc<ParquetMetaData>) -> Option<ParquetAccessPlan> {
        let filter = self.source.inner.filter().filter(|filter| self.source.prunes_pages && !is_dynamic_physical_expr(filter))?;
        footer.column_index()?;
        let (read, metadata) =
            (&self.source.read, ArrowReaderMetadata::try_new(Arc::clone(footer), ArrowReaderOptions::new()).ok()?);
        let adapter = FieldIdAdapterFactory {
            with_ids: Arc::clone(&read.with_ids),
            mapping: read.mapping.clone(),
            absent: read.absent(task),
        };
        let adapter = adapter.create(Arc::clone(&read.output), Arc::clone(metadata.schema())).ok()?;
        let pages = PagePruningAccessPlanFilter::new(&adapter.rewrite(filter).ok()?, Arc::clone(metadata.schema()));
        let metrics = ParquetFileMetrics::new(self.partition, file.path().as_ref(), &ExecutionPlanMetricsSet::new());
        let all = ParquetAccessPlan::new_all(footer.num_row_groups());
        Some(pages.prune_plan_with_page_index(all, metadata.schema(), metadata.parquet_schema(), footer, &metrics))
    }

    /// A morselizer for a file that lacks columns which its partition has.
    fn with_absent(&self, absent: Absent) -> EngineResult<Arc<dyn Morselizer>> {
        let read = &self.source.read;
        let adapter = FieldIdAdapterFactory { with_ids: Arc::clone(&read.with_ids), mapping: read.mapping.clone(), absent };
        let mut config = self.config.clone();
        config.expr_adapter_factory = Some(Arc::new(adapter));
        let morselizer = self.source.inner.create_morselizer(Arc::clone(&self.object_store), &config, self.partition)?;
        Ok(Arc::from(morselizer))
    }
}

impl MorselPlanner for FilePlanner {
    fn plan(self: Box<Self>) -> EngineResult<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_pending_planner(self.open())))
    }
}
