use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use iceberg::TableUpdate;
use iceberg::spec::{FormatVersion, Operation};
use tarndb_catalog::{Error, ErrorKind, Result};

use super::history::changes_since;
use super::snapshot::{SnapshotChange, SnapshotProducer};
use super::{Action, Attempt, WrittenFile};
use crate::manifest::Entry;
use crate::table::Table;

/// Decides whether a data file that someone else added could hold rows that the change is about.
pub(crate) type ConflictFilter = Box<dyn Fn(&crate::manifest::ManifestColumns, usize, &Entry) -> bool + Send + Sync>;

/// Adds position delete files and removes whole data files in one snapshot: a merge-on-read `DELETE`; and data files, when rows
/// take the place of others.
///
/// In tables of format version 3 the deletes are deletion vectors, of which a data file has one: it takes the place of the
/// data file's older deletes, and has their positions in it. Elsewhere they may do so too, where a change looks at these.
///
/// Conflicts with commits that removed a data file which the deletes are about (a compaction, another delete), and,
/// under serializable isolation, with commits that added rows which the delete would have had to see; and, where older deletes are
/// looked at, with commits that deleted other rows of the same data file.
pub(crate) struct RowDelta {
    producer: SnapshotProducer,
    referenced: HashSet<String>,
    /// By which the deletes were written.
    version: FormatVersion,
    start_snapshot_id: Option<i64>,
    /// Whether older deletes of the data files were looked at.
    knows_older: bool,
    /// Set with the snapshot.
    properties: HashMap<String, String>,
    added_rows_conflict: Option<ConflictFilter>,
}

impl std::fmt::Debug for RowDelta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowDelta").field("producer", &self.producer).finish_non_exhaustive()
    }
}

impl RowDelta {
    /// `referenced` are the data files that `deletes` are about.
    pub(crate) fn new(table: &Table, deletes: Vec<WrittenFile>, referenced: HashSet<String>, removed: HashSet<String>) -> Self {
        let operation = if deletes.is_empty() { Operation::Delete } else { Operation::Overwrite };
        let change = SnapshotChange { added_deletes: deletes, removed_data: removed, ..SnapshotChange::new(operation) };
        let knows_older = table.metadata().format_version() == FormatVersion::V3;
        let superseded = if knows_older { referenced.clone() } else { HashSet::new() };
        Self::of(table, SnapshotChange { superseded, ..change }, referenced, knows_older)
    }

    /// Adds rows, too; and the deletes have the positions of all older ones of the data files in `superseded`,
    /// whose place they take.
    pub(crate) fn replacing(
        table: &Table,
        added: Vec<WrittenFile>,
        deletes: Vec<WrittenFile>,
        referenced: HashSet<String>,
        superseded: HashSet<String>,
        removed: HashSet<String>,
    ) -> Self {
        let operation = match (added.is_empty(), deletes.is_empty() && removed.is_empty()) {
            (_, true) => Operation::Append,
            (true, false) => Operation::Delete,
            (false, false) => Operation::Overwrite,
        };
        let change = SnapshotChange {
            added_data: added,
            added_deletes: deletes,
            removed_data: removed,
            superseded,
            ..SnapshotChange::new(operation)
        };
        Self::of(table, change, referenced, true)
    }

    /// Sets properties of the table, and of the snapshot's summary.
    pub(crate) fn with_properties(mut self, table: HashMap<String, String>, summary: HashMap<String, String>) -> Self {
        self.properties = table;
        self.producer.set_properties(summary);
        self
    }

    fn of(table: &Table, change: SnapshotChange, referenced: HashSet<String>, knows_older: bool) -> Self {
        Self {
            start_snapshot_id: table.snapshot().map(|s| s.snapshot_id()),
            producer: SnapshotProducer::new(table, change),
            referenced,
            version: table.metadata().format_version(),
            knows_older,
            properties: HashMap::new(),
            added_rows_conflict: None,
        }
    }

    /// Serializable isolation: data files added by others conflict when `filter` says so.
    pub(crate) fn with_serializable(mut self, filter: ConflictFilter) -> Self {
        self.added_rows_conflict = Some(filter);
        self
    }
}

#[async_trait]
impl Action for RowDelta {
    async fn validate(&self, attempt: &Attempt<'_>) -> Result<()> {
        if attempt.current.format_version() != self.version {
            return Err(Error::new(ErrorKind::CommitConflict, "another writer upgraded the table's format version"));
        }
        let changes = changes_since(attempt, self.start_snapshot_id).await?;
        if let Some(path) = changes.removed_data.iter().find(|path| self.referenced.contains(*path)) {
            return Err(Error::new(ErrorKind::CommitConflict, "another writer removed a file whose rows were to be deleted")
                .with_context("file", path.clone()));
        }
        if self.knows_older {
            for (columns, row) in &changes.added_deletes {
                let path = crate::scan::single_data_file(columns, *row);
                if let Some(path) = path.filter(|path| self.referenced.contains(*path)) {
                    let message = "another writer deleted other rows of the same file";
                    return Err(Error::new(ErrorKind::CommitConflict, message).with_context("file", path.to_string()));
                }
            }
        }
        if let Some(filter) = &self.added_rows_conflict {
            for (columns, row) in &changes.added_data {
                if let Some(entry) = columns.entries().get(*row)
                    && filter(columns, *row, entry)
                {
                    return Err(Error::new(ErrorKind::CommitConflict, "another writer added rows that may have to be deleted")
                        .with_context("file", entry.path.clone()));
                }
            }
        }
        Ok(())
    }

    async fn apply(&mut self, attempt: &mut Attempt<'_>) -> Result<()> {
        self.producer.apply(attempt).await?;
        if !self.properties.is_empty() {
            attempt.updates.push(TableUpdate::SetProperties { updates: self.properties.clone() });
        }
        Ok(())
    }

    fn producer(&self) -> Option<&SnapshotProducer> {
        Some(&self.producer)
    }
}
