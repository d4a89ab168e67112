//! Table properties that tarndb obeys, read with their types.

use std::str::FromStr;

use iceberg::spec::TableMetadata;
use tarndb_catalog::{Error, Result};

pub(crate) const TARGET_FILE_SIZE_BYTES: &str = "write.target-file-size-bytes";
pub(crate) const PARQUET_COMPRESSION_CODEC: &str = "write.parquet.compression-codec";
pub(crate) const PARQUET_COMPRESSION_LEVEL: &str = "write.parquet.compression-level";
pub(crate) const PARQUET_ROW_GROUP_SIZE_BYTES: &str = "write.parquet.row-group-size-bytes";
pub(crate) const PARQUET_PAGE_SIZE_BYTES: &str = "write.parquet.page-size-bytes";
pub(crate) const PARQUET_PAGE_ROW_LIMIT: &str = "write.parquet.page-row-limit";
pub(crate) const PARQUET_DICT_SIZE_BYTES: &str = "write.parquet.dict-size-bytes";
pub(crate) const PARQUET_BLOOM_FILTER_MAX_BYTES: &str = "write.parquet.bloom-filter-max-bytes";
pub(crate) const PARQUET_BLOOM_FILTER_COLUMN_PREFIX: &str = "write.parquet.bloom-filter-enabled.column.";
pub(crate) const PARQUET_BLOOM_FILTER_FPP_COLUMN_PREFIX: &str = "write.parquet.bloom-filter-fpp.column.";
pub(crate) const WRITE_DATA_PATH: &str = "write.data.path";
pub(crate) const WRITE_METADATA_PATH: &str = "write.metadata.path";
pub(crate) const OBJECT_STORAGE_PATH: &str = "write.object-storage.path";
pub(crate) const WRITE_FORMAT: &str = "write.format.default";
pub(crate) const DELETE_MODE: &str = "write.delete.mode";
pub(crate) const COMMIT_NUM_RETRIES: &str = "commit.retry.num-retries";
pub(crate) const COMMIT_MIN_WAIT_MS: &str = "commit.retry.min-wait-ms";
pub(crate) const COMMIT_MAX_WAIT_MS: &str = "commit.retry.max-wait-ms";
pub(crate) const COMMIT_TOTAL_TIMEOUT_MS: &str = "commit.retry.total-timeout-ms";
pub(crate) const MANIFEST_MERGE_ENABLED: &str = "commit.manifest-merge.enabled";
pub(crate) const MANIFEST_MIN_COUNT_TO_MERGE: &str = "commit.manifest.min-count-to-merge";
pub(crate) const MANIFEST_TARGET_SIZE_BYTES: &str = "commit.manifest.target-size-bytes";
pub(crate) const NAME_MAPPING: &str = "schema.name-mapping.default";
pub(crate) const GC_ENABLED: &str = "gc.enabled";
pub(crate) const MAX_SNAPSHOT_AGE_MS: &str = "history.expire.max-snapshot-age-ms";
pub(crate) const MIN_SNAPSHOTS_TO_KEEP: &str = "history.expire.min-snapshots-to-keep";
pub(crate) const MAX_REF_AGE_MS: &str = "history.expire.max-ref-age-ms";

/// The value of a property, if it is set.
///
/// # Errors
/// `InvalidInput`, naming the property and its value, when it does not parse.
pub(crate) fn get<T: FromStr>(metadata: &TableMetadata, key: &str) -> Result<Option<T>> {
    let Some(text) = metadata.properties().get(key) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Error::invalid_input(format!("table property `{key}` has the value `{text}`, which cannot be used"))),
    }
}

/// The value of a property, or its default.
pub(crate) fn get_or<T: FromStr>(metadata: &TableMetadata, key: &str, default: T) -> Result<T> {
    Ok(get(metadata, key)?.unwrap_or(default))
}
