//! Thrift's compact protocol, walked over and not decoded. Parquet's reader makes room for as many elements as a list says it has,
//! and a process that asks for a hundred gigabytes is ended; and it reads each field as the type that it should have, whatever type
//! the bytes say. So both are checked before.

use parquet::errors::{ParquetError, Result};

/// Deeper than any structure of Parquet's.
const MAX_DEPTH: usize = 32;

/// Deeper than any schema: the reader calls itself for each level.
const MAX_SCHEMA_DEPTH: usize = 256;

const BOOL_TRUE: u8 = 1;
const BOOL_FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// The type of a field of `parquet.thrift`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Type {
    Bool,
    /// Of any width: all are read alike.
    Int,
    Byte,
    Double,
    Binary,
    List(&'static Type),
    Struct(Struct),
    /// An element of a schema, whose children follow it.
    SchemaElement(Struct),
    /// How many they are.
    Children,
}

/// The fields of a structure by their numbers. Others are skipped, as the reader does.
pub(super) type Struct = &'static [(i64, Type)];

use Type::{Binary, Bool, Byte, Double, Int};

const NOTHING: Struct = &[];
const TIME_UNIT: Struct = &[(1, Type::Struct(NOTHING)), (2, Type::Struct(NOTHING)), (3, Type::Struct(NOTHING))];
const TIME: Struct = &[(1, Bool), (2, Type::Struct(TIME_UNIT))];
const LOGICAL_TYPE: Struct = &[
    (1, Type::Struct(NOTHING)),
    (2, Type::Struct(NOTHING)),
    (3, Type::Struct(NOTHING)),
    (4, Type::Struct(NOTHING)),
    (5, Type::Struct(&[(1, Int), (2, Int)])),
    (6, Type::Struct(NOTHING)),
    (7, Type::Struct(TIME)),
    (8, Type::Struct(TIME)),
    (10, Type::Struct(&[(1, Byte), (2, Bool)])),
    (11, Type::Struct(NOTHING)),
    (12, Type::Struct(NOTHING)),
    (13, Type::Struct(NOTHING)),
    (14, Type::Struct(NOTHING)),
    (15, Type::Struct(NOTHING)),
    (16, Type::Struct(&[(1, Byte)])),
    (17, Type::Struct(&[(1, Binary)])),
    (18, Type::Struct(&[(1, Binary), (2, Int)])),
];
const SCHEMA_ELEMENT: Type = Type::SchemaElement(&[
    (1, Int),
    (2, Int),
    (3, Int),
    (4, Binary),
    (5, Type::Children),
    (6, Int),
    (7, Int),
    (8, Int),
    (9, Int),
    (10, Type::Struct(LOGICAL_TYPE)),
]);
const KEY_VALUE: Type = Type::Struct(&[(1, Binary), (2, Binary)]);
const STATISTICS: Type =
    Type::Struct(&[(1, Binary), (2, Binary), (3, Int), (4, Int), (5, Binary), (6, Binary), (7, Bool), (8, Bool)]);
const ENCODING_STATISTICS: Type = Type::Struct(&[(1, Int), (2, Int), (3, Int)]);
const SIZE_STATISTICS: Type = Type::Struct(&[(1, Int), (2, Type::List(&Int)), (3, Type::List(&Int))]);
const BOUNDING_BOX: Struct =
    &[(1, Double), (2, Double), (3, Double), (4, Double), (5, Double), (6, Double), (7, Double), (8, Double)];
const COLUMN_METADATA: Type = Type::Struct(&[
    (1, Int),
    (2, Type::List(&Int)),
    (3, Type::List(&Binary)),
    (4, Int),
    (5, Int),
    (6, Int),
    (7, Int),
    (8, Type::List(&KEY_VALUE)),
    (9, Int),
    (10, Int),
    (11, Int),
    (12, STATISTICS),
    (13, Type::List(&ENCODING_STATISTICS)),
    (14, Int),
    (15, Int),
    (16, SIZE_STATISTICS),
    (17, Type::Struct(&[(1, Type::Struct(BOUNDING_BOX)), (2, Type::List(&Int))])),
]);
const COLUMN_KEY: Struct = &[(1, Type::List(&Binary)), (2, Binary)];
const COLUMN_CRYPTO: Struct = &[(1, Type::Struct(NOTHING)), (2, Type::Struct(COLUMN_KEY))];
const COLUMN_CHUNK: Type = Type::Struct(&[
    (1, Binary),
    (2, Int),
    (3, COLUMN_METADATA),
    (4, Int),
    (5, Int),
    (6, Int),
    (7, Int),
    (8, Type::Struct(COLUMN_CRYPTO)),
    (9, Binary),
]);
const SORTING_COLUMN: Type = Type::Struct(&[(1, Int), (2, Bool), (3, Bool)]);
const ROW_GROUP: Type = Type::Struct(&[
    (1, Type::List(&COLUMN_CHUNK)),
    (2, Int),
    (3, Int),
    (4, Type::List(&SORTING_COLUMN)),
    (5, Int),
    (6, Int),
    (7, Int),
]);
const COLUMN_ORDER: Type = Type::Struct(&[(1, Type::Struct(NOTHING))]);

