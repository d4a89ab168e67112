//! Files without field ids get them from the table's name mapping, by the rules of the specification's "Name Mapping".

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef};
use iceberg::spec::{MappedField, NameMapping, TableMetadata};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use tarndb_catalog::{Error, Result};

use crate::table::properties;

/// The table's name mapping, if it has one.
///
/// # Errors
/// `DataInvalid` when it is not one: to read without it would answer NULL for columns that are there.
pub(crate) fn of_table(metadata: &TableMetadata) -> Result<Option<Arc<NameMapping>>> {
    let Some(text) = metadata.properties().get(properties::NAME_MAPPING) else {
        return Ok(None);
    };
    let mapping = serde_json::from_str(text).map_err(|e| {
        Error::data_invalid(format!("table property `{}` is not a name mapping", properties::NAME_MAPPING)).with_source(e)
    })?;
    Ok(Some(Arc::new(mapping)))
}

/// A file's schema with the ids of the mapping; as it is when the file has ids of its own, or without a mapping.
pub(super) fn apply(file: &SchemaRef, mapping: Option<&NameMapping>) -> SchemaRef {
    let Some(mapping) = mapping.filter(|_| !has_ids(file.fields())) else {
        return Arc::clone(file);
    };
    let find = |name: &str| mapping.fields().iter().find(|mapped| mapped.names().iter().any(|n| n == name));
    let fields: Fields = file.fields().iter().map(|field| with_ids(field, find(field.name()))).collect();
    Arc::new(ArrowSchema::new(fields))
}

fn has_ids(fields: &Fields) -> bool {
    fields.iter().any(|field| {
        field.metadata().contains_key(PARQUET_FIELD_ID_META_KEY)
            || match field.data_type() {
                DataType::Struct(children) => has_ids(children),
                DataType::List(element) | DataType::Map(element, _) => has_ids(&Fields::from(vec![Arc::clone(element)])),
                _ => false,
            }
    })
}

fn with_ids(field: &FieldRef, mapped: Option<&MappedField>) -> FieldRef {
    let Some(mapped) = mapped else { return Arc::clone(field) };
    let child = |name: &str| mapped.fields().iter().map(Arc::as_ref).find(|m| m.names().iter().any(|n| n == name));
    let data_type = match field.data_type() {
        DataType::Struct(children) => DataType::Struct(children.iter().map(|f| with_ids(f, child(f.name()))).collect()),
        DataType::List(element) => DataType::List(with_ids(element, child("element"))),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(pair) => {
                let parts = ["key", "value"].into_iter().zip(pair).map(|(name, f)| with_ids(f, child(name)));
                let entries = Field::new(entries.name(), DataType::Struct(parts.collect()), entries.is_nullable());
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => field.data_type().clone(),
        },
        other => other.clone(),
    };
    let id = mapped.field_id().map(|id| (PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string()));
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(HashMap::from_iter(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_fields_are_found_by_any_of_their_names() {
        let mapping: NameMapping = serde_json::from_str(
            r#"[{"field-id": 1, "names": ["a", "b"]},
                {"field-id": 2, "names": ["l"], "fields": [{"field-id": 3, "names": ["element"], "fields": [{"field-id": 4, "names": ["x"]}]}]}]"#,
        )
        .unwrap();
        let item = DataType::Struct(vec![Field::new("x", DataType::Int32, true)].into());
        let file = Arc::new(ArrowSchema::new(vec![
            Field::new("b", DataType::Int32, true),
            Field::new("other", DataType::Int32, true),
            Field::new("l", DataType::List(Arc::new(Field::new("item", item, true))), true),
        ]));
        let mapped = apply(&file, Some(&mapping));
        let id = |field: &Field| field.metadata().get(PARQUET_FIELD_ID_META_KEY).cloned();
        assert_eq!(id(mapped.field(0)).as_deref(), Some("1"));
        assert_eq!(id(mapped.field(1)), None);
        let DataType::List(element) = mapped.field(2).data_type() else { panic!("not a list") };
        assert_eq!(id(element).as_deref(), Some("3"));
        let DataType::Struct(children) = element.data_type() else { panic!("not a struct") };
        assert_eq!(id(&children[0]).as_deref(), Some("4"));
        // A file with ids of its own needs no mapping.
        assert_eq!(apply(&mapped, Some(&mapping)), mapped);
    }
}
