use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, TimeUnit};
use datafusion::datasource::physical_plan::parquet::Int96Coercer;
use futures::stream::{self, BoxStream, Stream};
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetObjectReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use tarndb_catalog::{Error, Result, Storage};

use super::{FileRef, FileRows, POSITION, Wanted, footer, unreadable};
use crate::scan::deletes::{Rows, selectors};
use crate::scan::{field_ids, name_mapping};

/// As DataFusion's source reads it: timestamps of 96 bits are microseconds, for the nanoseconds that they are otherwise end in
/// the year 2262.
pub(super) async fn open(storage: &Storage, file: FileRef<'_>, wanted: Wanted<'_>) -> Result<FileRows> {
    let what = file.what;
    let mut reader = ParquetObjectReader::new(storage.object_store(), storage.path(file.path)?).with_file_size(file.size);
    let footer = footer::read(&mut reader, file.size).await.map_err(|e| unreadable(what, e))?;
    let plain = ArrowReaderMetadata::try_new(Arc::new(footer), ArrowReaderOptions::new()).map_err(|e| unreadable(what, e))?;
    let mut options = ArrowReaderOptions::new();
    if let Some(schema) = Int96Coercer::new(plain.parquet_schema(), plain.schema(), &TimeUnit::Microsecond).coerce() {
        options = options.with_schema(Arc::new(schema));
    }
    let position = Field::new(POSITION, DataType::Int64, false).with_extension_type(RowNumber);
    let virtual_columns = if wanted.positions { vec![Arc::new(position) as FieldRef] } else { Vec::new() };
    let options = options.with_virtual_columns(virtual_columns);
    let metadata = options.and_then(|options| ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options));
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata.map_err(|e| unreadable(what, e))?);

    let rows = builder.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).sum();
    // Without the virtual column, which is no column by its place either.
    let own = builder.parquet_schema().root_schema().get_fields().len();
    let schema = Arc::new(ArrowSchema::new(builder.schema().fields().iter().take(own).cloned().collect::<Vec<_>>()));
    let schema = name_mapping::apply(&schema, wanted.mapping);
    let roots = match wanted.columns {
        Some(columns) => field_ids::needed_columns(&schema, columns),
        None => (0..own).collect(),
    };
    let schema = schema.project(&roots).map_err(|e| Error::internal("a projection of a file does not fit").with_source(e))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let mut builder = builder.with_projection(mask).with_batch_size(wanted.batch_size);
    let mut expected = rows;
    if let Some(deleted) = wanted.deleted.filter(|deleted| !deleted.is_empty()) {
        let selectors = selectors(Rows::AllBut(deleted), 0, rows);
        expected = selectors.iter().filter(|run| !run.skip).map(|run| run.row_count as u64).sum();
        builder = builder.with_row_selection(RowSelection::from(selectors));
    }
    let batches = builder.build().map_err(|e| unreadable(what, e))?.map_err(move |e| unreadable(what, e)).boxed();
    Ok(FileRows { schema: Arc::new(schema), batches: counted(batches, expected, what).boxed() })
}

/// As many rows as expected, or an error at the end: the headers of pages have no checksums, and pages with fewer values than they
/// had would be fewer rows.
fn counted(
    batches: BoxStream<'static, Result<RecordBatch>>,
    expected: u64,
    what: &'static str,
) -> impl Stream<Item = Result<RecordBatch>> {
    stream::try_unfold((batches, 0), move |(mut batches, read)| async move {
        match batches.try_next().await? {
            Some(batch) => {
                let read = read + batch.num_rows() as u64;
                Ok(Some((batch, (batches, read))))
            }
            None if read == expected => Ok(None),
            None => Err(Error::data_invalid(format!("{what} is damaged: {read} rows were read of {expected}"))),
        }
    })
}
