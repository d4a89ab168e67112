use async_trait::async_trait;
use iceberg::TableRequirement;
use iceberg::spec::TableMetadata;
use tarndb_catalog::Result;

use super::snapshot::SnapshotProducer;
use super::{Action, Attempt};
use crate::table::evolution::{self, Change};

/// Changes columns, partition fields and properties. What the changes mean is decided anew at every attempt, on the table as
/// it is then: two writers that add a column each both get theirs.
#[derive(Debug)]
pub(crate) struct Alter {
    changes: Vec<Change>,
    /// What the last attempt would have made of the table.
    result: Option<TableMetadata>,
}

impl Alter {
    pub(crate) fn new(changes: Vec<Change>) -> Self {
        Self { changes, result: None }
    }
}

#[async_trait]
impl Action for Alter {
    async fn validate(&self, _attempt: &Attempt<'_>) -> Result<()> {
        Ok(())
    }

    async fn apply(&mut self, attempt: &mut Attempt<'_>) -> Result<()> {
        let metadata = &attempt.current;
        let updates = evolution::updates(metadata, &self.changes)?;
        let mut builder = TableMetadata::clone(metadata).into_builder(None);
        for update in &updates {
            builder = update.clone().apply(builder)?;
        }
        self.result = Some(builder.build()?.metadata);
        attempt.requirements.extend([
            TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
            TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: metadata.last_column_id() },
            TableRequirement::DefaultSpecIdMatch { default_spec_id: metadata.default_partition_spec_id() },
            TableRequirement::LastAssignedPartitionIdMatch { last_assigned_partition_id: metadata.last_partition_id() },
        ]);
        attempt.updates.extend(updates);
        Ok(())
    }

    fn is_in(&self, metadata: &TableMetadata) -> bool {
        self.result.as_ref().is_some_and(|result| {
            result.current_schema_id() == metadata.current_schema_id()
                && result.default_partition_spec_id() == metadata.default_partition_spec_id()
                && result.properties() == metadata.properties()
                && result.format_version() == metadata.format_version()
        })
    }

    fn producer(&self) -> Option<&SnapshotProducer> {
        None
    }
}
