//! A table's name mapping follows its columns, as Java keeps it: new columns are in it, and renamed ones have both names.

use iceberg::spec::{NestedFieldRef, Schema, TableMetadata, Type};
use serde_json::{Value, json};
use tarndb_catalog::{Error, Result};

use crate::table::properties;

/// The mapping for the new schema; `None` when the table has none.
pub(super) fn evolve(metadata: &TableMetadata, schema: &Schema) -> Result<Option<String>> {
    let Some(text) = metadata.properties().get(properties::NAME_MAPPING) else {
        return Ok(None);
    };
    let wrong =
        |e| Error::data_invalid(format!("table property `{}` is not a name mapping", properties::NAME_MAPPING)).with_source(e);
    let mut mapping: Vec<Value> = serde_json::from_str(text).map_err(wrong)?;
    fields(&mut mapping, schema.as_struct().fields());
    serde_json::to_string(&mapping).map(Some).map_err(wrong)
}

fn fields(mapping: &mut Vec<Value>, of: &[NestedFieldRef]) {
    for field in of {
        one(mapping, field.id, &field.name, &field.field_type);
    }
}

fn one(mapping: &mut Vec<Value>, id: i32, name: &str, of: &Type) {
    let is_it = |mapped: &Value| mapped.get("field-id").and_then(Value::as_i64) == Some(i64::from(id));
    let index = mapping.iter().position(is_it).unwrap_or_else(|| {
        mapping.push(json!({"field-id": id, "names": []}));
        mapping.len() - 1
    });
    let others: Vec<Value> = mapping.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, m)| m.clone()).collect();
    let Some(mapped) = mapping.get_mut(index).and_then(Value::as_object_mut) else { return };
    let names = mapped.entry("names").or_insert_with(|| json!([]));
    // A name that files have for another column stays that column's.
    let is_taken =
        others.iter().any(|other| other.get("names").and_then(Value::as_array).is_some_and(|n| n.contains(&json!(name))));
    if let Some(names) = names.as_array_mut().filter(|names| !is_taken && !names.contains(&json!(name))) {
        names.push(json!(name));
    }
    let mut below = match mapped.remove("fields") {
        Some(Value::Array(below)) => below,
        _ => Vec::new(),
    };
    match of {
        Type::Primitive(_) => {}
        Type::Struct(of) => fields(&mut below, of.fields()),
        Type::List(of) => one(&mut below, of.element_field.id, "element", &of.element_field.field_type),
        Type::Map(of) => {
            one(&mut below, of.key_field.id, "key", &of.key_field.field_type);
            one(&mut below, of.value_field.id, "value", &of.value_field.field_type);
        }
    }
    if !below.is_empty() {
        mapped.insert("fields".to_string(), Value::Array(below));
    }
}
