use std::collections::HashMap;

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, ManifestFile, PrimitiveType, SchemaRef, TableMetadata,
};
use tarndb_catalog::{Error, Result};

use super::avro::{Container, Cursor, Field, Schema};
use super::columns::{EntryStatus, FileFormat, Inherited};
use super::fields;
use super::values::{bytes, format, int_map, long, partition, string, unsigned};

/// A live entry of a manifest, with all that it says of its file.
#[derive(Debug, Clone)]
pub(crate) struct FileEntry {
    pub(crate) snapshot_id: i64,
    pub(crate) sequence_number: i64,
    /// The sequence number of the commit that added the file, which for rewritten rows is not that of the rows.
    pub(crate) file_sequence_number: i64,
    pub(crate) file: DataFile,
}

/// Decodes a manifest: one element for each entry, `None` for those of removed files.
pub(super) fn decode(content: &[u8], line: &ManifestFile, metadata: &TableMetadata) -> Result<Vec<Option<FileEntry>>> {
    let mut container = Container::open(content)?;
    let Schema::Record(fields) = container.schema.clone() else {
        return Err(Error::data_invalid("a manifest's schema is not a record"));
    };
    let decoder = Decoder { metadata, line, inherited: Inherited::from(line) };
    let mut next_row_id = line.first_row_id.and_then(|id| i64::try_from(id).ok());
    let mut entries = Vec::new();
    let mut buffer = Vec::new();
    while let Some((count, block)) = container.next_block(&mut buffer)? {
        let mut cursor = Cursor(block);
        for _ in 0..count {
            entries.push(decoder.entry(&mut cursor, &fields, &mut next_row_id)?);
        }
    }
    Ok(entries)
}

struct Decoder<'a> {
    metadata: &'a TableMetadata,
    line: &'a ManifestFile,
    inherited: Inherited,
}

