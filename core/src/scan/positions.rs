use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef};
use datafusion::common::Result as EngineResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::RowSelection;
use parquet::arrow::{ProjectionMask, RowNumber};
use tarndb_catalog::{Error, Result, Storage};

use super::deletes::{DeleteLoader, selectors};
use super::equality::{EqualityFilter, FilterLoader, Keys, TaskEquality};
use super::lineage::{self, LINEAGE};
use super::plan::ScanTask;
use super::{ReadSchema, field_ids, name_mapping, parquet_file};
use crate::error::{engine_error, to_engine_error};
use crate::table::Table;

/// The column with the location of a row's file, in scans for row-level changes.
pub(crate) const FILE_COLUMN: &str = "_tarndb_file";
/// The column with a row's position in its file.
pub(crate) const POSITION_COLUMN: &str = "_tarndb_pos";

/// The deletes of some tasks, each read once.
#[derive(Debug)]
pub(crate) struct Deletes {
    pub(crate) positions: DeleteLoader,
    equality: Option<FilterLoader>,
}

impl Deletes {
    /// Those of `tasks`, all of which are of `table` and read in the schema `read`.
    ///
    /// # Errors
    /// `DataInvalid` when equality deletes compare what is no column.
    pub(crate) fn new<'a>(table: &Table, read: &ReadSchema, tasks: impl Iterator<Item = &'a ScanTask>) -> Result<Self> {
        let storage = &table.env().storage;
        let applied: Vec<TaskEquality> = tasks.filter_map(|task| task.equality.clone()).collect();
        let equality = if applied.is_empty() {
            None
        } else {
            let keys = Keys::new(table, &applied)?;
            Some(FilterLoader::new(storage.clone(), read.clone(), keys, applied))
        };
        Ok(Self { positions: DeleteLoader::new(storage.clone()), equality })
    }

    /// What equality deletes delete in the task's file.
    async fn equality(&self, task: &ScanTask) -> Result<Option<(Arc<EqualityFilter>, TaskEquality)>> {
        match (&self.equality, &task.equality) {
            (Some(loader), Some(of)) => Ok(Some((loader.filter(None).await?, of.clone()))),
            (None, Some(_)) => Err(Error::internal("a task with equality deletes that nobody reads")),
            (_, None) => Ok(None),
        }
    }
}

/// What is told of a row beside its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    Nothing,
    /// Its file and its position there.
    Position,
    /// Its id, and the number of the commit that changed it last: [`LINEAGE`].
    Lineage,
}

/// The live rows of one data file, with the columns of `extra` at their end.
///
/// # Errors
/// `DataInvalid`, naming the file, when it or one of its delete files is missing or damaged.
pub(crate) async fn open_rows(
    storage: &Storage,
    deletes: &Deletes,
    task: &ScanTask,
    schema: &ReadSchema,
    extra: Extra,
    batch_size: usize,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    const WHAT: &str = "data file";
    let unreadable = |path: &str, e| parquet_file::unreadable(WHAT, e).with_context("file", path);
    let deleted = deletes.positions.positions(task).await?;
    let equality = deletes.equality(task).await?;
    let schema = if extra == Extra::Lineage { schema.with_columns(&LINEAGE) } else { schema.clone() };
    let width = schema.output.fields().len();
    let schema = match &equality {
        None => schema,
        Some((filter, _)) => schema.with_columns(filter.columns()),
    };
    let keys = schema.output.fields().len() - width;
    let position = Field::new(POSITION_COLUMN, DataType::Int64, false).with_extension_type(RowNumber);
    let virtual_columns = if extra == Extra::Nothing { Vec::new() } else { vec![Arc::new(position) as FieldRef] };
    let builder = parquet_file::open(storage, WHAT, (&task.path, task.file_size), virtual_columns).await;
    let builder = builder.map_err(|e| e.with_context("file", task.path.clone()))?;
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    // Without the virtual column, which is no column by its place either.
    let own = builder.parquet_schema().root_schema().get_fields().len();
    let file = Arc::new(ArrowSchema::new(builder.schema().fields().iter().take(own).cloned().collect::<Vec<_>>()));
    let file = name_mapping::apply(&file, schema.mapping.as_deref());
    let roots = field_ids::needed_columns(&file, &schema.with_ids);
    let file = file.project(&roots).map_err(|e| Error::internal("a projection of a file does not fit").with_source(e))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let mut builder = builder.with_projection(mask).with_batch_size(batch_size);
    if !deleted.is_empty() {
        builder = builder.with_row_selection(RowSelection::from(selectors(&deleted, 0, rows)));
    }
    let batches = builder.build().map_err(|e| unreadable(&task.path, e))?;
    let (path, task, absent) = (task.path.clone(), task.clone(), schema.absent(task));
    let adapted = batches.map_err(move |e| unreadable(&path, e)).and_then(move |batch| {
        let adapted = field_ids::adapt_batch(&batch, &file, &schema.with_ids, &schema.output, &absent);
        let complete = adapted.and_then(|adapted| match extra {
            Extra::Nothing => Ok(adapted),
            Extra::Position => positioned(&adapted, position_column(&batch)?, &task.path),
            Extra::Lineage => lineage::fill(&adapted, keys, position_column(&batch)?, &task),
        });
        let left = complete.map_err(engine_error).and_then(|rows| match &equality {
            None => Ok(rows),
            Some((filter, of)) => left(&rows, filter, of, width),
        });
        futures::future::ready(left.map_err(|e| e.with_context("file", task.path.clone())))
    });
    Ok(adapted.boxed())
}