const AES: Type = Type::Struct(&[(1, Binary), (2, Binary), (3, Bool)]);

/// A file's metadata.
pub(super) const FOOTER: Struct = &[
    (1, Int),
    (2, Type::List(&SCHEMA_ELEMENT)),
    (3, Int),
    (4, Type::List(&ROW_GROUP)),
    (5, Type::List(&KEY_VALUE)),
    (6, Binary),
    (7, Type::List(&COLUMN_ORDER)),
    (8, Type::Struct(&[(1, AES), (2, AES)])),
    (9, Binary),
];
/// The bounds of a column's pages.
pub(super) const COLUMN_INDEX: Struct = &[
    (1, Type::List(&Bool)),
    (2, Type::List(&Binary)),
    (3, Type::List(&Binary)),
    (4, Int),
    (5, Type::List(&Int)),
    (6, Type::List(&Int)),
    (7, Type::List(&Int)),
];
const PAGE_LOCATION: Type = Type::Struct(&[(1, Int), (2, Int), (3, Int)]);
/// The places of a column's pages.
pub(super) const OFFSET_INDEX: Struct = &[(1, Type::List(&PAGE_LOCATION)), (2, Type::List(&Int))];

impl Type {
    fn is(self, kind: u8) -> bool {
        match self {
            Bool => matches!(kind, BOOL_TRUE | BOOL_FALSE),
            Int | Self::Children => matches!(kind, I16 | I32 | I64),
            Byte => kind == BYTE,
            Double => kind == DOUBLE,
            Binary => kind == BINARY,
            Self::List(_) => kind == LIST,
            Self::Struct(_) | Self::SchemaElement(_) => kind == STRUCT,
        }
    }
}

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(format!("its Thrift is damaged: {what}"))
}

/// Refuses a structure at the start of `bytes` of which a list or text says that it is longer than the rest, or a field has another
/// type than it should; and a schema that is too deep, or an element of it that has more children than there can be.
pub(super) fn check(bytes: &[u8], fields: Struct) -> Result<()> {
    Walker { rest: bytes, children: 0, open: Vec::new() }.structure(Some(fields), 0)
}

struct Walker<'a> {
    rest: &'a [u8],
    /// Of the element of a schema that is walked over.
    children: u64,
    /// How many children are still to come, of each element above the next.
    open: Vec<u64>,
}

