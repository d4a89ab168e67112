use std::collections::HashSet;

use iceberg::spec::{DataFile, ManifestFile, TableMetadata};
use tarndb_catalog::Result;

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

/// What leaves a table, by the paths of data files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving<'a> {
    /// Data files, with the delete files that are about one of them alone.
    pub(super) data: &'a HashSet<String>,
    /// Data files that stay, and lose such delete files.
    pub(super) superseded: &'a HashSet<String>,
}

/// Whether the entry leaves the table.
fn leaves(columns: &ManifestColumns, row: usize, leaving: Leaving<'_>) -> bool {
    columns.entries().get(row).is_some_and(|entry| {
        entry.is_live()
            && match entry.content {
                FileContent::Data => leaving.data.contains(&entry.path),
                FileContent::PositionDeletes => crate::scan::single_data_file(columns, row)
                    .is_some_and(|path| leaving.data.contains(path) || leaving.superseded.contains(path)),
                FileContent::EqualityDeletes => false,
            }
    })
}

/// The manifest without what leaves; `None` when it has nothing of it.
pub(super) async fn filter(
    env: &Environment,
    metadata: &TableMetadata,
    manifest: &ManifestFile,
    gone: Leaving<'_>,
    snapshot_id: i64,
    location: String,
) -> Result<Option<Filtered>> {
    let columns = env.manifests.manifest(manifest).await?;
    let leaving: Vec<bool> = (0..columns.entries().len()).map(|row| leaves(&columns, row, gone)).collect();
    if !leaving.contains(&true) {
        return Ok(None);
    }
    let full = env.manifests.entries(metadata, manifest).await?;
    let mut entries = Vec::with_capacity(leaving.len());
    let mut removed = Vec::new();
    for (entry, leaves) in full.into_iter().zip(leaving) {
        let Some(entry) = entry else { continue };
        if leaves {
            removed.push(entry.file.clone());
            entries.push(EntryChange::Removed(entry));
        } else {
            entries.push(EntryChange::Existing(entry));
        }
    }
    let own =
        manifest_write::write(metadata, manifest.partition_spec_id, manifest.content, snapshot_id, location, entries).await?;
    Ok(Some(Filtered { own, removed }))
}
