//! Iceberg schemas in Arrow, by the mapping of api.md.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, Schema, StructType, Type};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use tarndb_catalog::{Error, Result};

/// The metadata of an Arrow field that names its extension.
pub(crate) const EXTENSION_KEY: &str = "ARROW:extension:name";

/// The extension by which 16 bytes are a UUID.
pub(crate) const UUID_EXTENSION: &str = "arrow.uuid";

/// Whether an Arrow field holds UUIDs.
pub fn is_uuid_field(field: &Field) -> bool {
    *field.data_type() == DataType::FixedSizeBinary(16)
        && field.metadata().get(EXTENSION_KEY).is_some_and(|name| name == UUID_EXTENSION)
}

/// The schema as users see it: plain strings and binaries, `PARQUET:field_id` on every field.
pub(crate) fn arrow_schema(schema: &Schema) -> Result<SchemaRef> {
    let fields = fields(schema.as_struct(), Strings::Plain)?;
    Ok(Arc::new(ArrowSchema::new(fields)))
}

/// The schema inside the engine: strings and binaries are views, which compare and hash faster.
pub(crate) fn engine_schema(schema: &Schema) -> Result<SchemaRef> {
    let with_ids = engine_schema_with_ids(schema)?;
    Ok(Arc::new(with_plain_nested_fields(&with_ids)))
}

/// The same with the field ids of nested fields, by which files are read, and with what is required of them. DataFusion
/// compares nested types with all of that and loses it in casts, so its plans do without; the writer checks it.
pub(crate) fn engine_schema_with_ids(schema: &Schema) -> Result<SchemaRef> {
    let fields = fields(schema.as_struct(), Strings::View)?;
    Ok(Arc::new(ArrowSchema::new(fields)))
}

fn with_plain_nested_fields(schema: &ArrowSchema) -> ArrowSchema {
    fn plain(field: &FieldRef, nullable: bool) -> FieldRef {
        let extension = field.metadata().iter().filter(|(key, _)| *key == EXTENSION_KEY);
        let extension = extension.map(|(key, name)| (key.clone(), name.clone())).collect();
        Arc::new(Field::new(field.name(), plain_type(field.data_type()), nullable).with_metadata(extension))
    }
    fn plain_type(of: &DataType) -> DataType {
        match of {
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain(field, true)).collect()),
            DataType::List(item) => DataType::List(plain(item, true)),
            DataType::Map(entries, sorted) => DataType::Map(plain_entries(entries), *sorted),
            other => other.clone(),
        }
    }
    // Entries and their keys are never NULL.
    fn plain_entries(entries: &FieldRef) -> FieldRef {
        let pair = match entries.data_type() {
            DataType::Struct(pair) => pair.iter().enumerate().map(|(index, field)| plain(field, index > 0)).collect(),
            _ => Fields::empty(),
        };
        Arc::new(Field::new(entries.name(), DataType::Struct(pair), false))
    }
    let top = schema.fields().iter().map(|field| field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    ArrowSchema::new(top.collect::<Fields>())
}

/// The engine's type of a primitive.
pub(crate) fn engine_type(of: &PrimitiveType) -> Result<DataType> {
    primitive_type(of, Strings::View)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strings {
    Plain,
    View,
}

fn fields(of: &StructType, strings: Strings) -> Result<Fields> {
    of.fields().iter().map(|f| field(f, strings)).collect()
}

fn field(of: &NestedField, strings: Strings) -> Result<FieldRef> {
    let mut metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), of.id.to_string())]);
    if matches!(*of.field_type, Type::Primitive(PrimitiveType::Uuid)) {
        metadata.insert(EXTENSION_KEY.to_string(), UUID_EXTENSION.to_string());
    }
    let data_type = data_type(&of.field_type, strings).map_err(|e| e.with_context("column", of.name.clone()))?;
    Ok(Arc::new(Field::new(&of.name, data_type, !of.required).with_metadata(metadata)))
}

fn data_type(of: &Type, strings: Strings) -> Result<DataType> {
    Ok(match of {
        Type::Primitive(primitive) => primitive_type(primitive, strings)?,
        Type::Struct(of) => DataType::Struct(fields(of, strings)?),
        Type::List(ListType { element_field }) => {
            DataType::List(Arc::new(field(element_field, strings)?.as_ref().clone().with_name("element")))
        }
        Type::Map(MapType { key_field, value_field }) => {
            let entries = Fields::from(vec![
                field(key_field, strings)?.as_ref().clone().with_name("key"),
                field(value_field, strings)?.as_ref().clone().with_name("value"),
            ]);
            DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false)
        }
    })
}

