use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_expr_common::physical_expr::{is_dynamic_physical_expr, snapshot_generation, snapshot_physical_expr};
use iceberg::spec::{Schema, TableMetadataRef};

use super::plan::ScanTask;
use super::pruning::Pruner;
use crate::table::Table;

/// What is left to find of a table while a query runs: the best rows so far of a TopK, or the other side of a join, leave files out.
/// DataFusion does that too, by exact statistics alone, which files of others, texts and files with deletes do not have.
#[derive(Debug)]
pub(super) struct RunningFilter {
    predicate: Arc<dyn PhysicalExpr>,
    /// The engine's form of the table's schema, and what may follow it.
    arrow: SchemaRef,
    schema: Arc<Schema>,
    metadata: TableMetadataRef,
    /// With the predicate's generation that it is of.
    pruner: Mutex<Option<(u64, Arc<Pruner>)>>,
}

impl RunningFilter {
    /// `None` where the predicate stays what it was in planning.
    pub(super) fn new(table: &Table, arrow: SchemaRef, predicate: Option<Arc<dyn PhysicalExpr>>) -> Option<Self> {
        let predicate = predicate.filter(is_dynamic_physical_expr)?;
        let (schema, metadata) = (Arc::clone(table.schema()), Arc::clone(table.metadata()));
        Some(Self { predicate, arrow, schema, metadata, pruner: Mutex::default() })
    }

    /// Whether the task's file can hold rows that are still looked for.
    pub(super) fn keeps(&self, task: &ScanTask) -> bool {
        let Some(pruner) = self.pruner() else { return true };
        pruner.keep_files(&self.metadata, task.spec_id, &task.columns, &[task.row]).first() != Some(&false)
    }

    /// In doubt none, which keeps all files.
    fn pruner(&self) -> Option<Arc<Pruner>> {
        let mut known = self.pruner.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = snapshot_generation(&self.predicate);
        if let Some((_, pruner)) = known.as_ref().filter(|(of, _)| *of == generation) {
            return Some(Arc::clone(pruner));
        }
        let now = snapshot_physical_expr(Arc::clone(&self.predicate)).ok()?;
        let filters: Vec<_> = split_conjunction(&now).into_iter().cloned().collect();
        let pruner = Arc::new(Pruner::new(Arc::clone(&self.schema), Arc::clone(&self.arrow), &filters).ok()?);
        *known = Some((generation, Arc::clone(&pruner)));
        Some(pruner)
    }
}
