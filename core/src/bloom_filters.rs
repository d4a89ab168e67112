//! Bloom filters of data files, kept in memory: a file that has none of the values which a query asks for need not be opened.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use iceberg::spec::TableMetadata;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::ParquetMetaData;
use tarndb_catalog::Result;

use crate::byte_cache::ByteCache;
use crate::error::engine_error;
use crate::table::properties;

/// Memory for filters that a query may need again, in bytes.
const BUDGET: u64 = 64 * 1024 * 1024;

/// A data file: the root of its table, and its path.
type File = (String, String);

/// The filters of columns by their places in the file, one for each row group; `None` where not all have one.
type Filters = HashMap<usize, Option<Arc<Vec<Sbbf>>>>;

/// Bloom filters, shared by all tables and queries of a lake.
///
/// Data files are immutable and their names are unique, so nothing here goes stale.
#[derive(Debug)]
pub(crate) struct BloomFilterCache {
    root: String,
    filters: ByteCache<File, Arc<Filters>>,
}

/// The text columns that a table's files have filters of, by its properties.
pub(crate) fn filtered_columns(metadata: &TableMetadata) -> impl Iterator<Item = i32> {
    let is_enabled = |name: &str| {
        let key = format!("{}{name}", properties::PARQUET_BLOOM_FILTER_COLUMN_PREFIX);
        properties::get_or(metadata, &key, false).unwrap_or(false)
    };
    let is_text = |field_type: &iceberg::spec::Type| {
        matches!(field_type, iceberg::spec::Type::Primitive(iceberg::spec::PrimitiveType::String))
    };
    let fields = metadata.current_schema().as_struct().fields().iter();
    fields.filter(move |field| is_text(&field.field_type) && is_enabled(&field.name)).map(|field| field.id)
}

impl BloomFilterCache {
    /// For tables below this root.
    pub(crate) fn new(root: &str) -> Self {
        Self { root: root.to_string(), filters: ByteCache::new(BUDGET) }
    }

    /// The same cache for tables below another root.
    pub(crate) fn for_root(&self, root: &str) -> Self {
        Self { root: root.to_string(), filters: self.filters.clone() }
    }

    /// Gives up what is known of a file, which the newest snapshot does not have any more.
    pub(crate) async fn forget(&self, path: &str) {
        self.filters.forget(&(self.root.clone(), path.to_string())).await;
    }

    /// Whether any row of a data file may have one of these texts in the column of this id; true where its filters do not tell.
    ///
    /// # Errors
    /// The storage's.
    pub(crate) async fn may_have(
        &self,
        (path, size): (&str, u64),
        reader: &mut (dyn AsyncFileReader + Send),
        footer: &ParquetMetaData,
        (id, values): (i32, &[String]),
    ) -> Result<bool> {
        let columns = footer.file_metadata().schema_descr().columns();
        let has_id = |info: &parquet::schema::types::BasicTypeInfo| info.has_id() && info.id() == id;
        let Some(column) = columns.iter().position(|column| has_id(column.self_type().get_basic_info())) else { return Ok(true) };
        let key = (self.root.clone(), path.to_string());
        let known = self.filters.get(&key).await.unwrap_or_default();
        let filters = match known.get(&column) {
            Some(filters) => filters.clone(),
            None => {
                let read = read((path, size), reader, footer, column).await?.map(Arc::new);
                let known: Filters =
                    known.iter().map(|(at, filters)| (*at, filters.clone())).chain([(column, read.clone())]).collect();
                let blocks = known.values().flatten().flat_map(|filters| filters.iter()).map(Sbbf::num_blocks).sum::<usize>();
                self.filters.put(key, Arc::new(known), path.len() + 32 * blocks).await;
                read
            }
        };
        let may_have = |filter: &Sbbf| values.iter().any(|value| filter.check(value.as_str()));
        Ok(filters.is_none_or(|filters| filters.iter().any(may_have)))
    }
}

/// The filters of a column; `None` where a row group has none, or one that is not understood.
async fn read(
    (path, size): (&str, u64),
    reader: &mut (dyn AsyncFileReader + Send),
    footer: &ParquetMetaData,
    column: usize,
) -> Result<Option<Vec<Sbbf>>> {
    let range = |group: &parquet::file::metadata::RowGroupMetaData| {
        let column = group.columns().get(column)?;
        let start = u64::try_from(column.bloom_filter_offset()?).ok()?;
        let end = start.checked_add(u64::try_from(column.bloom_filter_length()?).ok()?)?;
        (end <= size).then_some(start..end)
    };
    let Some(ranges) = footer.row_groups().iter().map(range).collect::<Option<Vec<Range<u64>>>>() else { return Ok(None) };
    let blobs = reader.get_byte_ranges(ranges).await.map_err(|e| engine_error(e.into()))?;
    let filters = blobs.iter().map(|blob| Sbbf::from_bytes(blob)).collect::<std::result::Result<Vec<_>, _>>();
    let filters = filters.inspect_err(|error| tracing::debug!(path, %error, "a bloom filter is not understood")).ok();
    Ok(filters.filter(|filters| filters.iter().all(|filter| filter.num_blocks() > 0)))
}
