use std::sync::Arc;

use apache_avro::types::Value;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, MapArray,
    RecordBatch, RecordBatchOptions, StringArray, StructArray, new_null_array,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use iceberg::spec::{MappedField, NameMapping, NestedField, Schema, Transform, Type};
use tarndb_core::Table;

use super::avro::File;

pub(super) const FIELD_ID: &str = "PARQUET:field_id";

/// The columns of a table, found in files by the rules of the specification.
pub(super) struct Columns<'a> {
    table: &'a Table,
    schema: SchemaRef,
    mapping: Option<NameMapping>,
}

/// How the ids of a file's columns are known.
#[derive(Clone, Copy)]
enum Ids<'a> {
    Own,
    Mapped(&'a [Arc<MappedField>]),
    ByName,
}

impl<'a> Columns<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        let mapping = table.metadata().properties().get("schema.name-mapping.default");
        Self { table, schema: table.arrow_schema().unwrap(), mapping: mapping.map(|text| serde_json::from_str(text).unwrap()) }
    }

    /// Whether the spec partitions nothing: it has no field, or none that was not dropped.
    pub(super) fn is_unpartitioned(&self, spec_id: i32) -> bool {
        let spec = self.table.metadata().partition_spec_by_id(spec_id).unwrap();
        spec.fields().iter().all(|field| field.transform == Transform::Void)
    }

    /// The rows of a file in the table's schema.
    pub(super) fn table_rows(&self, batch: &RecordBatch, file: &File) -> RecordBatch {
        let fields = self.table.schema().as_struct().fields().iter().zip(self.schema.fields());
        let columns = fields.map(|(field, arrow)| self.column(batch, file, field, arrow)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).unwrap()
    }

    /// The values of the columns with these ids, whichever schema of the table had them last.
    pub(super) fn keys(&self, batch: &RecordBatch, file: &File, ids: &[i32]) -> Vec<ArrayRef> {
        let mut schemas: Vec<_> = self.table.metadata().schemas_iter().collect();
        schemas.sort_by_key(|schema| std::cmp::Reverse(schema.schema_id()));
        let of_id = |id: &i32| {
            let mut schemas = std::iter::once(self.table.schema()).chain(schemas.iter().copied());
            let schema = schemas.find(|schema| schema.field_by_id(*id).is_some()).unwrap();
            let path: Vec<usize> = path_to(schema, *id);
            let top = &schema.as_struct().fields()[path[0]];
            let arrow = iceberg::arrow::schema_to_arrow_schema(schema).unwrap();
            let mut array = self.column(batch, file, top, &arrow.fields()[path[0]]);
            for index in &path[1..] {
                array = Arc::clone(array.as_struct().column(*index));
            }
            array
        };
        ids.iter().map(of_id).collect()
    }

    /// The partition of a file as a struct with these fields, for so many rows.
    pub(super) fn partition(&self, file: &File, fields: &Fields, rows: usize) -> ArrayRef {
        let metadata = self.table.metadata();
        let spec = metadata.partition_spec_by_id(file.spec_id).unwrap();
        let mut specs: Vec<_> = metadata.partition_specs_iter().collect();
        specs.sort_by_key(|spec| std::cmp::Reverse((spec.spec_id() == metadata.default_partition_spec_id(), spec.spec_id())));
        let values = fields.iter().map(|field| {
            let named = specs.iter().flat_map(|spec| spec.fields()).find(|of| of.name == *field.name()).unwrap();
            let position = spec.fields().iter().position(|of| of.field_id == named.field_id);
            let value = position.and_then(|position| file.partition.get(position));
            constant(value.unwrap_or(&Value::Null), field.data_type(), rows)
        });
        let values = values.collect();
        Arc::new(StructArray::try_new_with_length(fields.clone(), values, None, rows).unwrap())
    }

    fn column(&self, batch: &RecordBatch, file: &File, field: &NestedField, arrow: &Field) -> ArrayRef {
        let of_file = batch.schema();
        let found = if any_ids(of_file.fields()) {
            of_file.fields().iter().position(|candidate| id_of(candidate) == Some(field.id)).map(|index| (index, Ids::Own))
        } else if let Some(mapping) = &self.mapping {
            let mapped = mapping.fields().iter().find(|mapped| mapped.field_id() == Some(field.id));
            mapped.and_then(|mapped| {
                let index = of_file.fields().iter().position(|candidate| mapped.names().contains(candidate.name()))?;
                Some((index, Ids::Mapped(mapped.fields())))
            })
        } else {
            let index = usize::try_from(field.id - 1).ok().filter(|index| *index < of_file.fields().len());
            index.map(|index| (index, Ids::ByName))
        };
        match found {
            Some((index, ids)) => nested(batch.column(index), &field.field_type, arrow.data_type(), ids),
            None => match self.partition_value(file, field.id) {
                Some(value) => constant(&value, arrow.data_type(), batch.num_rows()),
                None => default(field, arrow.data_type(), batch.num_rows()),
            },
        }
    }

    /// The value of an identity partition field of the column.
    fn partition_value(&self, file: &File, id: i32) -> Option<Value> {
        let spec = self.table.metadata().partition_spec_by_id(file.spec_id)?;
        let is_of = |field: &iceberg::spec::PartitionField| field.source_id == id && field.transform == Transform::Identity;
        let position = spec.fields().iter().position(is_of)?;
        file.partition.get(position).cloned()
    }
}

pub(super) fn id_of(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID).map(|id| id.parse().unwrap())
}

fn any_ids(fields: &Fields) -> bool {
    fields.iter().any(|field| {
        id_of(field).is_some()
            || match field.data_type() {
                DataType::Struct(fields) => any_ids(fields),
                DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => {
                    any_ids(&Fields::from(vec![Arc::clone(field)]))
                }
                _ => false,
            }
    })
}

