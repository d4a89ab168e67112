use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use futures::stream;
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, Result};

use super::leaving::{Leaving, Older, leaving, older_deletes};
use crate::lakehouse::{Lakehouse, write_batches};
use crate::scan::DeleteLoader;
use crate::table::Table;
use crate::transaction::{Caller, RowDelta, Transaction, WrittenFile, is_reserved};
use crate::writer::{Matching, write_deletes};

/// Rows that come into a table and rows that leave it, in one commit.
#[derive(Debug, Default)]
pub struct RowChange {
    /// Rows, with columns by name; those that are missing become their default, or NULL.
    pub added: Vec<RecordBatch>,
    /// Positions of live rows, by the location of their data file, as the columns `_pos` and `_file` tell them.
    pub deleted: BTreeMap<String, RoaringTreemap>,
    /// Table properties that are set with it: what the caller has to know of the change when it finds the table later.
    pub properties: HashMap<String, String>,
    /// What the summary of its snapshot tells beside its counts, by names that are not those of the specification.
    pub summary: HashMap<String, String>,
}

/// A change of rows whose files are written, and that is no part of its table yet: see [`Lakehouse::write_change`]. What becomes of it
/// is to be said, by [`WrittenChange::commit`] or [`WrittenChange::discard`]; else its files stay behind as orphans.
#[derive(Debug)]
#[must_use = "files that are not committed are orphans"]
pub struct WrittenChange {
    table: Table,
    added: Vec<WrittenFile>,
    deletes: Vec<WrittenFile>,
    /// Data files of which rows leave.
    referenced: HashSet<String>,
    /// Those of them whose older deletes are part of the new ones.
    superseded: HashSet<String>,
    /// Data files of which no row is left.
    removed: HashSet<String>,
    properties: HashMap<String, String>,
    summary: HashMap<String, String>,
}

/// See [`Lakehouse::write_change`].
pub(crate) async fn write_change(lake: &Lakehouse, table: &Table, change: RowChange) -> Result<WrittenChange> {
    table.check_writable()?;
    let RowChange { added, deleted, properties, summary } = change;
    check_summary(&summary)?;
    let memory = Arc::clone(&lake.session_context().runtime_env().memory_pool);
    let loader = DeleteLoader::new(table, &memory);
    let older = older_deletes(table, Older::MergedInTime);
    let Leaving { rows, superseded, files } = leaving(table, &loader, deleted, older).await?;
    let referenced = rows.keys().cloned().collect();
    // In a task of its own, which ends with this: there may be many files, while rows are encoded here.
    let of = table.clone();
    let deletes = SpawnedTask::spawn(async move { write_deletes(&of, rows).await });
    let added = write_batches(table, stream::iter(added.into_iter().map(Ok)), Matching::ByName, &memory).await;
    let stopped = |source| Error::internal("writing position deletes stopped").with_source(source);
    let deletes = deletes.join().await.map_err(stopped).flatten();
    let (added, deletes) = match (added, deletes) {
        (Ok(added), Ok(deletes)) => (added, deletes),
        (added, deletes) => {
            let mut failed = None;
            for written in [added, deletes] {
                match written {
                    Ok(files) => discard(table, files).await,
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            return Err(failed.unwrap_or_else(|| Error::internal("rows were neither written nor refused")));
        }
    };
    Ok(WrittenChange { table: table.clone(), added, deletes, referenced, superseded, removed: files, properties, summary })
}

impl WrittenChange {
    /// The locations of the data files with the rows that come into the table, with how many rows each has. Those of one file are in the
    /// order in which they were given.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.added.iter().map(|written| (written.file.file_path(), written.file.record_count()))
    }

    /// Commits it. `summary` is added to that of the change.
    ///
    /// # Errors
    /// As [`Lakehouse::change_rows`]. Its files are deleted again, unless nobody knows whether they are part of a snapshot.
    pub async fn commit(mut self, summary: HashMap<String, String>) -> Result<Table> {
        if let Err(error) = check_summary(&summary) {
            self.discard().await;
            return Err(error);
        }
        self.summary.extend(summary);
        let Self { table, added, deletes, referenced, superseded, removed, properties, summary } = self;
        let action = RowDelta::replacing(&table, added, deletes, referenced, superseded, removed);
        // Who decides by what the table holds has to look again when it holds more.
        let action = action.with_properties(properties, summary).with_serializable(Box::new(|_, _, _| true));
        let committed = Transaction::new(&table, Caller::User).with(action).commit().await?;
        Ok(Table::new(Arc::clone(table.env()), committed.table))
    }

    /// Deletes its files, which nobody needs.
    pub async fn discard(self) {
        discard(&self.table, self.added.into_iter().chain(self.deletes)).await;
    }
}

fn check_summary(summary: &HashMap<String, String>) -> Result<()> {
    match summary.keys().find(|name| is_reserved(name)) {
        Some(name) => Err(Error::invalid_input(format!("what a summary calls `{name}` is not the caller's to tell"))),
        None => Ok(()),
    }
}

async fn discard(table: &Table, files: impl IntoIterator<Item = WrittenFile>) {
    // Deletion vectors share a file.
    let locations: BTreeSet<String> = files.into_iter().map(|written| written.file.file_path().to_string()).collect();
    for (location, error) in table.env().storage.delete_all(locations).await {
        tracing::warn!(location, %error, "a file of a change that is not needed stays behind as an orphan");
    }
}
