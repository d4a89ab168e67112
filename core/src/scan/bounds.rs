//! Bounds in Iceberg's single-value serialization, as Arrow arrays.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryBuilder, Float32Array, Float64Array,
    Int32Array, Int64Array, StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;

use crate::table::MICROS_PER_DAY;

/// Which end of a range a bound is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Lower,
    Upper,
}

fn int(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_le_bytes(bytes.try_into().ok()?))
}

/// A long, or an int from before the column was promoted.
fn long(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        4 => int(bytes).map(i64::from),
        _ => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
    }
}

/// Microseconds, or the days of a date from before the column was promoted.
fn micros(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        4 => int(bytes).map(|days| i64::from(days) * MICROS_PER_DAY),
        _ => long(bytes),
    }
}

/// Nanoseconds, or the days of a date.
fn nanos(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        4 => micros(bytes)?.checked_mul(1000),
        _ => long(bytes),
    }
}

fn float(bytes: &[u8]) -> Option<f32> {
    Some(f32::from_le_bytes(bytes.try_into().ok()?))
}

fn double(bytes: &[u8]) -> Option<f64> {
    match bytes.len() {
        4 => float(bytes).map(f64::from),
        _ => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
    }
}

fn decimal(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let mut wide = [if first & 0x80 == 0 { 0 } else { 0xff }; 16];
    wide.get_mut(16usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

/// Zero has two signs, which the engine orders and most writers do not: a bound of zero includes both.
fn wide_zero(value: f64, end: End) -> f64 {
    match end {
        _ if value != 0.0 => value,
        End::Lower => -0.0,
        End::Upper => 0.0,
    }
}

/// Bounds as an array of the engine's type, NULL where there is none or it cannot be read. `None` for types whose
/// bounds are not used.
#[allow(clippy::cast_possible_truncation)] // an f64 that came from an f32 fits
pub(super) fn array<'a>(data_type: &DataType, end: End, bounds: impl Iterator<Item = Option<&'a [u8]>>) -> Option<ArrayRef> {
    Some(match data_type {
        DataType::Boolean => Arc::new(bounds.map(|b| b?.first().map(|byte| *byte != 0)).collect::<BooleanArray>()),
        DataType::Int32 => Arc::new(bounds.map(|b| int(b?)).collect::<Int32Array>()),
        DataType::Date32 => Arc::new(bounds.map(|b| int(b?)).collect::<Date32Array>()),
        DataType::Int64 => Arc::new(bounds.map(|b| long(b?)).collect::<Int64Array>()),
        DataType::Time64(TimeUnit::Microsecond) => Arc::new(bounds.map(|b| long(b?)).collect::<Time64MicrosecondArray>()),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Arc::new(bounds.map(|b| micros(b?)).collect::<TimestampMicrosecondArray>().with_timezone_opt(zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            Arc::new(bounds.map(|b| nanos(b?)).collect::<TimestampNanosecondArray>().with_timezone_opt(zone.clone()))
        }
        DataType::Float32 => Arc::new(
            bounds.map(|b| Some(wide_zero(f64::from(float(b?)?), end) as f32).filter(|f| !f.is_nan())).collect::<Float32Array>(),
        ),
        DataType::Float64 => {
            Arc::new(bounds.map(|b| Some(wide_zero(double(b?)?, end)).filter(|f| !f.is_nan())).collect::<Float64Array>())
        }
        DataType::Decimal128(precision, scale) => {
            Arc::new(bounds.map(|b| decimal(b?)).collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale).ok()?)
        }
        DataType::Utf8View => Arc::new(bounds.map(|b| std::str::from_utf8(b?).ok()).collect::<StringViewArray>()),
        DataType::BinaryView => Arc::new(bounds.collect::<BinaryViewArray>()),
        DataType::FixedSizeBinary(size) => {
            let mut builder = FixedSizeBinaryBuilder::new(*size);
            for bound in bounds {
                // Truncated bounds of fixed columns are not values of the column.
                match bound.filter(|b| i32::try_from(b.len()) == Ok(*size)) {
                    Some(bytes) => builder.append_value(bytes).ok()?,
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        _ => return None,
    })
}

/// One bound as a scalar.
pub(super) fn scalar(data_type: &DataType, end: End, bound: &[u8]) -> Option<ScalarValue> {
    let array = array(data_type, end, std::iter::once(Some(bound)))?;
    ScalarValue::try_from_array(&array, 0).ok().filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promoted_and_damaged_bounds() {
        let read = |data_type: &DataType, bytes: &[u8]| scalar(data_type, End::Lower, bytes);
        assert_eq!(read(&DataType::Int64, &7i32.to_le_bytes()), Some(ScalarValue::Int64(Some(7))));
        assert_eq!(read(&DataType::Float64, &1.5f32.to_le_bytes()), Some(ScalarValue::Float64(Some(1.5))));
        let stamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(read(&stamp, &2i32.to_le_bytes()), Some(ScalarValue::TimestampMicrosecond(Some(2 * MICROS_PER_DAY), None)));
        assert_eq!(read(&DataType::Int64, &[1, 2, 3]), None);
        assert_eq!(read(&DataType::Float64, &f64::NAN.to_le_bytes()), None);
        assert_eq!(read(&DataType::Decimal128(9, 2), &[0xff]), Some(ScalarValue::Decimal128(Some(-1), 9, 2)));
        assert_eq!(read(&DataType::Utf8View, &[0xff, 0xfe]), None);
    }

    #[test]
    fn zero_covers_both_signs() {
        let lower = scalar(&DataType::Float64, End::Lower, &0f64.to_le_bytes());
        assert!(matches!(lower, Some(ScalarValue::Float64(Some(f))) if f.is_sign_negative()));
        let upper = scalar(&DataType::Float32, End::Upper, &(-0f32).to_le_bytes());
        assert!(matches!(upper, Some(ScalarValue::Float32(Some(f))) if f.is_sign_positive()));
    }
}
