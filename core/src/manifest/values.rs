//! Values of manifests and manifest lists. Fields that the specification wants may be optional in a file, and are unknown
//! where they are NULL.

use iceberg::spec::{Literal, PrimitiveLiteral, Struct};
use tarndb_catalog::{Error, Result};

use super::avro::{Cursor, Logical, Schema};
use super::columns::FileFormat;

pub(super) fn long(cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<i64>> {
    match cursor.branch(schema)? {
        Schema::Null => Ok(None),
        Schema::Int | Schema::Long => Ok(Some(cursor.long()?)),
        _ => Err(Error::data_invalid("a manifest holds something else where a number is expected")),
    }
}

pub(super) fn string<'a>(cursor: &mut Cursor<'a>, schema: &Schema) -> Result<Option<&'a str>> {
    match cursor.branch(schema)? {
        Schema::Null => Ok(None),
        Schema::String => Ok(Some(cursor.string()?)),
        _ => Err(Error::data_invalid("a manifest holds something else where a string is expected")),
    }
}

pub(super) fn bytes(cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<Vec<u8>>> {
    match cursor.branch(schema)? {
        Schema::Null => Ok(None),
        Schema::Bytes(_) => Ok(Some(cursor.bytes()?.to_vec())),
        Schema::Fixed(size, _) => Ok(Some(cursor.take(*size)?.to_vec())),
        _ => Err(Error::data_invalid("a manifest holds something else where bytes are expected")),
    }
}

pub(super) fn unsigned(number: Option<i64>) -> Result<u64> {
    u64::try_from(number.unwrap_or(0)).map_err(|_| Error::data_invalid("a manifest entry has a negative size or row count"))
}

pub(super) fn format(name: &str) -> Result<FileFormat> {
    let formats =
        [("parquet", FileFormat::Parquet), ("avro", FileFormat::Avro), ("orc", FileFormat::Orc), ("puffin", FileFormat::Puffin)];
    let known = formats.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map(|(_, format)| format).ok_or_else(|| Error::data_invalid(format!("a manifest entry has the file format `{name}`")))
}

/// A map with int keys, which Iceberg writes as an array of key-value records.
pub(super) fn int_map(
    cursor: &mut Cursor<'_>,
    schema: &Schema,
    mut item: impl FnMut(&mut Cursor<'_>, &Schema, i32) -> Result<()>,
) -> Result<()> {
    let Schema::Array(items) = cursor.branch(schema)? else {
        return Ok(());
    };
    let Schema::Record(pair) = items.as_ref() else {
        return Err(Error::data_invalid("a map of a manifest is not made of records"));
    };
    let [_, value] = pair.as_slice() else {
        return Err(Error::data_invalid("a map of a manifest is not made of keys and values"));
    };
    cursor.each(|cursor| {
        let key = cursor.int()?;
        item(cursor, &value.schema, key)
    })
}

pub(super) fn partition(cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Struct> {
    let Schema::Record(fields) = cursor.branch(schema)? else {
        return Err(Error::data_invalid("a manifest's `partition` is not a record"));
    };
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        values.push(partition_value(cursor, &field.schema)?);
    }
    Ok(Struct::from_iter(values))
}

fn partition_value(cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<Literal>> {
    let unscaled = |bytes: &[u8]| -> Result<PrimitiveLiteral> {
        let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        let start = 16usize.checked_sub(bytes.len());
        let tail = start.and_then(|start| wide.get_mut(start..));
        tail.ok_or_else(|| Error::data_invalid("a decimal partition value is longer than 16 bytes"))?.copy_from_slice(bytes);
        Ok(PrimitiveLiteral::Int128(i128::from_be_bytes(wide)))
    };
    let short = |_| Error::data_invalid("a partition value is truncated");
    let literal = match cursor.branch(schema)? {
        Schema::Null => return Ok(None),
        Schema::Boolean => PrimitiveLiteral::Boolean(cursor.byte()? != 0),
        Schema::Int => PrimitiveLiteral::Int(cursor.int()?),
        Schema::Long => PrimitiveLiteral::Long(cursor.long()?),
        Schema::Float => PrimitiveLiteral::Float(f32::from_le_bytes(cursor.take(4)?.try_into().map_err(short)?).into()),
        Schema::Double => PrimitiveLiteral::Double(f64::from_le_bytes(cursor.take(8)?.try_into().map_err(short)?).into()),
        Schema::String => PrimitiveLiteral::String(cursor.string()?.to_string()),
        Schema::Bytes(Logical::Decimal) => unscaled(cursor.bytes()?)?,
        Schema::Bytes(_) => PrimitiveLiteral::Binary(cursor.bytes()?.to_vec()),
        Schema::Fixed(size, Logical::Decimal) => unscaled(cursor.take(*size)?)?,
        Schema::Fixed(16, Logical::Uuid) => {
            PrimitiveLiteral::UInt128(u128::from_be_bytes(cursor.take(16)?.try_into().map_err(short)?))
        }
        Schema::Fixed(size, _) => PrimitiveLiteral::Binary(cursor.take(*size)?.to_vec()),
        _ => return Err(Error::data_invalid("a partition value is not a primitive")),
    };
    Ok(Some(Literal::Primitive(literal)))
}
