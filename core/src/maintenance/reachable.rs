use std::collections::{BTreeSet, HashSet};

use iceberg::spec::{SnapshotRef, TableMetadata};
use tarndb_catalog::{LoadedTable, Result};

use crate::manifest::FileContent;
use crate::table::Environment;

/// Files that snapshots refer to, by kind.
#[derive(Debug, Default)]
pub(super) struct ReachableFiles {
    pub(super) manifest_lists: BTreeSet<String>,
    pub(super) manifests: BTreeSet<String>,
    pub(super) data_files: BTreeSet<String>,
    pub(super) position_delete_files: BTreeSet<String>,
    pub(super) equality_delete_files: BTreeSet<String>,
    pub(super) statistics_files: BTreeSet<String>,
}

impl ReachableFiles {
    fn sets_mut(&mut self) -> [&mut BTreeSet<String>; 6] {
        [
            &mut self.manifest_lists,
            &mut self.manifests,
            &mut self.data_files,
            &mut self.position_delete_files,
            &mut self.equality_delete_files,
            &mut self.statistics_files,
        ]
    }

    fn sets(&self) -> [&BTreeSet<String>; 6] {
        [
            &self.manifest_lists,
            &self.manifests,
            &self.data_files,
            &self.position_delete_files,
            &self.equality_delete_files,
            &self.statistics_files,
        ]
    }

    /// Takes out what `other` has too, whatever it counts there as.
    pub(super) fn subtract(&mut self, other: &ReachableFiles) {
        for set in self.sets_mut() {
            set.retain(|file| !other.sets().iter().any(|kept| kept.contains(file)));
        }
    }

    /// Leaves out files of which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        for set in self.sets_mut() {
            set.retain(|file| keep(file));
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.sets().into_iter().flatten()
    }
}

/// The files of some snapshots of a table. Manifests named in `known` are taken as read.
pub(super) async fn of_snapshots(
    env: &Environment,
    metadata: &TableMetadata,
    snapshots: &[SnapshotRef],
    known: &HashSet<String>,
) -> Result<ReachableFiles> {
    let mut files = ReachableFiles::default();
    let mut seen = HashSet::new();
    for snapshot in snapshots {
        files.manifest_lists.insert(snapshot.manifest_list().to_string());
        let list = env.manifests.manifest_list(snapshot).await?;
        files.manifests.extend(list.iter().map(|manifest| manifest.manifest_path.clone()));
        let unread = list.iter().filter(|m| !known.contains(&m.manifest_path) && seen.insert(m.manifest_path.clone()));
        for (_, columns) in env.manifests.manifests(unread.cloned().collect()).await? {
            for entry in columns.entries().iter().filter(|entry| entry.is_live()) {
                let set = match entry.content {
                    FileContent::Data => &mut files.data_files,
                    FileContent::PositionDeletes => &mut files.position_delete_files,
                    FileContent::EqualityDeletes => &mut files.equality_delete_files,
                };
                set.insert(entry.path.clone());
            }
        }
    }
    let ids: HashSet<i64> = snapshots.iter().map(|snapshot| snapshot.snapshot_id()).collect();
    let statistics = metadata.statistics_iter().filter(|s| ids.contains(&s.snapshot_id)).map(|s| s.statistics_path.clone());
    files.statistics_files.extend(statistics);
    let partition = metadata.partition_statistics_iter().filter(|s| ids.contains(&s.snapshot_id));
    files.statistics_files.extend(partition.map(|s| s.statistics_path.clone()));
    Ok(files)
}

/// Every file that a table refers to, its metadata files included.
pub(super) async fn of_table(env: &Environment, table: &LoadedTable) -> Result<HashSet<String>> {
    let snapshots: Vec<SnapshotRef> = table.metadata.snapshots().cloned().collect();
    let files = of_snapshots(env, &table.metadata, &snapshots, &HashSet::new()).await?;
    let mut all: HashSet<String> = files.all().cloned().collect();
    all.insert(table.metadata_location.clone());
    all.extend(table.metadata.metadata_log().iter().map(|log| log.metadata_file.clone()));
    Ok(all)
}
