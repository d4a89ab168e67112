//! Manifests and manifest lists, written to memory: they reach storage together, when the commit does.

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, ManifestContentType, ManifestFile, ManifestListWriter, ManifestWriterBuilder, TableMetadata,
};
use tarndb_catalog::{Error, Result};

use super::snapshot::OwnManifest;
use crate::table::schema_for_spec;

/// One line of a manifest to write.
#[derive(Debug)]
pub(super) enum EntryChange {
    /// `sequence_number` is the snapshot's own when it is not given.
    Added {
        file: DataFile,
        sequence_number: Option<i64>,
    },
    Existing {
        file: DataFile,
        snapshot_id: i64,
        sequence_number: i64,
        file_sequence_number: Option<i64>,
    },
    Removed {
        file: DataFile,
        sequence_number: i64,
        file_sequence_number: Option<i64>,
    },
}

pub(super) async fn write(
    metadata: &TableMetadata,
    spec_id: i32,
    content: ManifestContentType,
    snapshot_id: i64,
    location: String,
    entries: Vec<EntryChange>,
) -> Result<OwnManifest> {
    let spec = metadata
        .partition_spec_by_id(spec_id)
        .ok_or_else(|| Error::data_invalid(format!("the table has no partition spec {spec_id}")))?;
    let memory = FileIO::new_with_memory();
    let schema = schema_for_spec(metadata, spec_id)?;
    let builder = ManifestWriterBuilder::new(memory.new_output(&location)?, Some(snapshot_id), schema, spec.as_ref().clone());
    let mut writer = match (metadata.format_version(), content) {
        (FormatVersion::V2, ManifestContentType::Data) => builder.build_v2_data(),
        (FormatVersion::V2, ManifestContentType::Deletes) => builder.build_v2_deletes(),
        (other, _) => return Err(Error::unsupported(format!("manifests of format version {} cannot be written", other as u8))),
    };
    for entry in entries {
        match entry {
            EntryChange::Added { file, sequence_number } => writer.add_file(file, sequence_number.unwrap_or(-1))?,
            EntryChange::Existing { file, snapshot_id, sequence_number, file_sequence_number } => {
                writer.add_existing_file(file, snapshot_id, sequence_number, file_sequence_number)?;
            }
            EntryChange::Removed { file, sequence_number, file_sequence_number } => {
                writer.add_delete_file(file, sequence_number, file_sequence_number)?;
            }
        }
    }
    let manifest = writer.write_manifest_file().await?;
    let content = memory.new_input(&location)?.read().await?;
    Ok(OwnManifest { manifest, content })
}

pub(super) async fn write_list(
    snapshot_id: i64,
    parent_snapshot_id: Option<i64>,
    sequence_number: i64,
    manifests: Vec<ManifestFile>,
) -> Result<Bytes> {
    const NAME: &str = "manifest-list";
    let memory = FileIO::new_with_memory();
    let output = memory.new_output(NAME)?.writer().await?;
    let mut writer = ManifestListWriter::v2(output, snapshot_id, parent_snapshot_id, sequence_number);
    writer.add_manifests(manifests.into_iter())?;
    writer.close().await?;
    Ok(memory.new_input(NAME)?.read().await?)
}
