//! Partition values and their types.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray, new_empty_array};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion::common::ScalarValue;
use iceberg::spec::{Literal, NestedField, PartitionSpec, PrimitiveLiteral, Schema, SchemaRef, Struct, TableMetadata, Transform};
use tarndb_catalog::{Error, Result};

use super::{EXTENSION_KEY, arrow_schema};
use crate::error::engine_error;

/// Microseconds of a day.
pub(crate) const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A schema that has all source columns of the spec: the current one, or the newest that still had them.
pub(crate) fn schema_for_spec(metadata: &TableMetadata, spec_id: i32) -> Result<SchemaRef> {
    let spec = metadata
        .partition_spec_by_id(spec_id)
        .ok_or_else(|| Error::data_invalid(format!("the table has no partition spec {spec_id}")))?;
    let fits = |schema: &SchemaRef| spec.fields().iter().all(|field| schema.field_by_id(field.source_id).is_some());
    let found = schemas(metadata).find(|schema| fits(schema)).cloned();
    found.ok_or_else(|| Error::data_invalid(format!("no schema of the table has all source columns of partition spec {spec_id}")))
}

/// The current schema, then all from the newest on.
fn schemas(metadata: &TableMetadata) -> impl Iterator<Item = &SchemaRef> {
    let mut newest_first: Vec<&SchemaRef> = metadata.schemas_iter().collect();
    newest_first.sort_by_key(|schema| std::cmp::Reverse(schema.schema_id()));
    std::iter::once(metadata.current_schema()).chain(newest_first)
}

/// A partition value as a scalar of an Arrow type, where the types agree.
pub(crate) fn partition_scalar(data_type: &DataType, value: &PrimitiveLiteral) -> Option<ScalarValue> {
    Some(match (data_type, value) {
        (DataType::Boolean, PrimitiveLiteral::Boolean(b)) => ScalarValue::Boolean(Some(*b)),
        (DataType::Int32, PrimitiveLiteral::Int(n)) => ScalarValue::Int32(Some(*n)),
        (DataType::Date32, PrimitiveLiteral::Int(n)) => ScalarValue::Date32(Some(*n)),
        (DataType::Int64, PrimitiveLiteral::Int(n)) => ScalarValue::Int64(Some(i64::from(*n))),
        (DataType::Int64, PrimitiveLiteral::Long(n)) => ScalarValue::Int64(Some(*n)),
        (DataType::Float32, PrimitiveLiteral::Float(f)) => ScalarValue::Float32(Some(f.into_inner())),
        (DataType::Float64, PrimitiveLiteral::Float(f)) => ScalarValue::Float64(Some(f64::from(f.into_inner()))),
        (DataType::Float64, PrimitiveLiteral::Double(f)) => ScalarValue::Float64(Some(f.into_inner())),
        (DataType::Time64(TimeUnit::Microsecond), PrimitiveLiteral::Long(n)) => ScalarValue::Time64Microsecond(Some(*n)),
        (DataType::Timestamp(TimeUnit::Microsecond, zone), PrimitiveLiteral::Long(n)) => {
            ScalarValue::TimestampMicrosecond(Some(*n), zone.clone())
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), PrimitiveLiteral::Long(n)) => {
            ScalarValue::TimestampNanosecond(Some(*n), zone.clone())
        }
        // Days, from before a date was promoted.
        (DataType::Timestamp(TimeUnit::Microsecond, zone), PrimitiveLiteral::Int(days)) => {
            ScalarValue::TimestampMicrosecond(Some(i64::from(*days) * MICROS_PER_DAY), zone.clone())
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), PrimitiveLiteral::Int(days)) => {
            ScalarValue::TimestampNanosecond(i64::from(*days).checked_mul(MICROS_PER_DAY * 1000), zone.clone())
        }
        (DataType::Decimal128(p, s), PrimitiveLiteral::Int128(n)) => ScalarValue::Decimal128(Some(*n), *p, *s),
        (DataType::Utf8, PrimitiveLiteral::String(text)) => ScalarValue::Utf8(Some(text.clone())),
        (DataType::Utf8View, PrimitiveLiteral::String(text)) => ScalarValue::Utf8View(Some(text.clone())),
        (DataType::Binary, PrimitiveLiteral::Binary(bytes)) => ScalarValue::Binary(Some(bytes.clone())),
        (DataType::BinaryView, PrimitiveLiteral::Binary(bytes)) => ScalarValue::BinaryView(Some(bytes.clone())),
        (DataType::FixedSizeBinary(n), PrimitiveLiteral::Binary(bytes)) => ScalarValue::FixedSizeBinary(*n, Some(bytes.clone())),
        (DataType::FixedSizeBinary(16), PrimitiveLiteral::UInt128(id)) => {
            ScalarValue::FixedSizeBinary(16, Some(id.to_be_bytes().to_vec()))
        }
        _ => return None,
    })
}

