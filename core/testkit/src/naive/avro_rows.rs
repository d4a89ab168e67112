//! Avro files of rows, by way of generic values.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::types::Value;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    MapArray, RecordBatch, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use serde_json::Value as Json;

use super::avro::{header, plain, records};
use super::columns::FIELD_ID;

/// The rows of a file, its columns with their field ids.
pub(super) fn batch(bytes: &[u8]) -> RecordBatch {
    let mut schema: Json = serde_json::from_slice(&header(bytes, "avro.schema")).unwrap();
    spell_out(&mut schema, &mut HashMap::new());
    let rows = records(bytes);
    let rows: Vec<Option<&Value>> = rows.iter().map(Some).collect();
    let array = array(&schema, &rows);
    RecordBatch::from(array.as_any().downcast_ref::<StructArray>().unwrap())
}

/// Puts types in the places of their names.
fn spell_out(schema: &mut Json, named: &mut HashMap<String, Json>) {
    match schema {
        Json::String(name) => {
            if let Some(definition) = named.get(name) {
                *schema = definition.clone();
            }
        }
        Json::Array(branches) => branches.iter_mut().for_each(|branch| spell_out(branch, named)),
        Json::Object(of) => {
            for key in ["type", "items", "values"] {
                if let Some(inner) = of.get_mut(key) {
                    spell_out(inner, named);
                }
            }
            if let Some(Json::Array(fields)) = of.get_mut("fields") {
                fields.iter_mut().for_each(|field| spell_out(&mut field["type"], named));
            }
            if let (Some(Json::String(_)), Some(Json::String(name))) = (of.get("type"), of.get("name")) {
                named.insert(name.clone(), Json::Object(of.clone()));
            }
        }
        _ => {}
    }
}

fn field(name: &str, id: &Json, array: &ArrayRef) -> FieldRef {
    let metadata = id.as_i64().map(|id| (FIELD_ID.to_string(), id.to_string()));
    Arc::new(Field::new(name, array.data_type().clone(), true).with_metadata(HashMap::from_iter(metadata)))
}

/// Values of an Avro type; NULL where there is none.
fn array(schema: &Json, values: &[Option<&Value>]) -> ArrayRef {
    let values: Vec<Option<&Value>> =
        values.iter().map(|value| value.map(plain).filter(|value| !matches!(value, Value::Null))).collect();
    let schema = match schema {
        Json::Array(union) => union.iter().find(|branch| *branch != "null").unwrap(),
        other => other,
    };
    let logical = schema["logicalType"].as_str().unwrap_or_default();
    let (kind, schema) = match &schema["type"] {
        Json::String(kind) => (kind.clone(), schema),
        Json::Null => (schema.as_str().unwrap().to_string(), schema),
        inner => return array(inner, &values),
    };
    let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
    macro_rules! each {
        ($variant:ident) => {
            values.iter().map(|value| {
                value.map(|value| if let Value::$variant(inner) = value { inner.clone() } else { panic!("{value:?}") })
            })
        };
    }
    let bytes = || {
        values.iter().map(|value| {
            value.map(|value| match value {
                Value::Bytes(bytes) | Value::Fixed(_, bytes) => bytes.as_slice(),
                other => panic!("{other:?}"),
            })
        })
    };
    match kind.as_str() {
        "boolean" => Arc::new(each!(Boolean).collect::<BooleanArray>()),
        "int" => Arc::new(each!(Int).collect::<Int32Array>()),
        "long" => Arc::new(each!(Long).collect::<Int64Array>()),
        "float" => Arc::new(each!(Float).collect::<Float32Array>()),
        "double" => Arc::new(each!(Double).collect::<Float64Array>()),
        "string" => Arc::new(each!(String).collect::<StringArray>()),
        "bytes" | "fixed" if logical == "decimal" => {
            let (precision, scale) = (schema["precision"].as_u64().unwrap(), schema["scale"].as_i64().unwrap_or(0));
            let wide = |bytes: &[u8]| {
                bytes.iter().fold(if bytes[0] & 0x80 == 0 { 0_i128 } else { -1 }, |n, b| (n << 8) | i128::from(*b))
            };
            let array = bytes().map(|bytes| bytes.map(wide)).collect::<Decimal128Array>();
            Arc::new(array.with_precision_and_scale(precision.try_into().unwrap(), scale.try_into().unwrap()).unwrap())
        }
        "bytes" | "fixed" => Arc::new(bytes().collect::<BinaryArray>()),
        "record" => {
            let fields = schema["fields"].as_array().unwrap().iter().map(|of| {
                let name = of["name"].as_str().unwrap();
                let inner = |value: &Value| match value {
                    Value::Record(fields) => fields.iter().position(|(field, _)| field == name).unwrap(),
                    other => panic!("{other:?}"),
                };
                let values: Vec<Option<&Value>> = values
                    .iter()
                    .map(|value| {
                        value.map(|value| if let Value::Record(fields) = value { &fields[inner(value)].1 } else { panic!() })
                    })
                    .collect();
                let array = array(&of["type"], &values);
                (field(name, &of["field-id"], &array), array)
            });
            let (fields, arrays): (Vec<FieldRef>, Vec<ArrayRef>) = fields.unzip();
            Arc::new(StructArray::try_new_with_length(Fields::from(fields), arrays, Some(nulls), values.len()).unwrap())
        }
        "array" => {
            let lists: Vec<&[Value]> =
                values.iter().map(|value| if let Some(Value::Array(items)) = value { items.as_slice() } else { &[] }).collect();
            let items: Vec<Option<&Value>> = lists.iter().flat_map(|items| items.iter().map(Some)).collect();
            let items = array(&schema["items"], &items);
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|items| items.len()));
            if logical == "map" {
                let entries = items.as_any().downcast_ref::<StructArray>().unwrap().clone();
                return map(entries, offsets, nulls);
            }
            let element = field("element", &schema["element-id"], &items);
            Arc::new(ListArray::new(element, offsets, items, Some(nulls)))
        }
        "map" => {
            let maps: Vec<Vec<(&String, &Value)>> = values
                .iter()
                .map(|value| if let Some(Value::Map(pairs)) = value { pairs.iter().collect() } else { Vec::new() })
                .collect();
            let keys: ArrayRef =
                Arc::new(StringArray::from(maps.iter().flatten().map(|(key, _)| key.as_str()).collect::<Vec<_>>()));
            let items: Vec<Option<&Value>> = maps.iter().flatten().map(|(_, value)| Some(*value)).collect();
            let items = array(&schema["values"], &items);
            let fields = vec![field("key", &schema["key-id"], &keys), field("value", &schema["value-id"], &items)];
            let entries = StructArray::new(Fields::from(fields), vec![keys, items], None);
            map(entries, OffsetBuffer::from_lengths(maps.iter().map(Vec::len)), nulls)
        }
        other => panic!("an Avro type `{other}`"),
    }
}

fn map(entries: StructArray, offsets: OffsetBuffer<i32>, nulls: NullBuffer) -> ArrayRef {
    let fields: Vec<FieldRef> = entries
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| Arc::new(field.as_ref().clone().with_nullable(index > 0)))
        .collect();
    let (_, columns, _) = entries.into_parts();
    let entries = StructArray::new(Fields::from(fields), columns, None);
    let field = Field::new("entries", DataType::Struct(entries.fields().clone()), false);
    Arc::new(MapArray::new(Arc::new(field), offsets, entries, Some(nulls), false))
}
