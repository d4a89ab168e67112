use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use tarndb_core::{Error, Result};

use crate::event::Dead;

use super::{Change, ObjectId, ObjectState, Origin, Record, Sequence};

type Pairs = BTreeMap<String, String>;

pub(super) fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .map_err(|e| Error::internal("rows of a metadata index do not fit together").with_source(e))
}

pub(super) fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub(super) fn maps<'a>(values: impl Iterator<Item = Option<&'a Pairs>>) -> Result<ArrayRef> {
    let names = MapFieldNames { entry: "key_value".to_string(), key: "key".to_string(), value: "value".to_string() };
    let mut maps = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for pairs in values {
        for (key, value) in pairs.into_iter().flatten() {
            maps.keys().append_value(key);
            maps.values().append_value(value);
        }
        maps.append(pairs.is_some()).map_err(|e| Error::internal("a map of a metadata index is uneven").with_source(e))?;
    }
    Ok(Arc::new(maps.finish()))
}

/// The columns that both tables have.
fn object_columns<'a>(bucket: &str, records: impl Iterator<Item = &'a Record> + Clone) -> Result<Vec<(&'static str, ArrayRef)>> {
    let states = || records.clone().map(|record| record.change.state());
    let booleans = |of: fn(&ObjectState) -> Option<bool>| states().map(|state| of(state?)).collect::<BooleanArray>();
    let text = |of: fn(&ObjectState) -> &Option<String>| texts(states().map(|state| of(state?).as_deref()));
    let map = |of: fn(&ObjectState) -> &Option<Pairs>| maps(states().map(|state| of(state?).as_ref()));
    // A permanent deletion has none, as S3's journal has it.
    let is_marker = records.clone().map(|record| match record.change {
        Change::Created(_) | Change::MetadataUpdated(_) => Some(false),
        Change::MarkedDeleted(_) => Some(true),
        Change::Deleted => None,
    });
    Ok(vec![
        ("bucket", Arc::new(StringArray::from_iter_values(records.clone().map(|_| bucket)))),
        ("key", Arc::new(StringArray::from_iter_values(records.clone().map(|record| &record.id.key)))),
        ("sequence_number", Arc::new(StringArray::from_iter_values(records.clone().map(|record| record.sequence.text())))),
        ("version_id", texts(records.clone().map(|record| record.id.version.as_deref()))),
        ("is_delete_marker", Arc::new(is_marker.collect::<BooleanArray>())),
        ("size", Arc::new(states().map(|state| state?.size).collect::<Int64Array>())),
        ("last_modified_date", Arc::new(states().map(|state| state?.last_modified).collect::<TimestampMicrosecondArray>())),
        ("e_tag", text(|state| &state.e_tag)),
        ("storage_class", text(|state| &state.storage_class)),
        ("is_multipart", Arc::new(booleans(|state| state.is_multipart))),
        ("encryption_status", text(|state| &state.encryption_status)),
        ("is_bucket_key_enabled", Arc::new(booleans(|state| state.is_bucket_key_enabled))),
        ("kms_key_arn", text(|state| &state.kms_key_arn)),
        ("checksum_algorithm", text(|state| &state.checksum_algorithm)),
        ("object_tags", map(|state| &state.tags)?),
        ("user_metadata", map(|state| &state.user_metadata)?),
    ])
}

/// Rows of the journal.
pub(crate) fn journal_rows<'a>(bucket: &str, records: impl Iterator<Item = &'a Record> + Clone) -> Result<RecordBatch> {
    let kind = |record: &Record| match record.change {
        Change::Created(_) => "CREATE",
        Change::MetadataUpdated(_) => "UPDATE_METADATA",
        Change::MarkedDeleted(_) | Change::Deleted => "DELETE",
    };
    let mut columns = object_columns(bucket, records.clone())?;
    columns.push(("record_type", Arc::new(StringArray::from_iter_values(records.clone().map(kind)))));
    let times = records.clone().map(|record| record.timestamp);
    columns.push(("record_timestamp", Arc::new(TimestampMicrosecondArray::from_iter_values(times))));
    let origin = |of: fn(&Origin) -> &Option<String>| texts(records.clone().map(|record| of(&record.origin).as_deref()));
    columns.push(("requester", origin(|origin| &origin.requester)));
    columns.push(("source_ip_address", origin(|origin| &origin.source_ip)));
    columns.push(("request_id", origin(|origin| &origin.request_id)));
    batch(columns)
}

