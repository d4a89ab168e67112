use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use iceberg::TableRequirement;
use iceberg::spec::{DataFile, MAIN_BRANCH, ManifestContentType, ManifestFile, Operation, Snapshot, TableMetadata};
use tarndb_catalog::{Error, NewFile, Result};

use super::manifest_filter::{self, Filtered, Leaving};
use super::manifest_merge;
use super::manifest_write::{self, EntryChange};
use super::summary::SummaryBuilder;
use super::{Attempt, WrittenFile};
use crate::table::Table;

/// What a snapshot adds and removes.
#[derive(Debug)]
pub(super) struct SnapshotChange {
    pub(super) operation: Operation,
    pub(super) added_data: Vec<WrittenFile>,
    /// The data sequence number of the added data files; the snapshot's own unless given.
    pub(super) added_data_sequence_number: Option<i64>,
    pub(super) added_deletes: Vec<WrittenFile>,
    /// Data files by path. Delete files that are about one of them alone go with it.
    pub(super) removed_data: HashSet<String>,
    /// Data files, by path, whose own delete files go, because new ones have the same positions in them.
    pub(super) superseded: HashSet<String>,
    /// What the summary tells beside its counts.
    pub(super) properties: HashMap<String, String>,
}

impl SnapshotChange {
    pub(super) fn new(operation: Operation) -> Self {
        Self {
            operation,
            added_data: Vec::new(),
            added_data_sequence_number: None,
            added_deletes: Vec::new(),
            removed_data: HashSet::new(),
            superseded: HashSet::new(),
            properties: HashMap::new(),
        }
    }
}

/// A manifest that this transaction wrote, not yet in storage.
#[derive(Debug, Clone)]
pub(super) struct OwnManifest {
    pub(super) manifest: ManifestFile,
    pub(super) content: Bytes,
}

/// Makes snapshots out of changes. Its id stays the same in every attempt, by which an attempt whose outcome is unknown
/// is recognised; manifests that an earlier attempt made are used again where they still fit.
#[derive(Debug)]
pub(crate) struct SnapshotProducer {
    change: SnapshotChange,
    snapshot_id: i64,
    location: String,
    attempts: u32,
    /// That of the last attempt.
    sequence_number: i64,
    manifests_named: AtomicU32,
    added: Option<Vec<OwnManifest>>,
    filtered: HashMap<String, Filtered>,
    merged: HashMap<Vec<String>, OwnManifest>,
    /// The list of the snapshot that the last attempt started from.
    parent_list: Option<String>,
}

impl SnapshotProducer {
    pub(super) fn new(table: &Table, change: SnapshotChange) -> Self {
        Self {
            change,
            snapshot_id: table.env().storage.ids().snapshot_id(),
            location: table.metadata_folder(),
            attempts: 0,
            sequence_number: 0,
            manifests_named: AtomicU32::new(0),
            added: None,
            filtered: HashMap::new(),
            merged: HashMap::new(),
            parent_list: None,
        }
    }

    pub(super) fn set_properties(&mut self, summary: HashMap<String, String>) {
        self.change.properties = summary;
    }

    pub(super) fn is_in(&self, metadata: &TableMetadata) -> bool {
        // A snapshot that expired already is still named by its child.
        metadata.snapshot_by_id(self.snapshot_id).is_some()
            || metadata.snapshots().any(|snapshot| snapshot.parent_snapshot_id() == Some(self.snapshot_id))
    }

    /// Whether the table, which has moved on, shows that the last attempt did not take effect: its sequence number is still
    /// free, or another snapshot has it. Where all that came since has expired, nobody can tell.
    pub(super) fn is_lost(&self, metadata: &TableMetadata) -> bool {
        metadata.last_sequence_number() < self.sequence_number
            || metadata.snapshots().any(|snapshot| snapshot.sequence_number() == self.sequence_number)
    }

    pub(super) fn new_files(&self) -> Vec<String> {
        let files = self.change.added_data.iter().chain(&self.change.added_deletes);
        files.map(|written| written.file.file_path().to_string()).collect()
    }

