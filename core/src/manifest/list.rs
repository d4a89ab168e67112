use iceberg::spec::{FieldSummary, ManifestContentType, ManifestFile};
use tarndb_catalog::{Error, Result};

use super::avro::{Container, Cursor, Field, Schema};
use super::fields;
use super::values::{bytes, long, string};

/// Decodes a manifest list of any format version. What writers leave out is unknown, or what format version 1 means by it.
pub(super) fn decode(content: &[u8]) -> Result<Vec<ManifestFile>> {
    let mut container = Container::open(content)?;
    let Schema::Record(fields) = container.schema.clone() else {
        return Err(Error::data_invalid("a manifest list's schema is not a record"));
    };
    let mut lines = Vec::new();
    let mut buffer = Vec::new();
    while let Some((count, block)) = container.next_block(&mut buffer)? {
        let mut cursor = Cursor(block);
        for _ in 0..count {
            lines.push(line(&mut cursor, &fields)?);
        }
    }
    Ok(lines)
}

fn empty_line() -> ManifestFile {
    ManifestFile {
        manifest_path: String::new(),
        manifest_length: 0,
        partition_spec_id: 0,
        content: ManifestContentType::Data,
        sequence_number: 0,
        min_sequence_number: 0,
        added_snapshot_id: 0,
        added_files_count: None,
        existing_files_count: None,
        deleted_files_count: None,
        added_rows_count: None,
        existing_rows_count: None,
        deleted_rows_count: None,
        partitions: None,
        key_metadata: None,
        first_row_id: None,
    }
}

/// What a manifest list would say of a manifest, as far as the manifest itself tells.
pub(super) fn line_of(path: &str, manifest: &[u8]) -> Result<ManifestFile> {
    let container = Container::open(manifest)?;
    let spec_id = match container.header("partition-spec-id") {
        None => 0,
        Some(text) => {
            let id = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            id.ok_or_else(|| Error::data_invalid("the partition spec id in its header is not a number"))?
        }
    };
    let manifest_length = i64::try_from(manifest.len()).map_err(|_| Error::data_invalid("it is too long"))?;
    Ok(ManifestFile { manifest_path: path.to_string(), manifest_length, partition_spec_id: spec_id, ..empty_line() })
}

fn line(cursor: &mut Cursor<'_>, fields: &[Field]) -> Result<ManifestFile> {
    let mut line = empty_line();
    for field in fields {
        let schema = &field.schema;
        match fields::id(field, fields::LIST) {
            Some(500) => line.manifest_path = string(cursor, schema)?.unwrap_or_default().to_string(),
            Some(501) => line.manifest_length = long(cursor, schema)?.unwrap_or(0),
            Some(502) => line.partition_spec_id = number(long(cursor, schema)?)?.unwrap_or(0),
            Some(517) => {
                line.content = match long(cursor, schema)?.unwrap_or(0) {
                    0 => ManifestContentType::Data,
                    1 => ManifestContentType::Deletes,
                    other => return Err(Error::data_invalid(format!("a manifest has the content type {other}"))),
                }
            }
            Some(515) => line.sequence_number = long(cursor, schema)?.unwrap_or(0),
            Some(516) => line.min_sequence_number = long(cursor, schema)?.unwrap_or(0),
            Some(503) => line.added_snapshot_id = long(cursor, schema)?.unwrap_or(0),
            Some(504) => line.added_files_count = number(long(cursor, schema)?)?,
            Some(505) => line.existing_files_count = number(long(cursor, schema)?)?,
            Some(506) => line.deleted_files_count = number(long(cursor, schema)?)?,
            Some(512) => line.added_rows_count = number(long(cursor, schema)?)?,
            Some(513) => line.existing_rows_count = number(long(cursor, schema)?)?,
            Some(514) => line.deleted_rows_count = number(long(cursor, schema)?)?,
            Some(507) => line.partitions = summaries(cursor, schema)?,
            Some(519) => line.key_metadata = bytes(cursor, schema)?,
            Some(520) => line.first_row_id = number(long(cursor, schema)?)?,
            _ => cursor.skip(schema)?,
        }
    }
    if line.manifest_path.is_empty() {
        return Err(Error::data_invalid("a line of the manifest list has no `manifest_path`"));
    }
    Ok(line)
}

fn number<T: TryFrom<i64>>(value: Option<i64>) -> Result<Option<T>> {
    let fits = |n| T::try_from(n).map_err(|_| Error::data_invalid(format!("a manifest list has the number {n}")));
    value.map(fits).transpose()
}

fn summaries(cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<Vec<FieldSummary>>> {
    let items = match cursor.branch(schema)? {
        Schema::Null => return Ok(None),
        Schema::Array(items) => items,
        other => return cursor.skip(other).map(|()| None),
    };
    let mut found = Vec::new();
    cursor.each(|cursor| {
        let Schema::Record(fields) = cursor.branch(items)? else {
            return Err(Error::data_invalid("the partition summary of a manifest list is not a record"));
        };
        // A writer that does not say whether there are NULLs does not say that there are none.
        let mut summary = FieldSummary { contains_null: true, contains_nan: None, lower_bound: None, upper_bound: None };
        for field in fields {
            match fields::id(field, fields::SUMMARY) {
                Some(509) => summary.contains_null = boolean(cursor, &field.schema)?.unwrap_or(true),
                Some(518) => summary.contains_nan = boolean(cursor, &field.schema)?,
                Some(510) => summary.lower_bound = bytes(cursor, &field.schema)?.map(Into::into),
                Some(511) => summary.upper_bound = bytes(cursor, &field.schema)?.map(Into::into),
                _ => cursor.skip(&field.schema)?,
            }
        }
        found.push(summary);
        Ok(())
    })?;
    Ok(Some(found))
}

fn boolean(cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<bool>> {
    match cursor.branch(schema)? {
        Schema::Null => Ok(None),
        Schema::Boolean => Ok(Some(cursor.byte()? != 0)),
        _ => Err(Error::data_invalid("a manifest list holds something else where a boolean is expected")),
    }
}
