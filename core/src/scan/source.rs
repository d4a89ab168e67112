use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::{ConfigOptions, TableParquetOptions};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as EngineResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::{PagePruningAccessPlanFilter, ParquetAccessPlan, ParquetFileMetrics};
use datafusion::datasource::physical_plan::{
    FileGroup, FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::is_dynamic_physical_expr;
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, SortOrderPushdownResult};
use datafusion_datasource::morsel::{MorselPlan, MorselPlanner, Morselizer};
use datafusion_physical_expr_adapter::PhysicalExprAdapterFactory;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;
use tarndb_catalog::Result;

use super::deletes::{DeleteLoader, Rows, access_plan};
use super::equality::{EqualityDeleteExec, FilterLoader, Keys, TASK_COLUMN, TaskEquality};
use super::field_ids::{self, Absent, FieldIdAdapterFactory};
use super::files::checked_reader::CheckedReaders;
use super::files::footer::span_of_page_indexes;
use super::files::guard::FileGuard;
use super::lookup::Lookup;
use super::plan::{PlanCounts, ScanTask};
use super::prefix::{self, Keeps};
use super::pruning::casts_keep_order;
use super::running_filter::RunningFilter;
use super::{ReadSchema, statistics};
use crate::error::{engine_error, to_engine_error};
use crate::table::{Table, engine_schema_with_ids};

/// Rows are few among the others when they are this part of them: to pass over what is between many takes longer than to read it.
const FEW_ROWS: u64 = 4;

/// Deletes of a file beyond which only those are looked at that lie in pages which the filter leaves.
const MANY_DELETES: u64 = 4096;

/// What a data file needs beside its own content, found out when it is opened.
#[derive(Debug)]
struct FileContext {
    loader: Arc<DeleteLoader>,
    task: ScanTask,
}

/// What a scan of planned files needs to know.
pub(crate) struct ScanRequest<'a> {
    pub(crate) table: &'a Table,
    pub(crate) schema: SchemaRef,
    pub(crate) projection: Option<&'a Vec<usize>>,
    pub(crate) limit: Option<usize>,
    pub(crate) store_url: ObjectStoreUrl,
}

/// A plan that reads the files of `tasks`.
pub(crate) fn scan_exec(
    session: &dyn Session,
    request: ScanRequest<'_>,
    tasks: Vec<ScanTask>,
    counts: PlanCounts,
) -> Result<Arc<dyn ExecutionPlan>> {
    let ScanRequest { table, schema, projection, limit, store_url } = request;
    let read = ReadSchema::new(table, engine_schema_with_ids(table.schema())?, Arc::clone(&schema))?;
    let equality: Vec<Option<TaskEquality>> = tasks.iter().map(|task| task.equality.clone()).collect();
    let files = FileScan { session, table, read, task_column: None, projection: projection.cloned(), limit, store_url, counts };
    if equality.iter().all(Option::is_none) {
        return files.exec(tasks);
    }
    let applied: Vec<TaskEquality> = equality.iter().flatten().cloned().collect();
    let keys = Keys::new(table, &applied)?;
    let width = schema.fields().len();
    let projection: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..width).collect());
    let output = projection.len();
    // The key columns and the number of the task follow the table's own columns.
    let with_keys = projection.into_iter().chain(width..=width + keys.schema.fields().len()).collect();
    let read = files.read.clone();
    let wide = FileScan {
        read: read.with_columns(&keys.schema),
        task_column: Some(Arc::new(Field::new(TASK_COLUMN, DataType::Int64, false))),
        projection: Some(with_keys),
        limit: None,
        ..files
    };
    let input = wide.exec(tasks)?;
    let memory = Arc::clone(&session.runtime_env().memory_pool);
    let loader = FilterLoader::new(table.env().storage.clone(), read, keys, applied, memory);
    let exec = EqualityDeleteExec::try_new(input, Arc::new(loader), Arc::new(equality), output).map_err(engine_error)?;
    Ok(Arc::new(exec))
}

/// A scan of files with position deletes applied.
struct FileScan<'a> {
    session: &'a dyn Session,
    table: &'a Table,
    read: ReadSchema,
    /// Follows the columns, with the number of a row's task.
    task_column: Option<FieldRef>,
    projection: Option<Vec<usize>>,
    limit: Option<usize>,
    store_url: ObjectStoreUrl,
    counts: PlanCounts,
}

