//! Just enough of Avro to read manifests: object container files, walked against their writer schema without
//! building values.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::Read;

use serde_json::Value;
use tarndb_catalog::{Error, Result};

/// The writer schema. Names are resolved; what manifests do not use (enums aside) is refused.
#[derive(Debug, Clone)]
pub(crate) enum Schema {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes(Logical),
    String,
    Fixed(usize, Logical),
    Array(Box<Schema>),
    Map(Box<Schema>),
    Union(Vec<Schema>),
    Record(Vec<Field>),
}

/// The logical types that change how bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logical {
    None,
    Decimal,
    Uuid,
}

/// A field of a record, with its Iceberg field id.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) id: Option<i32>,
    pub(crate) schema: Schema,
}

/// How an object container file begins.
const MAGIC: &[u8] = b"Obj\x01";

/// The types of a schema: those of manifests have some hundred, and one for each partition field.
const MAX_SCHEMA_SIZE: usize = 100_000;

/// No writer makes manifest blocks of this size; a small file that claims more is an attack.
const MAX_BLOCK_BYTES: u64 = 1 << 30;

fn too_large() -> Error {
    damaged("a block is larger than 1 GiB")
}

fn damaged(what: impl Into<String>) -> Error {
    Error::data_invalid(format!("not a readable Avro file: {}", what.into()))
}

/// The types of a schema that have names, and how large the schema may still grow.
struct Named {
    types: HashMap<String, (usize, Schema)>,
    left: Cell<usize>,
}

impl Named {
    fn new() -> Self {
        Self { types: HashMap::new(), left: Cell::new(MAX_SCHEMA_SIZE) }
    }

    fn spend(&self, size: usize) -> Result<()> {
        let left = self.left.get().checked_sub(size).ok_or_else(|| damaged("its schema is too large"))?;
        self.left.set(left);
        Ok(())
    }
}

impl Schema {
    /// How many types it is made of.
    fn size(&self) -> usize {
        1 + match self {
            Schema::Array(of) | Schema::Map(of) => of.size(),
            Schema::Union(branches) => branches.iter().map(Schema::size).sum(),
            Schema::Record(fields) => fields.iter().map(|field| field.schema.size()).sum(),
            _ => 0,
        }
    }

    /// A type that was named before, which few bytes can ask for very often.
    fn of_name(name: &str, named: &Named) -> Result<Schema> {
        let (size, schema) = named.types.get(name).ok_or_else(|| damaged(format!("unknown type `{name}`")))?;
        named.spend(*size)?;
        Ok(schema.clone())
    }

    fn parse(value: &Value, named: &mut Named, depth: usize) -> Result<Schema> {
        if depth > 32 {
            return Err(damaged("schema is nested too deeply"));
        }
        named.spend(1)?;
        match value {
            Value::String(name) => match Self::primitive(name, Logical::None) {
                Some(primitive) => Ok(primitive),
                None => Self::of_name(name, named),
            },
            Value::Array(branches) => {
                let branches: Result<Vec<_>> = branches.iter().map(|b| Self::parse(b, named, depth + 1)).collect();
                Ok(Schema::Union(branches?))
            }
            Value::Object(object) => {
                let kind = object.get("type").ok_or_else(|| damaged("schema without `type`"))?;
                let Value::String(kind) = kind else {
                    return Self::parse(kind, named, depth + 1);
                };
                let logical = match object.get("logicalType").and_then(Value::as_str) {
                    Some("decimal") => Logical::Decimal,
                    Some("uuid") => Logical::Uuid,
                    _ => Logical::None,
                };
                let part = |key: &str| object.get(key).ok_or_else(|| damaged(format!("`{kind}` without `{key}`")));
                let schema = match kind.as_str() {
                    "array" => Schema::Array(Box::new(Self::parse(part("items")?, named, depth + 1)?)),
                    "map" => Schema::Map(Box::new(Self::parse(part("values")?, named, depth + 1)?)),
                    "enum" => Schema::Int,
                    "fixed" => {
                        let size = part("size")?.as_u64().and_then(|n| usize::try_from(n).ok());
                        Schema::Fixed(size.ok_or_else(|| damaged("`fixed` without a size"))?, logical)
                    }
                    "record" => {
                        let fields = part("fields")?.as_array().ok_or_else(|| damaged("`fields` is not a list"))?;
                        let fields: Result<Vec<_>> = fields
                            .iter()
                            .map(|f| {
                                Ok(Field {
                                    name: f.get("name").and_then(Value::as_str).unwrap_or_default().to_string(),
                                    id: f.get("field-id").and_then(Value::as_i64).and_then(|id| i32::try_from(id).ok()),
                                    schema: Self::parse(f.get("type").unwrap_or(&Value::Null), named, depth + 1)?,
                                })
                            })
                            .collect();
                        Schema::Record(fields?)
                    }
                    name => match Self::primitive(name, logical) {
                        Some(primitive) => primitive,
                        None => Self::of_name(name, named)?,
                    },
                };
                if let Some(name) = object.get("name").and_then(Value::as_str) {
                    named.spend(schema.size())?;
                    named.types.insert(name.to_string(), (schema.size(), schema.clone()));
                }
                Ok(schema)
            }
            other => Err(damaged(format!("`{other}` is not a type"))),
        }
    }

