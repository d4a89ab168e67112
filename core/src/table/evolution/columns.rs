use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, ListType, Literal, MapType, NestedField, NestedFieldRef, PrimitiveLiteral, PrimitiveType, Schema, StructType,
    TableMetadata, Transform, Type,
};
use tarndb_catalog::{Error, Result};

use super::{Change, NewColumn, Position};
use crate::table::MICROS_PER_DAY;

/// The schema after the changes; `None` when they change no column.
pub(super) fn evolve(metadata: &TableMetadata, version: FormatVersion, changes: &[Change]) -> Result<Option<Schema>> {
    let current = metadata.current_schema();
    let mut columns = Columns {
        fields: current.as_struct().fields().to_vec(),
        last_id: metadata.last_column_id(),
        version,
        metadata,
        changed: false,
    };
    for change in changes {
        columns.apply(change)?;
    }
    if !columns.changed {
        return Ok(None);
    }
    if columns.fields.is_empty() {
        return Err(Error::invalid_input("a table keeps at least one column"));
    }
    let identifiers = current.identifier_field_ids().filter(|id| has_id(&columns.fields, *id));
    let schema = Schema::builder().with_identifier_field_ids(identifiers).with_fields(columns.fields.clone()).build()?;
    Ok(Some(schema))
}

fn has_id(fields: &[NestedFieldRef], id: i32) -> bool {
    fields.iter().any(|field| field.id == id || matches!(field.field_type.as_ref(), Type::Struct(of) if has_id(of.fields(), id)))
}

struct Columns<'a> {
    fields: Vec<NestedFieldRef>,
    last_id: i32,
    version: FormatVersion,
    metadata: &'a TableMetadata,
    changed: bool,
}

impl Columns<'_> {
    fn apply(&mut self, change: &Change) -> Result<()> {
        if let Change::AddColumn { parent, column, position } = change {
            let field = Arc::new(self.new_field(column)?);
            if parent.is_empty() {
                check_partition_names(self.metadata, field.id, &field.name)?;
            }
            return self.edit(parent, &mut |fields| {
                check_free(fields, &field.name)?;
                fields.push(Arc::clone(&field));
                let last = fields.len() - 1;
                position.as_ref().map_or(Ok(()), |position| place(fields, last, position))
            });
        }
        let (Change::DropColumn(column)
        | Change::RenameColumn { column, .. }
        | Change::SetType { column, .. }
        | Change::DropNotNull(column)
        | Change::SetDoc { column, .. }
        | Change::SetWriteDefault { column, .. }
        | Change::Move { column, .. }) = change
        else {
            return Ok(());
        };
        let (version, metadata) = (self.version, self.metadata);
        let (name, parent) = column.split_last().ok_or_else(|| Error::internal("a column without a name"))?;
        self.edit(parent, &mut |fields| {
            let index = position_of(fields, name)?;
            match change {
                Change::DropColumn(_) => {
                    fields.remove(index);
                }
                Change::Move { position, .. } => place(fields, index, position)?,
                Change::RenameColumn { to, .. } => {
                    if !to.eq_ignore_ascii_case(name) {
                        check_free(fields, to)?;
                    }
                    change_field(fields, index, |field| {
                        if parent.is_empty() {
                            check_partition_names(metadata, field.id, to)?;
                        }
                        field.name.clone_from(to);
                        Ok(())
                    })?;
                }
                _ => change_field(fields, index, |field| change_column(field, change, version, metadata))?,
            }
            Ok(())
        })
    }

    fn edit(&mut self, parent: &[String], edit: &mut dyn FnMut(&mut Vec<NestedFieldRef>) -> Result<()>) -> Result<()> {
        self.fields = edited(&self.fields, parent, edit)?;
        self.changed = true;
        Ok(())
    }

    fn new_field(&mut self, column: &NewColumn) -> Result<NestedField> {
        let NewColumn { name, field_type, required, doc, default } = column;
        if name.is_empty() || name.starts_with("_tarndb_") {
            return Err(Error::invalid_input(format!("`{name}` cannot be a column's name")));
        }
        if default.is_some() {
            check_defaults(self.version, std::slice::from_ref(name))?;
        } else if *required {
            return Err(Error::invalid_input(format!(
                "column `{name}` cannot be NOT NULL: older rows have no value; give it a DEFAULT"
            )));
        }
        self.last_id += 1;
        let id = self.last_id;
        let field_type = with_fresh_ids(field_type, &mut self.last_id);
        check_version(&field_type, self.version)?;
        let mut field = NestedField::new(id, name.clone(), field_type, *required);
        field.doc.clone_from(doc);
        field.initial_default.clone_from(default);
        field.write_default.clone_from(default);
        Ok(field)
    }
}