    /// Files of metadata, and delete files, that the snapshot has others for.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &str> {
        let manifests = self.filtered.keys().chain(self.merged.keys().flatten());
        let files = self.filtered.values().flat_map(|filtered| &filtered.removed).map(DataFile::file_path);
        self.parent_list.iter().chain(manifests).map(String::as_str).chain(files)
    }

    pub(super) async fn apply(&mut self, attempt: &mut Attempt<'_>) -> Result<()> {
        self.attempts += 1;
        let metadata = std::sync::Arc::clone(&attempt.current);
        self.sequence_number = metadata.next_sequence_number();
        let parent = metadata.current_snapshot();
        let mut summary = SummaryBuilder::new(parent.map(|s| s.summary()));
        let existing = match parent {
            Some(parent) => attempt.env.manifests.manifest_list(parent).await?.as_ref().clone(),
            None => Vec::new(),
        };
        self.parent_list = parent.map(|parent| parent.manifest_list().to_string());
        let mut own = self.added_manifests(&metadata).await?;
        for written in self.change.added_data.iter().chain(&self.change.added_deletes) {
            summary.add(&written.file);
        }
        let mut kept = Vec::with_capacity(existing.len());
        if self.change.removed_data.is_empty() && self.change.superseded.is_empty() {
            kept = existing;
        } else {
            let mut missing = self.change.removed_data.clone();
            for manifest in existing {
                match self.filter(attempt, &metadata, &manifest).await? {
                    None => kept.push(manifest),
                    Some(filtered) => {
                        for removed in &filtered.removed {
                            missing.remove(removed.file_path());
                            summary.remove(removed);
                        }
                        own.push(filtered.own.clone());
                    }
                }
            }
            if let Some(path) = missing.into_iter().next() {
                return Err(Error::new(
                    tarndb_catalog::ErrorKind::CommitConflict,
                    "a data file that was to be removed is no longer part of the table",
                )
                .with_context("file", path));
            }
        }
        let bins = manifest_merge::bins(&metadata, kept)?;
        let mut manifests = Vec::new();
        for bin in bins {
            match <[ManifestFile; 1]>::try_from(bin) {
                Ok([single]) => manifests.push(single),
                Err(many) => own.push(self.merge(attempt, &metadata, many).await?),
            }
        }
        // The newest manifests come first, as Java writes them.
        let all = own.iter().map(|own| own.manifest.clone()).chain(manifests).collect();
        self.finish(attempt, &metadata, all, own, summary).await
    }

    async fn finish(
        &self,
        attempt: &mut Attempt<'_>,
        metadata: &TableMetadata,
        manifests: Vec<ManifestFile>,
        own: Vec<OwnManifest>,
        summary: SummaryBuilder,
    ) -> Result<()> {
        let parent_id = metadata.current_snapshot_id();
        let sequence_number = metadata.next_sequence_number();
        let uuid = attempt.env.storage.ids().uuid();
        let list_location = format!("{}/snap-{}-{}-{uuid}.avro", self.location, self.snapshot_id, self.attempts);
        let (list, next_row_id) = manifest_write::write_list(metadata, self.snapshot_id, parent_id, manifests).await?;
        attempt.files.extend(own.into_iter().map(|own| NewFile { location: own.manifest.manifest_path, content: own.content }));
        attempt.files.push(NewFile { location: list_location.clone(), content: list });
        let now_ms = attempt.env.storage.clock().now_ms();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.snapshot_id)
            .with_parent_snapshot_id(parent_id)
            .with_sequence_number(sequence_number)
            .with_timestamp_ms(now_ms.max(metadata.last_updated_ms()))
            .with_manifest_list(list_location)
            .with_summary(summary.build(self.change.operation.clone(), self.change.properties.clone()))
            .with_schema_id(metadata.current_schema_id());
        let snapshot = match next_row_id {
            None => snapshot.build(),
            Some(next) => {
                let first = metadata.next_row_id();
                snapshot.with_row_range(first, next.saturating_sub(first)).build()
            }
        };
        attempt
            .requirements
            .push(TableRequirement::RefSnapshotIdMatch { r#ref: MAIN_BRANCH.to_string(), snapshot_id: parent_id });
        // The builder knows the branch's retention, which the metadata's own interface does not show.
        let built = TableMetadata::clone(metadata).into_builder(None).set_branch_snapshot(snapshot, MAIN_BRANCH)?.build()?;
        attempt.updates.extend(built.changes);
        Ok(())
    }

    /// One manifest per content and partition spec, made once.
    async fn added_manifests(&mut self, metadata: &TableMetadata) -> Result<Vec<OwnManifest>> {
        if let Some(added) = &self.added {
            return Ok(added.clone());
        }
        let mut made = Vec::new();
        let groups = [
            (&self.change.added_data, ManifestContentType::Data, self.change.added_data_sequence_number),
            (&self.change.added_deletes, ManifestContentType::Deletes, None),
        ];
        for (files, content, sequence_number) in groups {
            let mut by_spec: HashMap<i32, Vec<DataFile>> = HashMap::new();
            for written in files {
                by_spec.entry(written.spec_id).or_default().push(written.file.clone());
            }
            for (spec_id, files) in by_spec {
                let entries = files.into_iter().map(|file| EntryChange::Added { file, sequence_number }).collect();
                let location = self.manifest_location();
                made.push(manifest_write::write(metadata, spec_id, content, self.snapshot_id, location, entries).await?);
            }
        }
        self.added = Some(made.clone());
        Ok(made)
    }

    async fn filter(
        &mut self,
        attempt: &Attempt<'_>,
        metadata: &TableMetadata,
        manifest: &ManifestFile,
    ) -> Result<Option<&Filtered>> {
        if !self.filtered.contains_key(&manifest.manifest_path) {
            let location = self.manifest_location();
            let leaving = Leaving { data: &self.change.removed_data, superseded: &self.change.superseded };
            let made = manifest_filter::filter(attempt.env, metadata, manifest, leaving, self.snapshot_id, location).await?;
            if let Some(made) = made {
                self.filtered.insert(manifest.manifest_path.clone(), made);
            }
        }
        Ok(self.filtered.get(&manifest.manifest_path))
    }

    async fn merge(&mut self, attempt: &Attempt<'_>, metadata: &TableMetadata, bin: Vec<ManifestFile>) -> Result<OwnManifest> {
        let key: Vec<String> = bin.iter().map(|m| m.manifest_path.clone()).collect();
        if let Some(made) = self.merged.get(&key) {
            return Ok(made.clone());
        }
        let location = self.manifest_location();
        let made = manifest_merge::merge(attempt.env, metadata, &bin, self.snapshot_id, location).await?;
        self.merged.insert(key, made.clone());
        Ok(made)
    }

    /// The snapshot's id makes the name unique among transactions, the number within this one.
    fn manifest_location(&self) -> String {
        let number = self.manifests_named.fetch_add(1, Ordering::Relaxed);
        format!("{}/{:016x}-m{number}.avro", self.location, self.snapshot_id)
    }
}