    fn primitive(name: &str, logical: Logical) -> Option<Schema> {
        Some(match name {
            "null" => Schema::Null,
            "boolean" => Schema::Boolean,
            "int" => Schema::Int,
            "long" => Schema::Long,
            "float" => Schema::Float,
            "double" => Schema::Double,
            "bytes" => Schema::Bytes(logical),
            "string" => Schema::String,
            _ => return None,
        })
    }
}

/// An Avro object container file.
pub(crate) struct Container<'a> {
    pub(crate) schema: Schema,
    header: HashMap<&'a str, &'a [u8]>,
    codec: String,
    deflate: flate2::Decompress,
    sync: [u8; 16],
    rest: &'a [u8],
}

impl<'a> Container<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self> {
        let (header, mut cursor) = read_header(bytes)?;
        let sync = cursor.take(16)?.try_into().map_err(|_| damaged("truncated header"))?;
        let schema = header.get("avro.schema").ok_or_else(|| damaged("no schema in its header"))?;
        let schema: Value = serde_json::from_slice(schema).map_err(|e| damaged("its schema is not JSON").with_source(e))?;
        let codec = header.get("avro.codec").map_or(Cow::Borrowed("null"), |codec| String::from_utf8_lossy(codec)).into_owned();
        let schema = Schema::parse(&schema, &mut Named::new(), 0)?;
        let deflate = flate2::Decompress::new(false);
        Ok(Self { schema, header, codec, deflate, sync, rest: cursor.0 })
    }

    /// A value of the file's header.
    pub(crate) fn header(&self, key: &str) -> Option<&'a [u8]> {
        self.header.get(key).copied()
    }

    /// The next block: how many records it holds, and their bytes, which are in `buffer` when they are compressed in the file.
    /// `None` at the end.
    pub(crate) fn next_block<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<Option<(usize, &'b [u8])>>
    where
        'a: 'b,
    {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut cursor = Cursor(self.rest);
        let count = cursor.length()?;
        let size = cursor.length()?;
        let data = cursor.take(size)?;
        if cursor.take(16)? != self.sync {
            return Err(damaged("a block does not end with the sync marker"));
        }
        self.rest = cursor.0;
        if self.codec == "null" {
            return Ok(Some((count, data)));
        }
        self.inflate(data, buffer)?;
        Ok(Some((count, buffer)))
    }

    fn inflate(&mut self, data: &[u8], buffer: &mut Vec<u8>) -> Result<()> {
        buffer.clear();
        match self.codec.as_str() {
            "deflate" => return self.inflate_raw(data, buffer),
            "zstandard" => {
                let decoder =
                    zstd::stream::read::Decoder::new(data).map_err(|e| damaged("a block is not zstandard").with_source(e))?;
                let read = decoder.take(MAX_BLOCK_BYTES + 1).read_to_end(buffer);
                read.map_err(|e| damaged("a block cannot be decompressed").with_source(e))?;
            }
            "snappy" => {
                let (body, crc) = data.split_last_chunk::<4>().ok_or_else(|| damaged("a snappy block is truncated"))?;
                let length = snap::raw::decompress_len(body).map_err(|e| damaged("a block is not snappy").with_source(e))?;
                if length as u64 > MAX_BLOCK_BYTES {
                    return Err(too_large());
                }
                buffer.resize(length, 0);
                let written = snap::raw::Decoder::new().decompress(body, buffer);
                buffer.truncate(written.map_err(|e| damaged("a block is not snappy").with_source(e))?);
                if crc32fast::hash(buffer) != u32::from_be_bytes(*crc) {
                    return Err(damaged("the checksum of a block is wrong"));
                }
            }
            codec => return Err(Error::unsupported(format!("Avro codec `{codec}` is not supported"))),
        }
        if buffer.len() as u64 > MAX_BLOCK_BYTES { Err(too_large()) } else { Ok(()) }
    }

    /// Inflates with one state for all blocks: some writers make a block of every entry.
    fn inflate_raw(&mut self, data: &[u8], buffer: &mut Vec<u8>) -> Result<()> {
        self.deflate.reset(false);
        let mut read = 0;
        loop {
            // Grows as the content does: what a block claims of its length is not believed.
            buffer.reserve((2 * data.len()).max(buffer.len()).max(1024));
            let before = (self.deflate.total_in(), buffer.len());
            let rest = data.get(read..).unwrap_or_default();
            let status = self.deflate.decompress_vec(rest, buffer, flate2::FlushDecompress::Finish);
            let status = status.map_err(|e| damaged("a block cannot be decompressed").with_source(e))?;
            read = usize::try_from(self.deflate.total_in()).map_err(|_| too_large())?;
            if buffer.len() as u64 > MAX_BLOCK_BYTES {
                return Err(too_large());
            }
            if status == flate2::Status::StreamEnd {
                return Ok(());
            }
            if before == (self.deflate.total_in(), buffer.len()) && buffer.len() < buffer.capacity() {
                return Err(damaged("a compressed block is truncated"));
            }
        }
    }
}

