//! How far the tables of an index are: table properties that are set with their rows.

use tarndb_core::{Error, Result, Table};

/// Property of the tables, set with their rows: how many batches of changes the journal has, and how many of them the inventory has.
/// No commit spans the two, and by this the inventory is brought up when the process ended between them: by the table's, for
/// summaries, which tell it of their snapshots, expire.
pub(super) const BATCH: &str = "tarndb.metadata-index.batch";

/// Property of the journal, set with the rows of a batch: the earliest `record_timestamp` in it.
pub(super) const BATCH_SINCE: &str = "tarndb.metadata-index.batch-since";

/// Property of the journal, set with the rows of a batch: the highest sequence number in it or any before.
pub(super) const LAST: &str = "tarndb.metadata-index.last-sequence-number";

/// In the summary of a snapshot of the inventory, but for compactions: the snapshot of the journal of which it has all changes.
pub(super) const JOURNAL_SNAPSHOT: &str = "tarndb.metadata-index.journal-snapshot-id";

/// Property of the inventory: every object that was there when the index was created is in it.
pub(super) const COMPLETE: &str = "tarndb.metadata-index.complete";

pub(super) fn property<'a>(table: &'a Table, name: &str) -> Option<&'a str> {
    table.metadata().properties().get(name).map(String::as_str)
}

pub(super) fn number(table: &Table, name: &str) -> Result<Option<i64>> {
    let Some(text) = property(table, name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let message = format!("table property `{name}` has the value `{text}`, which is no number");
        Error::data_invalid(message).with_context("table", table.ident().to_string())
    })
}

/// How many batches a table has.
pub(super) fn batches(table: &Table) -> Result<u64> {
    Ok(number(table, BATCH)?.map_or(0, i64::cast_unsigned))
}

/// Whether all objects that were there at the start are in the inventory.
pub(super) fn is_complete(inventory: &Table) -> bool {
    property(inventory, COMPLETE).is_some()
}
