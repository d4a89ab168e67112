//! Changes of objects, as the tables hold them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use tarndb_core::{Error, Result};

/// The place of a change in the order of the changes of its key: hexadecimal digits, of which those that a shorter number lacks
/// at its end count as zeros, as S3 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sequence(u128);

impl Sequence {
    /// Digits that a number can have at most.
    const DIGITS: usize = 32;

    /// # Errors
    /// `DataInvalid` for what is not a number of at most 32 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::data_invalid(format!("`{text}` is not a sequence number of 1 to {} digits", Self::DIGITS));
        if text.is_empty() || text.len() > Self::DIGITS || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(&format!("{text:0<width$}", width = Self::DIGITS), 16).map(Self).map_err(|_| wrong())
    }

    /// A number of nanoseconds, in 16 digits.
    pub(crate) fn of_time(nanos: u64) -> Self {
        Self(u128::from(nanos) << 64)
    }

    /// The time that the first 16 digits are.
    pub(crate) fn time(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The digits of a time.
    fn text(self) -> String {
        format!("{:016X}", self.time())
    }
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectState {
    /// In bytes.
    pub(crate) size: i64,
    /// In microseconds since 1970.
    pub(crate) last_modified: i64,
    /// Differs between two contents of the same key.
    pub(crate) e_tag: String,
}

/// A change of one object: a row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) sequence: Sequence,
    /// When it was noticed, in microseconds since 1970.
    pub(crate) timestamp: i64,
    /// The object after the change; `None` when it is gone.
    pub(crate) state: Option<ObjectState>,
}

/// The columns of the journal of which a record is made again.
pub(crate) const RECORD_COLUMNS: [&str; 7] =
    ["key", "sequence_number", "record_type", "record_timestamp", "size", "last_modified_date", "e_tag"];

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .map_err(|e| Error::internal("rows of a metadata index do not fit together").with_source(e))
}

/// The columns that both tables have.
fn object_columns<'a>(bucket: &str, records: impl Iterator<Item = &'a Record> + Clone) -> Vec<(&'static str, ArrayRef)> {
    let state = || records.clone().map(|record| record.state.as_ref());
    vec![
        ("bucket", Arc::new(StringArray::from_iter_values(records.clone().map(|_| bucket)))),
        ("key", Arc::new(StringArray::from_iter_values(records.clone().map(|record| &record.key)))),
        ("sequence_number", Arc::new(StringArray::from_iter_values(records.clone().map(|record| record.sequence.text())))),
        // A permanent deletion has none, as S3's journal has it.
        ("is_delete_marker", Arc::new(state().map(|state| state.map(|_| false)).collect::<BooleanArray>())),
        ("size", Arc::new(state().map(|state| Some(state?.size)).collect::<Int64Array>())),
        ("last_modified_date", Arc::new(state().map(|state| Some(state?.last_modified)).collect::<TimestampMicrosecondArray>())),
        ("e_tag", Arc::new(state().map(|state| Some(state?.e_tag.as_str())).collect::<StringArray>())),
    ]
}

/// Rows of the journal.
pub(crate) fn journal_rows(bucket: &str, records: &[Record]) -> Result<RecordBatch> {
    let kind = |record: &Record| if record.state.is_some() { "CREATE" } else { "DELETE" };
    let mut columns = object_columns(bucket, records.iter());
    columns.push(("record_type", Arc::new(StringArray::from_iter_values(records.iter().map(kind)))));
    let times = records.iter().map(|record| record.timestamp);
    columns.push(("record_timestamp", Arc::new(TimestampMicrosecondArray::from_iter_values(times))));
    batch(columns)
}

/// Rows of the inventory, for the objects that are there.
pub(crate) fn inventory_rows<'a>(bucket: &str, records: impl Iterator<Item = &'a Record> + Clone) -> Result<RecordBatch> {
    batch(object_columns(bucket, records))
}

/// A column of text.
pub(crate) fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| missing(name))
}

pub(crate) fn missing(name: &str) -> Error {
    Error::data_invalid(format!("a table of a metadata index has no column `{name}`, or another type of it"))
}

/// The records that rows of the journal, with the columns [`RECORD_COLUMNS`], are.
pub(crate) fn records(batch: &RecordBatch) -> Result<Vec<Record>> {
    let (keys, sequences, kinds) = (text(batch, "key")?, text(batch, "sequence_number")?, text(batch, "record_type")?);
    let e_tags = text(batch, "e_tag")?;
    let time = |name: &str| {
        let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        column.ok_or_else(|| missing(name))
    };
    let (timestamps, modified) = (time("record_timestamp")?, time("last_modified_date")?);
    let sizes = batch.column_by_name("size").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let sizes = sizes.ok_or_else(|| missing("size"))?;
    (0..batch.num_rows())
        .map(|row| {
            let state = match kinds.value(row) {
                "DELETE" => None,
                _ => Some(ObjectState {
                    size: sizes.value(row),
                    last_modified: modified.value(row),
                    e_tag: e_tags.value(row).to_string(),
                }),
            };
            let sequence = Sequence::parse(sequences.value(row))?;
            Ok(Record { key: keys.value(row).to_string(), sequence, timestamp: timestamps.value(row), state })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_compared_as_digits_with_zeros_behind() {
        let parse = |text: &str| Sequence::parse(text).unwrap();
        assert!(parse("0055AED6DCD90281E5") > parse("0055AED6DCD90281"));
        assert_eq!(parse("0055aed6"), parse("0055AED600"));
        assert!(parse("1") > parse("0FFF"));
        assert_eq!(parse("000000000000002A"), Sequence::of_time(42));
        assert_eq!(Sequence::of_time(42).text(), "000000000000002A");
        for wrong in ["", "0x1", "G", "+1", "123456789012345678901234567890123"] {
            assert!(Sequence::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn records_come_back_from_the_journal() {
        let state = ObjectState { size: 3, last_modified: 7, e_tag: "3-7-1".to_string() };
        let records_in = [
            Record { key: "a/b".to_string(), sequence: Sequence::of_time(1), timestamp: 5, state: Some(state) },
            Record { key: "ü".to_string(), sequence: Sequence::of_time(2), timestamp: 6, state: None },
        ];
        assert_eq!(records(&journal_rows("file:///x", &records_in).unwrap()).unwrap(), records_in);
    }
}
