use std::collections::HashSet;

use async_trait::async_trait;
use iceberg::spec::Operation;
use tarndb_catalog::Result;

use super::snapshot::{SnapshotChange, SnapshotProducer};
use super::{Action, Attempt};
use crate::table::Table;

/// Removes whole data files, and delete files that are about them alone. Conflicts with whoever removed one of the
/// data files before.
#[derive(Debug)]
pub(crate) struct DeleteFiles {
    producer: SnapshotProducer,
}

impl DeleteFiles {
    pub(crate) fn new(table: &Table, data_files: HashSet<String>) -> Self {
        let change = SnapshotChange { removed_data: data_files, ..SnapshotChange::new(Operation::Delete) };
        Self { producer: SnapshotProducer::new(table, change) }
    }
}

#[async_trait]
impl Action for DeleteFiles {
    async fn validate(&self, _attempt: &Attempt<'_>) -> Result<()> {
        // That every file is still there is found out when the manifests are filtered.
        Ok(())
    }

    async fn apply(&mut self, attempt: &mut Attempt<'_>) -> Result<()> {
        self.producer.apply(attempt).await
    }

    fn producer(&self) -> Option<&SnapshotProducer> {
        Some(&self.producer)
    }
}
