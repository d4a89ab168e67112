//! Partitions as text: `day=2026-01-31/id_bucket=3`.

use chrono::{DateTime, NaiveDate};
use iceberg::spec::{Literal, PartitionSpec, PrimitiveLiteral, PrimitiveType, Struct, StructType, Transform, Type};

/// Each partition field as its name and its value in words.
pub(crate) fn partition_parts(spec: &PartitionSpec, types: &StructType, partition: &Struct) -> Vec<(String, String)> {
    let fields = spec.fields().iter().zip(types.fields()).zip(partition.iter());
    fields.map(|((field, typed), value)| (field.name.clone(), value_text(&field.transform, &typed.field_type, value))).collect()
}

/// The forms of Java's `Transform.toHumanString`: times by their unit since 1970, other values as they are.
fn value_text(transform: &Transform, result: &Type, value: Option<&Literal>) -> String {
    let ordinal = match value {
        Some(Literal::Primitive(PrimitiveLiteral::Int(ordinal))) => ordinal,
        Some(Literal::Primitive(PrimitiveLiteral::Long(number))) => return time_text(result, *number),
        _ => return transform.to_human_string(result, value),
    };
    let date = |days: i64| NaiveDate::default().checked_add_signed(chrono::TimeDelta::try_days(days)?);
    let ordinal = i64::from(*ordinal);
    let text = match transform {
        Transform::Year => Some(format!("{}", 1970 + ordinal)),
        Transform::Month => Some(format!("{:04}-{:02}", 1970 + ordinal.div_euclid(12), ordinal.rem_euclid(12) + 1)),
        Transform::Day => date(ordinal).map(|date| date.to_string()),
        Transform::Hour => date(ordinal.div_euclid(24)).map(|date| format!("{date}-{:02}", ordinal.rem_euclid(24))),
        _ if matches!(result, Type::Primitive(PrimitiveType::Date)) => date(ordinal).map(|date| date.to_string()),
        _ => None,
    };
    // Numbers beyond what a calendar holds stay numbers.
    text.unwrap_or_else(|| ordinal.to_string())
}

/// Times of the day and moments as ISO 8601, other numbers as they are.
fn time_text(result: &Type, number: i64) -> String {
    let Type::Primitive(result) = result else { return number.to_string() };
    let (per_second, zone) = match result {
        PrimitiveType::Time | PrimitiveType::Timestamp => (1_000_000, ""),
        PrimitiveType::Timestamptz => (1_000_000, "+00:00"),
        PrimitiveType::TimestampNs => (1_000_000_000, ""),
        PrimitiveType::TimestamptzNs => (1_000_000_000, "+00:00"),
        _ => return number.to_string(),
    };
    let nanoseconds = u32::try_from(number.rem_euclid(per_second) * (1_000_000_000 / per_second)).unwrap_or(0);
    match DateTime::from_timestamp(number.div_euclid(per_second), nanoseconds).map(|time| time.naive_utc()) {
        Some(time) if *result == PrimitiveType::Time => time.format("%H:%M:%S%.f").to_string(),
        Some(time) => format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S%.f")),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number has a text, whatever the calendar says of it.
    #[test]
    fn no_value_is_too_odd() {
        use PrimitiveType::{Date, Time, Timestamp, TimestampNs, Timestamptz, TimestamptzNs};
        for result in [Date, Time, Timestamp, Timestamptz, TimestampNs, TimestamptzNs] {
            for transform in [Transform::Identity, Transform::Year, Transform::Month, Transform::Day, Transform::Hour] {
                for n in [i64::MIN, i64::MIN + 1, -86_400_000_001, -1_000_001, -1, 0, 1, 1_000_001, i64::MAX - 1, i64::MAX] {
                    let result = Type::Primitive(result.clone());
                    assert!(!value_text(&transform, &result, Some(&Literal::long(n))).is_empty());
                    let n = i32::try_from(n).unwrap_or(if n < 0 { i32::MIN } else { i32::MAX });
                    assert!(!value_text(&transform, &result, Some(&Literal::int(n))).is_empty());
                }
            }
        }
        let moment = |n| value_text(&Transform::Identity, &Type::Primitive(Timestamptz), Some(&Literal::long(n)));
        assert_eq!(moment(-999_999), "1969-12-31T23:59:59.000001+00:00");
        assert_eq!(moment(0), "1970-01-01T00:00:00+00:00");
    }

    #[test]
    fn times_in_words() {
        let text =
            |transform: Transform, n: i32| value_text(&transform, &Type::Primitive(PrimitiveType::Int), Some(&Literal::int(n)));
        assert_eq!(text(Transform::Month, 313), "1996-02");
        assert_eq!(text(Transform::Month, -1), "1969-12");
        assert_eq!(text(Transform::Day, -1), "1969-12-31");
        assert_eq!(text(Transform::Hour, 25), "1970-01-02-01");
        assert_eq!(text(Transform::Year, 30), "2000");
        assert_eq!(text(Transform::Bucket(4), 3), "3");
    }
}
