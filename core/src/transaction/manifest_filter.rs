use std::collections::HashSet;

use iceberg::spec::{DataFile, ManifestFile, TableMetadata};
use tarndb_catalog::{Error, Result};

use super::manifest_write::{self, EntryChange};
use super::snapshot::OwnManifest;
use crate::manifest::{FileContent, ManifestColumns};
use crate::table::Environment;

/// A manifest after files were taken out of it.
#[derive(Debug)]
pub(super) struct Filtered {
    pub(super) own: OwnManifest,
    pub(super) removed: Vec<DataFile>,
}

/// Whether the entry leaves the table with `removed`: one of those data files, or a delete file about one of them alone.
fn leaves(columns: &ManifestColumns, row: usize, removed: &HashSet<String>) -> bool {
    columns.entries().get(row).is_some_and(|entry| {
        entry.is_live()
            && match entry.content {
                FileContent::Data => removed.contains(&entry.path),
                FileContent::PositionDeletes => {
                    crate::scan::single_data_file(columns, row).is_some_and(|path| removed.contains(path))
                }
                FileContent::EqualityDeletes => false,
            }
    })
}

/// The manifest without the files of `removed`; `None` when it has none of them.
pub(super) async fn filter(
    env: &Environment,
    metadata: &TableMetadata,
    manifest: &ManifestFile,
    removed: &HashSet<String>,
    snapshot_id: i64,
    location: String,
) -> Result<Option<Filtered>> {
    let columns = env.manifests.manifest(manifest).await?;
    let leaving: Vec<bool> = (0..columns.entries().len()).map(|row| leaves(&columns, row, removed)).collect();
    if !leaving.contains(&true) {
        return Ok(None);
    }
    let full = load(env, manifest).await?;
    let mut entries = Vec::with_capacity(leaving.len());
    let mut gone = Vec::new();
    for (entry, leaves) in full.iter().zip(leaving) {
        if !entry.is_alive() {
            continue;
        }
        let file = entry.data_file().clone();
        let sequence_number = entry.sequence_number().unwrap_or(0);
        let file_sequence_number = entry.file_sequence_number;
        if leaves {
            gone.push(file.clone());
            entries.push(EntryChange::Removed { file, sequence_number, file_sequence_number });
        } else {
            let snapshot_id = entry.snapshot_id().unwrap_or(manifest.added_snapshot_id);
            entries.push(EntryChange::Existing { file, snapshot_id, sequence_number, file_sequence_number });
        }
    }
    let own =
        manifest_write::write(metadata, manifest.partition_spec_id, manifest.content, snapshot_id, location, entries).await?;
    Ok(Some(Filtered { own, removed: gone }))
}

/// Every field of a manifest's entries, as a rewrite needs them.
pub(super) async fn load(env: &Environment, manifest: &ManifestFile) -> Result<Vec<iceberg::spec::ManifestEntryRef>> {
    let loaded = manifest.load_manifest(&env.storage.file_io()).await;
    let loaded = loaded.map_err(|e| Error::from(e).with_context("file", manifest.manifest_path.clone()))?;
    Ok(loaded.into_parts().0)
}