impl Decoder<'_> {
    fn entry(&self, cursor: &mut Cursor<'_>, fields: &[Field], next_row_id: &mut Option<i64>) -> Result<Option<FileEntry>> {
        let (mut status, mut snapshot_id, mut sequence_number, mut file_sequence_number) = (None, None, None, None);
        let mut builder = None;
        for field in fields {
            match fields::id(field, fields::ENTRY) {
                Some(0) => status = long(cursor, &field.schema)?,
                Some(1) => snapshot_id = long(cursor, &field.schema)?,
                Some(3) => sequence_number = long(cursor, &field.schema)?,
                Some(4) => file_sequence_number = long(cursor, &field.schema)?,
                Some(2) => builder = Some(self.file(cursor, &field.schema)?),
                _ => cursor.skip(&field.schema)?,
            }
        }
        let status = EntryStatus::try_from(status)?;
        let (mut builder, row_count, has_row_id) =
            builder.ok_or_else(|| Error::data_invalid("a manifest entry has no `data_file`"))?;
        if status == EntryStatus::Deleted {
            return Ok(None);
        }
        if let Some(row_id) = next_row_id.as_mut().filter(|_| !has_row_id) {
            builder.first_row_id(Some(*row_id));
            *row_id = row_id.saturating_add(i64::try_from(row_count).unwrap_or(i64::MAX));
        }
        let inherited = self.inherited.sequence_number_of(status);
        let file = builder.build().map_err(|e| Error::data_invalid("a manifest entry is incomplete").with_source(e))?;
        Ok(Some(FileEntry {
            snapshot_id: snapshot_id.unwrap_or(self.inherited.snapshot_id),
            sequence_number: sequence_number.unwrap_or(inherited),
            file_sequence_number: file_sequence_number.unwrap_or(inherited),
            file,
        }))
    }

    /// The file, its number of rows, and whether it says itself by which id they begin.
    fn file(&self, cursor: &mut Cursor<'_>, schema: &Schema) -> Result<(DataFileBuilder, u64, bool)> {
        let Schema::Record(fields) = cursor.branch(schema)? else {
            return Err(Error::data_invalid("a manifest's `data_file` is not a record"));
        };
        let mut file = DataFileBuilder::default();
        file.content(DataContentType::Data).partition_spec_id(self.line.partition_spec_id);
        let (mut row_count, mut has_row_id) = (0, false);
        for field in fields {
            let schema = &field.schema;
            match fields::id(field, fields::FILE) {
                Some(134) => {
                    let content = long(cursor, schema)?.unwrap_or(0);
                    let known = i32::try_from(content).ok().and_then(|content| DataContentType::try_from(content).ok());
                    file.content(known.ok_or_else(|| Error::data_invalid(format!("a file has the content type {content}")))?);
                }
                Some(100) => {
                    file.file_path(string(cursor, schema)?.unwrap_or_default().to_string());
                }
                Some(101) => {
                    file.file_format(match format(string(cursor, schema)?.unwrap_or_default())? {
                        FileFormat::Parquet => DataFileFormat::Parquet,
                        FileFormat::Avro => DataFileFormat::Avro,
                        FileFormat::Orc => DataFileFormat::Orc,
                        FileFormat::Puffin => DataFileFormat::Puffin,
                    });
                }
                Some(102) => {
                    file.partition(partition(cursor, schema)?);
                }
                Some(103) => {
                    row_count = unsigned(long(cursor, schema)?)?;
                    file.record_count(row_count);
                }
                Some(104) => {
                    file.file_size_in_bytes(unsigned(long(cursor, schema)?)?);
                }
                Some(108) => {
                    file.column_sizes(counts(cursor, schema)?);
                }
                Some(109) => {
                    file.value_counts(counts(cursor, schema)?);
                }
                Some(110) => {
                    file.null_value_counts(counts(cursor, schema)?);
                }
                Some(137) => {
                    file.nan_value_counts(counts(cursor, schema)?);
                }
                Some(125) => {
                    file.lower_bounds(self.bounds(cursor, schema)?);
                }
                Some(128) => {
                    file.upper_bounds(self.bounds(cursor, schema)?);
                }
                Some(131) => {
                    file.key_metadata(bytes(cursor, schema)?);
                }
                Some(132) => {
                    file.split_offsets(longs(cursor, schema)?);
                }
                Some(135) => {
                    let ids = longs(cursor, schema)?.map(|ids| ids.into_iter().map(i32::try_from).collect());
                    file.equality_ids(ids.transpose().map_err(|_| Error::data_invalid("an equality id is not an int"))?);
                }
                Some(140) => {
                    if let Some(id) = long(cursor, schema)?.and_then(|id| i32::try_from(id).ok()) {
                        file.sort_order_id(id);
                    }
                }
                Some(142) => {
                    let id = long(cursor, schema)?;
                    has_row_id = id.is_some();
                    file.first_row_id(id);
                }
                Some(143) => {
                    file.referenced_data_file(string(cursor, schema)?.map(str::to_string));
                }
                Some(144) => {
                    file.content_offset(long(cursor, schema)?);
                }
                Some(145) => {
                    file.content_size_in_bytes(long(cursor, schema)?);
                }
                _ => cursor.skip(schema)?,
            }
        }
        Ok((file, row_count, has_row_id))
    }

    /// Bounds by column. One that is not a value of its column is no bound.
    fn bounds(&self, cursor: &mut Cursor<'_>, schema: &Schema) -> Result<HashMap<i32, Datum>> {
        let mut bounds = HashMap::new();
        int_map(cursor, schema, |cursor, value, field_id| {
            let bound = bytes(cursor, value)?;
            let data_type = self.type_of(field_id);
            if let (Some(bound), Some(data_type)) = (bound, data_type)
                && let Ok(datum) = Datum::try_from_bytes(&bound, data_type)
            {
                bounds.insert(field_id, datum);
            }
            Ok(())
        })?;
        Ok(bounds)
    }

    fn type_of(&self, field_id: i32) -> Option<PrimitiveType> {
        match field_id {
            fields::FILE_PATH_FIELD_ID => return Some(PrimitiveType::String),
            fields::POS_FIELD_ID => return Some(PrimitiveType::Long),
            _ => {}
        }
        let in_schema = |schema: &SchemaRef| schema.field_by_id(field_id)?.field_type.as_primitive_type().cloned();
        // The type of now, which the bounds of before a promotion fit too.
        in_schema(self.metadata.current_schema()).or_else(|| self.metadata.schemas_iter().find_map(in_schema))
    }
}

fn counts(cursor: &mut Cursor<'_>, schema: &Schema) -> Result<HashMap<i32, u64>> {
    let mut counts = HashMap::new();
    int_map(cursor, schema, |cursor, value, field_id| {
        if let Some(count) = long(cursor, value)?.and_then(|count| u64::try_from(count).ok()) {
            counts.insert(field_id, count);
        }
        Ok(())
    })?;
    Ok(counts)
}

fn longs(cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<Vec<i64>>> {
    let items = match cursor.branch(schema)? {
        Schema::Null => return Ok(None),
        Schema::Array(items) => items,
        other => return cursor.skip(other).map(|()| None),
    };
    let mut values = Vec::new();
    cursor.each(|cursor| {
        let value = long(cursor, items)?;
        values.push(value.ok_or_else(|| Error::data_invalid("a list of numbers in a manifest holds a NULL"))?);
        Ok(())
    })?;
    Ok(Some(values))
}
