use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use iceberg::spec::{NestedField, NestedFieldRef, Schema, StructType, Type};
use tarndb_catalog::{Error, Result};

use super::TaskEquality;
use super::index::applying;
use crate::table::{Table, engine_schema_with_ids};

/// The columns that the equality deletes of a scan compare.
#[derive(Debug, Clone)]
pub(in crate::scan) struct Keys {
    /// One column for each id, under a name that no table has; one inside of a struct is the struct with nothing else in it.
    pub(in crate::scan) schema: SchemaRef,
    /// The place of each id in `schema`.
    places: BTreeMap<i32, usize>,
}

impl Keys {
    /// The columns that the deletes of `tasks` compare.
    ///
    /// # Errors
    /// `DataInvalid` when no schema of the table ever had one of them; `Unsupported` for those inside of lists and maps.
    pub(in crate::scan) fn new(table: &Table, tasks: &[TaskEquality]) -> Result<Self> {
        let mut places: BTreeMap<i32, usize> = BTreeMap::new();
        for id in applying(tasks).into_iter().flat_map(|file| &file.ids) {
            let next = places.len();
            places.entry(*id).or_insert(next);
        }
        let mut by_place: Vec<(usize, i32)> = places.iter().map(|(id, place)| (*place, *id)).collect();
        by_place.sort_unstable();
        let fields = by_place.into_iter().map(|(_, id)| key_field(table, id)).collect::<Result<Vec<_>>>()?;
        Ok(Self { schema: Arc::new(ArrowSchema::new(fields)), places })
    }

    /// The columns of `ids` alone.
    pub(super) fn of(&self, ids: &[i32]) -> Result<SchemaRef> {
        let indexes: Vec<usize> = ids.iter().filter_map(|id| self.places.get(id).copied()).collect();
        let projected = self.schema.project(&indexes);
        projected.map(Arc::new).map_err(|e| Error::internal("the columns of an equality delete do not fit").with_source(e))
    }

    /// The values that `ids` compare, from a batch that has all key columns from the column `first` on.
    pub(super) fn values(&self, ids: &[i32], batch: &RecordBatch, first: usize) -> Vec<ArrayRef> {
        let columns = ids.iter().filter_map(|id| self.places.get(id)).filter_map(|place| batch.columns().get(first + place));
        columns.map(leaf).collect()
    }
}

/// The only primitive in a column. Structs were adapted so that what is in a NULL is NULL.
pub(super) fn leaf(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Struct(fields) if fields.len() == 1 => leaf(column.as_struct().column(0)),
        _ => Arc::clone(column),
    }
}

fn key_field(table: &Table, id: i32) -> Result<Field> {
    let metadata = table.metadata();
    let mut schemas: Vec<&Arc<Schema>> = metadata.schemas_iter().collect();
    schemas.sort_by_key(|schema| std::cmp::Reverse(schema.schema_id()));
    let mut found = std::iter::once(table.schema()).chain(schemas).filter_map(|schema| {
        let top = schema.as_struct().fields();
        top.iter().find_map(|field| pruned(field, id))
    });
    let field = found.next().ok_or_else(|| {
        Error::data_invalid(format!("an equality delete compares field {id}, which is no column of any schema of the table"))
    })?;
    if leaf_type(&field.field_type).is_none() {
        return Err(Error::unsupported(format!("an equality delete compares `{}`, which is {}", field.name, field.field_type)));
    }
    let schema = Schema::builder().with_fields([field]).build()?;
    let arrow = engine_schema_with_ids(&schema)?;
    let only = arrow.fields().first().ok_or_else(|| Error::internal("a schema of one column is empty"))?;
    Ok(only.as_ref().clone().with_name(format!("_tarndb_key_{id}")).with_nullable(true))
}

fn leaf_type(of: &Type) -> Option<()> {
    match of {
        Type::Primitive(_) => Some(()),
        Type::Struct(of) => of.fields().first().and_then(|field| leaf_type(&field.field_type)),
        _ => None,
    }
}

/// The field with nothing else in it than the field `id`. What is required of it is no matter here.
fn pruned(field: &NestedFieldRef, id: i32) -> Option<NestedFieldRef> {
    if field.id == id {
        return Some(Arc::new(NestedField::optional(field.id, field.name.clone(), field.field_type.as_ref().clone())));
    }
    match field.field_type.as_ref() {
        Type::Struct(of) => {
            let inner = of.fields().iter().find_map(|field| pruned(field, id))?;
            Some(Arc::new(NestedField::optional(field.id, field.name.clone(), Type::Struct(StructType::new(vec![inner])))))
        }
        _ => None,
    }
}
