use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use futures::FutureExt;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tarndb_catalog::{Error, Result};

use crate::error::{Panic, engine_error, panic_message, to_engine_error};

/// The rows of a statement, as a stream of Arrow batches.
///
/// Columns have the types of api.md: views, which the engine uses inside, come out as plain strings and binaries.
pub struct QueryResult {
    schema: SchemaRef,
    batches: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>,
}

impl fmt::Debug for QueryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryResult").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl QueryResult {
    pub(crate) fn from_engine(rows: SendableRecordBatchStream) -> Self {
        let schema = plain_schema(&rows.schema());
        let target = Arc::clone(&schema);
        // In a task of its own: whoever waits for rows can stop waiting although an operator does not yield.
        let mut builder = RecordBatchReceiverStream::builder(rows.schema(), 2);
        let sender = builder.tx();
        builder.spawn(async move {
            let mut rows = rows;
            while let Some(batch) = AssertUnwindSafe(rows.next())
                .catch_unwind()
                .await
                .unwrap_or_else(|panic| Some(Err(to_engine_error(panicked(panic)))))
            {
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    break;
                }
            }
            Ok(())
        });
        let rows = builder.build();
        let batches = rows.map_err(engine_error).and_then(move |batch| futures::future::ready(plain_batch(&batch, &target)));
        Self { schema, batches: batches.boxed() }
    }

    /// A result of rows that are there already.
    pub fn from_batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, batches: stream::iter(batches.into_iter().map(Ok)).boxed() }
    }

    /// No rows and no columns: the result of a statement that only does something.
    pub(crate) fn empty() -> Self {
        Self::from_batches(Arc::new(Schema::empty()), Vec::new())
    }

    /// One row of named counts.
    pub(crate) fn counts(counts: &[(&str, u64)]) -> Result<Self> {
        let fields: Fields = counts.iter().map(|(name, _)| Field::new(*name, DataType::Int64, false)).collect();
        let value = |n: u64| Arc::new(Int64Array::from(vec![i64::try_from(n).unwrap_or(i64::MAX)])) as ArrayRef;
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), counts.iter().map(|(_, n)| value(*n)).collect());
        Ok(Self::from_batches(schema, vec![batch.map_err(|e| engine_error(e.into()))?]))
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All rows.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.batches.try_collect().await
    }
}

impl Stream for QueryResult {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.as_mut().poll_next(cx)
    }
}

/// A panic of a library below ends the statement, and not the process of the user.
pub(super) fn panicked(panic: Panic) -> Error {
    Error::internal(format!("the statement panicked: {}", panic_message(&panic)))
}

fn plain_type(of: &DataType) -> DataType {
    let field = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    match of {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::List(item) => DataType::List(field(item)),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

fn plain_schema(of: &Schema) -> SchemaRef {
    let fields = of.fields().iter().map(|f| f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(array, field)| {
        if array.data_type() == field.data_type() { Ok(Arc::clone(array)) } else { cast(array, field.data_type()) }
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| engine_error(e.into()))?;
    // A column that its plan calls non-nullable is trusted less than its values.
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|e| engine_error(e.into()))
}
