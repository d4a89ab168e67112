//! A slow, obvious reader of Iceberg tables: every manifest as generic Avro, every file whole, every delete row by row, no
//! pruning, no cache. It shares no code with the engine but the metadata that the table holds. The oracle of every scan test.

mod avro;
mod columns;
mod deletes;

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type as PhysicalType;
use tarndb_catalog::Storage;
use tarndb_core::Table;

use avro::{File, live_files};
use columns::Columns;
use deletes::Deletes;

/// All rows of the table's snapshot, in the table's schema.
///
/// # Panics
/// On anything unexpected, as a test should.
pub async fn read(storage: &Storage, table: &Table) -> Vec<RecordBatch> {
    let schema = table.arrow_schema().unwrap();
    let mut batches = vec![RecordBatch::new_empty(Arc::clone(&schema))];
    let Some(snapshot) = table.snapshot() else { return batches };
    let files = live_files(storage, snapshot.manifest_list()).await;
    let (data, deletes): (Vec<File>, Vec<File>) = files.into_iter().partition(|file| file.content == 0);
    let columns = Columns::new(table);
    let deletes = Deletes::read(storage, &columns, deletes).await;
    for file in data {
        let mut position = 0_u64;
        for batch in parquet_batches(storage, &file.path).await {
            let rows = columns.table_rows(&batch, &file);
            let keys = deletes.keys(&columns, &batch, &file);
            let keep: Vec<u64> = (0..batch.num_rows() as u64)
                .filter(|row| !deletes.has_position(&file, position + row) && !keys.iter().any(|key| key.deletes(*row as usize)))
                .collect();
            position += batch.num_rows() as u64;
            batches.push(take_record_batch(&rows, &UInt64Array::from(keep)).unwrap());
        }
        assert_eq!(position, file.record_count, "record_count of {}", file.path);
    }
    batches
}

async fn parquet_batches(storage: &Storage, path: &str) -> Vec<RecordBatch> {
    let bytes = storage.read(path).await.unwrap();
    let plain = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new()).unwrap();
    // Timestamps of 96 bits reach further than nanoseconds do.
    let columns = plain.parquet_schema().root_schema().get_fields();
    let fields = plain.schema().fields().iter().zip(columns).map(|(field, column)| {
        let is_int96 = column.is_primitive() && column.get_physical_type() == PhysicalType::INT96;
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        if is_int96 { field.as_ref().clone().with_data_type(micros) } else { field.as_ref().clone() }
    });
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields.collect::<Vec<_>>())));
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).unwrap().build().unwrap();
    reader.map(|batch| batch.unwrap()).collect()
}

/// Rows as sorted lines of text, to compare two readings of a table.
///
/// # Panics
/// When a value cannot be shown.
pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    lines.sort();
    lines
}
