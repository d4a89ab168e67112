use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::ScalarValue;
use datafusion_functions_aggregate_common::min_max::{max_batch, min_batch};
use iceberg::spec::{Datum, NestedField, PrimitiveType, Schema, StructType, Type};
use tarndb_catalog::Result;

use crate::error::engine_error;

/// Length of string and binary bounds, in characters and bytes: Iceberg's `truncate(16)`.
const TRUNCATION: usize = 16;

/// What is known of one column of a file.
#[derive(Debug, Default, Clone)]
struct ColumnStatistics {
    values: u64,
    nulls: u64,
    nans: Option<u64>,
    min: Option<ScalarValue>,
    max: Option<ScalarValue>,
}

/// Gathers the statistics of a data file's columns from the rows themselves, so that the bounds are those of all rows,
/// whatever Parquet's own statistics leave out. Fields of structs count as columns; those in lists and maps have none.
#[derive(Debug)]
pub(super) struct StatisticsCollector {
    columns: HashMap<i32, (PrimitiveType, ColumnStatistics)>,
    schema: Arc<Schema>,
}

/// Statistics by field id, in the form of a manifest entry.
#[derive(Debug, Default)]
pub(super) struct FileStatistics {
    pub(super) value_counts: HashMap<i32, u64>,
    pub(super) null_counts: HashMap<i32, u64>,
    pub(super) nan_counts: HashMap<i32, u64>,
    pub(super) lower_bounds: HashMap<i32, Datum>,
    pub(super) upper_bounds: HashMap<i32, Datum>,
}

impl StatisticsCollector {
    pub(super) fn new(schema: Arc<Schema>) -> Self {
        Self { columns: HashMap::new(), schema }
    }

    /// Adds the rows of a batch in the table's plain Arrow schema.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let schema = Arc::clone(&self.schema);
        self.add_fields(schema.as_struct(), batch.columns(), None)
    }

    fn add_fields(&mut self, fields: &StructType, arrays: &[ArrayRef], hidden: Option<&BooleanArray>) -> Result<()> {
        for (field, array) in fields.fields().iter().zip(arrays) {
            // A value below a NULL struct is not there.
            let array = match hidden {
                None => Arc::clone(array),
                Some(hidden) => arrow::compute::nullif(array, hidden).map_err(|e| engine_error(e.into()))?,
            };
            match field.field_type.as_ref() {
                Type::Primitive(primitive) => self.add_column(field, primitive, &array)?,
                Type::Struct(children) => {
                    let hidden = array.nulls().map(|nulls| BooleanArray::new(!nulls.inner(), None));
                    self.add_fields(children, array.as_struct().columns(), hidden.as_ref())?;
                }
                Type::List(_) | Type::Map(_) => {}
            }
        }
        Ok(())
    }

    fn add_column(&mut self, field: &NestedField, primitive: &PrimitiveType, array: &ArrayRef) -> Result<()> {
        let (_, statistics) = self.columns.entry(field.id).or_insert_with(|| (primitive.clone(), ColumnStatistics::default()));
        statistics.values += array.len() as u64;
        statistics.nulls += array.null_count() as u64;
        let (min, max) = match array.data_type() {
            DataType::Float32 => {
                let range = float_range(array.as_primitive::<Float32Type>().iter().flatten().map(f64::from));
                *statistics.nans.get_or_insert(0) += range.nans;
                #[allow(clippy::cast_possible_truncation)] // they were f32
                let scalar = |f: f64| ScalarValue::Float32(Some(f as f32));
                (range.min.map(scalar), range.max.map(scalar))
            }
            DataType::Float64 => {
                let range = float_range(array.as_primitive::<Float64Type>().iter().flatten());
                *statistics.nans.get_or_insert(0) += range.nans;
                let scalar = |f: f64| ScalarValue::Float64(Some(f));
                (range.min.map(scalar), range.max.map(scalar))
            }
            DataType::FixedSizeBinary(size) => {
                let values = array.as_fixed_size_binary();
                let scalar = |bytes: &[u8]| ScalarValue::FixedSizeBinary(*size, Some(bytes.to_vec()));
                (values.iter().flatten().min().map(scalar), values.iter().flatten().max().map(scalar))
            }
            _ => {
                let bound = |found: ScalarValue| (!found.is_null()).then_some(found);
                (bound(min_batch(array).map_err(engine_error)?), bound(max_batch(array).map_err(engine_error)?))
            }
        };
        keep(&mut statistics.min, min, std::cmp::Ordering::Less);
        keep(&mut statistics.max, max, std::cmp::Ordering::Greater);
        Ok(())
    }

    /// The statistics of all rows added.
    pub(super) fn finish(self) -> FileStatistics {
        let mut result = FileStatistics::default();
        for (id, (primitive, statistics)) in self.columns {
            result.value_counts.insert(id, statistics.values);
            result.null_counts.insert(id, statistics.nulls);
            if let Some(nans) = statistics.nans {
                result.nan_counts.insert(id, nans);
            }
            let datum = |bytes: Option<Vec<u8>>| Datum::try_from_bytes(&bytes?, primitive.clone()).ok();
            if let Some(lower) = datum(statistics.min.and_then(|min| lower_bytes(&min))) {
                result.lower_bounds.insert(id, lower);
            }
            if let Some(upper) = datum(statistics.max.and_then(|max| upper_bytes(&max))) {
                result.upper_bounds.insert(id, upper);
            }
        }
        result
    }
}

fn keep(bound: &mut Option<ScalarValue>, candidate: Option<ScalarValue>, better: std::cmp::Ordering) {
    if let Some(candidate) = candidate
        && bound.as_ref().is_none_or(|bound| candidate.partial_cmp(bound) == Some(better))
    {
        *bound = Some(candidate);
    }
}

