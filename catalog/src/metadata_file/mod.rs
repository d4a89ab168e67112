//! `metadata.json` files: their names, their content, and where to find the current one of a table's folder.

mod defaults;
mod find;
mod foreign;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use iceberg::spec::TableMetadata;
use uuid::Uuid;

use crate::{Error, Result, Storage};

pub(crate) use find::find;
pub use foreign::inline_manifests;

/// The table property that names the folder of metadata files.
const METADATA_PATH: &str = "write.metadata.path";

/// How a gzip file begins.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// The longest metadata that is taken out of a compressed file, in bytes.
const MAX_LENGTH: u64 = 1 << 30;

/// The content of a metadata file.
#[derive(Debug, Clone)]
pub(crate) struct ParsedMetadata {
    pub(crate) metadata: Arc<TableMetadata>,
    /// Columns, by field id, of types that this version does not know, with the type as the file has it.
    pub(crate) unsupported_types: Arc<BTreeMap<i32, String>>,
}

/// `<folder>/<version>-<uuid>.metadata.json`, one version above `previous`. The folder is `write.metadata.path`, or
/// `<location>/metadata`.
pub(crate) fn next_location(metadata: &TableMetadata, previous: Option<&str>, uuid: Uuid) -> String {
    let version = previous.map_or(0, |p| version_of(p).map_or(0, |v| v.saturating_add(1)));
    let own = || format!("{}/metadata", metadata.location().trim_end_matches('/'));
    let folder = metadata.properties().get(METADATA_PATH).map_or_else(own, |path| path.trim_end_matches('/').to_string());
    format!("{folder}/{version:05}-{uuid}.metadata.json")
}

/// The version in a file name of the forms `00012-<uuid>.metadata.json` and `v12.metadata.json`.
fn version_of(location: &str) -> Option<u64> {
    let name = location.rsplit('/').next()?;
    let digits = name.strip_prefix('v').unwrap_or(name);
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    digits.get(..end)?.parse().ok()
}

pub(crate) fn serialize(metadata: &TableMetadata) -> Result<Vec<u8>> {
    // A snapshot takes about 700 bytes; without the estimate, growing the text would copy it several times over.
    let mut text = Vec::with_capacity(16 * 1024 + metadata.snapshots().len() * 1024);
    serde_json::to_writer(&mut text, metadata)
        .map_err(|e| Error::internal("table metadata cannot be written as JSON").with_source(e))?;
    Ok(text)
}

/// Reads and parses a metadata file, plain or compressed with gzip, of any writer and format version.
///
/// # Errors
/// `DataInvalid`, naming the file and what is wrong in it; `Unsupported` for format versions after 3.
pub(crate) async fn read(storage: &Storage, location: &str) -> Result<ParsedMetadata> {
    let bytes = storage.read(location).await.map_err(|e| {
        if e.kind() == crate::ErrorKind::NotFound {
            Error::data_invalid("table metadata file is missing").with_context("file", location).with_source(e)
        } else {
            e
        }
    })?;
    parse(bytes).map_err(|e| e.with_context("file", location))
}

/// Parses what a metadata file holds.
fn parse(bytes: Bytes) -> Result<ParsedMetadata> {
    let bytes = if bytes.starts_with(GZIP_MAGIC) { inflate(&bytes)?.into() } else { bytes };
    // Most files are as the format library wants them; the others are brought to that shape, which costs a second pass.
    if !defaults::may_have(&bytes)
        && let Ok(metadata) = serde_json::from_slice(&bytes)
    {
        return Ok(ParsedMetadata { metadata: Arc::new(metadata), unsupported_types: Arc::default() });
    }
    let value = serde_json::from_slice(&bytes).map_err(|e| damaged(format!("it is not JSON: {e}")))?;
    let foreign::Normalized { metadata: value, unsupported_types } = foreign::normalize(value)?;
    let metadata: TableMetadata = serde_json::from_value(value.clone()).map_err(|e| damaged(e.to_string()))?;
    defaults::check(&value, &metadata)?;
    Ok(ParsedMetadata { metadata: Arc::new(metadata), unsupported_types: Arc::new(unsupported_types) })
}

/// What `fuzz/` calls with the bytes of a metadata file.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn fuzz_metadata(bytes: &[u8]) {
    if let Ok(parsed) = parse(Bytes::copy_from_slice(bytes)) {
        let _ = std::hint::black_box(serialize(&parsed.metadata));
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::data_invalid(format!("table metadata file is damaged: {what}"))
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(bytes).take(MAX_LENGTH + 1).read_to_end(&mut text);
    read.map_err(|e| damaged("it cannot be decompressed").with_source(e))?;
    if text.len() as u64 > MAX_LENGTH {
        return Err(damaged("it holds more than 1 GiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn versions_are_found_in_both_forms() {
        assert_eq!(version_of("file:///t/metadata/00012-ab.metadata.json"), Some(12));
        assert_eq!(version_of("file:///t/metadata/v7.metadata.json"), Some(7));
        assert_eq!(version_of("file:///t/metadata/v8.gz.metadata.json"), Some(8));
        assert_eq!(version_of("file:///t/metadata/x.metadata.json"), None);
    }
}
