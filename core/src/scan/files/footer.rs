//! Footers of Parquet files, checked before anything is read by them. The reader panics where a footer names bytes that cannot be
//! those of a column, and where an Arrow schema is embedded that it does not know; and it takes lengths at their word
//! ([`super::thrift`]), which no handler of panics helps against.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    FileMetaData, FooterTail, KeyValue, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader,
};

use super::thrift;

/// What is read of the end of a file at first: most footers, and the page indexes before them.
const TAIL_BYTES: u64 = 64 * 1024;

/// The footer's length and the magic number.
const END_BYTES: usize = 8;

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(format!("the footer is damaged: {what}"))
}

/// The footer of a file of `size` bytes; with the page indexes, where the same read has them.
pub(super) async fn read(reader: &mut (dyn AsyncFileReader + Send), size: u64) -> Result<ParquetMetaData> {
    let start = size.saturating_sub(TAIL_BYTES);
    let tail = reader.get_bytes(start..size).await?;
    let length = footer_length(&tail)?;
    let footer_start = size.checked_sub(length as u64 + END_BYTES as u64).ok_or_else(|| damaged("it is longer than the file"))?;
    let footer = match footer_start.checked_sub(start) {
        Some(at) => tail.slice(usize::try_from(at)?..tail.len() - END_BYTES),
        None => reader.get_bytes(footer_start..size - END_BYTES as u64).await?,
    };
    let footer = decode(&footer, size)?;
    let is_in_tail = span_of_page_indexes(&footer).is_some_and(|span| span.start >= start && span.end <= footer_start);
    if !is_in_tail {
        return Ok(footer);
    }
    with_page_indexes(footer, start, tail).await
}

/// The footer with the page indexes that lie in `bytes`, which begin at `start` in the file.
pub(super) async fn with_page_indexes(footer: ParquetMetaData, start: u64, bytes: Bytes) -> Result<ParquetMetaData> {
    check_page_indexes(&footer, start, &bytes)?;
    let mut with_indexes = ParquetMetaDataReader::new_with_metadata(footer).with_page_index_policy(PageIndexPolicy::Optional);
    let loaded = AssertUnwindSafe(with_indexes.load_page_index(Part { start, bytes })).catch_unwind().await;
    loaded.unwrap_or_else(|_| Err(not_understood()))?;
    with_indexes.finish()
}

/// What a panic of Parquet's reader means. It believes more of a footer than lengths: that a bound has the length of its type, for
/// one.
fn not_understood() -> ParquetError {
    damaged("the reader does not understand it")
}

fn footer_length(tail: &[u8]) -> Result<usize> {
    let end = tail.last_chunk::<END_BYTES>().ok_or_else(|| damaged("the file is too short"))?;
    let end = FooterTail::try_from(end.as_slice())?;
    if end.is_encrypted_footer() {
        return Err(ParquetError::NYI("encrypted footers are not read".to_string()));
    }
    Ok(end.metadata_length())
}

/// A footer without its length and magic number, of a file of `size` bytes.
fn decode(bytes: &[u8], size: u64) -> Result<ParquetMetaData> {
    thrift::check(bytes, thrift::FOOTER)?;
    let footer = catch_unwind(|| ParquetMetaDataReader::decode_metadata(bytes)).unwrap_or_else(|_| Err(not_understood()))?;
    check(&footer, size)?;
    Ok(without_arrow_schema(footer))
}

/// The metadata of a Parquet file of `size` bytes, by its footer: what is between the data and the last eight bytes. It is checked
/// before it is believed. An embedded Arrow schema is left out.
///
/// # Errors
/// `DataInvalid` for a footer that cannot be one of such a file.
pub fn decode_parquet_footer(footer: &[u8], size: u64) -> tarndb_catalog::Result<ParquetMetaData> {
    decode(footer, size).map_err(|e| super::unreadable("the footer of a Parquet file", e))
}