impl Walker<'_> {
    /// Takes in an element of a schema.
    fn element(&mut self) -> Result<()> {
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        if let Some(left) = self.open.last_mut() {
            *left -= 1;
        }
        match std::mem::take(&mut self.children) {
            0 => {}
            children if children > self.rest.len() as u64 => return Err(wrong("a schema has more elements than there are")),
            children => self.open.push(children),
        }
        if self.open.len() > MAX_SCHEMA_DEPTH {
            return Err(wrong("its schema is too deep"));
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| wrong("it ends too early"))?;
        self.rest = rest;
        Ok(*first)
    }

    fn skip(&mut self, count: usize) -> Result<()> {
        self.rest = self.rest.get(count..).ok_or_else(|| wrong("a value is longer than what is left"))?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(wrong("a number is too long"))
    }

    /// A length, of which each element takes a byte at least.
    fn length(&mut self) -> Result<usize> {
        let length = self.varint()?;
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.rest.len())
            .ok_or_else(|| wrong("a list is longer than what is left"))
    }

    fn structure(&mut self, fields: Option<Struct>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(wrong("it is too deep"));
        }
        let mut id = 0_i64;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Ok(());
            }
            id = match header >> 4 {
                // Without a difference to the field before, its number follows.
                0 => {
                    let number = self.varint()?;
                    let number = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
                    // The reader would take the lower bits for the number of another field.
                    i16::try_from(number).map_err(|_| wrong("the number of a field is too large"))?.into()
                }
                difference => id.saturating_add(i64::from(difference)),
            };
            let kind = header & 0x0f;
            let expected = fields.and_then(|fields| fields.iter().find(|(of, _)| *of == id)).map(|(_, expected)| *expected);
            if expected.is_some_and(|expected| !expected.is(kind)) {
                return Err(wrong("a field has another type than it should"));
            }
            // Booleans of fields are in the header.
            if !matches!(kind, BOOL_TRUE | BOOL_FALSE) {
                self.value(kind, expected, depth)?;
            }
        }
    }

    fn value(&mut self, kind: u8, expected: Option<Type>, depth: usize) -> Result<()> {
        match kind {
            BOOL_TRUE | BOOL_FALSE | BYTE => self.skip(1),
            I16 | I32 | I64 => {
                let number = self.varint()?;
                if matches!(expected, Some(Type::Children)) {
                    // A negative number is none.
                    self.children = if number & 1 == 0 { number >> 1 } else { 0 };
                }
                Ok(())
            }
            DOUBLE => self.skip(8),
            BINARY => {
                let length = self.length()?;
                self.skip(length)
            }
            LIST | SET => {
                let header = self.byte()?;
                let count = match usize::from(header >> 4) {
                    15 => self.length()?,
                    short if short <= self.rest.len() => short,
                    _ => return Err(wrong("a list is longer than what is left")),
                };
                let expected = match expected {
                    Some(Type::List(element)) => Some(*element),
                    _ => None,
                };
                if count > 0 && expected.is_some_and(|expected| !expected.is(header & 0x0f)) {
                    return Err(wrong("a list has other elements than it should"));
                }
                // The reader passes over the list and not over the booleans, and takes them for something else.
                if count > 0 && expected.is_none() && Bool.is(header & 0x0f) {
                    return Err(wrong("a list of booleans is where none is known"));
                }
                (0..count).try_for_each(|_| self.value(header & 0x0f, expected, depth + 1))
            }
            MAP => {
                let count = self.length()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.value(kinds >> 4, None, depth + 1)?;
                    self.value(kinds & 0x0f, None, depth + 1)
                })
            }
            STRUCT => {
                let fields = match expected {
                    Some(Type::Struct(fields) | Type::SchemaElement(fields)) => Some(fields),
                    _ => None,
                };
                self.structure(fields, depth + 1)?;
                if matches!(expected, Some(Type::SchemaElement(_))) { self.element() } else { Ok(()) }
            }
            _ => Err(wrong("a value has a type that there is not")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer of which the schema has elements with so many children.
    fn schema(children: &[u8]) -> Vec<u8> {
        let elements = children.iter().flat_map(|children| [0x55, children << 1, 0x00]);
        let count = u8::try_from(children.len()).unwrap();
        let count = if count < 15 { vec![count << 4 | STRUCT] } else { vec![0xfc, count & 0x7f | 0x80, count >> 7] };
        [vec![0x29], count, elements.collect(), vec![0x00]].concat()
    }

    #[test]
    fn schemas_that_the_reader_would_not_survive_are_refused() {
        check(&schema(&[2, 0, 1, 0]), FOOTER).unwrap();
        check(&schema(&[1; 40]), FOOTER).unwrap();
        assert!(check(&schema(&[60, 0]), FOOTER).unwrap_err().to_string().contains("more elements"));
        let deep = [vec![0x29, 0xfc, 0xac, 0x02], [0x55, 0x02, 0x00].repeat(300), vec![0x00]].concat();
        assert!(check(&deep, FOOTER).unwrap_err().to_string().contains("too deep"));
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        // Field 1: a list of two structs, each with an i32; field 2: text.
        let whole = [0x19, 0x2c, 0x15, 0x02, 0x00, 0x15, 0x04, 0x00, 0x18, 0x02, b'a', b'b', 0x00];
        let any = |bytes: &[u8]| check(bytes, NOTHING);
        any(&whole).unwrap();
        for end in 0..whole.len() {
            assert!(any(&whole[..end]).is_err(), "truncated at {end}");
        }
        let long_list = [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert!(any(&long_list).unwrap_err().to_string().contains("a list is longer"));
        assert!(any(&[0x18, 0x7f, 0x00]).is_err(), "a text");
        assert!(any(&[0x1c; 100]).unwrap_err().to_string().contains("too deep"));
        assert!(any(&[0x1d, 0x00]).is_err(), "an unknown type");
    }

    #[test]
    fn what_the_reader_would_misunderstand_is_refused() {
        // Field 15, which nobody knows: a list of one boolean.
        assert!(check(&[0xf9, 0x11, 0x01, 0x00], FOOTER).unwrap_err().to_string().contains("booleans"));
        check(&[0x19, 0x11, 0x01, 0x00], COLUMN_INDEX).unwrap();
        // Field 8, how a file is encrypted: a boolean where a structure should be, which has no bytes, and is read as one.
        assert!(check(&[0x8c, 0x11, 0x00, 0x00], FOOTER).unwrap_err().to_string().contains("another type"));
        // Field 65,538, of which the lower bits are 2: a list of numbers where the schema should be.
        assert!(check(&[0x09, 0x84, 0x80, 0x08, 0x15, 0x02, 0x00], FOOTER).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn fields_have_their_types() {
        // Field 2 of a footer, the schema: a number, and a list of numbers.
        assert!(check(&[0x25, 0x02, 0x00], FOOTER).unwrap_err().to_string().contains("another type"));
        assert!(check(&[0x29, 0x15, 0x02, 0x00], FOOTER).unwrap_err().to_string().contains("other elements"));
        // An empty one, and a field that nobody knows.
        check(&[0x29, 0x0c, 0x00], FOOTER).unwrap();
        check(&[0x0c, 0x70, 0x15, 0x02, 0x00, 0x00], FOOTER).unwrap();
    }
}