impl FileScan<'_> {
    fn exec(self, tasks: Vec<ScanTask>) -> Result<Arc<dyn ExecutionPlan>> {
        let Self { session, table, read, task_column, projection, limit, store_url, counts } = self;
        let schema = TableSchema::new(Arc::clone(&read.output), task_column.iter().cloned().collect());
        let all = schema.table_schema();
        let mut needed = vec![projection.is_none(); all.fields().len()];
        for index in projection.iter().flatten() {
            if let Some(slot) = needed.get_mut(*index) {
                *slot = true;
            }
        }
        let (per_file, total) = statistics::of_scan(table, all, &needed, &tasks);
        let groups = file_groups(session, table, task_column.is_some(), tasks, per_file)?;

        let cache = session.runtime_env().cache_manager.get_file_metadata_cache();
        let readers: Arc<dyn ParquetFileReaderFactory> = Arc::new(CheckedReaders::new(table.env().storage.object_store(), cache));
        let mut global = session.config().options().execution.parquet.clone();
        // Nanoseconds, to which timestamps of 96 bits are read otherwise, end in the year 2262.
        global.coerce_int96 = Some("us".to_string());
        let parquet = ParquetSource::new(schema)
            .with_table_parquet_options(TableParquetOptions { global, ..TableParquetOptions::default() })
            .with_parquet_file_reader_factory(Arc::clone(&readers));
        let metrics = parquet.metrics();
        for (name, count) in [
            ("iceberg_manifests", counts.manifests),
            ("iceberg_manifests_pruned", counts.manifests_pruned),
            ("iceberg_files", counts.files),
            ("iceberg_files_pruned", counts.files_pruned),
        ] {
            MetricBuilder::new(metrics).global_counter(name).add(count);
        }
        let pruned = MetricBuilder::new(metrics).global_counter("iceberg_files_pruned_while_running");
        let adapter = FieldIdAdapterFactory {
            with_ids: Arc::clone(&read.with_ids),
            mapping: read.mapping.clone(),
            absent: read.absent_everywhere(),
        };
        let rows_pruned = MetricBuilder::new(metrics).global_counter("iceberg_rows_pruned_by_value");
        let source = IcebergSource {
            table: table.clone(),
            pruned,
            lookup: None,
            rows_pruned,
            inner: Arc::new(parquet),
            readers,
            schema: Arc::clone(&read.output),
            read: Arc::new(read),
        };
        let config = FileScanConfigBuilder::new(store_url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(total)
            .with_expr_adapter(Some(Arc::new(adapter)))
            .with_projection_indices(projection)
            .map_err(engine_error)?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Files in as many groups as there are partitions, of about equal size.
fn file_groups(
    session: &dyn Session,
    table: &Table,
    numbered: bool,
    tasks: Vec<ScanTask>,
    statistics: Vec<Option<Statistics>>,
) -> Result<Vec<FileGroup>> {
    let loader = Arc::new(DeleteLoader::new(table, &session.runtime_env().memory_pool));
    let partitions = session.config().target_partitions();
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); partitions.clamp(1, tasks.len().max(1))];
    for (number, (task, statistics)) in (0_i64..).zip(tasks.into_iter().zip(statistics)) {
        let meta = ObjectMeta {
            location: table.env().storage.path(&task.path)?,
            // Data files are immutable, which makes their footers cacheable for ever.
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: task.file_size,
            e_tag: None,
            version: None,
        };
        let size = task.file_size;
        let mut file = PartitionedFile::new_from_meta(meta);
        if numbered {
            file = file.with_partition_values(vec![ScalarValue::Int64(Some(number))]);
        }
        if let Some(statistics) = statistics {
            file = file.with_statistics(Arc::new(statistics));
        }
        file = file.with_extension(FileContext { loader: Arc::clone(&loader), task });
        if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += size;
            group.push(file);
        }
    }
    Ok(groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect())
}

/// DataFusion's Parquet source with what it lacks for Iceberg tables:
///
/// * files are left out that cannot hold what is left to find while the query runs;
/// * position deletes become row selections when a file is opened;
/// * columns that a file lacks because they are those of its partition get the partition's value;
/// * `LIMIT` is kept from the opener, which would otherwise replace those selections by whole row groups;
/// * filters over floats are kept from it, because Parquet's statistics leave NaN out, and filters over nested columns,
///   which it can lose after they were rewritten for the file.
#[derive(Clone)]
struct IcebergSource {
    inner: Arc<dyn FileSource>,
    readers: Arc<dyn ParquetFileReaderFactory>,
    schema: SchemaRef,
    read: Arc<ReadSchema>,
    table: Table,
    /// Files that were left out while the query ran.
    pruned: Count,
    /// What files are asked when they are opened, which of their rows have some values.
    lookup: Option<Arc<Lookup>>,
    /// Rows that were left out by what files answered.
    rows_pruned: Count,
}

