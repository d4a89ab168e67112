use std::collections::{HashMap, HashSet};
use std::ops::Range;

use iceberg::puffin::FileMetadata;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use serde::{Deserialize, Serialize};
use tarndb_catalog::{Error, Result};

/// The type of the blobs: in the form of a deletion vector, the positions of the rows that have a value.
pub(super) const BLOB_TYPE: &str = "tarndb-rows-of-value-v1";

/// Properties of a blob: the value, and in a map the key that has it.
pub(super) const VALUE: &str = "value";
pub(super) const KEY: &str = "key";

/// Properties of the Puffin file: the ids of the columns that have sets, and what of them has none.
pub(super) const COLUMNS: &str = "columns";
pub(super) const LEFT_OUT: &str = "left-out";

/// Key of the Parquet file's metadata: where the Puffin file is in it.
const EMBEDDED: &str = "tarndb.puffin";

/// The longest directory that is read.
const MAX_DIRECTORY_BYTES: u64 = 64 * 1024 * 1024;

/// Begins and ends the footer of a Puffin file.
const MAGIC: [u8; 4] = *b"PFA1";

/// After the payload of a footer: its length, flags and the magic number.
const TRAILER_BYTES: usize = 12;

/// Memory that the place of a set takes, roughly.
const ENTRY_BYTES: usize = 160;

fn damaged(what: &str) -> Error {
    Error::data_invalid(format!("the directory of rows by value is damaged: {what}"))
}

/// A column, or a key of a map, that has too many values.
#[derive(Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct LeftOut {
    pub(super) column: i32,
    pub(super) key: Option<String>,
}

/// A property of the Puffin file: a list.
pub(super) fn list_text(items: &[impl Serialize]) -> Result<String> {
    serde_json::to_string(items).map_err(|e| Error::internal("a list of columns could not be written").with_source(e))
}

/// Where in a Parquet file its Puffin file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Embedded {
    offset: u64,
    length: u64,
    /// Of the footer of the Puffin file, at its end.
    footer_length: u64,
    /// CRC-32 of that footer, which has none of its own.
    checksum: u32,
    /// Rows of the Parquet file.
    rows: i64,
}

impl Embedded {
    /// As an entry of the metadata of the Parquet file, for a Puffin file that is written at `offset`.
    pub(crate) fn describe(puffin: &[u8], offset: u64, rows: i64) -> Result<KeyValue> {
        let footer = || {
            let (_, trailer) = puffin.split_last_chunk::<TRAILER_BYTES>()?;
            let payload = u32::from_le_bytes(*trailer.first_chunk()?) as usize;
            puffin.get(puffin.len().checked_sub(payload + MAGIC.len() + TRAILER_BYTES)?..)
        };
        let footer = footer().ok_or_else(|| Error::internal("a Puffin file was written without a footer"))?;
        let (length, footer_length) = (puffin.len() as u64, footer.len() as u64);
        let embedded = Self { offset, length, footer_length, checksum: crc32fast::hash(footer), rows };
        let text = serde_json::to_string(&embedded);
        let text = text.map_err(|e| Error::internal("the place of a Puffin file could not be written").with_source(e))?;
        Ok(KeyValue::new(EMBEDDED.to_string(), text))
    }

    /// By the footer of a Parquet file of `size` bytes. What is not possible was written by somebody who copied what he did not
    /// know, and is nothing.
    pub(crate) fn of(footer: &ParquetMetaData, size: u64) -> Option<Self> {
        let file = footer.file_metadata();
        let pair = file.key_value_metadata()?.iter().find(|pair| pair.key == EMBEDDED)?;
        let embedded: Self = serde_json::from_str(pair.value.as_ref()?).ok()?;
        let end = embedded.offset.checked_add(embedded.length)?;
        let fits = end <= size && embedded.footer_length <= embedded.length.min(MAX_DIRECTORY_BYTES);
        (fits && embedded.rows == file.num_rows()).then_some(embedded)
    }

    /// Where the directory is in the Parquet file.
    pub(crate) fn directory(&self) -> Range<u64> {
        let end = self.offset + self.length;
        end - self.footer_length..end
    }
}

