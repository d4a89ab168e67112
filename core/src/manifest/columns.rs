use std::collections::HashMap;

use iceberg::spec::{ManifestFile, Struct};
use tarndb_catalog::{Error, Result};

use super::avro::{Container, Cursor, Field, Schema};
use super::fields;
use super::values::{format, int_map, long, partition, string, unsigned};

/// What a manifest entry says became of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryStatus {
    /// Carried over from an earlier manifest.
    Existing,
    /// Added by the snapshot that wrote the manifest.
    Added,
    /// Removed by the snapshot that wrote the manifest.
    Deleted,
}

impl TryFrom<Option<i64>> for EntryStatus {
    type Error = Error;

    fn try_from(number: Option<i64>) -> Result<Self> {
        match number {
            Some(0) => Ok(Self::Existing),
            Some(1) => Ok(Self::Added),
            Some(2) => Ok(Self::Deleted),
            other => Err(Error::data_invalid(format!("a manifest entry has the status {other:?}"))),
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileContent {
    /// Rows.
    Data,
    /// Positions of deleted rows, as a file or as a deletion vector.
    PositionDeletes,
    /// Values of deleted rows.
    EqualityDeletes,
}

/// Format of a data or delete file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Apache Avro.
    Avro,
    /// Apache ORC.
    Orc,
    /// Puffin, which holds deletion vectors.
    Puffin,
}

/// One entry of a manifest, without its column statistics.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What became of the file.
    pub status: EntryStatus,
    /// The snapshot that added or removed the file.
    pub snapshot_id: i64,
    /// Data sequence number.
    pub sequence_number: i64,
    /// What the file holds.
    pub content: FileContent,
    /// Format of the file.
    pub format: FileFormat,
    /// Location of the file, as written.
    pub path: String,
    /// Partition values in the order of the manifest's spec.
    pub partition: Struct,
    /// Rows in the file.
    pub record_count: u64,
    /// Length of the file in bytes.
    pub file_size: u64,
    /// Field ids of an equality delete file.
    pub equality_ids: Vec<i32>,
    /// The one data file that a position delete file is about, where the writer says so.
    pub referenced_data_file: Option<String>,
    /// Sort order by which the file was written.
    pub sort_order_id: Option<i32>,
    /// The row id of the file's first row, in tables with row lineage.
    pub first_row_id: Option<i64>,
    /// Where in its file a deletion vector begins, in bytes.
    pub content_offset: Option<u64>,
    /// How long a deletion vector is, in bytes.
    pub content_size: Option<u64>,
}

impl Entry {
    /// Whether the file belongs to the snapshots that list this manifest.
    pub fn is_live(&self) -> bool {
        self.status != EntryStatus::Deleted
    }
}

/// A place in [`ManifestColumns::arena`]; `u32::MAX` long when absent.
#[derive(Debug, Clone, Copy)]
struct Slice {
    start: u32,
    len: u32,
}

const ABSENT: Slice = Slice { start: 0, len: u32::MAX };

/// Statistics of one column over the entries of a manifest, each as far as the last entry that has it.
#[derive(Debug, Default)]
struct ColumnStats {
    lower: Vec<Slice>,
    upper: Vec<Slice>,
    nulls: Vec<u32>,
    values: Vec<u32>,
    nans: Vec<u32>,
}

/// A count that is not known; neither is one that does not fit.
const UNKNOWN: u32 = u32::MAX;

/// The statistic of one column in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Values,
    Nulls,
    Nans,
}

/// A manifest, decoded into columns. Immutable, as its file is.
#[derive(Debug)]
pub(crate) struct ManifestColumns {
    entries: Vec<Entry>,
    stats: Vec<ColumnStats>,
    /// The field id of each of `stats`.
    ids: Vec<i32>,
    /// Where the statistics of a column are, by field id.
    places: HashMap<i32, usize>,
    /// The column that was looked up last: entries name their columns in one order.
    last: Option<(i32, usize)>,
    /// How many entries there will be, as far as is known while decoding.
    expected: usize,
    /// Bytes decoded so far.
    read_bytes: usize,
    arena: Vec<u8>,
}

/// The statistics of one column in the files of a manifest, by the rows of their entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnView<'a> {
    stats: &'a ColumnStats,
    arena: &'a [u8],
}

