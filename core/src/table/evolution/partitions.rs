use iceberg::spec::{
    NestedField, PrimitiveType, Schema, TableMetadata, Transform, Type, UnboundPartitionField, UnboundPartitionSpec,
};
use tarndb_catalog::{Error, Result};

use super::{Change, PartitionFieldName};

/// The partition spec after the changes; `None` when they change none.
pub(super) fn evolve(metadata: &TableMetadata, schema: &Schema, changes: &[Change]) -> Result<Option<UnboundPartitionSpec>> {
    let current = metadata.default_partition_spec();
    let mut fields: Vec<UnboundPartitionField> = current.fields().iter().map(|field| field.clone().into_unbound()).collect();
    let mut changed = false;
    for change in changes {
        match change {
            Change::AddPartitionField { column, transform, name } => {
                fields.push(added(schema, column, *transform, name.as_deref(), &fields)?);
            }
            Change::DropPartitionField(named) => {
                let index = position(schema, &fields, named)?;
                // In format version 1 the place of a field is its identity.
                if metadata.format_version() == iceberg::spec::FormatVersion::V1 {
                    if let Some(field) = fields.get_mut(index) {
                        field.transform = Transform::Void;
                    }
                } else {
                    fields.remove(index);
                }
            }
            _ => continue,
        }
        changed = true;
    }
    if !changed {
        return Ok(None);
    }
    Ok(Some(UnboundPartitionSpec::builder().add_partition_fields(fields)?.build()))
}

fn added(
    schema: &Schema,
    column: &str,
    transform: Transform,
    given: Option<&str>,
    fields: &[UnboundPartitionField],
) -> Result<UnboundPartitionField> {
    let source = schema.field_by_name(column);
    let source = source.ok_or_else(|| Error::invalid_input(format!("the table has no column `{column}`")))?;
    check_source(source, column, transform)?;
    if fields.iter().any(|field| field.source_id == source.id && field.transform == transform) {
        return Err(Error::invalid_input(format!("the table is partitioned by {transform} of `{column}` already")));
    }
    let name = given.map_or_else(|| name(schema, column, &transform), str::to_string);
    if fields.iter().any(|field| field.name == name) {
        return Err(Error::invalid_input(format!("there is a partition field `{name}` already: name this one with AS")));
    }
    Ok(UnboundPartitionField { source_id: source.id, field_id: None, name, transform })
}

/// Refuses to partition by what has no order of values, or cannot be written.
pub(super) fn check_source(source: &NestedField, column: &str, transform: Transform) -> Result<()> {
    let of = source.field_type.as_ref();
    if !matches!(of, Type::Primitive(_)) || transform.result_type(of).is_err() {
        return Err(Error::invalid_input(format!("a table cannot be partitioned by {transform} of `{column}`, which is {of}")));
    }
    if *of == Type::Primitive(PrimitiveType::Uuid) && transform == Transform::Identity && column != source.name {
        let message = format!("partitions by `{column}`, a UUID inside of a struct, are not supported: use bucket(n, {column})");
        return Err(Error::unsupported(message));
    }
    Ok(())
}

fn position(schema: &Schema, fields: &[UnboundPartitionField], named: &PartitionFieldName) -> Result<usize> {
    let of = |column: &str, transform: Transform| {
        let id = schema.field_by_name(column).map(|field| field.id);
        fields.iter().position(|field| Some(field.source_id) == id && field.transform == transform)
    };
    let found = match named {
        // A column alone is the identity of it, unless a field has that name.
        PartitionFieldName::Name(name) => {
            fields.iter().position(|field| field.name == *name).or_else(|| of(name, Transform::Identity))
        }
        PartitionFieldName::Of { column, transform } => of(column, *transform),
    };
    found.ok_or_else(|| {
        let known: Vec<String> = fields.iter().map(|field| format!("`{}`", field.name)).collect();
        Error::invalid_input(match named {
            PartitionFieldName::Name(name) => format!("there is no partition field `{name}`; there are [{}]", known.join(", ")),
            PartitionFieldName::Of { column, transform } => {
                format!(
                    "the table is not partitioned by {transform} of `{column}`; its partition fields are [{}]",
                    known.join(", ")
                )
            }
        })
    })
}

/// The name of a partition field. Manifests have it as a name in Avro, which knows letters, digits and `_` only.
pub(super) fn name(schema: &Schema, column: &str, transform: &Transform) -> String {
    let suffix = match transform {
        Transform::Identity => String::new(),
        Transform::Bucket(_) => "_bucket".to_string(),
        Transform::Truncate(_) => "_trunc".to_string(),
        Transform::Void => "_null".to_string(),
        other => format!("_{other}"),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut name: String = column.chars().map(|c| if is_name(c) { c } else { '_' }).chain(suffix.chars()).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    // Only an identity partition may be called as its column, and none as another.
    while name != column && schema.field_by_name(&name).is_some() {
        name.push('_');
    }
    name
}
