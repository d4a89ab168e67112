use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::Result as EngineResult;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tarndb_catalog::{Error, Result, Storage};

use super::deletes::DeleteLoader;
use super::equality::{EqualityFilter, FilterLoader, Keys, TaskEquality};
use super::files::{self, FileRef, FileRows, Wanted};
use super::lineage::{FileLineage, LINEAGE};
use super::metadata_columns::MetadataColumns;
use super::plan::ScanTask;
use super::{ReadSchema, field_ids};
use crate::error::{engine_error, to_engine_error};
use crate::manifest::FileFormat;
use crate::table::Table;

/// The deletes of some tasks, each read once.
#[derive(Debug)]
pub(crate) struct Deletes {
    pub(crate) positions: DeleteLoader,
    equality: Option<FilterLoader>,
}

impl Deletes {
    /// Those of `tasks`, all of which are of `table` and read in the schema `read`; in memory of `memory`.
    ///
    /// # Errors
    /// `DataInvalid` when equality deletes compare what is no column.
    pub(crate) fn new<'a>(
        table: &Table,
        read: &ReadSchema,
        tasks: impl Iterator<Item = &'a ScanTask>,
        memory: &Arc<dyn MemoryPool>,
    ) -> Result<Self> {
        let storage = &table.env().storage;
        let applied: Vec<TaskEquality> = tasks.filter_map(|task| task.equality.clone()).collect();
        let equality = if applied.is_empty() {
            None
        } else {
            let keys = Keys::new(table, &applied)?;
            Some(FilterLoader::new(storage.clone(), read.clone(), keys, applied, Arc::clone(memory)))
        };
        Ok(Self { positions: DeleteLoader::new(table, memory), equality })
    }

    /// What equality deletes delete in the task's file.
    async fn equality(&self, task: &ScanTask) -> Result<Option<(Arc<EqualityFilter>, TaskEquality)>> {
        match (&self.equality, &task.equality) {
            (Some(loader), Some(of)) => Ok(Some((loader.filter().await?, of.clone()))),
            (None, Some(_)) => Err(Error::internal("a task with equality deletes that nobody reads")),
            (_, None) => Ok(None),
        }
    }
}

/// What the rows of a scan hold.
#[derive(Debug, Clone)]
pub(crate) struct RowSchema {
    /// Columns of the table.
    pub(crate) read: ReadSchema,
    /// Follow them.
    pub(crate) metadata: MetadataColumns,
}

impl RowSchema {
    fn output(&self) -> SchemaRef {
        self.metadata.after(&self.read.output)
    }
}

/// All rows, in their order, of a Parquet file that has the current columns of its table: some of them, with their field ids.
///
/// # Errors
/// `DataInvalid`, naming the file, when it is missing or damaged.
pub(crate) async fn open_written(
    storage: &Storage,
    (path, size): (&str, u64),
    columns: &SchemaRef,
    batch_size: usize,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let file = FileRef { what: "data file", path, size, format: FileFormat::Parquet };
    let wanted = Wanted { columns: Some(columns), batch_size, ..Wanted::EVERYTHING };
    Ok(files::open(storage, file, wanted).await?.batches)
}