/// Applies a change that is about nothing but the column itself.
fn change_column(field: &mut NestedField, change: &Change, version: FormatVersion, metadata: &TableMetadata) -> Result<()> {
    match change {
        Change::SetType { field_type, .. } => {
            check_promotion(field, field_type, version, metadata)?;
            *field.field_type = field_type.clone();
            field.initial_default = field.initial_default.take().map(|default| promoted(default, field_type));
            field.write_default = field.write_default.take().map(|default| promoted(default, field_type));
        }
        Change::DropNotNull(_) => field.required = false,
        Change::SetDoc { doc, .. } => field.doc = Some(doc.clone()),
        Change::SetWriteDefault { column, default } => {
            check_defaults(version, column)?;
            field.write_default = default.clone().map(|default| promoted(default, &field.field_type));
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn check_defaults(version: FormatVersion, column: &[String]) -> Result<()> {
    if version >= FormatVersion::V3 {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "a DEFAULT, as of column `{}`, needs format version 3: set the property `format-version` to 3 first",
        column.join(".")
    )))
}

/// Refuses types that the format version does not have.
pub(super) fn check_version(of: &Type, version: FormatVersion) -> Result<()> {
    match of {
        Type::Primitive(of @ (PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs)) if version < FormatVersion::V3 => Err(
            Error::unsupported(format!("the type {of} needs format version 3: give the table the property `format-version` = 3")),
        ),
        Type::Primitive(_) => Ok(()),
        Type::Struct(of) => of.fields().iter().try_for_each(|field| check_version(&field.field_type, version)),
        Type::List(of) => check_version(&of.element_field.field_type, version),
        Type::Map(of) => {
            check_version(&of.key_field.field_type, version)?;
            check_version(&of.value_field.field_type, version)
        }
    }
}

/// The fields after `edit` changed those of the struct at `path`, through lists (`element`) and maps (`value`).
fn edited(
    fields: &[NestedFieldRef],
    path: &[String],
    edit: &mut dyn FnMut(&mut Vec<NestedFieldRef>) -> Result<()>,
) -> Result<Vec<NestedFieldRef>> {
    let mut fields = fields.to_vec();
    let Some((first, rest)) = path.split_first() else {
        edit(&mut fields)?;
        return Ok(fields);
    };
    let index = position_of(&fields, first)?;
    change_field(&mut fields, index, |field| {
        let changed = edited_type(&field.field_type, &field.name, rest, edit)?;
        *field.field_type = changed;
        Ok(())
    })?;
    Ok(fields)
}

fn edited_type(
    of: &Type,
    name: &str,
    path: &[String],
    edit: &mut dyn FnMut(&mut Vec<NestedFieldRef>) -> Result<()>,
) -> Result<Type> {
    let inside = |field: &NestedFieldRef, rest: &[String], edit: &mut dyn FnMut(&mut Vec<NestedFieldRef>) -> Result<()>| {
        let mut changed = field.as_ref().clone();
        changed.field_type = Box::new(edited_type(&field.field_type, &field.name, rest, edit)?);
        Ok::<_, Error>(Arc::new(changed))
    };
    match (of, path.split_first()) {
        (Type::Struct(of), _) => Ok(Type::Struct(StructType::new(edited(of.fields(), path, edit)?))),
        (Type::List(of), Some((part, rest))) if part == "element" => {
            Ok(Type::List(ListType { element_field: inside(&of.element_field, rest, edit)? }))
        }
        (Type::Map(of), Some((part, rest))) if part == "value" => {
            let value_field = inside(&of.value_field, rest, edit)?;
            Ok(Type::Map(MapType { key_field: Arc::clone(&of.key_field), value_field }))
        }
        _ => Err(Error::invalid_input(format!("`{name}` is {of}, which has no such fields"))),
    }
}

fn position_of(fields: &[NestedFieldRef], name: &str) -> Result<usize> {
    fields.iter().position(|field| field.name == name).ok_or_else(|| {
        let known: Vec<String> = fields.iter().map(|field| format!("`{}`", field.name)).collect();
        Error::invalid_input(format!("there is no column `{name}`; there are {}", known.join(", ")))
    })
}

fn change_field(fields: &mut [NestedFieldRef], index: usize, change: impl FnOnce(&mut NestedField) -> Result<()>) -> Result<()> {
    let slot = fields.get_mut(index).ok_or_else(|| Error::internal("a column is not where it was"))?;
    let mut field = slot.as_ref().clone();
    change(&mut field)?;
    *slot = Arc::new(field);
    Ok(())
}

/// Names that differ by case alone are two columns to Iceberg and one to most engines.
fn check_free(fields: &[NestedFieldRef], name: &str) -> Result<()> {
    match fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)) {
        None => Ok(()),
        Some(field) => Err(Error::invalid_input(format!("there is a column `{}` already", field.name))),
    }
}

