use std::collections::HashSet;
use std::sync::Arc;

use tarndb_catalog::{Error, ErrorKind, Result};

use super::Attempt;
use crate::manifest::{EntryStatus, FileContent, ManifestColumns};

/// What other writers did to a table between two of its states. Entries are a manifest and the row in it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) added_data: Vec<(Arc<ManifestColumns>, usize)>,
    pub(super) added_deletes: Vec<(Arc<ManifestColumns>, usize)>,
    pub(super) removed_data: HashSet<String>,
}

/// The changes on the main branch after the snapshot `start`.
///
/// # Errors
/// `CommitConflict` when `start` is not among the ancestors any more (rolled back, or expired), so that what happened
/// cannot be told.
pub(super) async fn changes_since(attempt: &Attempt<'_>, start: Option<i64>) -> Result<Changes> {
    let metadata = &attempt.current;
    let mut changes = Changes::default();
    let mut newer = HashSet::new();
    let mut next = metadata.current_snapshot();
    let head = next;
    while let Some(snapshot) = next {
        if Some(snapshot.snapshot_id()) == start {
            break;
        }
        newer.insert(snapshot.snapshot_id());
        next = match snapshot.parent_snapshot_id() {
            None => None,
            Some(parent) => Some(metadata.snapshot_by_id(parent).ok_or_else(lost_history)?),
        };
    }
    if next.is_none() && start.is_some() {
        return Err(lost_history());
    }
    if head.is_none() || newer.is_empty() {
        return Ok(changes);
    }
    // Each snapshot's own manifests are in its own list; a later one may have merged them.
    let mut seen = HashSet::new();
    for id in &newer {
        let Some(snapshot) = metadata.snapshot_by_id(*id) else { continue };
        let list = attempt.env.manifests.manifest_list(snapshot).await?;
        let own = list.iter().filter(|m| m.added_snapshot_id == *id && seen.insert(m.manifest_path.clone()));
        for (_, columns) in attempt.env.manifests.manifests(own.cloned().collect()).await? {
            for (row, entry) in columns.entries().iter().enumerate() {
                if entry.snapshot_id != *id {
                    continue;
                }
                match (entry.status, entry.content) {
                    (EntryStatus::Added, FileContent::Data) => changes.added_data.push((Arc::clone(&columns), row)),
                    (EntryStatus::Added, _) => changes.added_deletes.push((Arc::clone(&columns), row)),
                    (EntryStatus::Deleted, FileContent::Data) => {
                        changes.removed_data.insert(entry.path.clone());
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(changes)
}

fn lost_history() -> Error {
    Error::new(ErrorKind::CommitConflict, "the snapshot that this change started from was rolled back or has expired")
}
