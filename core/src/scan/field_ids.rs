//! Columns of a data file, found by field id.
//!
//! A table's columns are identified by number: a file written before a column was renamed has it under its old name,
//! one written before it was added lacks it, one from before a promotion has a narrower type.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, MapArray, RecordBatch, StructArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result as EngineResult, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion_physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use iceberg::spec::NameMapping;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::schema::types::SchemaDescriptor;
use tarndb_catalog::Error;

use super::name_mapping;
use crate::error::to_engine_error;

fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// The index of the field with this id.
pub(super) fn index_of(fields: &Fields, id: i32) -> Option<usize> {
    fields.iter().position(|field| field_id(field) == Some(id))
}

/// Whether a file's schema with ids has the field.
pub(super) fn has_column(file: &ArrowSchema, field: &Field) -> bool {
    find(file.fields(), field).is_some()
}

/// Whether a file has a column with this id. A file without ids may have every column or none.
pub(super) fn has_id(file: &SchemaDescriptor, id: i32) -> bool {
    let columns = file.root_schema().get_fields().iter();
    columns.map(|column| column.get_basic_info()).any(|info| info.has_id() && info.id() == id)
}

/// The index in the file of a logical field: by id, or by name inside of columns that have no ids in them.
fn find(file: &Fields, logical: &Field) -> Option<usize> {
    if file.iter().any(|field| field_id(field).is_some()) {
        return index_of(file, field_id(logical)?);
    }
    file.iter().position(|field| field.name() == logical.name())
}

/// What stands for columns that a file lacks, by field id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Absent {
    /// Initial defaults of columns that are younger than the file.
    pub(super) defaults: Arc<HashMap<i32, ScalarValue>>,
    /// Values of the file's partition, which go before: files of Hive tables hold them nowhere else.
    pub(super) partition: Arc<HashMap<i32, ScalarValue>>,
}

impl Absent {
    /// The value of a column in every row of a file that lacks it; NULL where nothing else is said.
    fn value(&self, field: &Field) -> EngineResult<ScalarValue> {
        let id = field_id(field).unwrap_or(-1);
        match self.partition.get(&id).or_else(|| self.defaults.get(&id)) {
            Some(value) => value.cast_to(field.data_type()),
            None if field.is_nullable() => ScalarValue::try_new_null(field.data_type()),
            None => missing(field),
        }
    }

    fn array(&self, field: &Field, rows: usize) -> EngineResult<ArrayRef> {
        self.value(field)?.to_array_of_size(rows)
    }
}