/// The live rows of one data file.
///
/// # Errors
/// `DataInvalid`, naming the file, when it or one of its delete files is missing or damaged.
pub(crate) async fn open_rows(
    storage: &Storage,
    deletes: &Deletes,
    task: &ScanTask,
    schema: &RowSchema,
    batch_size: usize,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let deleted = deletes.positions.positions(task).await?;
    let equality = deletes.equality(task).await?;
    let (output, metadata) = (schema.output(), schema.metadata.clone());
    // The table's columns, then those of lineage, then those that equality deletes compare.
    let width = schema.read.output.fields().len();
    let schema = if metadata.has_lineage() { schema.read.with_columns(&LINEAGE) } else { schema.read.clone() };
    let keys = schema.output.fields().len();
    let schema = match &equality {
        None => schema,
        Some((filter, _)) => schema.with_columns(filter.columns()),
    };
    let file = FileRef { what: "data file", path: &task.path, size: task.file_size, format: task.format };
    let wanted = Wanted {
        columns: Some(&schema.with_ids),
        mapping: schema.mapping.as_deref(),
        positions: !metadata.is_empty(),
        deleted: Some(&deleted),
        batch_size,
    };
    let FileRows { schema: file, batches } = files::open(storage, file, wanted).await?;
    let (path, task, absent) = (task.path.clone(), task.clone(), schema.absent(task));
    let complete = move |batch: RecordBatch| {
        let adapted = field_ids::adapt_batch(&batch, &file, &schema.with_ids, &schema.output, &absent).map_err(engine_error)?;
        let mut columns: Vec<ArrayRef> = adapted.columns().iter().take(width).cloned().collect();
        if !metadata.is_empty() {
            let positions = batch.columns().get(file.fields().len());
            let positions = positions.ok_or_else(|| Error::internal("the reader gave no row positions"))?;
            let lineage = metadata.has_lineage().then(|| FileLineage::of(&adapted, width)).transpose()?;
            columns.extend(metadata.arrays(&task, positions, lineage.as_ref())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&output), columns, &options);
        let left = match &equality {
            None => rows,
            Some((filter, of)) => {
                let keep = filter.keep(&adapted, keys, of)?;
                rows.and_then(|rows| filter_record_batch(&rows, &keep))
            }
        };
        left.map_err(|e| engine_error(e.into()))
    };
    let rows = batches.map(move |batch| complete(batch?).map_err(|e| e.with_context("file", path.clone())));
    Ok(rows.boxed())
}

/// Reads live rows with their metadata columns. What of a file is read is not pruned below the file.
#[derive(Debug)]
pub(crate) struct RowScanExec {
    storage: Storage,
    deletes: Arc<Deletes>,
    groups: Vec<Vec<ScanTask>>,
    schema: RowSchema,
    /// Indexes of the output in `schema`.
    output: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl RowScanExec {
    /// `projection` indexes the columns of `schema`.
    pub(crate) fn try_new(
        table: &Table,
        schema: &RowSchema,
        projection: Option<&Vec<usize>>,
        tasks: Vec<ScanTask>,
        session: &dyn Session,
    ) -> Result<Self> {
        let partitions = session.config().target_partitions();
        let deletes = Deletes::new(table, &schema.read, tasks.iter(), &session.runtime_env().memory_pool)?;
        let width = schema.read.output.fields().len();
        let all: Vec<usize> = (0..schema.output().fields().len()).collect();
        let projection = projection.unwrap_or(&all);
        let mut needed = projection.clone();
        needed.sort_unstable();
        needed.dedup();
        let (columns, metadata): (Vec<usize>, Vec<usize>) = needed.iter().partition(|index| **index < width);
        let metadata = schema.metadata.project(metadata.into_iter().map(|index| index - width));
        let schema = RowSchema { read: schema.read.project(&columns)?, metadata };
        let place = |index: &usize| needed.iter().position(|needed| needed == index);
        let output: Vec<usize> = projection.iter().filter_map(place).collect();
        let output_schema = schema.output().project(&output);
        let output_schema =
            Arc::new(output_schema.map_err(|e| Error::internal("a projection of the table does not fit").with_source(e))?);
        let mut groups: Vec<(u64, Vec<ScanTask>)> = vec![(0, Vec::new()); partitions.max(1)];
        for task in tasks {
            if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
                *bytes += task.file_size;
                group.push(task);
            }
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(output_schema),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            deletes: Arc::new(deletes),
            storage: table.env().storage.clone(),
            groups: groups.into_iter().map(|(_, group)| group).collect(),
            schema,
            output,
            properties: Arc::new(properties),
        })
    }
}

impl DisplayAs for RowScanExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowScanExec: files={}", self.groups.iter().map(Vec::len).sum::<usize>())
    }
}

impl ExecutionPlan for RowScanExec {
    fn name(&self) -> &'static str {
        "RowScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> EngineResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> EngineResult<SendableRecordBatchStream> {
        let tasks = self.groups.get(partition).cloned().unwrap_or_default();
        let (storage, deletes, schema) = (self.storage.clone(), Arc::clone(&self.deletes), self.schema.clone());
        let output = self.output.clone();
        let batch_size = context.session_config().batch_size();
        let rows = stream::iter(tasks)
            .then(move |task| {
                let (storage, deletes, schema) = (storage.clone(), Arc::clone(&deletes), schema.clone());
                async move { open_rows(&storage, &deletes, &task, &schema, batch_size).await }
            })
            .try_flatten()
            .map_err(to_engine_error)
            .and_then(move |batch| futures::future::ready(batch.project(&output).map_err(Into::into)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
