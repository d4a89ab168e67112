use async_trait::async_trait;
use iceberg::spec::Operation;
use tarndb_catalog::Result;

use super::snapshot::{SnapshotChange, SnapshotProducer};
use super::{Action, Attempt, WrittenFile};
use crate::table::Table;

/// Adds data files. Conflicts with nothing.
#[derive(Debug)]
pub(crate) struct Append {
    producer: SnapshotProducer,
}

impl Append {
    pub(crate) fn new(table: &Table, files: Vec<WrittenFile>) -> Self {
        let change = SnapshotChange { added_data: files, ..SnapshotChange::new(Operation::Append) };
        Self { producer: SnapshotProducer::new(table, change) }
    }
}

#[async_trait]
impl Action for Append {
    async fn validate(&self, _attempt: &Attempt<'_>) -> Result<()> {
        Ok(())
    }

    async fn apply(&mut self, attempt: &mut Attempt<'_>) -> Result<()> {
        self.producer.apply(attempt).await
    }

    fn producer(&self) -> Option<&SnapshotProducer> {
        Some(&self.producer)
    }
}
