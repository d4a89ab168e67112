use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, UnboundedMemoryPool};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceberg::spec::FormatVersion;
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, ErrorKind, Result};

use super::sort::sorted;
use crate::scan::{
    Deletes, LINEAGE, MetadataColumn, MetadataColumns, Pruner, ReadSchema, RowSchema, ScanTask, open_rows, open_written, plan,
};
use crate::table::{Table, engine_schema};
use crate::transaction::{Caller, RewriteFiles, Transaction, WrittenFile};
use crate::writer::{DeletedRows, Matching, conform, write_deletes, write_rows};

/// Memory that a sort takes before it goes to disk, in bytes: it runs beside whatever the process is there for.
const SORT_MEMORY: usize = 64 * 1024 * 1024;

/// Rows decoded at a time; few where they are sorted, for some of them have to fit into that memory.
const BATCH_ROWS: usize = 16 * 1024;
const SORTED_BATCH_ROWS: usize = 1024;

/// Data files of one partition whose rows are to be in other files: a part of a compaction.
///
/// To write is one step and to commit another: whoever knows which rows are deleted meanwhile commits both together, and so
/// compacts a table that is written to all the time.
#[derive(Debug)]
pub struct RewriteGroup {
    table: Table,
    tasks: Vec<ScanTask>,
    read: ReadSchema,
    deletes: Arc<Deletes>,
    sort_by: Vec<String>,
}

/// The files that a [`RewriteGroup`] became, which are part of no snapshot yet.
#[derive(Debug)]
pub struct RewrittenGroup {
    /// The state that was read.
    table: Table,
    replaced: HashSet<String>,
    written: Vec<WrittenFile>,
}

impl RewriteGroup {
    pub(super) fn new(
        table: &Table,
        tasks: Vec<ScanTask>,
        read: &ReadSchema,
        deletes: &Arc<Deletes>,
        sort_by: &[String],
    ) -> Self {
        Self { table: table.clone(), tasks, read: read.clone(), deletes: Arc::clone(deletes), sort_by: sort_by.to_vec() }
    }

    /// The locations of the data files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| task.path.as_str())
    }

    /// How many bytes each of them has.
    pub fn sizes(&self) -> impl Iterator<Item = u64> {
        self.tasks.iter().map(|task| task.file_size)
    }

    /// The highest sequence number among them: that of the commit, of all that the table had, which added to them last.
    pub fn newest(&self) -> i64 {
        self.tasks.iter().map(|task| task.sequence_number).max().unwrap_or(0)
    }

    /// Writes the live rows to new files.
    ///
    /// # Errors
    /// `InvalidInput` for a column to sort by that there is not; `DataInvalid` for damaged files; the storage's. What was written is
    /// deleted again.
    pub async fn write(self) -> Result<RewrittenGroup> {
        let Self { table, tasks, read, deletes, sort_by } = self;
        let replaced = tasks.iter().map(|task| task.path.clone()).collect();
        let plain = table.arrow_schema()?;
        let storage = table.env().storage.clone();
        // Rows that are moved keep their ids.
        let has_lineage = table.metadata().format_version() == FormatVersion::V3;
        let kept = [MetadataColumn::RowId, MetadataColumn::LastUpdatedSequenceNumber].map(|column| (column, column.name()));
        let metadata = MetadataColumns::named(&table, kept.into_iter().filter(|_| has_lineage))?;
        let schema = RowSchema { read, metadata };
        let lineage = if has_lineage { LINEAGE.fields().len() } else { 0 };
        let written = plain.fields().iter().chain(LINEAGE.fields().iter().take(lineage)).cloned().collect::<Vec<_>>();
        let written = Arc::new(ArrowSchema::new(written));
        let target = Arc::clone(&written);
        let batch_rows = if sort_by.is_empty() { BATCH_ROWS } else { SORTED_BATCH_ROWS };
        let rows = stream::iter(tasks)
            .then(move |task| {
                let (deletes, schema, storage) = (Arc::clone(&deletes), schema.clone(), storage.clone());
                async move { open_rows(&storage, &deletes, &task, &schema, batch_rows).await }
            })
            .try_flatten()
            .and_then(move |batch| futures::future::ready(conform(&batch, &target, Matching::ByPosition, &HashMap::new())));
        let sort_memory: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(SORT_MEMORY));
        let rows = sorted(rows.boxed(), &written, &sort_by, &sort_memory)?;
        // One file is open at a time, whose row group bounds what it buffers.
        let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let written = write_rows(&table, &written, rows, &memory).await?;
        Ok(RewrittenGroup { table, replaced, written })
    }
}

impl RewrittenGroup {
    /// The locations of the files that are replaced.
    pub fn replaced(&self) -> &HashSet<String> {
        &self.replaced
    }

    pub(super) fn into_written(self) -> Vec<WrittenFile> {
        self.written
    }

