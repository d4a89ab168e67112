//! Merging of manifests on commit, by the rules and properties of Java's `MergeAppend`, so that metadata does not grow
//! with the number of commits.

use std::collections::BTreeMap;

use iceberg::spec::{ManifestContentType, ManifestFile, TableMetadata};
use tarndb_catalog::Result;

use super::manifest_write::{self, EntryChange};
use super::snapshot::OwnManifest;
use crate::table::{Environment, properties};

/// Groups manifests into bins: one of a single manifest stays as it is, one of several is merged.
///
/// Bins are filled from the oldest manifest on, up to `commit.manifest.target-size-bytes`. The newest bin is left alone
/// until it has `commit.manifest.min-count-to-merge` manifests.
pub(super) fn bins(metadata: &TableMetadata, manifests: Vec<ManifestFile>) -> Result<Vec<Vec<ManifestFile>>> {
    let single = |manifests: Vec<ManifestFile>| manifests.into_iter().map(|m| vec![m]).collect();
    if !properties::get_or(metadata, properties::MANIFEST_MERGE_ENABLED, true)? {
        return Ok(single(manifests));
    }
    let target = properties::get_or(metadata, properties::MANIFEST_TARGET_SIZE_BYTES, 8 * 1024 * 1024_i64)?;
    let min_count = properties::get_or(metadata, properties::MANIFEST_MIN_COUNT_TO_MERGE, 100_usize)?.max(2);
    let mut groups: BTreeMap<(bool, i32), Vec<ManifestFile>> = BTreeMap::new();
    for manifest in manifests {
        let key = (manifest.content == ManifestContentType::Deletes, manifest.partition_spec_id);
        groups.entry(key).or_default().push(manifest);
    }
    let mut result = Vec::new();
    for (_, mut group) in groups {
        group.sort_by_key(|manifest| manifest.sequence_number);
        let mut bin: Vec<ManifestFile> = Vec::new();
        let mut bin_bytes = 0;
        for manifest in group {
            if !bin.is_empty() && bin_bytes + manifest.manifest_length > target {
                result.push(std::mem::take(&mut bin));
                bin_bytes = 0;
            }
            bin_bytes += manifest.manifest_length;
            bin.push(manifest);
        }
        if bin.len() < min_count {
            result.extend(single(bin) as Vec<Vec<ManifestFile>>);
        } else {
            result.push(bin);
        }
    }
    Ok(result)
}

/// One manifest with the live entries of several. Removals are history by now and are left out.
pub(super) async fn merge(
    env: &Environment,
    metadata: &TableMetadata,
    bin: &[ManifestFile],
    snapshot_id: i64,
    location: String,
) -> Result<OwnManifest> {
    let mut entries = Vec::new();
    let (mut spec_id, mut content) = (0, ManifestContentType::Data);
    for manifest in bin {
        spec_id = manifest.partition_spec_id;
        content = manifest.content;
        let live = env.manifests.entries(metadata, manifest).await?.into_iter().flatten();
        entries.extend(live.map(EntryChange::Existing));
    }
    manifest_write::write(metadata, spec_id, content, snapshot_id, location, entries).await
}
