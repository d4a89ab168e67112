use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
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

/// See [`Lakehouse::change_rows`].
pub(crate) async fn change_rows(lake: &Lakehouse, table: &Table, change: RowChange) -> Result<Table> {
    table.check_writable()?;
    if let Some(name) = change.summary.keys().find(|name| is_reserved(name)) {
        return Err(Error::invalid_input(format!("what a summary calls `{name}` is not the caller's to tell")));
    }
    let memory = Arc::clone(&lake.session_context().runtime_env().memory_pool);
    let loader = DeleteLoader::new(table, &memory);
    let older = older_deletes(table, Older::MergedInTime);
    let Leaving { rows, superseded, files } = leaving(table, &loader, change.deleted, older).await?;
    let referenced: HashSet<String> = rows.keys().cloned().collect();
    let added = stream::iter(change.added.into_iter().map(Ok));
    let added = write_batches(table, added, Matching::ByName, &memory).await?;
    let deletes = match write_deletes(table, rows).await {
        Ok(deletes) => deletes,
        Err(error) => {
            discard(table, added).await;
            return Err(error);
        }
    };
    let action = RowDelta::replacing(table, added, deletes, referenced, superseded, files);
    let action = action.with_properties(change.properties, change.summary);
    // Who decides by what the table holds has to look again when it holds more.
    let action = action.with_serializable(Box::new(|_, _, _| true));
    let committed = Transaction::new(table, Caller::User).with(action).commit().await?;
    Ok(Table::new(Arc::clone(table.env()), committed.table))
}

async fn discard(table: &Table, files: Vec<WrittenFile>) {
    let locations: Vec<String> = files.iter().map(|written| written.file.file_path().to_string()).collect();
    for (location, error) in table.env().storage.delete_all(locations).await {
        tracing::warn!(location, %error, "a data file that is not needed stays behind as an orphan");
    }
}
