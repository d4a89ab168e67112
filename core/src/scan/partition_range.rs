//! What a partition value says about its source column: between which values all of the file's rows lie.
//!
//! This turns partition pruning into pruning by bounds, for every transform that keeps order and in every spec of a
//! table alike. `bucket` does not keep order; it is checked for equality in [`super::pruning`].

use arrow::datatypes::{DataType, TimeUnit};
use chrono::NaiveDate;
use datafusion::common::ScalarValue;
use iceberg::spec::{PrimitiveLiteral, Transform};

use crate::table::partition_scalar as scalar;

/// Inclusive bounds; `None` where open.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Range {
    pub(super) lower: Option<ScalarValue>,
    pub(super) upper: Option<ScalarValue>,
}

/// The range of the source column, of the engine's type `source`, in a file whose partition value is `value`.
pub(super) fn range(transform: &Transform, source: &DataType, value: &PrimitiveLiteral) -> Range {
    match transform {
        // The signs of zero are one partition for some writers and two for others, NaN has no order.
        Transform::Identity if source.is_floating() => Range::default(),
        Transform::Identity => {
            let exact = scalar(source, value);
            Range { lower: exact.clone(), upper: exact }
        }
        Transform::Truncate(width) => truncated(*width, source, value),
        Transform::Year | Transform::Month | Transform::Day | Transform::Hour => {
            let PrimitiveLiteral::Int(ordinal) = value else {
                return Range::default();
            };
            // Old writers rounded times before 1970 towards zero, one unit too high.
            let first = if *ordinal <= 0 { i64::from(*ordinal) - 1 } else { i64::from(*ordinal) };
            Range {
                lower: start_of(transform, source, first, 0),
                upper: start_of(transform, source, i64::from(*ordinal) + 1, -1),
            }
        }
        Transform::Bucket(_) | Transform::Void | Transform::Unknown => Range::default(),
    }
}

fn truncated(width: u32, source: &DataType, value: &PrimitiveLiteral) -> Range {
    let width = i128::from(width);
    // Truncation wraps around below the smallest value of a type: what lies this high may stand for the smallest.
    let wrapped = match value {
        PrimitiveLiteral::Int(n) => i128::from(*n) > i128::from(i32::MAX) - width,
        PrimitiveLiteral::Long(n) => i128::from(*n) > i128::from(i64::MAX) - width,
        _ => false,
    };
    if wrapped {
        return Range::default();
    }
    let upper = match value {
        PrimitiveLiteral::Int(n) => i32::try_from(i128::from(*n) + width - 1).ok().map(PrimitiveLiteral::Int),
        PrimitiveLiteral::Long(n) => i64::try_from(i128::from(*n) + width - 1).ok().map(PrimitiveLiteral::Long),
        PrimitiveLiteral::Int128(n) => n.checked_add(width - 1).map(PrimitiveLiteral::Int128),
        PrimitiveLiteral::String(text) if (text.chars().count() as i128) < width => Some(value.clone()),
        PrimitiveLiteral::String(text) => crate::writer::successor(text).map(PrimitiveLiteral::String),
        PrimitiveLiteral::Binary(bytes) if (bytes.len() as i128) < width => Some(value.clone()),
        PrimitiveLiteral::Binary(bytes) => crate::writer::successor_bytes(bytes).map(PrimitiveLiteral::Binary),
        _ => None,
    };
    Range { lower: scalar(source, value), upper: upper.and_then(|upper| scalar(source, &upper)) }
}

/// The first value of the source type in the given year, month, day or hour since 1970, moved by `offset` units of
/// the source type.
fn start_of(transform: &Transform, source: &DataType, ordinal: i64, offset: i64) -> Option<ScalarValue> {
    const HOUR_MICROS: i64 = 3_600_000_000;
    let days = |date: NaiveDate| date.signed_duration_since(NaiveDate::default()).num_days();
    let micros = match transform {
        Transform::Hour => ordinal.checked_mul(HOUR_MICROS)?,
        _ => {
            let day = match transform {
                Transform::Year => days(NaiveDate::from_ymd_opt(i32::try_from(1970 + ordinal).ok()?, 1, 1)?),
                Transform::Month => {
                    let year = i32::try_from(1970 + ordinal.div_euclid(12)).ok()?;
                    let month = u32::try_from(ordinal.rem_euclid(12) + 1).ok()?;
                    days(NaiveDate::from_ymd_opt(year, month, 1)?)
                }
                _ => ordinal,
            };
            if *source == DataType::Date32 {
                return Some(ScalarValue::Date32(Some(i32::try_from(day.checked_add(offset)?).ok()?)));
            }
            day.checked_mul(24 * HOUR_MICROS)?
        }
    };
    match source {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Some(ScalarValue::TimestampMicrosecond(Some(micros.checked_add(offset)?), zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            Some(ScalarValue::TimestampNanosecond(Some(micros.checked_mul(1000)?.checked_add(offset)?), zone.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Option<ScalarValue> {
        let date: NaiveDate = text.parse().unwrap();
        Some(ScalarValue::Date32(Some(date.signed_duration_since(NaiveDate::default()).num_days() as i32)))
    }

    #[test]
    fn months_are_whole_and_wider_before_1970() {
        let month = |n| range(&Transform::Month, &DataType::Date32, &PrimitiveLiteral::Int(n));
        assert_eq!(month(313), Range { lower: date("1996-02-01"), upper: date("1996-02-29") });
        assert_eq!(month(0), Range { lower: date("1969-12-01"), upper: date("1970-01-31") });
        assert_eq!(month(-13), Range { lower: date("1968-11-01"), upper: date("1968-12-31") });
    }

    #[test]
    fn hours_of_timestamps() {
        let source = DataType::Timestamp(TimeUnit::Microsecond, None);
        let hour = range(&Transform::Hour, &source, &PrimitiveLiteral::Int(1));
        assert_eq!(hour.lower, Some(ScalarValue::TimestampMicrosecond(Some(3_600_000_000), None)));
        assert_eq!(hour.upper, Some(ScalarValue::TimestampMicrosecond(Some(7_199_999_999), None)));
    }

    #[test]
    fn truncation() {
        let ints = range(&Transform::Truncate(10), &DataType::Int32, &PrimitiveLiteral::Int(-10));
        assert_eq!(ints, Range { lower: Some(ScalarValue::Int32(Some(-10))), upper: Some(ScalarValue::Int32(Some(-1))) });
        let wrapped = range(&Transform::Truncate(10), &DataType::Int32, &PrimitiveLiteral::Int(2_147_483_646));
        assert_eq!(wrapped, Range::default());
        let text = |s: &str| range(&Transform::Truncate(3), &DataType::Utf8View, &PrimitiveLiteral::String(s.into()));
        assert_eq!(text("abc").upper, Some(ScalarValue::Utf8View(Some("abd".into()))));
        assert_eq!(text("ab").upper, Some(ScalarValue::Utf8View(Some("ab".into()))));
    }
}