/// The key-value pairs at the beginning of a file, and what follows them.
fn read_header(bytes: &[u8]) -> Result<(HashMap<&str, &[u8]>, Cursor<'_>)> {
    let Some(body) = bytes.strip_prefix(MAGIC) else {
        return Err(damaged("it does not begin as one"));
    };
    let mut cursor = Cursor(body);
    let mut header = HashMap::new();
    loop {
        let count = cursor.block_count()?;
        if count == 0 {
            return Ok((header, cursor));
        }
        for _ in 0..count {
            let key = cursor.string()?;
            header.insert(key, cursor.bytes()?);
        }
    }
}

/// The file with other values in its header: `change` gets each key and value, and returns the value to be.
pub(crate) fn with_header(bytes: &[u8], change: impl Fn(&str, &[u8]) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let (header, rest) = read_header(bytes)?;
    let mut pairs: Vec<(&str, &[u8])> = header.into_iter().collect();
    pairs.sort_unstable();
    let mut encoded = MAGIC.to_vec();
    put_length(&mut encoded, pairs.len());
    for (key, value) in pairs {
        for text in [key.as_bytes(), &change(key, value)?] {
            put_length(&mut encoded, text.len());
            encoded.extend_from_slice(text);
        }
    }
    encoded.push(0);
    encoded.extend_from_slice(rest.0);
    Ok(encoded)
}

