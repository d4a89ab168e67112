use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use iceberg::spec::{NestedFieldRef, Type};
use iceberg::{NamespaceIdent, TableIdent};
use tarndb_catalog::Result;

use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult};

fn result(columns: Vec<(&str, ArrayRef)>) -> Result<QueryResult> {
    let batch = RecordBatch::try_from_iter(columns).map_err(|e| engine_error(e.into()))?;
    Ok(QueryResult::from_batches(batch.schema(), vec![batch]))
}

fn strings(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(super) async fn namespaces(lake: &Lakehouse) -> Result<QueryResult> {
    result(vec![("namespace", strings(lake.namespaces().await?))])
}

pub(super) async fn tables(lake: &Lakehouse, namespace: Option<&NamespaceIdent>) -> Result<QueryResult> {
    let catalog = &lake.env().catalog;
    let namespaces = match namespace {
        Some(namespace) => vec![namespace.clone()],
        None => catalog.list_namespaces().await?,
    };
    let mut tables = Vec::new();
    for namespace in namespaces {
        tables.extend(catalog.list_tables(&namespace).await?);
    }
    result(vec![
        ("namespace", strings(tables.iter().map(|table| table.namespace().join(".")))),
        ("table", strings(tables.iter().map(|table| table.name().to_string()))),
    ])
}

/// `DESCRIBE t`: columns with their Iceberg types, then the partition transforms of each column.
pub(super) async fn describe(lake: &Lakehouse, table: &TableIdent) -> Result<QueryResult> {
    let table = lake.load(table).await?;
    let fields: &[NestedFieldRef] = table.schema().as_struct().fields();
    let spec = table.metadata().default_partition_spec();
    let partition = |id: i32| {
        let transforms = spec.fields().iter().filter(|field| field.source_id == id).map(|field| field.transform.to_string());
        transforms.collect::<Vec<_>>().join(", ")
    };
    let type_of = |field: &NestedFieldRef| match table.unsupported_type(field) {
        Some(of) if field.field_type.is_primitive() => of.to_string(),
        _ => type_name(&field.field_type),
    };
    result(vec![
        ("column_name", strings(fields.iter().map(|field| field.name.clone()))),
        ("data_type", strings(fields.iter().map(type_of))),
        ("is_nullable", Arc::new(fields.iter().map(|field| Some(!field.required)).collect::<BooleanArray>())),
        ("partition", strings(fields.iter().map(|field| partition(field.id)))),
        ("comment", strings(fields.iter().map(|field| field.doc.clone().unwrap_or_default()))),
    ])
}

/// A type in Iceberg's words, nested ones with their fields.
fn type_name(of: &Type) -> String {
    match of {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::List(list) => format!("list<{}>", type_name(&list.element_field.field_type)),
        Type::Map(map) => format!("map<{}, {}>", type_name(&map.key_field.field_type), type_name(&map.value_field.field_type)),
        Type::Struct(of) => {
            let required = |field: &NestedFieldRef| if field.required { " not null" } else { "" };
            let fields = of.fields().iter();
            let fields = fields.map(|field| format!("{}: {}{}", field.name, type_name(&field.field_type), required(field)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
    }
}