/// A value that does not fit is an error: NULL would be an answer, and the key of an equality delete.
fn strict(array: &ArrayRef, to: &DataType) -> EngineResult<ArrayRef> {
    Ok(cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// Brings an array of a file, whose fields have ids as `file` says, to the type of the table's field.
fn adapt(array: &ArrayRef, file: &DataType, logical: &Field, absent: &Absent) -> EngineResult<ArrayRef> {
    match (file, logical.data_type()) {
        (DataType::Struct(file_fields), DataType::Struct(fields)) => {
            let source = array.as_struct();
            let children = fields.iter().map(|field| match find(file_fields, field) {
                Some(index) => {
                    let file = file_fields.get(index).map_or(&DataType::Null, |f| f.data_type());
                    masked(adapt(source.column(index), file, field, absent)?, source.nulls())
                }
                None if source.len() == source.null_count() => Ok(new_null_array(field.data_type(), source.len())),
                None => masked(absent.array(field, source.len())?, source.nulls()),
            });
            let children = children.collect::<EngineResult<Vec<_>>>()?;
            if children.is_empty() {
                return Ok(Arc::new(StructArray::new_empty_fields(source.len(), source.nulls().cloned())));
            }
            Ok(Arc::new(StructArray::try_new(fields.clone(), children, source.nulls().cloned())?))
        }
        (DataType::List(file), DataType::List(element)) => {
            let source = array.as_list::<i32>();
            let values = adapt(source.values(), file.data_type(), element, absent)?;
            let adapted = ListArray::try_new(Arc::clone(element), source.offsets().clone(), values, source.nulls().cloned())?;
            Ok(Arc::new(adapted))
        }
        // Other writers have other lists, the elements of which are matched by id all the same.
        (DataType::LargeList(file) | DataType::FixedSizeList(file, _) | DataType::ListView(file), DataType::List(_)) => {
            let (DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item)) = array.data_type()
            else {
                return exec_err!("a list that is {}", array.data_type());
            };
            let list = strict(array, &DataType::List(Arc::clone(item)))?;
            adapt(&list, &DataType::List(Arc::clone(file)), logical, absent)
        }
        (DataType::Map(file, _), DataType::Map(entries, sorted)) => {
            let source = array.as_map();
            let (DataType::Struct(file), DataType::Struct(pair)) = (file.data_type(), entries.data_type()) else {
                return exec_err!("a map without entries");
            };
            let ([file_key, file_value], [key, value]) = (file.as_ref(), pair.as_ref()) else {
                return exec_err!("a map without keys and values");
            };
            let keys = adapt(source.keys(), file_key.data_type(), key, absent)?;
            let columns = vec![keys, adapt(source.values(), file_value.data_type(), value, absent)?];
            let pairs = StructArray::try_new(pair.clone(), columns, source.entries().nulls().cloned())?;
            let adapted =
                MapArray::try_new(Arc::clone(entries), source.offsets().clone(), pairs, source.nulls().cloned(), *sorted)?;
            Ok(Arc::new(adapted))
        }
        (from, to) if from == to => Ok(Arc::clone(array)),
        (_, to) => strict(array, to),
    }
}

/// A field of a struct, NULL where the struct is: DataFusion takes fields out of structs without asking.
fn masked(child: ArrayRef, parent: Option<&NullBuffer>) -> EngineResult<ArrayRef> {
    match parent.filter(|nulls| nulls.null_count() > 0) {
        None => Ok(child),
        Some(nulls) => Ok(nullif(&child, &BooleanArray::new(!nulls.inner(), None))?),
    }
}

fn missing<T>(field: &Field) -> EngineResult<T> {
    let error = Error::data_invalid(format!("the data file lacks the required column `{}`", field.name()));
    Err(to_engine_error(error))
}

/// An array of a file as the table's field with ids says, in the type that `plain` gives it without them.
fn adapt_to(array: &ArrayRef, file: &Field, with_ids: &Field, plain: &DataType, absent: &Absent) -> EngineResult<ArrayRef> {
    let adapted = adapt(array, file.data_type(), with_ids, absent)?;
    if adapted.data_type() == plain { Ok(adapted) } else { strict(&adapted, plain) }
}

/// Rows of a file in the table's schema: the first columns of `batch` are those of `file`, `with_ids` finds them there, and
/// `schema` is what comes out.
pub(super) fn adapt_batch(
    batch: &RecordBatch,
    file: &ArrowSchema,
    with_ids: &SchemaRef,
    schema: &SchemaRef,
    absent: &Absent,
) -> EngineResult<RecordBatch> {
    let columns = with_ids.fields().iter().zip(schema.fields()).map(|(field, plain)| match find(file.fields(), field) {
        Some(index) => adapt_to(batch.column(index), file.field(index), field, plain.data_type(), absent),
        None => strict(&absent.array(field, batch.num_rows())?, plain.data_type()),
    });
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<EngineResult<Vec<_>>>()?, &options)?)
}

/// Indexes of the file's top-level columns that the table's schema needs, in the order of the file.
pub(super) fn needed_columns(file: &ArrowSchema, schema: &SchemaRef) -> Vec<usize> {
    let mut needed: Vec<usize> = schema.fields().iter().filter_map(|field| find(file.fields(), field)).collect();
    needed.sort_unstable();
    // Two key columns may lie in one struct.
    needed.dedup();
    needed
}

/// Rewrites expressions over the table's schema into expressions over a file's.
#[derive(Debug)]
pub(super) struct FieldIdAdapterFactory {
    /// The table's schema with the ids of nested fields too.
    pub(super) with_ids: SchemaRef,
    pub(super) mapping: Option<Arc<NameMapping>>,
    pub(super) absent: Absent,
}

