//! Writing data and delete files.
//!
//! * [`conform`]: batches of users in the table's schema, or an error that names the column.
//! * [`partition`]: batches split by partition values, for all transforms.
//! * [`parquet_properties`]: Parquet settings by table properties.
//! * [`parquet_file`]: one encoded Parquet file, its pages with checksums ([`page_checksums`]).
//! * [`rolling`]: files of the target size, with statistics of our own.
//! * [`column_statistics`]: exact bounds, NULL and NaN counts.
//! * [`position_delete`]: position delete files, one per data file; [`deletion_vectors`]: what format version 3 has instead.

mod column_statistics;
mod conform;
mod deletion_vectors;
mod page_checksums;
mod parquet_file;
mod parquet_properties;
mod partition;
mod position_delete;
mod rolling;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use iceberg::spec::{FormatVersion, Struct};
use roaring::RoaringTreemap;
use tarndb_catalog::Result;

pub(crate) use column_statistics::{successor, successor_bytes};
pub(crate) use conform::{Matching, conform};
pub(crate) use position_delete::DeletedRows;

use crate::positions::ValueColumns;
use crate::table::Table;
use crate::transaction::WrittenFile;
use partition::PartitionSplitter;
use rolling::RollingWriter;

/// Bytes buffered in open files before the largest of them is closed, however much memory the pool has.
const BUFFER_LIMIT_BYTES: usize = 512 * 1024 * 1024;

/// Files open at once: each has buffers for every column, however few rows it has.
const MAX_OPEN_FILES: usize = 256;

/// How many files are closed, which syncs them, at once.
const CLOSE_CONCURRENCY: usize = 16;

/// Whether rows can be written to the table as its properties say.
///
/// # Errors
/// `InvalidInput` for a property that cannot be used; `Unsupported` for one that asks for what is not offered.
pub(crate) fn check_properties(table: &Table) -> Result<()> {
    table.check_writable()?;
    let metadata = table.metadata();
    ValueColumns::check(metadata.properties(), metadata.current_schema())?;
    let schema = crate::table::arrow_schema(metadata.current_schema())?;
    RollingWriter::try_new(table, &schema, Struct::empty(), String::new()).map(|_| ())
}

/// Writes rows as data files of the table, by its default partition spec. Batches have the columns of `schema`: the table's
/// plain Arrow schema, as [`conform`] makes it, and after it what else the files are to hold. What open files buffer is reserved in the pool `memory`; when that has no more, the largest
/// are closed early. When anything fails, what was written is deleted again.
///
/// # Errors
/// Those of the input; `Unsupported` for file formats other than Parquet; the storage's.
pub(crate) async fn write_rows(
    table: &Table,
    schema: &SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch>> + Send,
    memory: &Arc<dyn MemoryPool>,
) -> Result<Vec<WrittenFile>> {
    let reservation = MemoryConsumer::new(format!("writer of {}", table.ident())).with_can_spill(true).register(memory);
    let mut open = OpenFiles { table, schema, writers: HashMap::new(), open: 0, reservation };
    let written = open.write_all(rows).await;
    match written {
        Ok(files) => Ok(files),
        Err(error) => {
            let locations = open.writers.into_values().flat_map(|writer| writer.locations());
            for (location, error) in table.env().storage.delete_all(locations).await {
                tracing::warn!(location, %error, "a file of a write that failed stays behind as an orphan");
            }
            Err(error)
        }
    }
}

/// Writes delete files of the kind that the table's format version has, for rows by data file.
///
/// # Errors
/// The storage's; what was written is deleted again.
pub(crate) async fn write_deletes(table: &Table, deleted: BTreeMap<String, DeletedRows>) -> Result<Vec<WrittenFile>> {
    let mut positions: HashMap<String, RoaringTreemap> =
        deleted.iter().map(|(path, rows)| (path.clone(), rows.positions.clone())).collect();
    let written = match table.metadata().format_version() {
        FormatVersion::V3 => deletion_vectors::write_deletion_vectors(table, deleted).await?,
        _ => position_delete::write_position_deletes(table, deleted).await?,
    };
    // The next query needs them, and so does the next change of the same data files.
    for WrittenFile { file, .. } in &written {
        if let Some((path, positions)) = file.referenced_data_file().and_then(|path| positions.remove_entry(&path)) {
            let range = file.content_offset().zip(file.content_size_in_bytes());
            let range = range.map(|(offset, length)| (offset.cast_unsigned(), length.cast_unsigned()));
            let positions = HashMap::from([(path, Arc::new(positions))]);
            table.env().positions.put((file.file_path().to_string(), range), Arc::new(positions)).await;
        }
    }
    Ok(written)
}

struct OpenFiles<'a> {
    table: &'a Table,
    schema: &'a SchemaRef,
    writers: HashMap<Struct, RollingWriter>,
    open: usize,
    reservation: MemoryReservation,
}

impl OpenFiles<'_> {
    async fn write_all(&mut self, rows: impl Stream<Item = Result<RecordBatch>> + Send) -> Result<Vec<WrittenFile>> {
        let splitter = PartitionSplitter::try_new(self.table)?;
        let mut rows = std::pin::pin!(rows);
        while let Some(batch) = rows.try_next().await? {
            for (partition, batch) in splitter.split(&batch)? {
                if !self.writers.contains_key(&partition) {
                    let writer = RollingWriter::try_new(self.table, self.schema, partition.clone(), splitter.path(&partition))?;
                    self.writers.insert(partition.clone(), writer);
                }
                if let Some(writer) = self.writers.get_mut(&partition) {
                    self.open += usize::from(!writer.is_open());
                    writer.write(&batch).await?;
                    self.open -= usize::from(!writer.is_open());
                }
                if self.open > MAX_OPEN_FILES {
                    self.close_all_but(MAX_OPEN_FILES / 2).await?;
                }
            }
            self.limit_memory().await?;
        }
        self.close_all_but(0).await?;
        let mut files: Vec<WrittenFile> = self.writers.values_mut().flat_map(RollingWriter::take_files).collect();
        files.sort_by(|a, b| a.file.file_path().cmp(b.file.file_path()));
        Ok(files)
    }

    /// Closes all files but the `keep` with the fewest rows in their buffers.
    async fn close_all_but(&mut self, keep: usize) -> Result<()> {
        let mut open: Vec<&mut RollingWriter> = self.writers.values_mut().filter(|writer| writer.is_open()).collect();
        open.sort_by_key(|writer| writer.buffered_bytes());
        let mut closing = Vec::with_capacity(open.len());
        for writer in open.into_iter().skip(keep) {
            closing.push(writer.close_file());
        }
        self.open -= closing.len();
        stream::iter(closing).buffer_unordered(CLOSE_CONCURRENCY).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn limit_memory(&mut self) -> Result<()> {
        let mut total: usize = self.writers.values().map(RollingWriter::buffered_bytes).sum();
        while total > BUFFER_LIMIT_BYTES || self.reservation.try_resize(total).is_err() {
            let largest = self.writers.values_mut().max_by_key(|writer| writer.buffered_bytes());
            let Some(largest) = largest.filter(|writer| writer.buffered_bytes() > 0) else { break };
            total -= largest.buffered_bytes();
            largest.close_file().await?;
            self.open -= 1;
        }
        Ok(())
    }
}
