use std::num::NonZeroUsize;
use std::sync::Arc;

use iceberg::spec::TableMetadata;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterPropertiesPtr};
use parquet::schema::types::ColumnPath;
use tarndb_catalog::{Error, Result};

use crate::table::{Table, properties};

/// Rows after which a row group ends, however small: enough groups for a scan to use every core.
const MAX_ROW_GROUP_ROWS: usize = 1024 * 1024;

/// Parquet settings by the table's `write.parquet.*` properties; zstd unless they say otherwise.
///
/// # Errors
/// `InvalidInput`, naming the property and its value, when one cannot be used.
pub(super) fn writer_properties(table: &Table) -> Result<WriterPropertiesPtr> {
    let metadata = table.metadata();
    let positive =
        |key: &str| -> Result<Option<usize>> { Ok(properties::get::<NonZeroUsize>(metadata, key)?.map(NonZeroUsize::get)) };
    let row_group_bytes = positive(properties::PARQUET_ROW_GROUP_SIZE_BYTES)?.unwrap_or(128 * 1024 * 1024);
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("tarndb version {}", env!("CARGO_PKG_VERSION")))
        .set_compression(compression(metadata)?)
        .set_max_row_group_row_count(Some(MAX_ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(row_group_bytes));
    if let Some(bytes) = positive(properties::PARQUET_PAGE_SIZE_BYTES)? {
        builder = builder.set_data_page_size_limit(bytes);
    }
    if let Some(rows) = positive(properties::PARQUET_PAGE_ROW_LIMIT)? {
        builder = builder.set_data_page_row_count_limit(rows);
    }
    if let Some(bytes) = positive(properties::PARQUET_DICT_SIZE_BYTES)? {
        builder = builder.set_dictionary_page_size_limit(bytes);
    }
    Ok(Arc::new(bloom_filters(metadata, builder)?.build()))
}

/// Bloom filters for the columns that have them enabled. They shrink to the values that are there when they are written.
fn bloom_filters(metadata: &TableMetadata, mut builder: WriterPropertiesBuilder) -> Result<WriterPropertiesBuilder> {
    let max_bytes: u32 = properties::get_or(metadata, properties::PARQUET_BLOOM_FILTER_MAX_BYTES, 1024 * 1024)?;
    for key in metadata.properties().keys() {
        let Some(column) = key.strip_prefix(properties::PARQUET_BLOOM_FILTER_COLUMN_PREFIX) else { continue };
        if !properties::get_or(metadata, key, false)? {
            continue;
        }
        let fpp_key = format!("{}{column}", properties::PARQUET_BLOOM_FILTER_FPP_COLUMN_PREFIX);
        let fpp: f64 = properties::get_or(metadata, &fpp_key, 0.01)?;
        if !(fpp > 0.0 && fpp < 1.0) {
            return Err(Error::invalid_input(format!(
                "table property `{fpp_key}` has the value `{fpp}`: it lies between 0 and 1"
            )));
        }
        // How many values a filter of that size takes, by the formula for Parquet's split block filters.
        let values = -f64::from(max_bytes) * (1.0 - fpp.powf(1.0 / 8.0)).ln();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive and far below 2^64
        let ndv = (values as u64).clamp(1, MAX_ROW_GROUP_ROWS as u64);
        let path = ColumnPath::new(column.split('.').map(str::to_string).collect());
        builder = builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), fpp)
            .set_column_bloom_filter_ndv(path, ndv);
    }
    Ok(builder)
}

fn compression(metadata: &TableMetadata) -> Result<Compression> {
    let codec = metadata.properties().get(properties::PARQUET_COMPRESSION_CODEC).map_or("zstd", String::as_str);
    let level: Option<i32> = properties::get(metadata, properties::PARQUET_COMPRESSION_LEVEL)?;
    let wrong = |e: parquet::errors::ParquetError| {
        Error::invalid_input(format!("table property `{}` has an impossible value", properties::PARQUET_COMPRESSION_LEVEL))
            .with_source(e)
    };
    let unsigned = level.and_then(|level| u32::try_from(level).ok());
    Ok(match codec.to_ascii_lowercase().as_str() {
        "zstd" => Compression::ZSTD(level.map_or(Ok(ZstdLevel::default()), ZstdLevel::try_new).map_err(wrong)?),
        "snappy" => Compression::SNAPPY,
        "gzip" => Compression::GZIP(unsigned.map_or(Ok(GzipLevel::default()), GzipLevel::try_new).map_err(wrong)?),
        "brotli" => Compression::BROTLI(unsigned.map_or(Ok(BrotliLevel::default()), BrotliLevel::try_new).map_err(wrong)?),
        "lz4" => Compression::LZ4_RAW,
        "uncompressed" | "none" => Compression::UNCOMPRESSED,
        other => {
            return Err(Error::invalid_input(format!(
                "table property `{}` has the value `{other}`: use zstd, snappy, gzip, brotli, lz4 or uncompressed",
                properties::PARQUET_COMPRESSION_CODEC
            )));
        }
    })
}
