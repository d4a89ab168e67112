//! Metadata as other engines write it, brought to the one shape that the format library reads: what is left out gets the
//! specification's default, what format version 1 allows is written as version 2 has it, and types that are not known yet
//! make way for one that is.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::damaged;
use crate::{Error, Result};

type Object = Map<String, Value>;

/// Begins the location of a manifest list that was never written.
const INLINE: &str = "inline-manifests:";

/// The manifests that a snapshot of format version 1 names itself, instead of by a manifest list.
pub fn inline_manifests(manifest_list: &str) -> Option<Vec<String>> {
    serde_json::from_str(manifest_list.strip_prefix(INLINE)?).ok()
}

pub(super) struct Normalized {
    pub(super) metadata: Value,
    pub(super) unsupported_types: BTreeMap<i32, String>,
}

/// Metadata in the shape of its own format version.
pub(super) fn normalize(metadata: Value) -> Result<Normalized> {
    let Value::Object(mut table) = metadata else {
        return Err(damaged("it is not a JSON object"));
    };
    table.retain(|_, value| !value.is_null());
    let version = match table.get("format-version").map(Value::as_u64) {
        Some(Some(version @ 1..=3)) => version,
        Some(Some(version)) if version > 3 => {
            return Err(Error::unsupported(format!("tables of format version {version} are not supported: 1, 2 and 3 are")));
        }
        Some(_) => return Err(damaged("`format-version` is not a number")),
        None => return Err(damaged("it has no `format-version`")),
    };
    if !table.get("location").is_some_and(Value::is_string) {
        return Err(damaged("it has no `location`"));
    }
    let mut unsupported_types = BTreeMap::new();
    schemas(&mut table, &mut unsupported_types)?;
    partition_specs(&mut table)?;
    let orders = table.entry("sort-orders").or_insert_with(|| json!([]));
    if orders.as_array().is_some_and(Vec::is_empty) {
        *orders = json!([{"order-id": 0, "fields": []}]);
    }
    table.entry("default-sort-order-id").or_insert(json!(0));
    table.entry("table-uuid").or_insert(json!("00000000-0000-0000-0000-000000000000"));
    properties(&mut table);
    snapshots(&mut table, version)?;
    if version == 3 {
        table.entry("next-row-id").or_insert(json!(0));
    }
    check(&table)?;
    Ok(Normalized { metadata: Value::Object(table), unsupported_types })
}

/// Names what the format library's own message ("did not match any variant") does not.
fn check(table: &Object) -> Result<()> {
    for key in ["last-updated-ms", "last-column-id", "current-schema-id", "default-spec-id"] {
        if !table.get(key).is_some_and(Value::is_i64) {
            return Err(damaged(format!("`{key}` is not a number")));
        }
    }
    for snapshot in array(table, "snapshots") {
        for key in ["snapshot-id", "timestamp-ms"] {
            if !snapshot.get(key).is_some_and(Value::is_i64) {
                return Err(damaged(format!("`{key}` of a snapshot is not a 64-bit number")));
            }
        }
        if !snapshot.get("manifest-list").is_some_and(Value::is_string) {
            return Err(damaged("a snapshot has no `manifest-list`"));
        }
    }
    Ok(())
}

fn array<'a>(table: &'a Object, key: &str) -> impl Iterator<Item = &'a Value> {
    table.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn objects<'a>(table: &'a mut Object, key: &str) -> impl Iterator<Item = &'a mut Object> {
    table.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn schemas(table: &mut Object, unsupported_types: &mut BTreeMap<i32, String>) -> Result<()> {
    if !table.contains_key("schemas") {
        let only = table.get("schema").cloned().ok_or_else(|| damaged("it has no `schemas`"))?;
        table.insert("schemas".to_string(), json!([only]));
    }
    let mut last_column_id = 0;
    for (index, schema) in objects(table, "schemas").enumerate() {
        schema.entry("type").or_insert(json!("struct"));
        schema.entry("schema-id").or_insert(json!(index));
        for field in objects(schema, "fields") {
            nested_field(field, unsupported_types, &mut last_column_id);
        }
    }
    // Version 1 repeats the current schema.
    if let Some(schema) = table.get_mut("schema").and_then(Value::as_object_mut) {
        for field in objects(schema, "fields") {
            nested_field(field, unsupported_types, &mut last_column_id);
        }
    }
    let newest = array(table, "schemas").last().and_then(|schema| schema.get("schema-id")).cloned().unwrap_or(json!(0));
    table.entry("current-schema-id").or_insert(newest);
    table.entry("last-column-id").or_insert(json!(last_column_id));
    Ok(())
}