fn primitive_type(of: &PrimitiveType, strings: Strings) -> Result<DataType> {
    Ok(match of {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Decimal { precision, scale } => {
            let too_large = || Error::unsupported(format!("decimal({precision}, {scale}) is not supported"));
            let precision = u8::try_from(*precision).map_err(|_| too_large())?;
            DataType::Decimal128(precision, i8::try_from(*scale).map_err(|_| too_large())?)
        }
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Time => DataType::Time64(TimeUnit::Microsecond),
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        PrimitiveType::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
        PrimitiveType::TimestamptzNs => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        PrimitiveType::String if strings == Strings::View => DataType::Utf8View,
        PrimitiveType::String => DataType::Utf8,
        PrimitiveType::Uuid => DataType::FixedSizeBinary(16),
        PrimitiveType::Fixed(n) => {
            DataType::FixedSizeBinary(i32::try_from(*n).map_err(|_| Error::unsupported(format!("fixed({n}) is not supported")))?)
        }
        PrimitiveType::Binary if strings == Strings::View => DataType::BinaryView,
        PrimitiveType::Binary => DataType::Binary,
    })
}

/// The Iceberg type that holds values of an Arrow type, with new field ids from `next_id` for nested fields.
///
/// # Errors
/// `Unsupported` for Arrow types without an Iceberg counterpart.
pub(crate) fn iceberg_type(of: &Field, next_id: &mut i32) -> Result<Type> {
    let mut fresh = || {
        *next_id += 1;
        *next_id
    };
    let is_uuid = is_uuid_field(of);
    Ok(match of.data_type() {
        DataType::Struct(fields) => {
            // Siblings are numbered before their children, as the specification's own examples do.
            let ids: Vec<i32> = fields.iter().map(|_| fresh()).collect();
            let fields = fields.iter().zip(ids).map(|(f, id)| nested_field(f, f.name(), id, next_id));
            Type::Struct(StructType::new(fields.collect::<Result<Vec<_>>>()?))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) => {
            let id = fresh();
            Type::List(ListType { element_field: nested_field(item, "element", id, next_id)? })
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else {
                return Err(Error::internal("an Arrow map without entries"));
            };
            let [key, value] = pair.as_ref() else {
                return Err(Error::internal("an Arrow map without keys and values"));
            };
            let (key_id, value_id) = (fresh(), fresh());
            let required_key = key.as_ref().clone().with_nullable(false);
            Type::Map(MapType {
                key_field: nested_field(&required_key, "key", key_id, next_id)?,
                value_field: nested_field(value, "value", value_id, next_id)?,
            })
        }
        DataType::Dictionary(_, value) => iceberg_type(&Field::new(of.name(), value.as_ref().clone(), true), next_id)?,
        DataType::FixedSizeBinary(16) if is_uuid => Type::Primitive(PrimitiveType::Uuid),
        other => Type::Primitive(primitive_of(other).map_err(|e| e.with_context("column", of.name().clone()))?),
    })
}

fn nested_field(of: &Field, name: &str, id: i32, next_id: &mut i32) -> Result<Arc<NestedField>> {
    let field_type = iceberg_type(of, next_id)?;
    Ok(Arc::new(NestedField::new(id, name, field_type, !of.is_nullable())))
}

fn primitive_of(of: &DataType) -> Result<PrimitiveType> {
    Ok(match of {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => PrimitiveType::Int,
        DataType::Int64 | DataType::UInt32 => PrimitiveType::Long,
        DataType::UInt64 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        DataType::Float16 | DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) if *s >= 0 => {
            PrimitiveType::Decimal { precision: u32::from(*p), scale: u32::from(s.unsigned_abs()) }
        }
        DataType::Date32 | DataType::Date64 => PrimitiveType::Date,
        DataType::Time32(_) | DataType::Time64(TimeUnit::Microsecond) => PrimitiveType::Time,
        // Format version 2 has microseconds; the writer refuses values that would lose digits.
        DataType::Timestamp(_, None) => PrimitiveType::Timestamp,
        DataType::Timestamp(_, Some(_)) => PrimitiveType::Timestamptz,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => PrimitiveType::String,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => PrimitiveType::Binary,
        DataType::FixedSizeBinary(n) => PrimitiveType::Fixed(u64::from(n.unsigned_abs())),
        other => return Err(Error::unsupported(format!("a column of the type {other} has no Iceberg type"))),
    })
}
