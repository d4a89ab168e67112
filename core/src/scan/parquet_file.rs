use std::sync::Arc;

use arrow::datatypes::{FieldRef, TimeUnit};
use datafusion::datasource::physical_plan::parquet::Int96Coercer;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetObjectReader;
use parquet::errors::ParquetError;
use tarndb_catalog::{Error, Result, Storage};

use super::checked_reader;

/// Opens a Parquet file of `size` bytes, as DataFusion's source does: timestamps of 96 bits are microseconds, for the
/// nanoseconds that they are otherwise end in the year 2262. `virtual_columns` follow the file's own.
///
/// # Errors
/// `DataInvalid`, which says of `what` (such as "data file") that it is missing or cannot be read; the caller says which it is.
pub(super) async fn open(
    storage: &Storage,
    what: &str,
    (location, size): (&str, u64),
    virtual_columns: Vec<FieldRef>,
) -> Result<ParquetRecordBatchStreamBuilder<ParquetObjectReader>> {
    let mut reader = ParquetObjectReader::new(storage.object_store(), storage.path(location)?).with_file_size(size);
    let plain = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await;
    let plain = plain.map_err(|e| unreadable(what, e))?;
    checked_reader::check(plain.metadata(), size).map_err(|e| unreadable(what, e))?;
    let mut options = ArrowReaderOptions::new();
    if let Some(schema) = Int96Coercer::new(plain.parquet_schema(), plain.schema(), &TimeUnit::Microsecond).coerce() {
        options = options.with_schema(Arc::new(schema));
    }
    let options = options.with_virtual_columns(virtual_columns);
    let metadata = options.and_then(|options| ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options));
    let metadata = metadata.map_err(|e| unreadable(what, e))?;
    Ok(ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata))
}

/// What is wrong with a file that metadata names.
pub(super) fn unreadable(what: &str, error: ParquetError) -> Error {
    let missing = error.to_string().contains("not found");
    let state = if missing { "is missing" } else { "cannot be read" };
    Error::data_invalid(format!("{what} {state}")).with_source(error)
}
