//! Names and content of `metadata.json` files.

use iceberg::spec::TableMetadata;
use uuid::Uuid;

use crate::{Error, Result, Storage};

/// `<location>/metadata/<version>-<uuid>.metadata.json`, one version above `previous`.
pub(super) fn next_location(metadata: &TableMetadata, previous: Option<&str>, uuid: Uuid) -> String {
    let version = previous.map_or(0, |p| version_of(p).map_or(0, |v| v + 1));
    format!("{}/metadata/{version:05}-{uuid}.metadata.json", metadata.location().trim_end_matches('/'))
}

/// The version in a file name of the forms `00012-<uuid>.metadata.json` and `v12.metadata.json`.
fn version_of(location: &str) -> Option<u64> {
    let name = location.rsplit('/').next()?;
    let digits = name.strip_prefix('v').unwrap_or(name);
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    digits.get(..end)?.parse().ok()
}

pub(super) fn serialize(metadata: &TableMetadata) -> Result<Vec<u8>> {
    // A snapshot takes about 700 bytes; without the estimate, growing the text would copy it several times over.
    let mut text = Vec::with_capacity(16 * 1024 + metadata.snapshots().len() * 1024);
    serde_json::to_writer(&mut text, metadata)
        .map_err(|e| Error::internal("table metadata cannot be written as JSON").with_source(e))?;
    Ok(text)
}

/// Reads and parses a metadata file.
pub(super) async fn read(storage: &Storage, location: &str) -> Result<TableMetadata> {
    let bytes = storage.read(location).await.map_err(|e| {
        if e.kind() == crate::ErrorKind::NotFound {
            Error::data_invalid("table metadata file is missing").with_context("file", location).with_source(e)
        } else {
            e
        }
    })?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(Error::unsupported("gzip-compressed table metadata cannot be read yet").with_context("file", location));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::data_invalid(format!("table metadata file is damaged: {e}")).with_context("file", location))
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn versions_are_found_in_both_forms() {
        assert_eq!(version_of("file:///t/metadata/00012-ab.metadata.json"), Some(12));
        assert_eq!(version_of("file:///t/metadata/v7.metadata.json"), Some(7));
        assert_eq!(version_of("file:///t/metadata/x.metadata.json"), None);
    }
}
