//! Partitions as text: `day=2026-01-31/id_bucket=3`.

use chrono::NaiveDate;
use iceberg::spec::{Literal, PartitionSpec, PrimitiveLiteral, Struct, StructType, Transform, Type};

/// Each partition field as its name and its value in words.
pub(crate) fn partition_parts(spec: &PartitionSpec, types: &StructType, partition: &Struct) -> Vec<(String, String)> {
    let fields = spec.fields().iter().zip(types.fields()).zip(partition.iter());
    fields.map(|((field, typed), value)| (field.name.clone(), value_text(&field.transform, &typed.field_type, value))).collect()
}

/// The forms of Java's `Transform.toHumanString`: times by their unit since 1970, other values as they are.
fn value_text(transform: &Transform, result: &Type, value: Option<&Literal>) -> String {
    let Some(Literal::Primitive(PrimitiveLiteral::Int(ordinal))) = value else {
        return transform.to_human_string(result, value);
    };
    let date = |days: i64| NaiveDate::default().checked_add_signed(chrono::TimeDelta::days(days));
    let ordinal = i64::from(*ordinal);
    let text = match transform {
        Transform::Year => Some(format!("{}", 1970 + ordinal)),
        Transform::Month => Some(format!("{:04}-{:02}", 1970 + ordinal.div_euclid(12), ordinal.rem_euclid(12) + 1)),
        Transform::Day => date(ordinal).map(|date| date.to_string()),
        Transform::Hour => date(ordinal.div_euclid(24)).map(|date| format!("{date}-{:02}", ordinal.rem_euclid(24))),
        _ => None,
    };
    text.unwrap_or_else(|| transform.to_human_string(result, value))
}

#[cfg(test)]
mod tests {
    use iceberg::spec::PrimitiveType;

    use super::*;

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
