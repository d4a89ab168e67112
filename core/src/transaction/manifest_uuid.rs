//! Partitions by the value of a UUID column, which the format library writes to no manifest: it takes the Avro type of a
//! UUID for text. To it such a column is 16 bytes, as it is in the file; what the file says of the type is put right after.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use iceberg::spec::{NestedField, PartitionSpec, PrimitiveType, Schema, SchemaRef, Transform, Type};
use serde_json::{Value, json};
use tarndb_catalog::{Error, Result};

use crate::manifest::with_avro_header;

/// Ids of the columns whose UUIDs are partition values.
fn uuid_sources(schema: &Schema, spec: &PartitionSpec) -> HashSet<i32> {
    let is_uuid = |id: i32| schema.field_by_id(id).is_some_and(|field| *field.field_type == Type::Primitive(PrimitiveType::Uuid));
    let fields = spec.fields().iter().filter(|field| field.transform == Transform::Identity);
    fields.map(|field| field.source_id).filter(|id| is_uuid(*id)).collect()
}

/// The schema with 16 bytes for UUIDs that are partition values; the same one where there are none.
pub(super) fn encodable(schema: &SchemaRef, spec: &PartitionSpec) -> Result<SchemaRef> {
    let sources = uuid_sources(schema, spec);
    if sources.is_empty() {
        return Ok(Arc::clone(schema));
    }
    let fields = schema.as_struct().fields().iter().map(|field| {
        if !sources.contains(&field.id) {
            return Arc::clone(field);
        }
        let bytes = Type::Primitive(PrimitiveType::Fixed(16));
        Arc::new(NestedField::new(field.id, field.name.clone(), bytes, field.required))
    });
    let encodable = Schema::builder().with_schema_id(schema.schema_id()).with_fields(fields).build()?;
    Ok(Arc::new(encodable))
}

/// The manifest with the table's own schema and the Avro type of UUIDs in its header.
pub(super) fn restore(manifest: &[u8], schema: &Schema, spec: &PartitionSpec) -> Result<Bytes> {
    let sources = uuid_sources(schema, spec);
    let ids: HashSet<i64> =
        spec.fields().iter().filter(|field| sources.contains(&field.source_id)).map(|field| i64::from(field.field_id)).collect();
    let damaged = |e| Error::internal("a manifest has a header that is not JSON").with_source(e);
    let content = with_avro_header(manifest, |key, value| match key {
        "schema" => serde_json::to_vec(schema).map_err(damaged),
        "avro.schema" => {
            let mut avro: Value = serde_json::from_slice(value).map_err(damaged)?;
            mark(&mut avro, &ids);
            serde_json::to_vec(&avro).map_err(damaged)
        }
        _ => Ok(value.to_vec()),
    })?;
    Ok(content.into())
}

/// Makes UUIDs of the 16 bytes in the Avro fields with these ids.
fn mark(avro: &mut Value, ids: &HashSet<i64>) {
    match avro {
        Value::Array(items) => items.iter_mut().for_each(|item| mark(item, ids)),
        Value::Object(object) => {
            let is_uuid = object.get("field-id").and_then(Value::as_i64).is_some_and(|id| ids.contains(&id));
            if let Some(Value::Array(branches)) = object.get_mut("type").filter(|_| is_uuid) {
                for fixed in branches.iter_mut().filter_map(Value::as_object_mut) {
                    fixed.insert("logicalType".to_string(), json!("uuid"));
                }
            }
            object.values_mut().for_each(|value| mark(value, ids));
        }
        _ => {}
    }
}
