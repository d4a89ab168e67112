//! Checksums of Parquet pages, which `parquet` reads but does not write: field 4 of `PageHeader` in `parquet.thrift`, the CRC-32 of
//! what follows the header. Without them a changed byte of a page is another value.

use std::collections::VecDeque;
use std::io::{self, Read};

use bytes::{Buf, Bytes};
use integer_encoding::VarInt;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// The start of a field of 32 bits whose number is one more than that of the field before, in Thrift's compact protocol.
const NEXT_I32: u8 = 0x15;
/// One more field that is left out, in the upper half of such a start.
const ONE_FIELD: u8 = 0x10;
fn unexpected(what: &str) -> ParquetError {
    ParquetError::General(format!("no checksums can be added to an encoded column: {what}"))
}

/// The encoded pages of a column.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Pages {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        self.pieces.push_back(piece);
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.length as u64
    }
}

/// For the writer of a row group, which takes a chunk as a whole.
impl ChunkReader for Pages {
    type T = PagesReader;

    fn get_read(&self, start: u64) -> Result<PagesReader> {
        if start == 0 { Ok(PagesReader(self.pieces.clone())) } else { Err(unexpected("a part of it is asked for")) }
    }

    fn get_bytes(&self, _start: u64, _length: usize) -> Result<Bytes> {
        Err(unexpected("a part of it is asked for"))
    }
}

/// Reads pages from the first to the last.
pub(super) struct PagesReader(VecDeque<Bytes>);

impl Read for PagesReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.0.front().is_some_and(Bytes::is_empty) {
            self.0.pop_front();
        }
        let Some(piece) = self.0.front_mut() else { return Ok(0) };
        let length = piece.as_ref().read(buffer)?;
        piece.advance(length);
        Ok(length)
    }
}

/// The chunk of a column, as a column writer closed it, with a checksum in the header of each page, and what is then true of it.
pub(super) fn with_checksums(chunk: &Bytes, mut close: ColumnCloseResult) -> Result<(Pages, ColumnCloseResult)> {
    let data_start = offset(close.metadata.data_page_offset())?;
    let index = close.offset_index.as_mut().ok_or_else(|| unexpected("the places of its pages are not known"))?;
    let mut checked = Pages::default();
    if close.metadata.dictionary_page_offset().is_some() {
        append_page(&mut checked, &page(chunk, 0, data_start)?)?;
    }
    let checked_data_start = checked.length;
    let mut end = data_start;
    for location in &mut index.page_locations {
        let (start, length) = (offset(location.offset)?, offset(location.compressed_page_size.into())?);
        if start != end {
            return Err(unexpected("its pages do not follow one another"));
        }
        end = start + length;
        let checked_start = checked.length;
        append_page(&mut checked, &page(chunk, start, end)?)?;
        location.offset = checked_start as i64;
        location.compressed_page_size = i32::try_from(checked.length - checked_start)?;
    }
    if end != chunk.len() {
        return Err(unexpected("it has more than its pages"));
    }
    let growth = (checked.length - chunk.len()) as u64;
    close.bytes_written += growth;
    let metadata = close.metadata;
    let (compressed, uncompressed) = (metadata.compressed_size(), metadata.uncompressed_size());
    close.metadata = metadata
        .into_builder()
        .set_data_page_offset(checked_data_start as i64)
        .set_total_compressed_size(compressed + growth.cast_signed())
        .set_total_uncompressed_size(uncompressed + growth.cast_signed())
        .build()?;
    Ok((checked, close))
}

fn offset(value: i64) -> Result<usize> {
    usize::try_from(value).map_err(|_| unexpected("a page has a negative offset"))
}

fn page(chunk: &Bytes, start: usize, end: usize) -> Result<Bytes> {
    if start <= end && end <= chunk.len() { Ok(chunk.slice(start..end)) } else { Err(unexpected("a page ends behind it")) }
}

/// Appends a page with its checksum. Its header begins with the type and the two sizes, in 32 bits each.
fn append_page(checked: &mut Pages, page: &Bytes) -> Result<()> {
    let mut known = 0;
    let mut compressed = 0;
    for _ in 0..3 {
        let field = page.get(known..).and_then(|rest| rest.strip_prefix(&[NEXT_I32]));
        let (value, length) = field.and_then(i32::decode_var).ok_or_else(|| unexpected("a page starts with no header"))?;
        known += 1 + length;
        compressed = value;
    }
    let header =
        page.len().checked_sub(offset(compressed.into())?).ok_or_else(|| unexpected("a page is shorter than its content"))?;
    let content = page.slice(header..);
    let (sizes, rest) = page
        .get(..header)
        .and_then(|header| header.split_at_checked(known))
        .ok_or_else(|| unexpected("the header of a page is too short"))?;
    let (next, rest) = rest.split_first().ok_or_else(|| unexpected("a page has no kind"))?;
    if *next < 2 * ONE_FIELD {
        return Err(unexpected("a page has a checksum"));
    }
    let mut header = sizes.to_vec();
    header.push(NEXT_I32);
    header.extend(crc32fast::hash(&content).cast_signed().encode_var_vec());
    header.push(next - ONE_FIELD);
    header.extend_from_slice(rest);
    checked.push(header.into());
    checked.push(content);
    Ok(())
}