/// A column may be called as a partition field only where the partition field is the column's own value: Java binds all
/// partition specs, those of before too, to the columns of now.
fn check_partition_names(metadata: &TableMetadata, id: i32, name: &str) -> Result<()> {
    let mut fields = metadata.partition_specs_iter().flat_map(|spec| spec.fields());
    let taken = fields.any(|field| field.name == name && !(field.source_id == id && field.transform == Transform::Identity));
    if taken {
        return Err(Error::invalid_input(format!("`{name}` is, or was, the name of a partition field: take another name")));
    }
    Ok(())
}

/// A default in the type that its column was promoted to.
fn promoted(default: Literal, to: &Type) -> Literal {
    match (&default, to) {
        (Literal::Primitive(PrimitiveLiteral::Int(n)), Type::Primitive(PrimitiveType::Long)) => Literal::long(i64::from(*n)),
        (Literal::Primitive(PrimitiveLiteral::Float(x)), Type::Primitive(PrimitiveType::Double)) => {
            Literal::double(f64::from(x.into_inner()))
        }
        (Literal::Primitive(PrimitiveLiteral::Int(days)), Type::Primitive(PrimitiveType::Timestamp)) => {
            Literal::timestamp(i64::from(*days) * MICROS_PER_DAY)
        }
        (Literal::Primitive(PrimitiveLiteral::Int(days)), Type::Primitive(PrimitiveType::TimestampNs)) => {
            Literal::long(i64::from(*days).saturating_mul(MICROS_PER_DAY * 1000))
        }
        _ => default,
    }
}

/// Moves the field at `index` among its siblings.
fn place(fields: &mut Vec<NestedFieldRef>, index: usize, position: &Position) -> Result<()> {
    let field = fields.remove(index);
    let target = match position {
        Position::First => 0,
        Position::After(other) if *other == field.name => {
            return Err(Error::invalid_input(format!("column `{other}` cannot be put after itself")));
        }
        Position::After(other) => position_of(fields, other)? + 1,
    };
    fields.insert(target, field);
    Ok(())
}

/// Refuses types that do not hold every value of the column's.
fn check_promotion(field: &NestedField, to: &Type, version: FormatVersion, metadata: &TableMetadata) -> Result<()> {
    let refused = || Error::invalid_input(format!("column `{}` is {} and cannot become {to}", field.name, field.field_type));
    let (Type::Primitive(from), Type::Primitive(to)) = (field.field_type.as_ref(), to) else { return Err(refused()) };
    let is_wider = match (from, to) {
        (from, to) if from == to => true,
        (PrimitiveType::Int, PrimitiveType::Long) | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (PrimitiveType::Decimal { precision, scale }, PrimitiveType::Decimal { precision: wider, scale: same }) => {
            scale == same && wider >= precision
        }
        (PrimitiveType::Date, PrimitiveType::Timestamp | PrimitiveType::TimestampNs) if version >= FormatVersion::V3 => {
            // A bucket, or the value, of a date is another than that of the timestamp.
            let mut fields = metadata.partition_specs_iter().flat_map(|spec| spec.fields());
            let sees_type = |transform: &Transform| matches!(transform, Transform::Bucket(_) | Transform::Identity);
            if fields.any(|partition| partition.source_id == field.id && sees_type(&partition.transform)) {
                return Err(Error::invalid_input(format!(
                    "column `{}` cannot become {to}: partitions are made of its dates",
                    field.name
                )));
            }
            true
        }
        _ => false,
    };
    if is_wider { Ok(()) } else { Err(refused()) }
}

/// The type with ids that no column ever had.
fn with_fresh_ids(of: &Type, last_id: &mut i32) -> Type {
    let mut fresh = || {
        *last_id += 1;
        *last_id
    };
    match of {
        Type::Primitive(_) => of.clone(),
        Type::Struct(of) => {
            let ids: Vec<i32> = of.fields().iter().map(|_| fresh()).collect();
            let fields = of.fields().iter().zip(ids).map(|(field, id)| renumbered(field, id, last_id));
            Type::Struct(StructType::new(fields.collect()))
        }
        Type::List(of) => {
            let id = fresh();
            Type::List(ListType { element_field: renumbered(&of.element_field, id, last_id) })
        }
        Type::Map(of) => {
            let (key, value) = (fresh(), fresh());
            Type::Map(MapType {
                key_field: renumbered(&of.key_field, key, last_id),
                value_field: renumbered(&of.value_field, value, last_id),
            })
        }
    }
}

fn renumbered(field: &NestedField, id: i32, last_id: &mut i32) -> NestedFieldRef {
    let mut numbered = field.clone();
    numbered.id = id;
    numbered.field_type = Box::new(with_fresh_ids(&field.field_type, last_id));
    Arc::new(numbered)
}
