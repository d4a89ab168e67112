//! A slow, obvious reader of Iceberg tables: every manifest as generic Avro, every file whole, every delete row by row, no
//! pruning, no cache. It shares no code with the engine but the metadata that the table holds. The oracle of every scan test.

mod avro;
mod avro_rows;
mod columns;
mod deletes;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Fields, Int64Type, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type as PhysicalType;
use tarndb_catalog::Storage;
use tarndb_core::Table;

use avro::{File, live_files};
use columns::{Columns, id_of};
use deletes::Deletes;

/// All rows of the table's snapshot, in the table's schema.
///
/// # Panics
/// On anything unexpected, as a test should.
pub async fn read(storage: &Storage, table: &Table) -> Vec<RecordBatch> {
    let mut batches = vec![RecordBatch::new_empty(table.arrow_schema().unwrap())];
    for (_, _, rows) in live_rows(storage, table).await {
        batches.push(rows);
    }
    batches
}

/// The metadata columns of the same rows: file, position, partition spec, partition (with these fields; left out where there
/// are none), row id, and number of the last commit that changed the row.
///
/// # Panics
/// On anything unexpected, as a test should.
pub async fn metadata_columns(storage: &Storage, table: &Table, partition: Option<&Fields>) -> Vec<RecordBatch> {
    let columns = Columns::new(table);
    let mut batches = Vec::new();
    for (file, live, _) in live_rows(storage, table).await {
        let own = |id: i32| live.of_file.iter().find(|(of, _)| *of == id).map(|(_, values)| values.as_primitive::<Int64Type>());
        let (row_ids, numbers) = (own(2_147_483_540), own(2_147_483_539));
        let stored = |of: Option<&Int64Array>, row: usize| of.filter(|of| of.is_valid(row)).map(|of| of.value(row));
        let row_id = |row: usize| stored(row_ids, row).or(Some(file.first_row_id? + live.positions[row]));
        let number = |row: usize| stored(numbers, row).or(file.first_row_id.map(|_| file.sequence_number));
        let rows = live.positions.len();
        let mut arrays: Vec<(&str, ArrayRef)> = vec![
            ("_file", Arc::new(StringArray::from(vec![file.path.as_str(); rows]))),
            ("_pos", Arc::new(Int64Array::from(live.positions.clone()))),
            ("_spec_id", Arc::new(Int32Array::from(vec![file.spec_id; rows]))),
        ];
        arrays.extend(partition.map(|fields| ("_partition", columns.partition(&file, fields, rows))));
        arrays.push(("_row_id", Arc::new((0..rows).map(row_id).collect::<Int64Array>())));
        arrays.push(("_last_updated_sequence_number", Arc::new((0..rows).map(number).collect::<Int64Array>())));
        batches
            .push(RecordBatch::try_from_iter_with_nullable(arrays.into_iter().map(|(name, array)| (name, array, true))).unwrap());
    }
    batches
}

/// What a file says of its live rows.
struct Live {
    positions: Vec<i64>,
    /// Its own columns by field id.
    of_file: Vec<(i32, ArrayRef)>,
}

async fn live_rows(storage: &Storage, table: &Table) -> Vec<(File, Live, RecordBatch)> {
    let mut found = Vec::new();
    let Some(snapshot) = table.snapshot() else { return found };
    let files = live_files(storage, snapshot.manifest_list()).await;
    let (data, deletes): (Vec<File>, Vec<File>) = files.into_iter().partition(|file| file.content == 0);
    let columns = Columns::new(table);
    let deletes = Deletes::read(storage, &columns, deletes).await;
    for file in data {
        let mut position = 0_u64;
        for batch in file_batches(storage, &file.path).await {
            let rows = columns.table_rows(&batch, &file);
            let keys = deletes.keys(&columns, &batch, &file);
            let keep: Vec<u64> = (0..batch.num_rows() as u64)
                .filter(|row| !deletes.has_position(&file, position + row) && !keys.iter().any(|key| key.deletes(*row as usize)))
                .collect();
            let positions = keep.iter().map(|row| i64::try_from(position + row).unwrap()).collect();
            position += batch.num_rows() as u64;
            let keep = UInt64Array::from(keep);
            let own = take_record_batch(&batch, &keep).unwrap();
            let schema = own.schema();
            let of_file = schema.fields().iter().zip(own.columns());
            let of_file = of_file.filter_map(|(field, array)| Some((id_of(field)?, Arc::clone(array)))).collect();
            let rows = take_record_batch(&rows, &keep).unwrap();
            found.push((file.clone(), Live { positions, of_file }, rows));
        }
        assert_eq!(position, file.record_count, "record_count of {}", file.path);
    }
    found
}

async fn file_batches(storage: &Storage, path: &str) -> Vec<RecordBatch> {
    let bytes = storage.read(path).await.unwrap();
    if path.ends_with(".avro") {
        return vec![avro_rows::batch(&bytes)];
    }
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
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<Vec<String>> = batch.columns().iter().map(texts).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|column| column[row].clone()).collect::<Vec<_>>().join("|"));
        }
    }
    lines.sort();
    lines
}

/// Values as text; the entries of maps have no order.
fn texts(array: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let Some(maps) = array.as_map_opt() else {
        let formatter = ArrayFormatter::try_new(array.as_ref(), &options).unwrap();
        return (0..array.len()).map(|row| formatter.value(row).to_string()).collect();
    };
    let (keys, values) = (texts(maps.keys()), texts(maps.values()));
    let text = |row: usize| {
        if maps.is_null(row) {
            return "NULL".to_string();
        }
        let range = maps.value_offsets()[row] as usize..maps.value_offsets()[row + 1] as usize;
        let mut entries: Vec<String> = range.map(|entry| format!("{}: {}", keys[entry], values[entry])).collect();
        entries.sort();
        format!("{{{}}}", entries.join(", "))
    };
    (0..maps.len()).map(text).collect()
}
