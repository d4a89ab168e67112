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
        }
    }
}

#[async_trait]
impl Action for RewriteFiles {
    async fn validate(&self, attempt: &Attempt<'_>) -> Result<()> {
        let changes = changes_since(attempt, self.start_snapshot_id).await?;
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
