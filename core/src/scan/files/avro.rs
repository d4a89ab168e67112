//! Avro files, by Arrow's own reader. It does not know what Iceberg adds to Avro's types: field ids, moments without a zone, and
//! maps with keys of any type.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, make_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef};
use arrow::error::ArrowError;
use arrow_avro::reader::{Reader, ReaderBuilder};
use futures::StreamExt;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use roaring::RoaringTreemap;
use serde_json::Value;
use tarndb_catalog::{Error, Result, Storage};

use super::{FileRef, FileRows, POSITION, Wanted, unreadable};
use crate::scan::{field_ids, name_mapping};

/// The whole file is held in memory: Avro has no footer by which parts of it could be asked for.
pub(super) async fn open(storage: &Storage, file: FileRef<'_>, wanted: Wanted<'_>) -> Result<FileRows> {
    let what = file.what;
    let content = storage.read(file.path).await?;
    let open = |projection: Option<Vec<usize>>| {
        let builder = ReaderBuilder::new().with_batch_size(wanted.batch_size);
        let builder = match projection {
            Some(columns) => builder.with_projection(columns),
            None => builder,
        };
        builder.build(Cursor::new(content.clone())).map_err(|e| unreadable(what, e))
    };
    let plain = open(None)?;
    let declared = declared_schema(&plain).map_err(|e| unreadable(what, e))?;
    let schema = iceberg_schema(&declared, plain.schema().fields()).map_err(|e| unreadable(what, e))?;
    let schema = name_mapping::apply(&Arc::new(schema), wanted.mapping);
    let roots = match wanted.columns {
        Some(columns) => field_ids::needed_columns(&schema, columns),
        None => (0..schema.fields().len()).collect(),
    };
    let wrong = |e: ArrowError| Error::internal("a projection of a file does not fit").with_source(e);
    let schema = Arc::new(schema.project(&roots).map_err(wrong)?);
    // No column at all is no projection for the reader; and a type that a column left out has named is not known to it.
    let as_a_whole = roots.is_empty() || names_types(&declared);
    let reader = if as_a_whole { plain } else { open(Some(roots.clone()))? };
    let rows = Rows {
        reader,
        schema: Arc::clone(&schema),
        projection: as_a_whole.then_some(roots),
        positions: wanted.positions,
        deleted: wanted.deleted.cloned().unwrap_or_default(),
        next: 0,
    };
    Ok(FileRows { schema, batches: futures::stream::iter(rows.map(move |rows| rows.map_err(|e| unreadable(what, e)))).boxed() })
}

struct Rows {
    reader: Reader<Cursor<bytes::Bytes>>,
    schema: SchemaRef,
    /// Columns of what the reader gives, where it gives all.
    projection: Option<Vec<usize>>,
    positions: bool,
    deleted: RoaringTreemap,
    /// The position of the next row.
    next: u64,
}

impl Rows {
    fn complete(&mut self, batch: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
        let rows = batch.num_rows();
        let first = self.next;
        self.next += rows as u64;
        let batch = match &self.projection {
            Some(columns) => batch.project(columns)?,
            None => batch.clone(),
        };
        let columns = self.schema.fields().iter().zip(batch.columns());
        let mut columns: Vec<ArrayRef> = columns
            .map(|(field, column)| relabelled(column.to_data(), field.data_type()).map(make_array))
            .collect::<std::result::Result<_, _>>()?;
        let mut fields = self.schema.fields().to_vec();
        if self.positions {
            let positions = (first..self.next).map(|position| i64::try_from(position).unwrap_or(i64::MAX));
            columns.push(Arc::new(Int64Array::from_iter_values(positions)));
            fields.push(Arc::new(Field::new(POSITION, DataType::Int64, false)));
        }
        let fields: Vec<FieldRef> =
            fields.into_iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(ArrowSchema::new(fields)), columns, &options)?;
        if self.deleted.range_cardinality(first..self.next) == 0 {
            return Ok(batch);
        }
        let keep: BooleanArray = (first..self.next).map(|position| Some(!self.deleted.contains(position))).collect();
        filter_record_batch(&batch, &keep)
    }
}

impl Iterator for Rows {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(batch.and_then(|batch| self.complete(&batch)))
    }
}

/// The schema as the writer gave it.
fn declared_schema(reader: &Reader<Cursor<bytes::Bytes>>) -> std::result::Result<Value, ArrowError> {
    let text = reader.avro_header().get("avro.schema");
    let text = text.ok_or_else(|| ArrowError::SchemaError("there is no schema in the file".to_string()))?;
    serde_json::from_slice(text).map_err(|e| ArrowError::SchemaError(e.to_string()))
}

