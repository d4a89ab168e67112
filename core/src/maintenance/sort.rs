use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tarndb_catalog::{Error, Result};

use crate::error::{engine_error, to_engine_error};

/// Rows that are read once.
struct Rows {
    schema: SchemaRef,
    rows: Mutex<Option<BoxStream<'static, Result<RecordBatch>>>>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rows = rows.map(|rows| rows.map_err(to_engine_error).left_stream());
        let read = || Err(DataFusionError::Internal("rows that are read once are read twice".to_string()));
        let rows = rows.unwrap_or_else(|| futures::stream::once(async move { read() }).right_stream());
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// Rows by columns, NULLs first; as they come when there are no columns. What has no room in `memory` goes to disk meanwhile.
///
/// # Errors
/// `InvalidInput` for a column that there is not.
pub(super) fn sorted(
    rows: BoxStream<'static, Result<RecordBatch>>,
    schema: &SchemaRef,
    columns: &[String],
    memory: &Arc<dyn MemoryPool>,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let order = columns.iter().map(|name| {
        let column = Column::new_with_schema(name, schema);
        let column = column.map_err(|_| Error::invalid_input(format!("there is no column `{name}` to sort by")))?;
        Ok(PhysicalSortExpr::new(Arc::new(column), SortOptions { descending: false, nulls_first: true }))
    });
    let Some(order) = LexOrdering::new(order.collect::<Result<Vec<_>>>()?) else { return Ok(rows) };
    let run = || -> EngineResult<SendableRecordBatchStream> {
        let input: Arc<dyn PartitionStream> = Arc::new(Rows { schema: Arc::clone(schema), rows: Mutex::new(Some(rows)) });
        let input = StreamingTableExec::try_new(Arc::clone(schema), vec![input], None, [], false, None)?;
        let environment = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(memory)).build_arc()?;
        let context = TaskContext::default().with_runtime(environment);
        SortExec::new(order, Arc::new(input)).execute(0, Arc::new(context))
    };
    Ok(run().map_err(engine_error)?.map_err(engine_error).boxed())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use datafusion::execution::memory_pool::FairSpillPool;
    use futures::stream;

    use super::*;

    fn batches() -> Vec<RecordBatch> {
        let batch = |part: i64| {
            let numbers: ArrayRef = Arc::new((0..8192).map(|n| (n * 7919 + part) % 100_003).collect::<Int64Array>());
            let texts: ArrayRef = Arc::new((0..8192).map(|n| Some(format!("{n:0>100}"))).collect::<StringArray>());
            RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap()
        };
        (0..20).map(batch).collect()
    }

    #[tokio::test]
    async fn rows_are_sorted_beyond_memory_and_their_errors_come_through() {
        let memory: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(16 * 1024 * 1024));
        let (all, schema) = (batches(), batches()[0].schema());
        let sort = |rows: Vec<Result<RecordBatch>>, column: &str| {
            sorted(stream::iter(rows).boxed(), &schema, &[column.to_string()], &memory)
        };
        let rows: Vec<RecordBatch> = sort(all.into_iter().map(Ok).collect(), "n").unwrap().try_collect().await.unwrap();
        let numbers: Vec<i64> =
            rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(numbers.len(), 20 * 8192);
        assert!(numbers.is_sorted());
        assert!(sort(Vec::new(), "x").is_err_and(|error| error.to_string().contains("`x`")));
        let wrong = sort(vec![Err(Error::data_invalid("broken"))], "n").unwrap().try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!((wrong.kind(), wrong.to_string().contains("broken")), (tarndb_catalog::ErrorKind::DataInvalid, true));
    }
}