    /// The rows of the new files, file by file, each with its location and in the order of its positions: some columns.
    ///
    /// # Errors
    /// `InvalidInput` for a column that there is not.
    pub fn rows(&self, columns: &[&str]) -> Result<BoxStream<'_, Result<(String, RecordBatch)>>> {
        let schema = self.table.arrow_schema()?;
        let field = |name: &&str| {
            let field = schema.field_with_name(name).cloned();
            field.map_err(|_| Error::invalid_input(format!("table `{}` has no column `{name}`", self.table.ident())))
        };
        let columns: SchemaRef = Arc::new(ArrowSchema::new(columns.iter().map(field).collect::<Result<Vec<_>>>()?));
        let rows = stream::iter(&self.written).then(move |written| {
            let columns = Arc::clone(&columns);
            async move {
                let (path, size) = (written.file.file_path().to_string(), written.file.file_size_in_bytes());
                let rows = open_written(&self.table.env().storage, (&path, size), &columns, BATCH_ROWS).await?;
                Ok::<_, Error>(rows.map_ok(move |batch| (path.clone(), batch)))
            }
        });
        Ok(rows.try_flatten().boxed())
    }

    /// Puts the new files in the place of the old ones.
    ///
    /// # Errors
    /// `CommitConflict` when anyone deleted rows of the old files, or compacted them; `CommitStateUnknown`; the storage's. Files that are
    /// part of no snapshot are deleted again.
    pub async fn commit(self) -> Result<Table> {
        let Self { table, replaced, written } = self;
        let locations = written.iter().map(location).collect();
        committed(&table, RewriteFiles::new(&table, replaced, written), locations).await
    }

    /// Puts the new files in the place of the old ones, but for the rows at positions of new files in `deleted`: those that were
    /// deleted since the old files were read. `table` is the state of which that is so; returns the state after the commit.
    ///
    /// # Errors
    /// `CommitConflict` when anyone changed the table's rows since that state; `CommitStateUnknown`; the storage's. Files that are
    /// part of no snapshot are deleted again.
    pub async fn commit_with_deletes(self, table: &Table, mut deleted: BTreeMap<String, RoaringTreemap>) -> Result<Table> {
        let Self { table: start, mut replaced, written } = self;
        let live = match live_files(table).await {
            Ok(live) => live,
            Err(error) => {
                discard(table, written.iter().map(location).collect()).await;
                return Err(error);
            }
        };
        replaced.retain(|path| live.contains(path));
        let (mut added, mut unneeded, mut rows) = (Vec::new(), Vec::new(), BTreeMap::new());
        for written in written {
            let path = location(&written);
            match deleted.remove(&path) {
                Some(positions) if positions.len() == written.file.record_count() => {
                    unneeded.push(path);
                    continue;
                }
                Some(positions) if !positions.is_empty() => {
                    let (spec_id, partition) = (written.spec_id, written.file.partition().clone());
                    rows.insert(path, DeletedRows { spec_id, partition, positions });
                }
                _ => {}
            }
            added.push(written);
        }
        discard(table, unneeded).await;
        if added.is_empty() && replaced.is_empty() {
            return Ok(table.clone());
        }
        let mut written: Vec<String> = added.iter().map(location).collect();
        let deletes = match write_deletes(table, rows).await {
            Ok(deletes) => deletes,
            Err(error) => {
                discard(table, written).await;
                return Err(error);
            }
        };
        written.extend(deletes.iter().map(location));
        let action = RewriteFiles::with_deletes(table, &start, replaced, added, deletes);
        committed(table, action, written).await
    }

    /// Deletes the new files, which nobody needs.
    pub async fn discard(self) {
        discard(&self.table, self.written.iter().map(location).collect()).await;
    }
}

async fn committed(table: &Table, action: RewriteFiles, written: Vec<String>) -> Result<Table> {
    match Transaction::new(table, Caller::Upkeep).with(action).commit().await {
        Ok(committed) => Ok(Table::new(Arc::clone(table.env()), committed.table)),
        Err(error) => {
            // Else nobody knows whether they are part of a snapshot.
            if error.kind() == ErrorKind::CommitConflict {
                discard(table, written).await;
            }
            Err(error)
        }
    }
}

fn location(written: &WrittenFile) -> String {
    written.file.file_path().to_string()
}

async fn discard(table: &Table, locations: Vec<String>) {
    for (location, error) in table.env().storage.delete_all(locations).await {
        tracing::warn!(location, %error, "a file of a rewrite that is not needed stays behind as an orphan");
    }
}

/// The locations of all data files.
async fn live_files(table: &Table) -> Result<HashSet<String>> {
    let everything = Pruner::new(Arc::clone(table.schema()), engine_schema(table.schema())?, &[])?;
    let (tasks, _) = plan(table, &everything, None).await?;
    Ok(tasks.into_iter().map(|task| task.path).collect())
}
