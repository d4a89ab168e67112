use std::collections::HashSet;

use async_trait::async_trait;
use iceberg::spec::Operation;
use tarndb_catalog::{Error, ErrorKind, Result};

use super::history::changes_since;
use super::snapshot::{SnapshotChange, SnapshotProducer};
use super::{Action, Attempt, WrittenFile};
use crate::manifest::FileContent;
use crate::table::Table;

/// Replaces data files by others with the same rows, their deletes applied: a compaction.
///
/// The new files keep the data sequence number of the start, so that equality deletes committed meanwhile still apply
/// to them. Position deletes committed meanwhile on a replaced file cannot be carried over and conflict: to ignore
/// them would bring deleted rows back.
#[derive(Debug)]
pub(crate) struct RewriteFiles {
    producer: SnapshotProducer,
    replaced: HashSet<String>,
    start_snapshot_id: Option<i64>,
    /// Whether nobody may have changed rows since the start: what is deleted from the new files was decided on then.
    is_alone: bool,
}

impl RewriteFiles {
    pub(crate) fn new(table: &Table, replaced: HashSet<String>, added: Vec<WrittenFile>) -> Self {
        let start = table.snapshot();
        let change = SnapshotChange {
            added_data: added,
            added_data_sequence_number: start.map(iceberg::spec::Snapshot::sequence_number),
            removed_data: replaced.clone(),
            ..SnapshotChange::new(Operation::Replace)
        };
        Self {
            start_snapshot_id: start.map(iceberg::spec::Snapshot::snapshot_id),
            producer: SnapshotProducer::new(table, change),
            replaced,
            is_alone: false,
        }
    }

    /// Files that were written from the state `start` and take the place of others in the state `table`, with deletes of those of
    /// their rows that left between the two.
    pub(crate) fn with_deletes(
        table: &Table,
        start: &Table,
        replaced: HashSet<String>,
        added: Vec<WrittenFile>,
        deletes: Vec<WrittenFile>,
    ) -> Self {
        let operation = if deletes.is_empty() { Operation::Replace } else { Operation::Overwrite };
        let change = SnapshotChange {
            added_data: added,
            added_data_sequence_number: start.snapshot().map(iceberg::spec::Snapshot::sequence_number),
            added_deletes: deletes,
            removed_data: replaced.clone(),
            ..SnapshotChange::new(operation)
        };
        Self {
            start_snapshot_id: table.snapshot().map(iceberg::spec::Snapshot::snapshot_id),
            producer: SnapshotProducer::new(table, change),
            replaced,
            is_alone: true,
        }
    }
}

#[async_trait]
impl Action for RewriteFiles {
    async fn validate(&self, attempt: &Attempt<'_>) -> Result<()> {
        let changes = changes_since(attempt, self.start_snapshot_id).await?;
        let current = attempt.current.current_snapshot().map(|snapshot| snapshot.snapshot_id());
        if self.is_alone && current != self.start_snapshot_id {
            return Err(Error::new(ErrorKind::CommitConflict, "another writer changed the table while it was being compacted"));
        }
        if let Some(path) = changes.removed_data.iter().find(|path| self.replaced.contains(*path)) {
            return Err(Error::new(ErrorKind::CommitConflict, "another writer removed a file that was being rewritten")
                .with_context("file", path.clone()));
        }
        for (columns, row) in &changes.added_deletes {
            let Some(entry) = columns.entries().get(*row) else { continue };
            // Equality deletes apply to the new files by their sequence number. A position delete file that does
            // not say which file it is about may be about any.
            let conflicts = entry.content == FileContent::PositionDeletes
                && crate::scan::single_data_file(columns, *row).is_none_or(|path| self.replaced.contains(path));
            if conflicts {
                return Err(Error::new(
                    ErrorKind::CommitConflict,
                    "another writer deleted rows of a file that was being rewritten",
                )
                .with_context("file", entry.path.clone()));
            }
        }
        Ok(())
    }

    async fn apply(&mut self, attempt: &mut Attempt<'_>) -> Result<()> {
        self.producer.apply(attempt).await
    }

    fn producer(&self) -> Option<&SnapshotProducer> {
        Some(&self.producer)
    }
}