/// Rows of the inventory, for the objects that are there.
pub(crate) fn inventory_rows<'a>(bucket: &str, records: impl Iterator<Item = &'a Record> + Clone) -> Result<RecordBatch> {
    batch(object_columns(bucket, records)?)
}

/// Rows of the table of what was not understood.
pub(crate) fn dead_letter_rows(now: i64, dead: &[Dead]) -> Result<RecordBatch> {
    batch(vec![
        ("received_at", Arc::new(TimestampMicrosecondArray::from_iter_values(dead.iter().map(|_| now)))),
        ("reason", Arc::new(StringArray::from_iter_values(dead.iter().map(|dead| &dead.reason)))),
        ("body", Arc::new(StringArray::from_iter_values(dead.iter().map(|dead| &dead.body)))),
    ])
}

/// A column of text.
pub(crate) fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| missing(name))
}

pub(crate) fn missing(name: &str) -> Error {
    Error::data_invalid(format!("a table of a metadata index has no column `{name}`, or another type of it"))
}

/// The columns of a batch, of which the rows are taken out.
struct Rows<'a>(&'a RecordBatch);

impl Rows<'_> {
    fn text(&self, name: &str, row: usize) -> Result<Option<String>> {
        let column = text(self.0, name)?;
        Ok(column.is_valid(row).then(|| column.value(row).to_string()))
    }

    fn required(&self, name: &str, row: usize) -> Result<String> {
        self.text(name, row)?.ok_or_else(|| missing(name))
    }

    fn boolean(&self, name: &str, row: usize) -> Result<Option<bool>> {
        let column = self.0.column_by_name(name).and_then(|column| column.as_boolean_opt()).ok_or_else(|| missing(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn time(&self, name: &str, row: usize) -> Result<Option<i64>> {
        let column = self.0.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let column = column.ok_or_else(|| missing(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn long(&self, name: &str, row: usize) -> Result<Option<i64>> {
        let column = self.0.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let column = column.ok_or_else(|| missing(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn map(&self, name: &str, row: usize) -> Result<Option<Pairs>> {
        let column = self.0.column_by_name(name).and_then(|column| column.as_map_opt()).ok_or_else(|| missing(name))?;
        if !column.is_valid(row) {
            return Ok(None);
        }
        let pairs = column.value(row);
        let texts = |index: usize| pairs.column(index).as_string_opt::<i32>().ok_or_else(|| missing(name));
        let (keys, values) = (texts(0)?, texts(1)?);
        let pair = |(key, value): (Option<&str>, Option<&str>)| Some((key?.to_string(), value.unwrap_or_default().to_string()));
        Ok(Some(keys.iter().zip(values.iter()).filter_map(pair).collect()))
    }

    fn state(&self, row: usize) -> Result<ObjectState> {
        Ok(ObjectState {
            size: self.long("size", row)?,
            last_modified: self.time("last_modified_date", row)?,
            e_tag: self.text("e_tag", row)?,
            storage_class: self.text("storage_class", row)?,
            is_multipart: self.boolean("is_multipart", row)?,
            encryption_status: self.text("encryption_status", row)?,
            is_bucket_key_enabled: self.boolean("is_bucket_key_enabled", row)?,
            kms_key_arn: self.text("kms_key_arn", row)?,
            checksum_algorithm: self.text("checksum_algorithm", row)?,
            tags: self.map("object_tags", row)?,
            user_metadata: self.map("user_metadata", row)?,
        })
    }

    fn record(&self, row: usize) -> Result<Record> {
        let kind = self.required("record_type", row)?;
        let change = match (kind.as_str(), self.boolean("is_delete_marker", row)?) {
            ("CREATE", _) => Change::Created(self.state(row)?),
            ("UPDATE_METADATA", _) => Change::MetadataUpdated(self.state(row)?),
            ("DELETE", Some(true)) => Change::MarkedDeleted(self.state(row)?),
            ("DELETE", _) => Change::Deleted,
            _ => return Err(Error::data_invalid(format!("a journal has a row of the record type `{kind}`, which is none"))),
        };
        Ok(Record {
            id: ObjectId { key: self.required("key", row)?, version: self.text("version_id", row)? },
            sequence: Sequence::parse(&self.required("sequence_number", row)?)?,
            timestamp: self.time("record_timestamp", row)?.ok_or_else(|| missing("record_timestamp"))?,
            change,
            origin: Origin {
                requester: self.text("requester", row)?,
                source_ip: self.text("source_ip_address", row)?,
                request_id: self.text("request_id", row)?,
            },
        })
    }
}

/// The objects that rows of either table are about.
pub(crate) fn ids(batch: &RecordBatch) -> Result<Vec<ObjectId>> {
    let rows = Rows(batch);
    let id = |row| Ok(ObjectId { key: rows.required("key", row)?, version: rows.text("version_id", row)? });
    (0..batch.num_rows()).map(id).collect()
}

/// The objects that rows of the inventory are.
pub(crate) fn objects(batch: &RecordBatch) -> Result<Vec<(ObjectId, ObjectState)>> {
    let rows = Rows(batch);
    ids(batch)?.into_iter().enumerate().map(|(row, id)| Ok((id, rows.state(row)?))).collect()
}

/// A time of a row, in microseconds since 1970.
pub(crate) fn time(batch: &RecordBatch, name: &str, row: usize) -> Result<i64> {
    Rows(batch).time(name, row)?.ok_or_else(|| missing(name))
}

/// A number of a row.
pub(crate) fn number(batch: &RecordBatch, name: &str, row: usize) -> Result<Option<i64>> {
    Rows(batch).long(name, row)
}

/// Whether something is so with a row.
pub(crate) fn flag(batch: &RecordBatch, name: &str, row: usize) -> Result<Option<bool>> {
    Rows(batch).boolean(name, row)
}

/// The records that rows of the journal are.
pub(crate) fn records(batch: &RecordBatch) -> Result<Vec<Record>> {
    (0..batch.num_rows()).map(|row| Rows(batch).record(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_from_the_journal() {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let text = |text: &str| Some(text.to_string());
        let plain = ObjectState { size: Some(3), last_modified: Some(7), e_tag: text("3-7-1"), ..ObjectState::default() };
        let rich = ObjectState {
            storage_class: text("STANDARD"),
            is_multipart: Some(true),
            encryption_status: text("SSE-KMS"),
            is_bucket_key_enabled: Some(false),
            kms_key_arn: text("arn"),
            checksum_algorithm: text("CRC32"),
            tags: Some(pairs(&[("a", "1"), ("ü", "")])),
            user_metadata: Some(Pairs::new()),
            ..plain.clone()
        };
        let marker = ObjectState { size: Some(0), last_modified: Some(9), ..ObjectState::default() };
        let origin = Origin { requester: text("me"), source_ip: None, request_id: text("r1") };
        let changes = [
            ("a/b", None, Change::Created(plain), Origin::default()),
            ("ü", text("v1"), Change::MetadataUpdated(rich), origin),
            ("ü", text("v2"), Change::MarkedDeleted(marker), Origin::default()),
            ("ü", text("v1"), Change::Deleted, Origin::default()),
        ];
        let mut sequence = Sequence::FIRST;
        let records_in = changes.map(|(key, version, change, origin)| {
            sequence = sequence.found_at(1);
            Record { id: ObjectId { key: key.to_string(), version }, sequence, timestamp: 5, change, origin }
        });
        assert_eq!(records(&journal_rows("file:///x", records_in.iter()).unwrap()).unwrap(), records_in);
    }
}
