use iceberg::spec::{SnapshotRef, TableMetadata};
use tarndb_catalog::{Error, Result};

/// Which snapshot of a table to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// A snapshot by its id.
    Snapshot(i64),
    /// The head of a branch, or a tag.
    Ref(String),
    /// The snapshot that was current at a time, in milliseconds since the epoch.
    TimestampMs(i64),
}

pub(crate) fn is_branch(metadata: &TableMetadata, name: &str) -> bool {
    super::inspect::references(metadata).iter().any(|(reference, to)| reference == name && to.is_branch())
}

pub(crate) fn resolve(metadata: &TableMetadata, version: &Version) -> Result<SnapshotRef> {
    match version {
        Version::Snapshot(id) => metadata
            .snapshot_by_id(*id)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("snapshot {id} does not exist, or has expired"))),
        Version::Ref(name) => metadata
            .snapshot_for_ref(name)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("there is no branch or tag `{name}`"))),
        Version::TimestampMs(ms) => {
            let current_then = metadata.history().iter().rfind(|log| log.timestamp_ms() <= *ms);
            let log = current_then
                .ok_or_else(|| Error::not_found(format!("the table has no snapshot as old as {}", format_timestamp_ms(*ms))))?;
            metadata
                .snapshot_by_id(log.snapshot_id)
                .cloned()
                .ok_or_else(|| Error::not_found(format!("snapshot {}, current at that time, has expired", log.snapshot_id)))
        }
    }
}

pub(crate) fn format_timestamp_ms(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |time| time.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string())
}