/// Looks through a field of a struct.
fn nested_field(field: &mut Object, unsupported: &mut BTreeMap<i32, String>, last_id: &mut i64) {
    let id = field.get("id").and_then(Value::as_i64).unwrap_or(0);
    *last_id = (*last_id).max(id);
    for key in ["doc", "initial-default", "write-default"] {
        if field.get(key).is_some_and(Value::is_null) {
            field.remove(key);
        }
    }
    field.entry("required").or_insert(json!(false));
    if let Some(of) = field.get_mut("type")
        && !nested_type(of, id, unsupported, last_id)
    {
        field.remove("initial-default");
        field.remove("write-default");
    }
}

/// Whether the type of the field `id` is known; one that is not becomes binary.
fn nested_type(of: &mut Value, id: i64, unsupported: &mut BTreeMap<i32, String>, last_id: &mut i64) -> bool {
    const PRIMITIVES: [&str; 14] = [
        "boolean",
        "int",
        "long",
        "float",
        "double",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "timestamp_ns",
        "timestamptz_ns",
        "string",
        "uuid",
        "binary",
    ];
    let object = match of {
        Value::String(name) => {
            if PRIMITIVES.contains(&name.as_str()) || name.starts_with("decimal(") || name.starts_with("fixed[") {
                return true;
            }
            if let Ok(id) = i32::try_from(id) {
                unsupported.insert(id, name.clone());
            }
            *of = json!("binary");
            return false;
        }
        Value::Object(object) => object,
        _ => return true,
    };
    for field in objects(object, "fields") {
        nested_field(field, unsupported, last_id);
    }
    for (part, part_id) in [("element", "element-id"), ("key", "key-id"), ("value", "value-id")] {
        let id = object.get(part_id).and_then(Value::as_i64).unwrap_or(0);
        *last_id = (*last_id).max(id);
        if let Some(of) = object.get_mut(part) {
            nested_type(of, id, unsupported, last_id);
        }
    }
    true
}

fn partition_specs(table: &mut Object) -> Result<()> {
    /// Ids of partition fields begin here.
    const FIRST_FIELD_ID: i64 = 1000;
    if !table.contains_key("partition-specs") {
        let fields = table.get("partition-spec").cloned().unwrap_or(json!([]));
        table.insert("partition-specs".to_string(), json!([{"spec-id": 0, "fields": fields}]));
    }
    let mut last_id = FIRST_FIELD_ID - 1;
    let mut newest = json!(0);
    for (index, spec) in objects(table, "partition-specs").enumerate() {
        newest = spec.entry("spec-id").or_insert(json!(index)).clone();
        for (position, field) in objects(spec, "fields").enumerate() {
            let id = FIRST_FIELD_ID + i64::try_from(position).map_err(|_| damaged("a partition spec is too long"))?;
            let id = field.entry("field-id").or_insert(json!(id)).as_i64().unwrap_or(0);
            last_id = last_id.max(id);
        }
    }
    if let Some(fields) = table.get_mut("partition-spec").and_then(Value::as_array_mut) {
        for (position, field) in (FIRST_FIELD_ID..).zip(fields.iter_mut().filter_map(Value::as_object_mut)) {
            field.entry("field-id").or_insert(json!(position));
        }
    }
    table.entry("default-spec-id").or_insert(newest);
    table.entry("last-partition-id").or_insert(json!(last_id));
    Ok(())
}

/// Properties are texts; some writers put numbers.
fn texts(object: &mut Object) {
    object.retain(|_, value| !value.is_null());
    for value in object.values_mut().filter(|value| !value.is_string()) {
        *value = Value::String(value.to_string());
    }
}

fn properties(table: &mut Object) {
    if let Some(properties) = table.get_mut("properties").and_then(Value::as_object_mut) {
        texts(properties);
    }
}

