//! Conditions in SQL on the rows of an index's tables.

/// A time in microseconds since 1970, as SQL has it.
pub(super) fn timestamp(time: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(time).unwrap_or_default().naive_utc();
    format!("TIMESTAMP '{}'", time.format("%Y-%m-%d %H:%M:%S%.6f"))
}

/// The condition that the key is one of these.
pub(super) fn is_one_of(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("'{}'", key.replace('\'', "''"))).collect();
    format!("key IN ({})", keys.join(", "))
}
