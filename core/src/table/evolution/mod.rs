//! Changes of a table's columns, partition fields and properties, as data. What a change means is decided on the state of the
//! table to which it is applied, so that it can be applied again when another writer came first.

mod columns;
mod name_mapping;
mod partitions;

use std::collections::HashMap;

use iceberg::TableUpdate;
use iceberg::spec::{FormatVersion, Literal, NestedField, Schema, TableMetadata, Transform, Type};
use tarndb_catalog::{Error, Result};

use super::properties;
use crate::positions::ValueColumns;

/// Where a column is put among its siblings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Position {
    First,
    After(String),
}

/// A column to be. The ids of its type's nested fields are given anew.
#[derive(Debug, Clone)]
pub(crate) struct NewColumn {
    pub(crate) name: String,
    pub(crate) field_type: Type,
    pub(crate) required: bool,
    pub(crate) doc: Option<String>,
    /// The value that older rows have, and new rows where none is given.
    pub(crate) default: Option<Literal>,
}

/// One change of a table. Columns are named by their path: `["a", "b"]` is the field `b` of the struct `a`.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    AddColumn {
        parent: Vec<String>,
        column: Box<NewColumn>,
        position: Option<Position>,
    },
    DropColumn(Vec<String>),
    RenameColumn {
        column: Vec<String>,
        to: String,
    },
    /// Only to types that hold every value of the old one.
    SetType {
        column: Vec<String>,
        field_type: Type,
    },
    DropNotNull(Vec<String>),
    SetDoc {
        column: Vec<String>,
        doc: String,
    },
    /// For rows that are written from now on; `None` is NULL.
    SetWriteDefault {
        column: Vec<String>,
        default: Option<Literal>,
    },
    Move {
        column: Vec<String>,
        position: Position,
    },
    AddPartitionField {
        column: String,
        transform: Transform,
        name: Option<String>,
    },
    DropPartitionField(PartitionFieldName),
    SetProperties(Vec<(String, String)>),
    UnsetProperties(Vec<String>),
}

/// How a partition field is named: by its own name, or by what it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PartitionFieldName {
    Name(String),
    Of { column: String, transform: Transform },
}

/// The updates that apply the changes, one after the other, to the table.
///
/// # Errors
/// `InvalidInput` when a change makes no sense on the table; `Unsupported` for what its format version does not have.
pub(crate) fn updates(metadata: &TableMetadata, changes: &[Change]) -> Result<Vec<TableUpdate>> {
    let mut updates = Vec::new();
    let (mut set, mut unset) = (HashMap::new(), Vec::new());
    let mut version = metadata.format_version();
    for change in changes {
        match change {
            Change::SetProperties(pairs) => {
                for (key, value) in pairs {
                    if key == "format-version" {
                        version = upgraded(version, value)?;
                    } else {
                        set.insert(key.clone(), value.clone());
                    }
                }
            }
            Change::UnsetProperties(keys) => unset.extend(keys.iter().cloned()),
            _ => {}
        }
    }
    if version != metadata.format_version() {
        updates.push(TableUpdate::UpgradeFormatVersion { format_version: version });
    }
    let schema = columns::evolve(metadata, version, changes)?;
    if let Some(mapping) = schema.as_ref().map(|schema| name_mapping::evolve(metadata, schema)).transpose()?.flatten() {
        set.insert(properties::NAME_MAPPING.to_string(), mapping);
    }
    let current = schema.as_ref().unwrap_or_else(|| metadata.current_schema());
    ValueColumns::check(&set, current)?;
    let spec = partitions::evolve(metadata, current, changes)?;
    check_sources(metadata, current, spec.is_some())?;
    if let Some(schema) = schema {
        check_kept(&schema)?;
        updates.push(TableUpdate::AddSchema { schema });
        updates.push(TableUpdate::SetCurrentSchema { schema_id: LAST_ADDED });
    }
    if let Some(spec) = spec {
        updates.push(TableUpdate::AddSpec { spec });
        updates.push(TableUpdate::SetDefaultSpec { spec_id: LAST_ADDED });
    }
    if !set.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: set });
    }
    if !unset.is_empty() {
        updates.push(TableUpdate::RemoveProperties { removals: unset });
    }
    Ok(updates)
}

/// The id by which an update means what the one before it added.
const LAST_ADDED: i32 = -1;

fn upgraded(from: FormatVersion, to: &str) -> Result<FormatVersion> {
    let to = match to {
        "1" => FormatVersion::V1,
        "2" => FormatVersion::V2,
        "3" => FormatVersion::V3,
        other => return Err(Error::invalid_input(format!("`{other}` is not a format version"))),
    };
    if to < from {
        return Err(Error::invalid_input(format!("the format version is {} already: there is no way back to {to}", from as u8)));
    }
    Ok(to)
}

/// Refuses to take a column away by which rows are partitioned.
fn check_sources(metadata: &TableMetadata, schema: &Schema, has_new_spec: bool) -> Result<()> {
    let lost = metadata.default_partition_spec().fields().iter().find(|field| schema.field_by_id(field.source_id).is_none());
    match lost.filter(|field| !has_new_spec && field.transform != Transform::Void) {
        None => Ok(()),
        Some(field) => Err(Error::invalid_input(format!(
            "the partition field `{}` is made of the column: drop the partition field first",
            field.name
        ))),
    }
}

/// Refuses columns of types, and with defaults, that the format version does not have.
///
/// # Errors
/// `Unsupported`, naming the column.
pub(crate) fn check_version(columns: &[NestedField], version: FormatVersion) -> Result<()> {
    for column in columns {
        columns::check_version(&column.field_type, version).map_err(|e| e.with_context("column", column.name.clone()))?;
        if column.write_default.is_some() {
            columns::check_defaults(version, std::slice::from_ref(&column.name))?;
        }
    }
    Ok(())
}

/// Refuses defaults that metadata files do not keep: not a number, and times in nanoseconds.
///
/// # Errors
/// `Unsupported`, naming the column.
pub(crate) fn check_kept(schema: &Schema) -> Result<()> {
    let lost = |e| Error::internal("a schema cannot be written as JSON").with_source(e);
    let kept: Schema = serde_json::to_value(schema).and_then(serde_json::from_value).map_err(lost)?;
    for (id, name) in schema.field_id_to_name_map() {
        let (before, after) = (schema.field_by_id(*id), kept.field_by_id(*id));
        let defaults = |field: &iceberg::spec::NestedFieldRef| (field.initial_default.clone(), field.write_default.clone());
        if before.map(defaults) != after.map(defaults) {
            return Err(Error::unsupported(format!(
                "the DEFAULT of column `{name}` is not supported: metadata does not keep it"
            )));
        }
    }
    Ok(())
}

/// Refuses to partition by what has no order of values, or cannot be written.
///
/// # Errors
/// `InvalidInput`, `Unsupported`.
pub(crate) fn check_source(source: &NestedField, column: &str, transform: Transform) -> Result<()> {
    partitions::check_source(source, column, transform)
}

/// The name of a partition field that is given none.
pub(crate) fn partition_field_name(schema: &Schema, column: &str, transform: &Transform) -> String {
    partitions::name(schema, column, transform)
}
