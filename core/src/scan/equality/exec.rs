use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result as EngineResult, exec_datafusion_err, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use super::{EqualityFilter, FilterLoader, TaskEquality};
use crate::error::to_engine_error;

/// The column that tells of which task a row is.
pub(in crate::scan) const TASK_COLUMN: &str = "_tarndb_task";

/// Leaves out the rows that equality deletes delete. Its input has the key columns and the number of the task after the
/// columns of the output.
#[derive(Debug)]
pub(in crate::scan) struct EqualityDeleteExec {
    input: Arc<dyn ExecutionPlan>,
    loader: Arc<FilterLoader>,
    /// What applies to the files of each task.
    tasks: Arc<Vec<Option<TaskEquality>>>,
    /// How many columns come out.
    width: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl EqualityDeleteExec {
    /// The first `width` columns of `input`.
    pub(in crate::scan) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        loader: Arc<FilterLoader>,
        tasks: Arc<Vec<Option<TaskEquality>>>,
        width: usize,
    ) -> EngineResult<Self> {
        let output: Vec<usize> = (0..width).collect();
        let schema = Arc::new(input.schema().project(&output)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { input, loader, tasks, width, properties: Arc::new(properties), metrics })
    }

    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> EngineResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::try_new(input, Arc::clone(&self.loader), Arc::clone(&self.tasks), self.width)?))
    }
}

impl DisplayAs for EqualityDeleteExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EqualityDeleteExec")
    }
}

impl ExecutionPlan for EqualityDeleteExec {
    fn name(&self) -> &'static str {
        "EqualityDeleteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| internal_datafusion_err!("equality deletes without rows to delete"))?;
        self.with_input(input)
    }

    fn repartitioned(&self, partitions: usize, config: &ConfigOptions) -> EngineResult<Option<Arc<dyn ExecutionPlan>>> {
        self.input.repartitioned(partitions, config)?.map(|input| self.with_input(input)).transpose()
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> EngineResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (loader, tasks, width, schema) = (Arc::clone(&self.loader), Arc::clone(&self.tasks), self.width, self.schema());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let output = Arc::clone(&schema);
        let rows = stream::once(async move {
            let filter = loader.filter().await.map_err(to_engine_error)?;
            let left = input.map(move |batch| {
                let _timer = metrics.elapsed_compute().timer();
                let left = left(&batch?, &filter, &tasks, width, &output)?;
                metrics.record_output(left.num_rows());
                Ok(left)
            });
            Ok::<_, datafusion::error::DataFusionError>(left)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows.try_flatten())))
    }

    // Whether a row is deleted does not depend on others, so that filters go through to the files.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> EngineResult<FilterDescription> {
        FilterDescription::from_children(parent_filters, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> EngineResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(child_pushdown_result))
    }
}

fn left(
    batch: &RecordBatch,
    filter: &EqualityFilter,
    tasks: &[Option<TaskEquality>],
    width: usize,
    output: &SchemaRef,
) -> EngineResult<RecordBatch> {
    let columns: Vec<usize> = (0..width).collect();
    let numbers = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
    let numbers = numbers.ok_or_else(|| internal_datafusion_err!("rows without the number of their task"))?;
    let mut parts = Vec::new();
    let mut row = 0;
    // A batch is of one file, but nobody promises that.
    while row < batch.num_rows() {
        let number = numbers.value(row);
        let end = (row..batch.num_rows()).find(|row| numbers.value(*row) != number).unwrap_or(batch.num_rows());
        let part = batch.slice(row, end - row);
        let task = usize::try_from(number).ok().and_then(|number| tasks.get(number));
        let left = match task.ok_or_else(|| exec_datafusion_err!("rows of an unknown task"))? {
            None => part.project(&columns)?,
            Some(task) => {
                let keep = filter.keep(&part, width, task).map_err(to_engine_error)?;
                filter_record_batch(&part.project(&columns)?, &keep)?
            }
        };
        parts.push(left);
        row = end;
    }
    Ok(match parts.as_slice() {
        [only] => only.clone(),
        parts => arrow::compute::concat_batches(output, parts)?,
    })
}