impl PhysicalExprAdapterFactory for FieldIdAdapterFactory {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> EngineResult<Arc<dyn PhysicalExprAdapter>> {
        let physical = name_mapping::apply(&physical, self.mapping.as_deref());
        let columns = logical
            .fields()
            .iter()
            .map(|plain| {
                let with_ids = self.with_ids.field_with_name(plain.name())?;
                let index = find(physical.fields(), with_ids);
                let column = AdaptedColumn { plain: Arc::clone(plain), with_ids: Arc::new(with_ids.clone()), index };
                Ok((plain.name().clone(), column))
            })
            .collect::<EngineResult<_>>()?;
        Ok(Arc::new(FieldIdAdapter { columns, physical, absent: self.absent.clone() }))
    }
}

/// A column of the table and where a file has it.
#[derive(Debug)]
struct AdaptedColumn {
    plain: FieldRef,
    with_ids: FieldRef,
    index: Option<usize>,
}

#[derive(Debug)]
struct FieldIdAdapter {
    columns: HashMap<String, AdaptedColumn>,
    physical: SchemaRef,
    absent: Absent,
}

impl FieldIdAdapter {
    fn column(&self, column: &Column) -> EngineResult<Arc<dyn PhysicalExpr>> {
        let AdaptedColumn { plain: logical, with_ids, index } =
            self.columns.get(column.name()).ok_or_else(|| exec_datafusion_err!("the table has no column `{}`", column.name()))?;
        let Some(index) = index else {
            return Ok(Arc::new(Literal::new(self.absent.value(with_ids)?.cast_to(logical.data_type())?)));
        };
        let file_field = self.physical.field(*index);
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(file_field.name(), *index));
        let is_nested = file_field.data_type().is_nested() || logical.data_type().is_nested();
        if !is_nested && file_field.data_type() == logical.data_type() {
            return Ok(column);
        }
        if is_nested {
            return Ok(Arc::new(AdaptExpr {
                child: column,
                file: Arc::new(file_field.clone()),
                with_ids: Arc::clone(with_ids),
                to: Arc::clone(logical),
                absent: self.absent.clone(),
            }));
        }
        Ok(Arc::new(CastExpr::new(column, logical.data_type().clone(), None)))
    }
}

impl PhysicalExprAdapter for FieldIdAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> EngineResult<Arc<dyn PhysicalExpr>> {
        let rewritten = expr.transform_up(|expr| match expr.downcast_ref::<Column>() {
            Some(column) => Ok(Transformed::yes(self.column(column)?)),
            None => Ok(Transformed::no(expr)),
        });
        rewritten.data()
    }
}

/// A nested column of a file, rebuilt by field id.
#[derive(Debug, Clone, Eq)]
struct AdaptExpr {
    child: Arc<dyn PhysicalExpr>,
    file: FieldRef,
    with_ids: FieldRef,
    to: FieldRef,
    absent: Absent,
}

impl PartialEq for AdaptExpr {
    fn eq(&self, other: &Self) -> bool {
        self.child.eq(&other.child)
            && self.file == other.file
            && self.with_ids == other.with_ids
            && self.to == other.to
            && self.absent == other.absent
    }
}

impl Hash for AdaptExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.child.hash(state);
        self.to.hash(state);
    }
}

impl fmt::Display for AdaptExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BY_FIELD_ID({} AS {})", self.child, self.to.name())
    }
}

impl PhysicalExpr for AdaptExpr {
    fn data_type(&self, _input: &ArrowSchema) -> EngineResult<DataType> {
        Ok(self.to.data_type().clone())
    }

    fn nullable(&self, _input: &ArrowSchema) -> EngineResult<bool> {
        Ok(self.to.is_nullable())
    }

    fn return_field(&self, _input: &ArrowSchema) -> EngineResult<FieldRef> {
        Ok(Arc::clone(&self.to))
    }

    fn evaluate(&self, batch: &RecordBatch) -> EngineResult<ColumnarValue> {
        let array = self.child.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(adapt_to(&array, &self.file, &self.with_ids, self.to.data_type(), &self.absent)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.child]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> EngineResult<Arc<dyn PhysicalExpr>> {
        let child = children.pop().ok_or_else(|| exec_datafusion_err!("an adapted column without its column"))?;
        Ok(Arc::new(Self { child, ..self.as_ref().clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt_sql(f)
    }
}