fn snapshots(table: &mut Object, version: u64) -> Result<()> {
    let mut last_sequence_number = 0;
    for snapshot in objects(table, "snapshots") {
        snapshot.retain(|_, value| !value.is_null());
        if snapshot.contains_key("manifest-list") {
            snapshot.remove("manifests");
        } else if let Some(manifests) = snapshot.remove("manifests") {
            snapshot.insert("manifest-list".to_string(), Value::String(format!("{INLINE}{manifests}")));
        }
        if version > 1 {
            let number = snapshot.entry("sequence-number").or_insert(json!(0));
            last_sequence_number = last_sequence_number.max(number.as_i64().unwrap_or(0));
        }
        let summary = snapshot.entry("summary").or_insert_with(|| json!({}));
        if let Some(summary) = summary.as_object_mut() {
            texts(summary);
            let known = ["append", "replace", "overwrite", "delete"];
            if !summary.get("operation").and_then(Value::as_str).is_some_and(|operation| known.contains(&operation)) {
                summary.insert("operation".to_string(), json!("overwrite"));
            }
        }
    }
    table.entry("last-sequence-number").or_insert(json!(last_sequence_number));
    let mut newest = table.get("last-updated-ms").and_then(Value::as_i64).unwrap_or(0);
    if let Some(log) = table.get_mut("snapshot-log").and_then(Value::as_array_mut) {
        let time = |entry: &Value| entry.get("timestamp-ms").and_then(Value::as_i64).unwrap_or(0);
        log.sort_by_key(time);
        newest = newest.max(log.last().map_or(0, time));
    }
    table.insert("last-updated-ms".to_string(), json!(newest));
    if let Some(current) = table.get("current-snapshot-id").and_then(Value::as_i64).filter(|id| *id >= 0) {
        let main = json!({"snapshot-id": current, "type": "branch"});
        let refs = table.entry("refs").or_insert_with(|| json!({}));
        if let Some(refs) = refs.as_object_mut() {
            refs.entry("main").or_insert(main);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{FormatVersion, TableMetadata};

    use super::*;

    fn read(metadata: Value) -> Result<(TableMetadata, BTreeMap<i32, String>)> {
        let Normalized { metadata, unsupported_types } = normalize(metadata)?;
        Ok((serde_json::from_value(metadata).unwrap(), unsupported_types))
    }

    #[test]
    fn the_least_that_version_1_allows() {
        let (table, _) = read(json!({
            "format-version": 1, "location": "s3://b/t", "last-updated-ms": 5, "last-column-id": 1,
            "schema": {"type": "struct", "fields": [{"id": 1, "name": "a", "required": false, "type": "long"}]},
            "partition-spec": [{"source-id": 1, "transform": "identity", "name": "a"}],
            "current-snapshot-id": 7, "properties": {"n": 3, "b": true},
            "snapshots": [{"snapshot-id": 7, "timestamp-ms": 4, "manifests": ["s3://b/t/m \"1\".avro"]}],
        }))
        .unwrap();
        assert_eq!(table.format_version(), FormatVersion::V1);
        assert_eq!(table.properties().get("n").map(String::as_str), Some("3"));
        let list = table.current_snapshot().unwrap().manifest_list();
        assert_eq!(inline_manifests(list), Some(vec!["s3://b/t/m \"1\".avro".to_string()]));
        assert_eq!(table.default_partition_spec().fields().len(), 1);
    }

    #[test]
    fn unknown_types_are_named_and_the_rest_is_there() {
        let (table, unsupported) = read(json!({
            "format-version": 3, "location": "s3://b/t", "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1",
            "last-updated-ms": 5, "last-column-id": 4, "current-snapshot-id": -1,
            "schemas": [{"type": "struct", "schema-id": 0, "fields": [
                {"id": 1, "name": "a", "required": false, "type": "long", "initial-default": 4},
                {"id": 2, "name": "v", "required": false, "type": "variant"},
                {"id": 3, "name": "l", "required": false,
                 "type": {"type": "list", "element-id": 4, "element": "geometry(srid:4326)", "element-required": false}},
            ]}],
        }))
        .unwrap();
        assert_eq!(table.current_schema().as_struct().fields().len(), 3);
        assert!(table.current_snapshot().is_none());
        let names: Vec<&str> = unsupported.values().map(String::as_str).collect();
        assert_eq!(names, ["variant", "geometry(srid:4326)"]);
        assert_eq!(unsupported.keys().copied().collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |metadata: Value| normalize(metadata).map(|_| ()).unwrap_err().to_string();
        assert!(message(json!([])).contains("not a JSON object"));
        assert!(message(json!({})).contains("format-version"));
        assert!(message(json!({"format-version": 4, "location": ""})).contains("format version 4"));
        assert!(message(json!({"format-version": 2})).contains("location"));
        assert!(message(json!({"format-version": 2, "location": "x"})).contains("schemas"));
        let snapshot = json!({"snapshot-id": u64::MAX, "timestamp-ms": 1, "manifest-list": "x"});
        let table = json!({"format-version": 2, "location": "x", "last-updated-ms": 1, "schemas": [], "snapshots": [snapshot]});
        assert!(message(table).contains("`snapshot-id`"));
    }
}