/// A length in Avro's zigzag encoding.
fn put_length(out: &mut Vec<u8>, length: usize) {
    let mut rest = (length as u64) << 1;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads Avro's binary encoding off the front of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).ok_or_else(|| damaged("it is truncated"))?;
        self.0 = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (first, tail) = self.0.split_first().ok_or_else(|| damaged("it is truncated"))?;
        self.0 = tail;
        Ok(*first)
    }

    #[inline]
    pub(crate) fn long(&mut self) -> Result<i64> {
        // Nearly all numbers of a manifest are of one byte.
        if let Some((&first @ 0..0x80, rest)) = self.0.split_first() {
            self.0 = rest;
            return Ok(i64::from(first >> 1) ^ -i64::from(first & 1));
        }
        self.long_of_many_bytes()
    }

    fn long_of_many_bytes(&mut self) -> Result<i64> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err(damaged("a number is longer than 64 bits"))
    }

    #[inline]
    pub(crate) fn int(&mut self) -> Result<i32> {
        i32::try_from(self.long()?).map_err(|_| damaged("an int is longer than 32 bits"))
    }

    #[inline]
    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.long()?).map_err(|_| damaged("a length is negative"))
    }

    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    pub(crate) fn string(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|e| damaged("a string is not UTF-8").with_source(e))
    }

    /// The count of the next block of an array or map; 0 ends it.
    pub(crate) fn block_count(&mut self) -> Result<usize> {
        let count = self.long()?;
        if count < 0 {
            self.length()?;
        }
        let count = usize::try_from(count.unsigned_abs()).map_err(|_| damaged("a block count is too large"))?;
        // Each item takes at least a byte, except for items of type null, which manifests have not.
        if count > self.0.len() {
            return Err(damaged("a block count is larger than the file"));
        }
        Ok(count)
    }

    /// The chosen branch of a union; any other schema is its own only branch.
    #[inline]
    pub(crate) fn branch<'s>(&mut self, schema: &'s Schema) -> Result<&'s Schema> {
        match schema {
            Schema::Union(branches) => {
                let index = self.length()?;
                branches.get(index).ok_or_else(|| damaged("a union branch does not exist"))
            }
            other => Ok(other),
        }
    }

    pub(crate) fn skip(&mut self, schema: &Schema) -> Result<()> {
        match self.branch(schema)? {
            Schema::Null => {}
            Schema::Boolean => {
                self.byte()?;
            }
            Schema::Int | Schema::Long => {
                self.long()?;
            }
            Schema::Float => {
                self.take(4)?;
            }
            Schema::Double => {
                self.take(8)?;
            }
            Schema::Bytes(_) | Schema::String => {
                self.bytes()?;
            }
            Schema::Fixed(size, _) => {
                self.take(*size)?;
            }
            Schema::Array(items) => self.each(|cursor| cursor.skip(items))?,
            Schema::Map(values) => self.each(|cursor| {
                cursor.bytes()?;
                cursor.skip(values)
            })?,
            Schema::Record(fields) => {
                for field in fields {
                    self.skip(&field.schema)?;
                }
            }
            Schema::Union(_) => return Err(damaged("a union in a union")),
        }
        Ok(())
    }

    /// Calls `item` for every item of an array or map.
    pub(crate) fn each(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        loop {
            let count = self.block_count()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                let before = self.0.len();
                item(self)?;
                // Of such items a few bytes could claim any number.
                if self.0.len() == before {
                    return Err(damaged("the items of an array take no bytes"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(schema: &str) -> Result<Schema> {
        Schema::parse(&serde_json::from_str(schema).unwrap(), &mut Named::new(), 0)
    }

    #[test]
    fn few_bytes_do_not_make_a_large_schema() {
        let mut fields = vec![
            r#"{"name": "a0", "type": {"type": "record", "name": "r0", "fields": [{"name": "x", "type": "int"}]}}"#.to_string(),
        ];
        for level in 1..12 {
            let below = level - 1;
            let inner: Vec<String> = (0..10).map(|n| format!(r#"{{"name": "f{n}", "type": "r{below}"}}"#)).collect();
            fields.push(format!(
                r#"{{"name": "a{level}", "type": {{"type": "record", "name": "r{level}", "fields": [{}]}}}}"#,
                inner.join(",")
            ));
        }
        let error = parse(&format!(r#"{{"type": "record", "name": "top", "fields": [{}]}}"#, fields.join(","))).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }

    #[test]
    fn items_without_bytes_are_refused() {
        let schema = parse(r#"{"type": "array", "items": {"type": "record", "name": "r", "fields": []}}"#).unwrap();
        let mut claims = vec![0x80, 0x02];
        claims.extend([0; 300]);
        assert!(Cursor(&claims).skip(&schema).is_err());
    }

    #[test]
    fn a_header_is_changed() {
        let mut file = MAGIC.to_vec();
        file.extend([2, 2, b'k', 2, b'v', 0]);
        file.extend([7; 16]);
        let changed = with_header(&file, |_, value| Ok([value, &[b'w'; 100]].concat())).unwrap();
        let (header, rest) = read_header(&changed).unwrap();
        assert_eq!(header["k"].len(), 101);
        assert_eq!(rest.0, [7; 16]);
    }
}
