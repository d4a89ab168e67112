use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::{ConfigOptions, TableParquetOptions};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as EngineResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{
    FileGroup, FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, SortOrderPushdownResult};
use datafusion_datasource::morsel::Morselizer;
use object_store::{ObjectMeta, ObjectStore};
use tarndb_catalog::Result;

use super::deletes::DeleteLoader;
use super::equality::{EqualityDeleteExec, FilterLoader, Keys, TASK_COLUMN, TaskEquality};
use super::field_ids::FieldIdAdapterFactory;
use super::files::checked_reader::CheckedReaders;
use super::lookup::Lookup;
use super::open_file::{FileContext, FileMorselizer, Opening};
use super::plan::{PlanCounts, ScanTask};
use super::prefix::{self, Keeps};
use super::pruning::casts_keep_order;
use super::running_filter::RunningFilter;
use super::{ReadSchema, statistics};
use crate::error::engine_error;
use crate::table::{Table, engine_schema_with_ids};

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
        let (evaluates_filters, prunes_pages) = (global.pushdown_filters, global.enable_page_index);
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
            evaluates_filters,
            prunes_pages,
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
pub(super) struct IcebergSource {
    pub(super) inner: Arc<dyn FileSource>,
    pub(super) readers: Arc<dyn ParquetFileReaderFactory>,
    schema: SchemaRef,
    pub(super) read: Arc<ReadSchema>,
    pub(super) table: Table,
    /// Files that were left out while the query ran.
    pub(super) pruned: Count,
    /// What files are asked when they are opened, which of their rows have some values.
    pub(super) lookup: Option<Arc<Lookup>>,
    /// Rows that were left out by what files answered.
    pub(super) rows_pruned: Count,
    /// Whether filters are evaluated with the reading, and whether bounds of pages are to be believed: the session's settings.
    evaluates_filters: bool,
    pub(super) prunes_pages: bool,
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
        let evaluates = self.evaluates_filters || config.execution.parquet.pushdown_filters;
        let keeps = if evaluates { Keeps::Same } else { Keeps::SameOrMore };
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
        // Each of them alone leaves out no row that is looked for.
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