impl IcebergSource {
    fn wrap(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, ..self.clone() })
    }

    fn can_push(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        let mut safe = true;
        let walked = filter.apply(|expr| {
            if let Some(column) = expr.downcast_ref::<Column>() {
                let data_type = self.schema.field_with_name(column.name()).map(|field| field.data_type());
                safe &= data_type.is_ok_and(|data_type| {
                    !data_type.is_nested() && !matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
                });
            }
            Ok(if safe { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        });
        safe && walked.is_ok() && casts_keep_order(filter, &self.schema)
    }
}

impl FileSource for IcebergSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> EngineResult<Arc<dyn FileOpener>> {
        self.inner.create_file_opener(object_store, base_config, partition)
    }

    fn create_morselizer(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> EngineResult<Box<dyn Morselizer>> {
        let mut config = base_config.clone();
        config.limit = None;
        let inner = self.inner.create_morselizer(Arc::clone(&object_store), &config, partition)?;
        config.file_groups = Vec::new();
        let filter = RunningFilter::new(&self.table, Arc::clone(&self.schema), self.inner.filter());
        let mut projected = self.inner.projection().into_iter().flat_map(ProjectionExprs::expr_iter);
        let evaluates = projected.any(|expr| expr.downcast_ref::<Column>().is_none())
            || self.inner.filter().is_some_and(|filter| has_functions(&filter));
        Ok(Box::new(FileMorselizer(Arc::new(Opening {
            inner: Arc::from(inner),
            source: self.clone(),
            filter,
            evaluates,
            object_store,
            config,
            partition,
        }))))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.wrap(self.inner.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(t, f)
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> EngineResult<Option<FileScanConfig>> {
        self.inner.repartitioned(target_partitions, repartition_file_min_size, output_ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> EngineResult<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let pushable: Vec<bool> = filters.iter().map(|filter| self.can_push(filter)).collect();
        // Filters that are evaluated here, and not again by the engine, have to keep the same rows.
        let keeps = if config.execution.parquet.pushdown_filters { Keeps::Same } else { Keeps::SameOrMore };
        let safe = filters.iter().zip(&pushable).filter(|(_, push)| **push);
        let safe = safe.map(|(filter, _)| prefix::with_ranges(filter, keeps)).collect();
        let answer = self.inner.try_pushdown_filters(safe, config)?;
        let mut answers = answer.filters.into_iter();
        let merged =
            pushable.into_iter().map(|push| if push { answers.next().unwrap_or(PushedDown::No) } else { PushedDown::No });
        let result = FilterPushdownPropagation::with_parent_pushdown_result(merged.collect());
        let lookup = Lookup::of(&self.table, filters.iter()).map(Arc::new);
        if answer.updated_node.is_none() && lookup.is_none() {
            return Ok(result);
        }
        let inner = answer.updated_node.unwrap_or_else(|| Arc::clone(&self.inner));
        // What comes while the query runs is no equality.
        let lookup = lookup.or_else(|| self.lookup.clone());
        Ok(result.with_updated_node(Arc::new(Self { inner, lookup, ..self.clone() })))
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        eq_properties: &EquivalenceProperties,
    ) -> EngineResult<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(match self.inner.try_pushdown_sort(order, eq_properties)? {
            SortOrderPushdownResult::Exact { inner } => SortOrderPushdownResult::Exact { inner: self.wrap(inner) },
            SortOrderPushdownResult::Inexact { inner } => SortOrderPushdownResult::Inexact { inner: self.wrap(inner) },
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> EngineResult<Option<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_projection(projection)?.map(|inner| self.wrap(inner)))
    }
}

fn has_functions(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.exists(|expr| Ok(expr.downcast_ref::<ScalarFunctionExpr>().is_some())).unwrap_or(true)
}

/// Hands files to the inner morselizer together with the rows that are left of them, and with the values of their partition.
#[derive(Debug)]
struct FileMorselizer(Arc<Opening>);

/// What it takes to open files.
struct Opening {
    inner: Arc<dyn Morselizer>,
    source: IcebergSource,
    filter: Option<RunningFilter>,
    /// Whether expressions of the query are evaluated with the reading.
    evaluates: bool,
    object_store: Arc<dyn ObjectStore>,
    /// Without the files.
    config: FileScanConfig,
    partition: usize,
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
        let found = lookup.rows(self.source.table.env(), task, reader, footer).await.map_err(to_engine_error)?;
        let rows = u64::try_from(footer.file_metadata().num_rows()).unwrap_or(0);
        let Some(kept) = found.filter(|found| found.len() <= rows / FEW_ROWS) else { return Ok(None) };
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
        let filter = self.source.inner.filter().filter(|filter| !is_dynamic_physical_expr(filter))?;
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
