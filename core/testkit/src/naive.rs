//! A slow, obvious reader of Iceberg tables: every manifest by the `iceberg` crate's own parser, every file whole, every
//! delete row by row, no pruning, no cache, columns by field id or name. The oracle of every scan test.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use iceberg::spec::{DataContentType, ManifestEntryRef, ManifestList, NameMapping};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tarndb_catalog::Storage;
use tarndb_core::Table;

const FIELD_ID: &str = "PARQUET:field_id";

/// All rows of the table's snapshot, in the table's schema.
///
/// # Panics
/// On anything unexpected, as a test should.
pub async fn read(storage: &Storage, table: &Table) -> Vec<RecordBatch> {
    let schema = table.arrow_schema().unwrap();
    let mut batches = vec![RecordBatch::new_empty(Arc::clone(&schema))];
    let Some(snapshot) = table.snapshot() else { return batches };
    let list = storage.read(snapshot.manifest_list()).await.unwrap();
    let list = ManifestList::parse_with_version(&list, table.metadata().format_version()).unwrap();
    let mut data: Vec<(i32, ManifestEntryRef)> = Vec::new();
    let mut deletes: Vec<(i32, ManifestEntryRef)> = Vec::new();
    for manifest in list.consume_entries() {
        let loaded = manifest.load_manifest(&storage.file_io()).await.unwrap();
        for entry in loaded.entries().iter().filter(|entry| entry.is_alive()) {
            match entry.content_type() {
                DataContentType::Data => data.push((manifest.partition_spec_id, entry.clone())),
                DataContentType::PositionDeletes => deletes.push((manifest.partition_spec_id, entry.clone())),
                DataContentType::EqualityDeletes => panic!("the naive reader does not know equality deletes"),
            }
        }
    }
    let mapping = table.metadata().properties().get("schema.name-mapping.default");
    let mapping: Option<NameMapping> = mapping.map(|text| serde_json::from_str(text).unwrap());
    let mut positions: Vec<(i32, ManifestEntryRef, HashMap<String, HashSet<i64>>)> = Vec::new();
    for (spec_id, entry) in deletes {
        positions.push((spec_id, entry.clone(), deleted_positions(storage, entry.file_path()).await));
    }
    for (spec_id, entry) in data {
        let mut gone: HashSet<i64> = HashSet::new();
        for (delete_spec, delete, of_files) in &positions {
            // Position deletes apply to files of the same partition that are not newer.
            let not_newer = entry.sequence_number() <= delete.sequence_number();
            if not_newer && *delete_spec == spec_id && delete.data_file().partition() == entry.data_file().partition() {
                gone.extend(of_files.get(entry.file_path()).into_iter().flatten());
            }
        }
        let mut position = 0_i64;
        for batch in parquet_batches(storage, entry.file_path()).await {
            let rows = i64::try_from(batch.num_rows()).unwrap();
            let keep: Vec<u64> =
                (0..rows).filter(|row| !gone.contains(&(position + row))).map(|row| u64::try_from(row).unwrap()).collect();
            position += rows;
            let kept = take_record_batch(&batch, &UInt64Array::from(keep)).unwrap();
            batches.push(in_schema(&kept, &schema, mapping.as_ref()));
        }
        assert_eq!(position, i64::try_from(entry.record_count()).unwrap(), "record_count of {}", entry.file_path());
    }
    batches
}

async fn parquet_batches(storage: &Storage, path: &str) -> Vec<RecordBatch> {
    let bytes = storage.read(path).await.unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    reader.map(|batch| batch.unwrap()).collect()
}

async fn deleted_positions(storage: &Storage, path: &str) -> HashMap<String, HashSet<i64>> {
    let mut result: HashMap<String, HashSet<i64>> = HashMap::new();
    for batch in parquet_batches(storage, path).await {
        let paths = cast(batch.column_by_name("file_path").unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
        let positions = batch.column_by_name("pos").unwrap().as_primitive::<Int64Type>().clone();
        for row in 0..batch.num_rows() {
            result.entry(paths.as_string::<i32>().value(row).to_string()).or_default().insert(positions.value(row));
        }
    }
    result
}

fn in_schema(batch: &RecordBatch, schema: &SchemaRef, mapping: Option<&NameMapping>) -> RecordBatch {
    let file = batch.schema();
    let has_ids = file.fields().iter().any(|field| field.metadata().contains_key(FIELD_ID));
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| {
            let found = file.fields().iter().position(|candidate| {
                if has_ids {
                    candidate.metadata().get(FIELD_ID) == field.metadata().get(FIELD_ID)
                } else if let Some(mapping) = mapping {
                    let mapped = mapping.fields().iter().find(|mapped| mapped.names().contains(candidate.name()));
                    let id = mapped.and_then(|mapped| mapped.field_id()).map(|id| id.to_string());
                    id.is_some() && id.as_ref() == field.metadata().get(FIELD_ID)
                } else {
                    candidate.name() == field.name()
                }
            });
            match found {
                None => new_null_array(field.data_type(), batch.num_rows()),
                Some(index) if batch.column(index).data_type() == field.data_type() => Arc::clone(batch.column(index)),
                Some(index) => cast(batch.column(index), field.data_type()).unwrap(),
            }
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
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