/// Offset and length of the set of each value.
type Places = HashMap<String, (u64, u64)>;

/// Where the rows of each value are, of one data file.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    columns: HashSet<i32>,
    left_out: HashSet<LeftOut>,
    /// By column, and key of a map.
    sets: HashMap<(i32, Option<String>), Places>,
    bytes: usize,
}

/// What a directory says of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Offset and length, in the data file, of the rows.
    Rows(u64, u64),
    /// No row has it.
    Nowhere,
    /// Any row may have it.
    Unknown,
}

impl Directory {
    /// By the footer of the Puffin file; `None` when there is another thing in its place.
    ///
    /// # Errors
    /// `DataInvalid` for a footer that is damaged.
    pub(crate) fn decode(footer: &[u8], embedded: &Embedded) -> Result<Option<Self>> {
        let Some((payload, trailer)) = footer.strip_prefix(&MAGIC).and_then(|rest| rest.split_last_chunk::<TRAILER_BYTES>())
        else {
            return Ok(None);
        };
        let ([length @ .., _, _, _, _, _, _, _, _], magic) = (trailer, trailer.last_chunk::<4>());
        if magic != Some(&MAGIC) {
            return Ok(None);
        }
        if u32::from_le_bytes(*length) as usize != payload.len() || crc32fast::hash(footer) != embedded.checksum {
            return Err(damaged("its checksum is wrong"));
        }
        let file: FileMetadata = serde_json::from_slice(payload).map_err(|e| damaged("it is not understood").with_source(e))?;
        let property = |name| file.properties().get(name).map(String::as_str).ok_or_else(|| damaged("it lacks a property"));
        let wrong = |e: serde_json::Error| damaged("a property is not understood").with_source(e);
        let columns: HashSet<i32> = serde_json::from_str(property(COLUMNS)?).map_err(wrong)?;
        let left_out: HashSet<LeftOut> = serde_json::from_str(property(LEFT_OUT)?).map_err(wrong)?;
        let mut directory = Self { columns, left_out, bytes: payload.len(), ..Self::default() };
        for blob in file.blobs().iter().filter(|blob| blob.blob_type() == BLOB_TYPE) {
            let end = blob.offset().checked_add(blob.length());
            let is_inside = end.is_some_and(|end| end <= embedded.length - embedded.footer_length);
            let ([column], Some(value), true) = (blob.fields(), blob.properties().get(VALUE), is_inside) else {
                return Err(damaged("a set lies outside of it, or is of nothing"));
            };
            let sets = directory.sets.entry((*column, blob.properties().get(KEY).cloned())).or_default();
            sets.insert(value.clone(), (embedded.offset + blob.offset(), blob.length()));
            directory.bytes += ENTRY_BYTES;
        }
        Ok(Some(directory))
    }

    /// The rows in which a column, or a key of a map, has the value.
    pub(crate) fn find(&self, column: i32, key: Option<&str>, value: &str) -> Found {
        let key = key.map(str::to_string);
        match self.sets.get(&(column, key.clone())).and_then(|sets| sets.get(value)) {
            _ if !self.columns.contains(&column) || self.left_out.contains(&LeftOut { column, key }) => Found::Unknown,
            Some((offset, length)) => Found::Rows(*offset, *length),
            None => Found::Nowhere,
        }
    }

    pub(super) fn memory_size(&self) -> usize {
        self.bytes
    }
}

/// What a footer says of `asked`, for a data file of a hundred rows that has `footer` at its end.
#[cfg(feature = "fuzzing")]
pub(crate) fn decode_and_find(footer: &[u8], asked: (i32, &str, &str)) -> Result<Option<Found>> {
    let length = footer.len() as u64;
    let checksum = crc32fast::hash(footer);
    let embedded = Embedded { offset: 0, length: length.saturating_mul(2), footer_length: length, checksum, rows: 100 };
    Ok(Directory::decode(footer, &embedded)?.map(|directory| directory.find(asked.0, Some(asked.1), asked.2)))
}