/// Whether a type is given by the name of one that was defined before.
fn names_types(declared: &Value) -> bool {
    const OWN: [&str; 13] =
        ["null", "boolean", "int", "long", "float", "double", "bytes", "string", "record", "enum", "array", "map", "fixed"];
    match declared {
        Value::String(name) => !OWN.contains(&name.as_str()),
        Value::Array(branches) => branches.iter().any(names_types),
        Value::Object(of) => {
            let inner = ["type", "items", "values"].iter().filter_map(|key| of.get(*key)).any(names_types);
            let fields = of.get("fields").and_then(Value::as_array);
            inner || fields.is_some_and(|fields| fields.iter().filter_map(|field| field.get("type")).any(names_types))
        }
        _ => false,
    }
}

/// The file's schema in the types of Iceberg, with its ids.
fn iceberg_schema(declared: &Value, fields: &Fields) -> std::result::Result<ArrowSchema, ArrowError> {
    match iceberg_type(declared, &DataType::Struct(fields.clone())) {
        DataType::Struct(fields) => Ok(ArrowSchema::new(fields)),
        _ => Err(ArrowError::SchemaError("the file's schema is not a record".to_string())),
    }
}

/// The type that the Avro type `declared` means to Iceberg, of which Arrow's reader makes `data_type`.
fn iceberg_type(declared: &Value, data_type: &DataType) -> DataType {
    let declared = match declared {
        // A union with null.
        Value::Array(branches) => branches.iter().find(|branch| *branch != "null").unwrap_or(declared),
        other => other,
    };
    // A type may be given where a type's name would be.
    let declared = match declared.get("type") {
        Some(inner @ (Value::Object(_) | Value::Array(_))) => return iceberg_type(inner, data_type),
        _ => declared,
    };
    let with_id = |field: &FieldRef, id: Option<&Value>, declared: &Value| {
        let metadata = id.and_then(Value::as_i64).map(|id| (PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string()));
        let plain = Field::new(field.name(), iceberg_type(declared, field.data_type()), field.is_nullable());
        Arc::new(plain.with_metadata(HashMap::from_iter(metadata)))
    };
    match data_type {
        DataType::Struct(fields) => {
            let declared = declared.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let of = |field: &FieldRef| declared.iter().find(|of| of.get("name").and_then(Value::as_str) == Some(field.name()));
            let typed = fields.iter().map(|field| match of(field) {
                Some(of) => with_id(field, of.get("field-id"), of.get("type").unwrap_or(&Value::Null)),
                None => Arc::clone(field),
            });
            DataType::Struct(typed.collect())
        }
        DataType::List(element) => {
            let items = declared.get("items").unwrap_or(&Value::Null);
            let typed = with_id(element, declared.get("element-id"), items);
            // Maps whose keys are no strings.
            if declared.get("logicalType").and_then(Value::as_str) == Some("map") {
                let entries = Field::new("key_value", typed.data_type().clone(), false);
                return DataType::Map(Arc::new(entries), false);
            }
            DataType::List(typed)
        }
        DataType::Map(entries, sorted) => {
            let DataType::Struct(pair) = entries.data_type() else { return data_type.clone() };
            let (Some(key), Some(value)) = (pair.first(), pair.get(1)) else { return data_type.clone() };
            let key = with_id(key, declared.get("key-id"), &Value::Null);
            let value = with_id(value, declared.get("value-id"), declared.get("values").unwrap_or(&Value::Null));
            let pair = DataType::Struct(Fields::from(vec![key, value]));
            DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(pair)), *sorted)
        }
        DataType::Timestamp(unit, Some(_)) if declared.get("adjust-to-utc").and_then(Value::as_bool) == Some(false) => {
            DataType::Timestamp(*unit, None)
        }
        other => other.clone(),
    }
}

/// The same values in another type of the same layout.
fn relabelled(data: ArrayData, to: &DataType) -> std::result::Result<ArrayData, ArrowError> {
    if data.data_type() == to {
        return Ok(data);
    }
    let types: Vec<&DataType> = match to {
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::List(field) | DataType::Map(field, _) => vec![field.data_type()],
        _ => Vec::new(),
    };
    let children = data.child_data().iter().zip(types).map(|(child, to)| relabelled(child.clone(), to));
    let children = children.collect::<std::result::Result<Vec<_>, _>>()?;
    data.into_builder().data_type(to.clone()).child_data(children).build()
}