#[derive(Default)]
struct FloatRange {
    nans: u64,
    min: Option<f64>,
    max: Option<f64>,
}

/// Bounds without NaN; a zero counts as -0.0 below and as +0.0 above, as the specification asks.
fn float_range(values: impl Iterator<Item = f64>) -> FloatRange {
    let mut range = FloatRange::default();
    for value in values {
        if value.is_nan() {
            range.nans += 1;
            continue;
        }
        range.min = Some(range.min.map_or(value, |min| if value.total_cmp(&min).is_lt() { value } else { min }));
        range.max = Some(range.max.map_or(value, |max| if value.total_cmp(&max).is_gt() { value } else { max }));
    }
    range.min = range.min.map(|min| if min == 0.0 { -0.0 } else { min });
    range.max = range.max.map(|max| if max == 0.0 { 0.0 } else { max });
    range
}

fn lower_bytes(value: &ScalarValue) -> Option<Vec<u8>> {
    match value {
        ScalarValue::Utf8(Some(text)) => Some(prefix(text).as_bytes().to_vec()),
        ScalarValue::Binary(Some(bytes)) => Some(bytes.get(..TRUNCATION).unwrap_or(bytes).to_vec()),
        other => plain_bytes(other),
    }
}

fn upper_bytes(value: &ScalarValue) -> Option<Vec<u8>> {
    match value {
        ScalarValue::Utf8(Some(text)) if prefix(text).len() == text.len() => Some(text.clone().into_bytes()),
        ScalarValue::Utf8(Some(text)) => successor(prefix(text)).map(String::into_bytes),
        ScalarValue::Binary(Some(bytes)) => match bytes.get(..TRUNCATION) {
            Some(prefix) if bytes.len() > TRUNCATION => successor_bytes(prefix),
            _ => Some(bytes.clone()),
        },
        other => plain_bytes(other),
    }
}

fn plain_bytes(value: &ScalarValue) -> Option<Vec<u8>> {
    Some(match value {
        ScalarValue::Boolean(Some(b)) => vec![u8::from(*b)],
        ScalarValue::Int32(Some(n)) | ScalarValue::Date32(Some(n)) => n.to_le_bytes().to_vec(),
        ScalarValue::Int64(Some(n))
        | ScalarValue::Time64Microsecond(Some(n))
        | ScalarValue::TimestampMicrosecond(Some(n), _)
        | ScalarValue::TimestampNanosecond(Some(n), _) => n.to_le_bytes().to_vec(),
        ScalarValue::Float32(Some(f)) => f.to_le_bytes().to_vec(),
        ScalarValue::Float64(Some(f)) => f.to_le_bytes().to_vec(),
        ScalarValue::Decimal128(Some(n), ..) => n.to_be_bytes().to_vec(),
        ScalarValue::FixedSizeBinary(_, Some(bytes)) => bytes.clone(),
        _ => return None,
    })
}

fn prefix(text: &str) -> &str {
    match text.char_indices().nth(TRUNCATION) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// The smallest string, of no more characters, that is above every string that begins with `text`.
pub(crate) fn successor(text: &str) -> Option<String> {
    let mut chars: Vec<char> = text.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// The smallest byte string, no longer, that is above every one that begins with `bytes`.
pub(crate) fn successor_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};

    use super::*;

    fn collect(primitive: PrimitiveType, array: ArrayRef) -> FileStatistics {
        let field = NestedField::optional(1, "c", Type::Primitive(primitive));
        let schema = Schema::builder().with_fields(vec![field.into()]).build().unwrap();
        let mut collector = StatisticsCollector::new(Arc::new(schema));
        collector.add(&RecordBatch::try_from_iter(vec![("c", array)]).unwrap()).unwrap();
        collector.finish()
    }

    #[test]
    fn long_strings_are_rounded_outwards() {
        let values = StringArray::from(vec![Some("b"), None, Some("zzzzzzzzzzzzzzzzz"), Some("aaaaaaaaaaaaaaaaab")]);
        let found = collect(PrimitiveType::String, Arc::new(values));
        assert_eq!(found.lower_bounds[&1], Datum::string("aaaaaaaaaaaaaaaa"));
        assert_eq!(found.upper_bounds[&1], Datum::string("zzzzzzzzzzzzzzz{"));
        assert_eq!((found.value_counts[&1], found.null_counts[&1]), (4, 1));
        let highest = "\u{10FFFF}".repeat(20);
        let found = collect(PrimitiveType::String, Arc::new(StringArray::from(vec![highest])));
        assert!(found.upper_bounds.is_empty());
    }

    #[test]
    fn nan_is_counted_and_not_a_bound() {
        let found = collect(PrimitiveType::Double, Arc::new(Float64Array::from(vec![f64::NAN, 1.0, 0.0, -f64::NAN])));
        assert_eq!(found.nan_counts[&1], 2);
        assert_eq!(found.upper_bounds[&1], Datum::double(1.0));
        assert_eq!(found.lower_bounds[&1].to_bytes().unwrap().as_ref(), (-0.0_f64).to_le_bytes());
    }

    #[test]
    fn successors() {
        assert_eq!(successor("ab"), Some("ac".to_string()));
        assert_eq!(successor("a\u{10FFFF}"), Some("b".to_string()));
        assert_eq!(successor("\u{D7FF}"), Some("\u{E000}".to_string()));
        assert_eq!(successor_bytes(&[1, 255]), Some(vec![2]));
        assert_eq!(successor_bytes(&[255]), None);
    }
}