/// The rows that equality deletes leave, without the key columns, which begin at `width`.
fn left(rows: &RecordBatch, filter: &EqualityFilter, of: &TaskEquality, width: usize) -> Result<RecordBatch> {
    let keep = filter.keep(rows, width, of)?;
    let after = width + filter.columns().fields().len();
    let columns: Vec<usize> = (0..width).chain(after..rows.num_columns()).collect();
    let left = rows.project(&columns).and_then(|rows| filter_record_batch(&rows, &keep));
    left.map_err(|e| engine_error(e.into()))
}

fn position_column(batch: &RecordBatch) -> EngineResult<&ArrayRef> {
    let position = batch.column_by_name(POSITION_COLUMN);
    position.ok_or_else(|| datafusion::common::exec_datafusion_err!("the reader gave no row positions"))
}

/// The rows with their file and position.
fn positioned(adapted: &RecordBatch, position: &ArrayRef, location: &str) -> EngineResult<RecordBatch> {
    let file: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(location, adapted.num_rows())));
    let mut columns = adapted.columns().to_vec();
    columns.extend([file, Arc::clone(position)]);
    Ok(RecordBatch::try_new(with_position_columns(&adapted.schema()), columns)?)
}

fn with_position_columns(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<FieldRef> = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(FILE_COLUMN, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(POSITION_COLUMN, DataType::Int64, false)));
    Arc::new(ArrowSchema::new(fields))
}

/// Reads live rows with their file and position: the input of row-level changes.
#[derive(Debug)]
pub(crate) struct PositionScanExec {
    storage: Storage,
    deletes: Arc<Deletes>,
    groups: Vec<Vec<ScanTask>>,
    /// The table's columns that are read.
    read: ReadSchema,
    /// Indexes of the output in `schema` plus the two position columns.
    output: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl PositionScanExec {
    /// `projection` indexes the table's columns with the two position columns at their end.
    pub(crate) fn try_new(
        table: &Table,
        table_schema: &ReadSchema,
        projection: Option<&Vec<usize>>,
        tasks: Vec<ScanTask>,
        partitions: usize,
    ) -> Result<Self> {
        let width = table_schema.output.fields().len();
        let all: Vec<usize> = (0..width + 2).collect();
        let projection = projection.unwrap_or(&all);
        let mut read: Vec<usize> = projection.iter().copied().filter(|index| *index < width).collect();
        read.sort_unstable();
        read.dedup();
        let read_schema = table_schema.project(&read)?;
        let output: Vec<usize> = projection
            .iter()
            .map(|index| read.iter().position(|column| column == index).unwrap_or(read.len() + index.saturating_sub(width)))
            .collect();
        let output_schema = with_position_columns(&read_schema.output).project(&output);
        let output_schema =
            Arc::new(output_schema.map_err(|e| Error::internal("a projection of the table does not fit").with_source(e))?);
        let deletes = Deletes::new(table, table_schema, tasks.iter())?;
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
            read: read_schema,
            output,
            properties: Arc::new(properties),
        })
    }
}

impl DisplayAs for PositionScanExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PositionScanExec: files={}", self.groups.iter().map(Vec::len).sum::<usize>())
    }
}

impl ExecutionPlan for PositionScanExec {
    fn name(&self) -> &'static str {
        "PositionScanExec"
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
        let (storage, deletes, schema) = (self.storage.clone(), Arc::clone(&self.deletes), self.read.clone());
        let output = self.output.clone();
        let batch_size = context.session_config().batch_size();
        let rows = stream::iter(tasks)
            .then(move |task| {
                let (storage, deletes, schema) = (storage.clone(), Arc::clone(&deletes), schema.clone());
                async move { open_rows(&storage, &deletes, &task, &schema, Extra::Position, batch_size).await }
            })
            .try_flatten()
            .map_err(to_engine_error)
            .and_then(move |batch| futures::future::ready(batch.project(&output).map_err(Into::into)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