impl<'a> ColumnView<'a> {
    fn bound(&self, slice: Option<&Slice>) -> Option<&'a [u8]> {
        let slice = slice.filter(|slice| slice.len != u32::MAX)?;
        self.arena.get(slice.start as usize..)?.get(..slice.len as usize)
    }

    pub(crate) fn lower(&self, row: usize) -> Option<&'a [u8]> {
        self.bound(self.stats.lower.get(row))
    }

    pub(crate) fn upper(&self, row: usize) -> Option<&'a [u8]> {
        self.bound(self.stats.upper.get(row))
    }

    pub(crate) fn count(&self, which: Count, row: usize) -> Option<u64> {
        let counts = match which {
            Count::Values => &self.stats.values,
            Count::Nulls => &self.stats.nulls,
            Count::Nans => &self.stats.nans,
        };
        counts.get(row).filter(|count| **count != UNKNOWN).map(|count| u64::from(*count))
    }
}

/// Statistics are sparse where writers leave columns out; beyond this they are an attack.
const MAX_CELLS_PER_BYTE: usize = 16;
const MIN_CELLS: usize = 1 << 20;

/// What entries inherit from their line in the manifest list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    pub(crate) snapshot_id: i64,
    pub(crate) sequence_number: i64,
    pub(crate) first_row_id: Option<u64>,
    /// How many entries the manifest is said to have.
    pub(crate) count: usize,
}

impl From<&ManifestFile> for Inherited {
    fn from(file: &ManifestFile) -> Self {
        let counts = [file.added_files_count, file.existing_files_count, file.deleted_files_count];
        Self {
            snapshot_id: file.added_snapshot_id,
            sequence_number: file.sequence_number,
            first_row_id: file.first_row_id,
            count: counts.into_iter().flatten().map(|count| count as usize).sum(),
        }
    }
}

impl Inherited {
    /// Only what a snapshot adds may inherit; v1 files, which have no sequence numbers, count as 0.
    pub(super) fn sequence_number_of(self, status: EntryStatus) -> i64 {
        if status == EntryStatus::Added { self.sequence_number } else { self.sequence_number.min(0) }
    }
}

impl ManifestColumns {
    /// The entries, removed ones included.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of memory held, roughly.
    pub(crate) fn memory_size(&self) -> usize {
        let entries: usize = self.entries.iter().map(|e| size_of::<Entry>() + e.path.len() + 64).sum();
        let stats = self.stats.iter().map(|stats| {
            let counts = stats.nulls.capacity() + stats.values.capacity() + stats.nans.capacity();
            (stats.lower.capacity() + stats.upper.capacity()) * size_of::<Slice>() + counts * size_of::<u32>()
        });
        entries + stats.sum::<usize>() + self.arena.len()
    }