/// Positions from the top-level column down to the field with this id, through structs.
fn path_to(schema: &Schema, id: i32) -> Vec<usize> {
    fn search(fields: &[Arc<NestedField>], id: i32) -> Option<Vec<usize>> {
        fields.iter().enumerate().find_map(|(index, field)| {
            let below = match field.field_type.as_ref() {
                _ if field.id == id => Vec::new(),
                Type::Struct(of) => search(of.fields(), id)?,
                _ => return None,
            };
            Some(std::iter::once(index).chain(below).collect())
        })
    }
    search(schema.as_struct().fields(), id).unwrap()
}

/// A value in every row.
fn constant(value: &Value, to: &DataType, rows: usize) -> ArrayRef {
    let one: ArrayRef = match value {
        Value::Null => return new_null_array(to, rows),
        Value::Boolean(b) => Arc::new(BooleanArray::from(vec![*b])),
        Value::Int(n) => Arc::new(Int64Array::from(vec![i64::from(*n)])),
        Value::Long(n) => Arc::new(Int64Array::from(vec![*n])),
        Value::Float(x) => Arc::new(Float64Array::from(vec![f64::from(*x)])),
        Value::Double(x) => Arc::new(Float64Array::from(vec![*x])),
        Value::String(text) => Arc::new(StringArray::from(vec![text.as_str()])),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => match to {
            DataType::Decimal128(precision, scale) => {
                let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
                let mut wide = [sign; 16];
                wide[16 - bytes.len()..].copy_from_slice(bytes);
                let array = Decimal128Array::from(vec![i128::from_be_bytes(wide)]);
                Arc::new(array.with_precision_and_scale(*precision, *scale).unwrap())
            }
            _ => Arc::new(BinaryArray::from(vec![bytes.as_slice()])),
        },
        other => panic!("{other:?} is no partition value"),
    };
    let one = match to {
        DataType::Date32 => cast(&cast(&one, &DataType::Int32).unwrap(), to).unwrap(),
        _ => cast(&one, to).unwrap(),
    };
    let all: Vec<&dyn Array> = std::iter::repeat_n(one.as_ref(), rows).collect();
    if all.is_empty() { new_null_array(to, 0) } else { concat(&all).unwrap() }
}

/// The initial default of a column, which is NULL unless it says otherwise.
fn default(field: &NestedField, to: &DataType, rows: usize) -> ArrayRef {
    match &field.initial_default {
        None => new_null_array(to, rows),
        Some(default) => {
            let json = default.clone().try_into_json(&field.field_type).unwrap();
            let text = json.as_str().map_or_else(|| json.to_string(), str::to_string);
            let all = StringArray::from(vec![text; rows]);
            cast(&all, to).unwrap()
        }
    }
}

/// An array of a file in the table's type, nested fields by id.
fn nested(array: &ArrayRef, field_type: &Type, to: &DataType, ids: Ids<'_>) -> ArrayRef {
    match (field_type, to) {
        (Type::Struct(of), DataType::Struct(fields)) => {
            let source = array.as_struct();
            let children = of.fields().iter().zip(fields).map(|(field, arrow)| {
                let found = source.fields().iter().position(|candidate| match ids {
                    Ids::Own => id_of(candidate) == Some(field.id),
                    Ids::Mapped(mapped) => {
                        mapped.iter().any(|m| m.field_id() == Some(field.id) && m.names().contains(candidate.name()))
                    }
                    Ids::ByName => *candidate.name() == field.name,
                });
                match found {
                    Some(index) => nested(source.column(index), &field.field_type, arrow.data_type(), below(ids, field.id)),
                    None => default(field, arrow.data_type(), source.len()),
                }
            });
            let fields: Fields = fields.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
            let children = children.collect();
            let built = StructArray::new(fields, children, source.nulls().cloned());
            cast(&(Arc::new(built) as ArrayRef), to).unwrap()
        }
        (Type::List(of), DataType::List(element)) => {
            let plain = cast(array, &DataType::List(Arc::new(item_of(array.data_type())))).unwrap();
            let source = plain.as_list::<i32>();
            let ids = below(ids, of.element_field.id);
            let values = nested(source.values(), &of.element_field.field_type, element.data_type(), ids);
            Arc::new(ListArray::new(Arc::clone(element), source.offsets().clone(), values, source.nulls().cloned()))
        }
        (Type::Map(of), DataType::Map(entries, sorted)) => {
            let source = array.as_map();
            let DataType::Struct(pair) = entries.data_type() else { panic!("{entries} has no entries") };
            let key = nested(source.keys(), &of.key_field.field_type, pair[0].data_type(), below(ids, of.key_field.id));
            let value = nested(source.values(), &of.value_field.field_type, pair[1].data_type(), below(ids, of.value_field.id));
            let entries_array = StructArray::new(pair.clone(), vec![key, value], None);
            let (offsets, nulls) = (source.offsets().clone(), source.nulls().cloned());
            Arc::new(MapArray::new(Arc::clone(entries), offsets, entries_array, nulls, *sorted))
        }
        _ => cast(array, to).unwrap(),
    }
}

fn item_of(list: &DataType) -> Field {
    match list {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item.as_ref().clone(),
        other => panic!("{other} is no list"),
    }
}

/// The ids below a field.
fn below(ids: Ids<'_>, id: i32) -> Ids<'_> {
    match ids {
        Ids::Mapped(mapped) => {
            Ids::Mapped(mapped.iter().find(|m| m.field_id() == Some(id)).map(|m| m.fields()).unwrap_or_default())
        }
        other => other,
    }
}