/// What is told of a file that is in memory.
#[cfg(feature = "fuzzing")]
pub(in crate::scan) fn of_file(file: &[u8]) -> Result<ParquetMetaData> {
    let length = footer_length(file)?;
    let end = file.len().saturating_sub(END_BYTES);
    let start = end.checked_sub(length).ok_or_else(|| damaged("it is longer than the file"))?;
    decode(file.get(start..end).unwrap_or_default(), file.len() as u64)
}

/// Where the page indexes are, and what each is.
fn page_indexes(footer: &ParquetMetaData) -> impl Iterator<Item = (Range<u64>, thrift::Struct)> {
    let range = |offset: Option<i64>, length: Option<i32>| {
        let (offset, length) = (u64::try_from(offset?).ok()?, u64::try_from(length?).ok()?);
        Some(offset..offset.checked_add(length)?)
    };
    let columns = footer.row_groups().iter().flat_map(|group| group.columns());
    columns.flat_map(move |column| {
        let bounds = range(column.column_index_offset(), column.column_index_length());
        let places = range(column.offset_index_offset(), column.offset_index_length());
        [bounds.map(|range| (range, thrift::COLUMN_INDEX)), places.map(|range| (range, thrift::OFFSET_INDEX))]
            .into_iter()
            .flatten()
    })
}

/// The part of the file that has the page indexes in it.
pub(in crate::scan) fn span_of_page_indexes(footer: &ParquetMetaData) -> Option<Range<u64>> {
    page_indexes(footer).map(|(range, _)| range).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
}

/// Checks those page indexes that lie in `bytes`, which begin at `start` in the file.
pub(super) fn check_page_indexes(footer: &ParquetMetaData, start: u64, bytes: &[u8]) -> Result<()> {
    let end = start + bytes.len() as u64;
    for (range, fields) in page_indexes(footer).filter(|(range, _)| range.start >= start && range.end <= end) {
        let piece = bytes.get(usize::try_from(range.start - start)?..usize::try_from(range.end - start)?);
        thrift::check(piece.unwrap_or_default(), fields)?;
    }
    Ok(())
}

/// A part of a file.
struct Part {
    start: u64,
    bytes: Bytes,
}

impl MetadataFetch for Part {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let piece = || {
            let start = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
            let end = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
            (start <= end && end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
        };
        futures::future::ready(piece().ok_or_else(|| damaged("a page index is nowhere"))).boxed()
    }
}

/// The footer without the Arrow schema that some writers put into it, which tells nothing that Parquet's own schema and the
/// table's do not.
fn without_arrow_schema(footer: ParquetMetaData) -> ParquetMetaData {
    let file = footer.file_metadata();
    let Some(pairs) = file.key_value_metadata().filter(|pairs| pairs.iter().any(is_arrow_schema)) else { return footer };
    let others = pairs.iter().filter(|pair| !is_arrow_schema(pair)).cloned().collect();
    let (created_by, orders) = (file.created_by().map(str::to_string), file.column_orders().cloned());
    let file = FileMetaData::new(file.version(), file.num_rows(), created_by, Some(others), file.schema_descr_ptr(), orders);
    let groups = footer.into_builder().take_row_groups();
    ParquetMetaDataBuilder::new(file).set_row_groups(groups).build()
}

fn is_arrow_schema(pair: &KeyValue) -> bool {
    pair.key == ARROW_SCHEMA_META_KEY
}

/// Refuses a footer whose columns do not lie in a file of `size` bytes.
fn check(footer: &ParquetMetaData, size: u64) -> Result<()> {
    for group in footer.row_groups() {
        if group.num_rows() < 0 {
            return Err(damaged("a row group has a negative number of rows"));
        }
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            let inside = end.and_then(|end| u64::try_from(end).ok()).is_some_and(|end| end <= size);
            if start < 0 || column.data_page_offset() < 0 || column.compressed_size() < 0 || !inside {
                return Err(damaged("a column lies outside of the file"));
            }
        }
    }
    Ok(())
}