/// The partition fields of all specs of a table together, as one struct: Java's `Partitioning.partitionType`.
#[derive(Debug)]
pub(crate) struct PartitionColumn {
    /// Ids of the partition fields.
    ids: Vec<i32>,
    pub(crate) fields: Fields,
}

impl PartitionColumn {
    /// `None` when no spec of the table has a partition field.
    pub(crate) fn of(metadata: &TableMetadata) -> Result<Option<Self>> {
        let mut specs: Vec<&Arc<PartitionSpec>> = metadata.partition_specs_iter().collect();
        // A field is called as the newest spec calls it.
        specs.sort_by_key(|spec| (spec.spec_id() != metadata.default_partition_spec_id(), std::cmp::Reverse(spec.spec_id())));
        let mut ids = Vec::new();
        let mut nested = Vec::new();
        for field in specs.iter().flat_map(|spec| spec.fields()) {
            if field.transform == Transform::Void || ids.contains(&field.field_id) {
                continue;
            }
            let source = schemas(metadata).find_map(|schema| schema.field_by_id(field.source_id)).ok_or_else(|| {
                Error::data_invalid(format!("no schema of the table has the source column of partition field `{}`", field.name))
            })?;
            let result_type = field.transform.result_type(&source.field_type)?;
            ids.push(field.field_id);
            nested.push(Arc::new(NestedField::optional(field.field_id, field.name.clone(), result_type)));
        }
        if ids.is_empty() {
            return Ok(None);
        }
        let typed = arrow_schema(&Schema::builder().with_fields(nested).build()?)?;
        let of = |field: &Field| {
            let extension = field.metadata().get_key_value(EXTENSION_KEY).map(|(key, name)| (key.clone(), name.clone()));
            Field::new(field.name(), field.data_type().clone(), true).with_metadata(extension.into_iter().collect())
        };
        let fields = typed.fields().iter().map(|field| of(field)).collect();
        Ok(Some(Self { ids, fields }))
    }

    /// The partitions, each with its spec, as one column.
    pub(crate) fn array<'a>(
        &self,
        metadata: &TableMetadata,
        partitions: impl Iterator<Item = (i32, &'a Struct)> + Clone,
    ) -> Result<ArrayRef> {
        let mut columns = Vec::with_capacity(self.ids.len());
        for (id, field) in self.ids.iter().zip(&self.fields) {
            let null = ScalarValue::try_new_null(field.data_type()).map_err(engine_error)?;
            let value = |spec_id: i32, partition: &Struct| {
                let spec = metadata.partition_spec_by_id(spec_id)?;
                let index = spec.fields().iter().position(|field| field.field_id == *id)?;
                match partition.fields().get(index)? {
                    Some(Literal::Primitive(value)) => partition_scalar(field.data_type(), value),
                    _ => None,
                }
            };
            let values = partitions.clone().map(|(spec_id, partition)| value(spec_id, partition).unwrap_or_else(|| null.clone()));
            columns.push(match values.clone().next() {
                None => new_empty_array(field.data_type()),
                Some(_) => ScalarValue::iter_to_array(values).map_err(engine_error)?,
            });
        }
        let array = StructArray::try_new(self.fields.clone(), columns, None);
        Ok(Arc::new(array.map_err(|e| engine_error(e.into()))?))
    }
}
