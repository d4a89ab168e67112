//! Thrift's compact protocol, walked over and not decoded: Parquet's reader makes room for as many elements as a list says it has,
//! and a process that asks for a hundred gigabytes is ended.

use parquet::errors::{ParquetError, Result};

/// Deeper than any structure of Parquet's.
const MAX_DEPTH: usize = 32;

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

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(format!("its Thrift is damaged: {what}"))
}

/// Refuses a structure at the start of `bytes` of which a list or text says that it is longer than the rest.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    Walker(bytes).structure(0)
}

struct Walker<'a>(&'a [u8]);

impl Walker<'_> {
    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(|| wrong("it ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn skip(&mut self, count: usize) -> Result<()> {
        self.0 = self.0.get(count..).ok_or_else(|| wrong("a value is longer than what is left"))?;
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
            .filter(|length| *length <= self.0.len())
            .ok_or_else(|| wrong("a list is longer than what is left"))
    }

    fn structure(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(wrong("it is too deep"));
        }
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Ok(());
            }
            // Without a difference to the field before, its number follows.
            if header >> 4 == 0 {
                self.varint()?;
            }
            // Booleans of fields are in the header.
            if !matches!(header & 0x0f, BOOL_TRUE | BOOL_FALSE) {
                self.value(header & 0x0f, depth)?;
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<()> {
        match kind {
            BOOL_TRUE | BOOL_FALSE | BYTE => self.skip(1),
            I16 | I32 | I64 => self.varint().map(|_| ()),
            DOUBLE => self.skip(8),
            BINARY => {
                let length = self.length()?;
                self.skip(length)
            }
            LIST | SET => {
                let header = self.byte()?;
                let count = match usize::from(header >> 4) {
                    15 => self.length()?,
                    short if short <= self.0.len() => short,
                    _ => return Err(wrong("a list is longer than what is left")),
                };
                (0..count).try_for_each(|_| self.value(header & 0x0f, depth + 1))
            }
            MAP => {
                let count = self.length()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.value(kinds >> 4, depth + 1)?;
                    self.value(kinds & 0x0f, depth + 1)
                })
            }
            STRUCT => self.structure(depth + 1),
            _ => Err(wrong("a value has a type that there is not")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        // Field 1: a list of two structs, each with an i32; field 2: text.
        let whole = [0x19, 0x2c, 0x15, 0x02, 0x00, 0x15, 0x04, 0x00, 0x18, 0x02, b'a', b'b', 0x00];
        check(&whole).unwrap();
        for end in 0..whole.len() {
            assert!(check(&whole[..end]).is_err(), "truncated at {end}");
        }
        let long_list = [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert!(check(&long_list).unwrap_err().to_string().contains("a list is longer"));
        assert!(check(&[0x18, 0x7f, 0x00]).is_err(), "a text");
        assert!(check(&[0x1c; 100]).unwrap_err().to_string().contains("too deep"));
        assert!(check(&[0x1d, 0x00]).is_err(), "an unknown type");
    }
}