    /// The statistics of a column, where any file has some.
    pub(crate) fn column(&self, field_id: i32) -> Option<ColumnView<'_>> {
        Some(ColumnView { stats: self.stats.get(*self.places.get(&field_id)?)?, arena: &self.arena })
    }

    /// The serialized lower bound of a column in the file of entry `row`.
    pub(crate) fn lower(&self, field_id: i32, row: usize) -> Option<&[u8]> {
        self.column(field_id)?.lower(row)
    }

    /// The serialized upper bound of a column in the file of entry `row`.
    pub(crate) fn upper(&self, field_id: i32, row: usize) -> Option<&[u8]> {
        self.column(field_id)?.upper(row)
    }

    /// A count of a column in the file of entry `row`, where the writer gives it.
    pub(crate) fn count(&self, which: Count, field_id: i32, row: usize) -> Option<u64> {
        self.column(field_id)?.count(which, row)
    }

    /// Decodes a manifest file.
    ///
    /// Fields are matched by their Iceberg field id, not by name, and fields that are not known are passed over.
    pub(crate) fn decode(bytes: &[u8], inherited: Inherited) -> Result<Self> {
        let mut container = Container::open(bytes)?;
        let Schema::Record(fields) = container.schema.clone() else {
            return Err(Error::data_invalid("a manifest's schema is not a record"));
        };
        // What is claimed is not believed: each entry takes some bytes.
        let expected = inherited.count.min(bytes.len() / 16);
        let mut columns = Self {
            entries: Vec::with_capacity(expected),
            stats: Vec::new(),
            ids: Vec::new(),
            places: HashMap::new(),
            last: None,
            expected,
            read_bytes: 0,
            arena: Vec::new(),
        };
        let mut buffer = Vec::new();
        while let Some((count, block)) = container.next_block(&mut buffer)? {
            columns.read_bytes += block.len();
            let mut cursor = Cursor(block);
            for _ in 0..count {
                columns.decode_entry(&mut cursor, &fields, inherited)?;
            }
        }
        columns.assign_row_ids(inherited.first_row_id);
        columns.arena.shrink_to_fit();
        Ok(columns)
    }

    fn decode_entry(&mut self, cursor: &mut Cursor<'_>, fields: &[Field], inherited: Inherited) -> Result<()> {
        let (mut status, mut snapshot_id, mut sequence_number) = (EntryStatus::Existing, None, None);
        let mut file = None;
        for field in fields {
            match fields::id(field, fields::ENTRY) {
                Some(0) => {
                    status = EntryStatus::try_from(long(cursor, &field.schema)?)?;
                }
                Some(1) => snapshot_id = long(cursor, &field.schema)?,
                Some(3) => sequence_number = long(cursor, &field.schema)?,
                Some(2) => {
                    let Schema::Record(fields) = cursor.branch(&field.schema)? else {
                        return Err(Error::data_invalid("a manifest's `data_file` is not a record"));
                    };
                    file = Some(self.decode_file(cursor, fields)?);
                }
                _ => cursor.skip(&field.schema)?,
            }
        }
        let mut entry = file.ok_or_else(|| Error::data_invalid("a manifest entry has no `data_file`"))?;
        entry.status = status;
        entry.snapshot_id = snapshot_id.unwrap_or(inherited.snapshot_id);
        entry.sequence_number = sequence_number.unwrap_or_else(|| inherited.sequence_number_of(status));
        self.entries.push(entry);
        Ok(())
    }

    fn decode_file(&mut self, cursor: &mut Cursor<'_>, fields: &[Field]) -> Result<Entry> {
        let mut entry = Entry {
            status: EntryStatus::Existing,
            snapshot_id: 0,
            sequence_number: 0,
            content: FileContent::Data,
            format: FileFormat::Parquet,
            path: String::new(),
            partition: Struct::empty(),
            record_count: 0,
            file_size: 0,
            equality_ids: Vec::new(),
            referenced_data_file: None,
            sort_order_id: None,
            first_row_id: None,
            content_offset: None,
            content_size: None,
        };
        for field in fields {
            let schema = &field.schema;
            match fields::id(field, fields::FILE) {
                Some(134) => {
                    entry.content = match long(cursor, schema)?.unwrap_or(0) {
                        0 => FileContent::Data,
                        1 => FileContent::PositionDeletes,
                        2 => FileContent::EqualityDeletes,
                        other => return Err(Error::data_invalid(format!("a file has the content type {other}"))),
                    };
                }
                Some(100) => entry.path = string(cursor, schema)?.unwrap_or_default().to_string(),
                Some(101) => entry.format = format(string(cursor, schema)?.unwrap_or_default())?,
                Some(102) => entry.partition = partition(cursor, schema)?,
                Some(103) => entry.record_count = unsigned(long(cursor, schema)?)?,
                Some(104) => entry.file_size = unsigned(long(cursor, schema)?)?,
                Some(109) => self.decode_counts(cursor, schema, Count::Values)?,
                Some(110) => self.decode_counts(cursor, schema, Count::Nulls)?,
                Some(137) => self.decode_counts(cursor, schema, Count::Nans)?,
                Some(125) => self.decode_bounds(cursor, schema, true)?,
                Some(128) => self.decode_bounds(cursor, schema, false)?,
                Some(135) => {
                    if let Schema::Array(items) = cursor.branch(schema)? {
                        cursor.each(|cursor| {
                            let id = long(cursor, items)?.and_then(|id| i32::try_from(id).ok());
                            entry.equality_ids.push(id.ok_or_else(|| Error::data_invalid("an equality id is not an int"))?);
                            Ok(())
                        })?;
                    }
                }
                Some(140) => entry.sort_order_id = long(cursor, schema)?.and_then(|id| i32::try_from(id).ok()),
                Some(142) => entry.first_row_id = long(cursor, schema)?,
                Some(143) => entry.referenced_data_file = string(cursor, schema)?.map(str::to_string),
                Some(144) => entry.content_offset = long(cursor, schema)?.map(|n| unsigned(Some(n))).transpose()?,
                Some(145) => entry.content_size = long(cursor, schema)?.map(|n| unsigned(Some(n))).transpose()?,
                _ => cursor.skip(schema)?,
            }
        }
        if entry.path.is_empty() {
            return Err(Error::data_invalid("a manifest entry has no `file_path`"));
        }
        Ok(entry)
    }

    /// The statistics of a column. Most entries name the columns in the order in which the first one did.
    fn stats_of(&mut self, field_id: i32) -> Result<&mut ColumnStats> {
        let next = self.last.map_or(0, |(_, place)| place + 1);
        let place = if let Some((_, place)) = self.last.filter(|(last, _)| *last == field_id) {
            place
        } else if self.ids.get(next) == Some(&field_id) {
            next
        } else if self.ids.first() == Some(&field_id) {
            0
        } else {
            let new = self.stats.len();
            // Each column is as long as the manifest: few bytes must not ask for very many of them.
            if new.saturating_mul(self.entries.len().max(self.expected)) > MAX_CELLS_PER_BYTE * self.read_bytes + MIN_CELLS {
                return Err(Error::data_invalid("a manifest has statistics of too many columns"));
            }
            let place = *self.places.entry(field_id).or_insert(new);
            if place == new {
                self.stats.push(ColumnStats::default());
                self.ids.push(field_id);
            }
            place
        };
        self.last = Some((field_id, place));
        self.stats.get_mut(place).ok_or_else(|| Error::internal("a column's statistics are not where they were"))
    }

    fn decode_counts(&mut self, cursor: &mut Cursor<'_>, schema: &Schema, which: Count) -> Result<()> {
        let (row, expected) = (self.entries.len(), self.expected);
        int_map(cursor, schema, |cursor, value, field_id| {
            let count = long(cursor, value)?.and_then(|count| u32::try_from(count).ok()).unwrap_or(UNKNOWN);
            let stats = self.stats_of(field_id)?;
            let counts = match which {
                Count::Values => &mut stats.values,
                Count::Nulls => &mut stats.nulls,
                Count::Nans => &mut stats.nans,
            };
            counts.reserve(if counts.is_empty() { expected } else { 0 });
            counts.resize(row, UNKNOWN);
            counts.push(count);
            Ok(())
        })
    }

    fn decode_bounds(&mut self, cursor: &mut Cursor<'_>, schema: &Schema, lower: bool) -> Result<()> {
        let (row, expected) = (self.entries.len(), self.expected);
        int_map(cursor, schema, |cursor, value, field_id| {
            let bytes = match cursor.branch(value)? {
                Schema::Bytes(_) => cursor.bytes()?,
                other => return cursor.skip(other),
            };
            let too_large = |_| Error::data_invalid("the bounds of a manifest exceed 4 GiB");
            let slice = Slice {
                start: u32::try_from(self.arena.len()).map_err(too_large)?,
                len: u32::try_from(bytes.len()).map_err(too_large)?,
            };
            self.arena.extend_from_slice(bytes);
            let stats = self.stats_of(field_id)?;
            let bounds = if lower { &mut stats.lower } else { &mut stats.upper };
            bounds.reserve(if bounds.is_empty() { expected } else { 0 });
            bounds.resize(row, ABSENT);
            bounds.push(slice);
            Ok(())
        })
    }

    /// Data files that were written before their snapshot knew its row ids are numbered from the manifest's own first one.
    fn assign_row_ids(&mut self, first: Option<u64>) {
        let Some(mut next) = first.and_then(|first| i64::try_from(first).ok()) else { return };
        for entry in self.entries.iter_mut().filter(|entry| entry.is_live() && entry.content == FileContent::Data) {
            if entry.first_row_id.is_none() {
                entry.first_row_id = Some(next);
                next = next.saturating_add(i64::try_from(entry.record_count).unwrap_or(i64::MAX));
            }
        }
    }
}
