//! Rows that leave a table, and the deletes that it has already: what `DELETE` and [`super::change_rows`] have in common.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use iceberg::spec::FormatVersion;
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, Result};

use crate::scan::{DeleteLoader, Pruner, ScanTask, plan as plan_scan};
use crate::table::{Table, engine_schema};
use crate::writer::DeletedRows;

/// What becomes of the deletes that a data file has when more of its rows are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Older {
    /// They stay beside the new ones.
    Stay,
    /// They become part of the new ones.
    Merged,
    /// They become part of the new ones when they are many files, or not many times as many rows: so no row is written again often, and
    /// there are few files.
    MergedInTime,
}

/// Delete files of a data file, after which they are put together.
const DELETE_FILES: usize = 8;

/// Deleted rows, as a multiple of new ones, that are written again with these.
const CHEAP: u64 = 8;

impl Older {
    fn are_merged(self, files: usize, rows: u64, new: u64) -> bool {
        match self {
            Self::Stay => false,
            Self::Merged => true,
            Self::MergedInTime => files >= DELETE_FILES || rows <= new.saturating_mul(CHEAP),
        }
    }
}

/// What leaves a table.
#[derive(Default)]
pub(super) struct Leaving {
    /// Rows, by data file.
    pub(super) rows: BTreeMap<String, DeletedRows>,
    /// Data files whose older deletes are among these rows.
    pub(super) superseded: HashSet<String>,
    /// Data files of which no row is left.
    pub(super) files: HashSet<String>,
}

/// What a change does with older deletes, in a table in which they may stay.
pub(super) fn older_deletes(table: &Table, otherwise: Older) -> Older {
    // A vector takes the place of all deletes of its file.
    if table.metadata().format_version() == FormatVersion::V3 { Older::Merged } else { otherwise }
}

/// Live rows, by data file and position, as what leaves the table.
pub(super) async fn leaving(
    table: &Table,
    loader: &DeleteLoader,
    found: BTreeMap<String, RoaringTreemap>,
    older: Older,
) -> Result<Leaving> {
    let mut leaving = Leaving::default();
    if found.is_empty() {
        return Ok(leaving);
    }
    let schema = engine_schema(table.schema())?;
    let (tasks, _) = plan_scan(table, &Pruner::new(Arc::clone(table.schema()), schema, &[])?, None).await?;
    let mut tasks: BTreeMap<String, ScanTask> = tasks.into_iter().map(|task| (task.path.clone(), task)).collect();
    for (path, mut positions) in found {
        let unknown = || Error::internal("rows of an unknown file are to be deleted").with_context("file", path.clone());
        let task = tasks.remove(&path).ok_or_else(unknown)?;
        let deleted = if older == Older::Stay { Arc::default() } else { loader.positions(&task).await? };
        let are_known = older != Older::Stay || task.is_whole();
        if task.has_known_rows() && are_known && positions.union_len(&deleted) == task.record_count {
            leaving.files.insert(path);
        } else {
            // Those about several data files stay, whatever is written.
            let own = task.deletes.iter().filter(|deletes| deletes.is_of_one()).count();
            if own > 0 && older.are_merged(own, deleted.len(), positions.len()) {
                positions |= deleted.as_ref();
                leaving.superseded.insert(path.clone());
            }
            leaving.rows.insert(path, DeletedRows { spec_id: task.spec_id, partition: task.partition, positions });
        }
    }
    Ok(leaving)
}
