use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::row::{RowConverter, SortField};
use iceberg::arrow::arrow_primitive_to_literal;
use iceberg::spec::{Literal, NestedFieldRef, PartitionSpecRef, Struct, StructType, Transform};
use iceberg::transform::{BoxedTransformFunction, create_transform_function};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tarndb_catalog::{Error, Result};

use crate::error::engine_error;
use crate::table::Table;

/// What stays as it is in the folder names of partitions.
const SAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The longest part of a folder's name: two of them, and what is around them, stay below 255 bytes.
const MAX_NAME_BYTES: usize = 100;

/// Splits batches by the partition values of the table's default spec.
pub(super) struct PartitionSplitter {
    spec: PartitionSpecRef,
    partition_type: StructType,
    fields: Vec<(Vec<usize>, Transform, BoxedTransformFunction)>,
}

impl PartitionSplitter {
    pub(super) fn try_new(table: &Table) -> Result<Self> {
        let metadata = table.metadata();
        let (spec, schema) = (metadata.default_partition_spec(), metadata.current_schema());
        let arrow = crate::table::arrow_schema(schema)?;
        let fields = spec.fields().iter().map(|field| {
            let missing = || Error::data_invalid(format!("partition field `{}` has no source column", field.name));
            let name = schema.name_by_field_id(field.source_id).ok_or_else(missing)?;
            let path = column_path(&arrow, name).ok_or_else(missing)?;
            Ok((path, field.transform, create_transform_function(&field.transform)?))
        });
        Ok(Self {
            spec: Arc::clone(spec),
            partition_type: spec.partition_type(schema)?,
            fields: fields.collect::<Result<Vec<_>>>()?,
        })
    }

    /// The batch's rows by partition, in the order in which partitions first appear.
    pub(super) fn split(&self, batch: &RecordBatch) -> Result<Vec<(Struct, RecordBatch)>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        if self.fields.is_empty() {
            return Ok(vec![(Struct::empty(), batch.clone())]);
        }
        let internal = |e: arrow::error::ArrowError| engine_error(e.into());
        let mut values: Vec<ArrayRef> = Vec::with_capacity(self.fields.len());
        for (path, transform, function) in &self.fields {
            let column = column_at(batch, path)?;
            values.push(match truncated(transform, &column) {
                Some(truncated) => truncated,
                None => function.transform(in_microseconds(transform, column)?)?,
            });
        }
        let sort_fields = values.iter().map(|array| SortField::new(array.data_type().clone())).collect();
        let converter = RowConverter::new(sort_fields).map_err(internal)?;
        let keys = converter.convert_columns(&values).map_err(internal)?;
        let mut index: HashMap<&[u8], usize> = HashMap::new();
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let keys: Vec<_> = keys.iter().collect();
        for (row, key) in keys.iter().enumerate() {
            let group = *index.entry(key.as_ref()).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            let row = u32::try_from(row).map_err(|_| Error::internal("a batch of more than 4 billion rows"))?;
            if let Some(rows) = groups.get_mut(group) {
                rows.push(row);
            }
        }
        let literals = self.literals(&values)?;
        let mut result = Vec::with_capacity(groups.len());
        for rows in groups {
            let first = rows.first().copied().unwrap_or(0) as usize;
            let partition = Struct::from_iter(literals.iter().map(|column| column.get(first).cloned().flatten()));
            let part = if rows.len() == batch.num_rows() {
                batch.clone()
            } else {
                take_record_batch(batch, &UInt32Array::from(rows)).map_err(internal)?
            };
            result.push((partition, part));
        }
        Ok(result)
    }

    fn literals(&self, values: &[ArrayRef]) -> Result<Vec<Vec<Option<Literal>>>> {
        let columns = self.partition_type.fields().iter().zip(values);
        columns.map(|(field, array): (&NestedFieldRef, _)| Ok(arrow_primitive_to_literal(array, &field.field_type)?)).collect()
    }

    /// The folder of a partition below `data/`, Hive's form with unsafe characters escaped; empty when unpartitioned.
    pub(super) fn path(&self, partition: &Struct) -> String {
        let parts = crate::table::partition_parts(&self.spec, &self.partition_type, partition).into_iter();
        parts.map(|(name, value)| format!("{}={}/", folder_name(&name), folder_name(&value))).collect()
    }
}

/// Transforms of nanoseconds are those of microseconds, by the specification; `iceberg` takes other hours and hashes.
fn in_microseconds(transform: &Transform, column: ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) if *transform != Transform::Identity => {
            let nanos = column.as_primitive::<TimestampNanosecondType>();
            let micros = nanos.unary::<_, TimestampMicrosecondType>(|nanos| nanos.div_euclid(1000));
            Ok(Arc::new(micros.with_timezone_opt(zone.clone())))
        }
        _ => Ok(column),
    }
}

/// Truncated integers. Below the smallest one they wrap around, as in Java; `iceberg` panics there unless it is optimised.
fn truncated(transform: &Transform, column: &ArrayRef) -> Option<ArrayRef> {
    let Transform::Truncate(width) = transform else { return None };
    let truncate = |n: i64| n.wrapping_sub(n.rem_euclid(i64::from(*width).max(1)));
    #[allow(clippy::cast_possible_truncation)] // wraps around
    match column.data_type() {
        DataType::Int32 => {
            Some(Arc::new(column.as_primitive::<Int32Type>().unary::<_, Int32Type>(|n| truncate(n.into()) as i32)))
        }
        DataType::Int64 => Some(Arc::new(column.as_primitive::<Int64Type>().unary::<_, Int64Type>(truncate))),
        _ => None,
    }
}

/// A text as part of a folder's name. Nobody reads values from the names, and file systems limit how long they are.
fn folder_name(text: &str) -> String {
    let name = utf8_percent_encode(text, SAFE).to_string();
    match name.get(..MAX_NAME_BYTES) {
        // Percent encoding leaves nothing but ASCII.
        Some(start) if name.len() > MAX_NAME_BYTES => format!("{start}-{:08x}", crc32fast::hash(text.as_bytes())),
        _ => name,
    }
}

/// Indexes from the top level down to the column of a dotted name.
fn column_path(schema: &SchemaRef, name: &str) -> Option<Vec<usize>> {
    let mut fields = schema.fields();
    if let Some((index, _)) = fields.find(name) {
        return Some(vec![index]);
    }
    let mut path = Vec::new();
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        let (index, field) = fields.find(part)?;
        path.push(index);
        match field.data_type() {
            DataType::Struct(children) if parts.peek().is_some() => fields = children,
            _ => {}
        }
    }
    Some(path)
}

/// The column at a path; NULL where one of the structs above it is.
fn column_at(batch: &RecordBatch, path: &[usize]) -> Result<ArrayRef> {
    let gone = || Error::internal("a partition's source column is not in the batch");
    let (first, rest) = path.split_first().ok_or_else(gone)?;
    let mut array = Arc::clone(batch.columns().get(*first).ok_or_else(gone)?);
    for index in rest {
        let parent = array.as_any().downcast_ref::<StructArray>().ok_or_else(gone)?;
        let child = Arc::clone(parent.columns().get(*index).ok_or_else(gone)?);
        array = match parent.nulls() {
            None => child,
            Some(nulls) => {
                let hidden = arrow::array::BooleanArray::new(!nulls.inner(), None);
                arrow::compute::nullif(&child, &hidden).map_err(|e| engine_error(e.into()))?
            }
        };
    }
    Ok(array)
}
