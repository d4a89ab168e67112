//! Files without field ids get them from the table's name mapping, by the rules of the specification's "Name Mapping", or
//! by the order of their columns.

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

/// A file's schema with ids: its own, or those of the mapping, or, without a mapping, those that the columns of a new table
/// have by their order (which is what Java does).
pub(super) fn apply(file: &SchemaRef, mapping: Option<&NameMapping>) -> SchemaRef {
    if has_ids(file.fields()) {
        return Arc::clone(file);
    }
    let fields: Fields = match mapping {
        Some(mapping) => {
            let find = |name: &str| mapping.fields().iter().find(|mapped| mapped.names().iter().any(|n| n == name));
            file.fields().iter().map(|field| with_ids(field, find(field.name()))).collect()
        }
        None => (1..).zip(file.fields()).map(|(id, field)| with_id(field, field.data_type().clone(), id)).collect(),
    };
    Arc::new(ArrowSchema::new(fields))
}

/// The element of a list of any kind.
fn element(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::ListView(element)
        | DataType::LargeListView(element) => Some(element),
        _ => None,
    }
}

fn has_ids(fields: &Fields) -> bool {
    let has_ids_inside = |data_type: &DataType| match data_type {
        DataType::Struct(children) => has_ids(children),
        DataType::Map(entries, _) => has_ids(&Fields::from(vec![Arc::clone(entries)])),
        other => element(other).is_some_and(|element| has_ids(&Fields::from(vec![Arc::clone(element)]))),
    };
    fields.iter().any(|field| field.metadata().contains_key(PARQUET_FIELD_ID_META_KEY) || has_ids_inside(field.data_type()))
}

/// The id of fields that the mapping does not name: that of no column.
const UNMAPPED: i32 = -1;

fn with_id(field: &Field, data_type: DataType, id: i32) -> FieldRef {
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string())]);
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata))
}

fn with_ids(field: &FieldRef, mapped: Option<&MappedField>) -> FieldRef {
    let children = mapped.map(MappedField::fields).unwrap_or_default();
    let child = |name: &str| children.iter().map(Arc::as_ref).find(|m| m.names().iter().any(|n| n == name));
    let data_type = match field.data_type() {
        DataType::Struct(children) => DataType::Struct(children.iter().map(|f| with_ids(f, child(f.name()))).collect()),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(pair) => {
                let parts = ["key", "value"].into_iter().zip(pair).map(|(name, f)| with_ids(f, child(name)));
                let entries = Field::new(entries.name(), DataType::Struct(parts.collect()), entries.is_nullable());
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => field.data_type().clone(),
        },
        DataType::List(of) => DataType::List(with_ids(of, child("element"))),
        DataType::LargeList(of) => DataType::LargeList(with_ids(of, child("element"))),
        DataType::FixedSizeList(of, size) => DataType::FixedSizeList(with_ids(of, child("element")), *size),
        other => other.clone(),
    };
    with_id(field, data_type, mapped.and_then(MappedField::field_id).unwrap_or(UNMAPPED))
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
        assert_eq!(id(mapped.field(1)).as_deref(), Some("-1"), "no column's");
        let DataType::List(element) = mapped.field(2).data_type() else { panic!("not a list") };
        assert_eq!(id(element).as_deref(), Some("3"));
        let DataType::Struct(children) = element.data_type() else { panic!("not a struct") };
        assert_eq!(id(&children[0]).as_deref(), Some("4"));
        // A file with ids of its own needs no mapping.
        assert_eq!(apply(&mapped, Some(&mapping)), mapped);
    }

    #[test]
    fn without_a_mapping_columns_are_numbered() {
        let file = ArrowSchema::new(vec![Field::new("b", DataType::Int32, true), Field::new("a", DataType::Int32, true)]);
        let numbered = apply(&Arc::new(file), None);
        let ids: Vec<&String> = numbered.fields().iter().map(|field| &field.metadata()[PARQUET_FIELD_ID_META_KEY]).collect();
        assert_eq!(ids, ["1", "2"]);
    }
}
