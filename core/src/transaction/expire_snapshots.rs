use std::collections::{BTreeSet, HashSet};

use async_trait::async_trait;
use iceberg::spec::{MAIN_BRANCH, SnapshotRef, SnapshotRetention, TableMetadata};
use iceberg::{TableRequirement, TableUpdate};
use tarndb_catalog::{Error, Result};

use super::snapshot::SnapshotProducer;
use super::{Action, Attempt};
use crate::table::properties;

/// Forgets old snapshots. What is retained is decided anew at every attempt, so it conflicts with nothing.
///
/// A snapshot stays while a branch or tag points at it, while it is one of a branch's newest `min_snapshots_to_keep`,
/// or while it is an ancestor of a branch's head and not older than the branch's age limit.
#[derive(Debug, Default)]
pub(crate) struct ExpireSnapshots {
    older_than_ms: Option<i64>,
    retain_last: Option<usize>,
    removed: BTreeSet<i64>,
    removed_refs: BTreeSet<String>,
}

impl ExpireSnapshots {
    /// `older_than_ms` and `retain_last` replace the table's properties where given.
    pub(crate) fn new(older_than_ms: Option<i64>, retain_last: Option<usize>) -> Self {
        Self { older_than_ms, retain_last, removed: BTreeSet::new(), removed_refs: BTreeSet::new() }
    }

    /// The snapshots that would go now.
    pub(crate) fn expired(&self, metadata: &TableMetadata, now_ms: i64) -> Result<Vec<SnapshotRef>> {
        let (retained, _) = self.retained(metadata, now_ms)?;
        Ok(metadata.snapshots().filter(|snapshot| !retained.contains(&snapshot.snapshot_id())).cloned().collect())
    }

    fn retained(&self, metadata: &TableMetadata, now_ms: i64) -> Result<(HashSet<i64>, Vec<String>)> {
        let max_age_ms = properties::get_or(metadata, properties::MAX_SNAPSHOT_AGE_MS, 5 * 24 * 60 * 60 * 1000_i64)?;
        let min_keep = properties::get_or(metadata, properties::MIN_SNAPSHOTS_TO_KEEP, 1_usize)?;
        let max_ref_age_ms = properties::get_or(metadata, properties::MAX_REF_AGE_MS, i64::MAX)?;
        if self.retain_last == Some(0) {
            return Err(Error::invalid_input("at least one snapshot has to be retained"));
        }
        let mut retained = HashSet::new();
        let mut expired_refs = Vec::new();
        for (name, reference) in refs(metadata) {
            let Some(head) = metadata.snapshot_by_id(reference.snapshot_id) else { continue };
            let (max_ref_age, branch) = match reference.retention {
                SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, max_ref_age_ms } => {
                    (max_ref_age_ms, Some((min_snapshots_to_keep, max_snapshot_age_ms)))
                }
                SnapshotRetention::Tag { max_ref_age_ms } => (max_ref_age_ms, None),
            };
            let ref_age_limit = now_ms.saturating_sub(max_ref_age.unwrap_or(max_ref_age_ms));
            if name != MAIN_BRANCH && head.timestamp_ms() < ref_age_limit {
                expired_refs.push(name);
                continue;
            }
            retained.insert(reference.snapshot_id);
            let Some((branch_keep, branch_age)) = branch else { continue };
            let keep = branch_keep.and_then(|n| usize::try_from(n).ok()).or(self.retain_last).unwrap_or(min_keep);
            let oldest_ms = match (branch_age, self.older_than_ms) {
                (Some(age), _) => now_ms.saturating_sub(age),
                (None, Some(older_than)) => older_than,
                (None, None) => now_ms.saturating_sub(max_age_ms),
            };
            let mut next = Some(reference.snapshot_id);
            let mut depth = 0;
            while let Some(snapshot) = next.and_then(|id| metadata.snapshot_by_id(id)) {
                if depth >= keep && snapshot.timestamp_ms() < oldest_ms {
                    break;
                }
                retained.insert(snapshot.snapshot_id());
                depth += 1;
                next = snapshot.parent_snapshot_id();
            }
        }
        // Snapshots that no branch reaches (staged ones, rolled-back ones) go by age alone.
        let reachable = reachable(metadata);
        let oldest_ms = self.older_than_ms.unwrap_or_else(|| now_ms.saturating_sub(max_age_ms));
        for snapshot in metadata.snapshots() {
            if !reachable.contains(&snapshot.snapshot_id()) && snapshot.timestamp_ms() >= oldest_ms {
                retained.insert(snapshot.snapshot_id());
            }
        }
        Ok((retained, expired_refs))
    }
}

/// Branches and tags. The metadata lists them only in its JSON form.
fn refs(metadata: &TableMetadata) -> Vec<(String, iceberg::spec::SnapshotReference)> {
    crate::table::inspect::references(metadata)
}

fn reachable(metadata: &TableMetadata) -> HashSet<i64> {
    let mut seen = HashSet::new();
    for (_, reference) in refs(metadata) {
        let mut next = Some(reference.snapshot_id);
        while let Some(snapshot) = next.and_then(|id| metadata.snapshot_by_id(id)) {
            if !seen.insert(snapshot.snapshot_id()) {
                break;
            }
            next = snapshot.parent_snapshot_id();
        }
    }
    seen
}

#[async_trait]
impl Action for ExpireSnapshots {
    async fn validate(&self, attempt: &Attempt<'_>) -> Result<()> {
        if !properties::get_or(&attempt.current, properties::GC_ENABLED, true)? {
            return Err(Error::invalid_input("snapshots of this table must not expire: its property `gc.enabled` is false"));
        }
        Ok(())
    }

    async fn apply(&mut self, attempt: &mut Attempt<'_>) -> Result<()> {
        let metadata = &attempt.current;
        let (retained, expired_refs) = self.retained(metadata, attempt.env.storage.clock().now_ms())?;
        self.removed = metadata.snapshots().map(|snapshot| snapshot.snapshot_id()).filter(|id| !retained.contains(id)).collect();
        self.removed_refs = expired_refs.iter().cloned().collect();
        for ref_name in expired_refs {
            attempt.updates.push(TableUpdate::RemoveSnapshotRef { ref_name });
        }
        if self.removed.is_empty() && self.removed_refs.is_empty() {
            return Ok(());
        }
        // A branch or tag that is made meanwhile on a snapshot that goes must stop this attempt.
        for (name, reference) in refs(metadata) {
            attempt
                .requirements
                .push(TableRequirement::RefSnapshotIdMatch { r#ref: name, snapshot_id: Some(reference.snapshot_id) });
        }
        for id in &self.removed {
            if metadata.statistics_for_snapshot(*id).is_some() {
                attempt.updates.push(TableUpdate::RemoveStatistics { snapshot_id: *id });
            }
            if metadata.partition_statistics_for_snapshot(*id).is_some() {
                attempt.updates.push(TableUpdate::RemovePartitionStatistics { snapshot_id: *id });
            }
        }
        if self.removed.is_empty() {
            return Ok(());
        }
        attempt.updates.push(TableUpdate::RemoveSnapshots { snapshot_ids: self.removed.iter().copied().collect() });
        Ok(())
    }

    fn is_in(&self, metadata: &TableMetadata) -> bool {
        self.removed.iter().all(|id| metadata.snapshot_by_id(*id).is_none())
            && (self.removed_refs.is_empty() || refs(metadata).iter().all(|(name, _)| !self.removed_refs.contains(name)))
    }

    fn producer(&self) -> Option<&SnapshotProducer> {
        None
    }
}
