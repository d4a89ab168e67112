use std::collections::{BTreeSet, HashSet};

use iceberg::spec::{SnapshotRef, TableMetadata};
use tarndb_catalog::{LoadedTable, Result};

use crate::manifest::FileContent;
use crate::named_files::FileHash;
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

/// Files that snapshots refer to, by hashes of their locations: one that has the hash of another is taken for one that is referred to.
#[derive(Debug, Default)]
pub(super) struct Hashes(HashSet<FileHash>);

impl Hashes {
    pub(super) fn contains(&self, file: &str) -> bool {
        self.0.contains(&FileHash::of(file))
    }
}

/// The files of some snapshots of a table.
pub(super) async fn hashes_of_snapshots(
    env: &Environment,
    metadata: &TableMetadata,
    snapshots: &[SnapshotRef],
) -> Result<Hashes> {
    let (named, root) = (&env.named_files, env.storage.root());
    let (mut hashes, mut seen, mut read) = (HashSet::new(), HashSet::new(), Vec::new());
    for snapshot in snapshots {
        let by_list = FileHash::of(snapshot.manifest_list());
        let manifests = match named.get(root, by_list).await {
            Some(known) => known,
            None => {
                let list = env.manifests.manifest_list(snapshot).await?;
                read.push(snapshot.manifest_list().to_string());
                named.put(root, by_list, list.iter().map(|manifest| manifest.manifest_path.as_str())).await
            }
        };
        hashes.insert(by_list);
        hashes.extend(manifests.iter());
        let mut unread = HashSet::new();
        for manifest in manifests.iter().copied().filter(|manifest| seen.insert(*manifest)) {
            match named.get(root, manifest).await {
                Some(files) => hashes.extend(files.iter()),
                None => drop(unread.insert(manifest)),
            }
        }
        if unread.is_empty() {
            continue;
        }
        let list = env.manifests.manifest_list(snapshot).await?;
        read.push(snapshot.manifest_list().to_string());
        let unread = list.iter().filter(|manifest| unread.contains(&FileHash::of(&manifest.manifest_path))).cloned().collect();
        for (manifest, columns) in env.manifests.manifests(unread).await? {
            let live = columns.entries().iter().filter(|entry| entry.is_live()).map(|entry| entry.path.as_str());
            hashes.extend(named.put(root, FileHash::of(&manifest.manifest_path), live).await.iter());
            read.push(manifest.manifest_path);
        }
    }
    hashes.extend(statistics_files(metadata, snapshots).map(FileHash::of));
    // What only older snapshots have is not asked for soon.
    if let Some(current) = metadata.current_snapshot() {
        let list = env.manifests.manifest_list(current).await?;
        let newest: HashSet<&str> = list.iter().map(|manifest| manifest.manifest_path.as_str()).collect();
        let is_old = |file: &&str| *file != current.manifest_list() && !newest.contains(file);
        env.forget(read.iter().map(String::as_str).filter(is_old)).await;
    }
    Ok(Hashes(hashes))
}

fn statistics_files<'a>(metadata: &'a TableMetadata, snapshots: &[SnapshotRef]) -> impl Iterator<Item = &'a str> {
    let ids: HashSet<i64> = snapshots.iter().map(|snapshot| snapshot.snapshot_id()).collect();
    let of_table = metadata.statistics_iter().map(|statistics| (statistics.snapshot_id, statistics.statistics_path.as_str()));
    let partitions = metadata.partition_statistics_iter();
    let partitions = partitions.map(|statistics| (statistics.snapshot_id, statistics.statistics_path.as_str()));
    of_table.chain(partitions).filter(move |(id, _)| ids.contains(id)).map(|(_, path)| path)
}

/// The files of some snapshots of a table. Manifests that are `known` are not read.
pub(super) async fn of_snapshots(
    env: &Environment,
    metadata: &TableMetadata,
    snapshots: &[SnapshotRef],
    known: &Hashes,
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
    files.statistics_files.extend(statistics_files(metadata, snapshots).map(str::to_string));
    Ok(files)
}

/// Every file that a table refers to, its metadata files included.
pub(super) async fn of_table(env: &Environment, table: &LoadedTable) -> Result<HashSet<String>> {
    let snapshots: Vec<SnapshotRef> = table.metadata.snapshots().cloned().collect();
    let files = of_snapshots(env, &table.metadata, &snapshots, &Hashes::default()).await?;
    let mut all: HashSet<String> = files.all().cloned().collect();
    all.insert(table.metadata_location.clone());
    all.extend(table.metadata.metadata_log().iter().map(|log| log.metadata_file.clone()));
    Ok(all)
}
