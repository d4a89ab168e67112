//! Manifests and manifest lists, written to memory: they reach storage together, when the commit does.

use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, DataFileBuilder, FormatVersion, Literal, ManifestContentType, ManifestFile, ManifestListWriter,
    ManifestWriterBuilder, PrimitiveLiteral, PrimitiveType, Struct, StructType, TableMetadata, Type,
};
use tarndb_catalog::{Error, Result};

use super::manifest_uuid;
use super::snapshot::OwnManifest;
use crate::manifest::FileEntry;
use crate::table::schema_for_spec;

/// One line of a manifest to write.
#[derive(Debug)]
pub(super) enum EntryChange {
    /// `sequence_number` is the snapshot's own when it is not given.
    Added {
        file: DataFile,
        sequence_number: Option<i64>,
    },
    Existing(FileEntry),
    Removed(FileEntry),
}

impl EntryChange {
    fn file_mut(&mut self) -> &mut DataFile {
        match self {
            Self::Added { file, .. } => file,
            Self::Existing(entry) | Self::Removed(entry) => &mut entry.file,
        }
    }

    /// Its partition values in the types that they have by now: an `int` column may have become `long` since.
    fn promoted(mut self, spec_id: i32, types: &StructType) -> Result<Self> {
        let file = self.file_mut();
        let promote = |value: Option<&Literal>, to: &Type| match (value, to) {
            (Some(Literal::Primitive(PrimitiveLiteral::Int(n))), Type::Primitive(PrimitiveType::Long)) => {
                Some(Some(Literal::long(i64::from(*n))))
            }
            (Some(Literal::Primitive(PrimitiveLiteral::Float(f))), Type::Primitive(PrimitiveType::Double)) => {
                Some(Some(Literal::double(f64::from(f.into_inner()))))
            }
            // As `manifest_uuid` has it.
            (Some(Literal::Primitive(PrimitiveLiteral::UInt128(id))), Type::Primitive(PrimitiveType::Fixed(16))) => {
                Some(Some(Literal::fixed(id.to_be_bytes())))
            }
            _ => None,
        };
        let mut changed = false;
        let mut values = Vec::with_capacity(types.fields().len());
        for (value, field) in file.partition().iter().zip(types.fields()) {
            let promoted = promote(value, &field.field_type);
            changed |= promoted.is_some();
            values.push(promoted.unwrap_or_else(|| value.cloned()));
        }
        if changed {
            *file = with_partition(file, spec_id, Struct::from_iter(values))?;
        }
        Ok(self)
    }
}

/// The file with other partition values: the format library offers no way to change one.
fn with_partition(file: &DataFile, spec_id: i32, partition: Struct) -> Result<DataFile> {
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_string())
        .file_format(file.file_format())
        .partition(partition)
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(file.first_row_id())
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(id) = file.sort_order_id() {
        builder.sort_order_id(id);
    }
    builder.build().map_err(|e| Error::internal("a data file could not be described").with_source(e))
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
    let encodable = manifest_uuid::encodable(&schema, spec)?;
    let output = memory.new_output(&location)?;
    let builder = ManifestWriterBuilder::new(output, Some(snapshot_id), Arc::clone(&encodable), spec.as_ref().clone());
    let mut writer = match (metadata.format_version(), content) {
        (FormatVersion::V1, _) => {
            return Err(Error::unsupported("manifests of format version 1 cannot be written: upgrade the table to version 2"));
        }
        (FormatVersion::V2, ManifestContentType::Data) => builder.build_v2_data(),
        (FormatVersion::V2, ManifestContentType::Deletes) => builder.build_v2_deletes(),
        (FormatVersion::V3, ManifestContentType::Data) => builder.build_v3_data(),
        (FormatVersion::V3, ManifestContentType::Deletes) => builder.build_v3_deletes(),
    };
    let types = spec.partition_type(encodable.as_ref())?;
    for entry in entries {
        match entry.promoted(spec_id, &types)? {
            EntryChange::Added { file, sequence_number } => writer.add_file(file, sequence_number.unwrap_or(-1))?,
            EntryChange::Existing(FileEntry { file, snapshot_id, sequence_number, file_sequence_number }) => {
                writer.add_existing_file(file, snapshot_id, sequence_number, Some(file_sequence_number))?;
            }
            EntryChange::Removed(FileEntry { file, sequence_number, file_sequence_number, .. }) => {
                writer.add_delete_file(file, sequence_number, Some(file_sequence_number))?;
            }
        }
    }
    let mut manifest = writer.write_manifest_file().await?;
    let mut content = memory.new_input(&location)?.read().await?;
    if !Arc::ptr_eq(&encodable, &schema) {
        content = manifest_uuid::restore(&content, &schema, spec)?;
        manifest.manifest_length = i64::try_from(content.len()).map_err(|_| Error::internal("a manifest is too long"))?;
    }
    Ok(OwnManifest { manifest, content })
}

/// A manifest list, and, in tables with row lineage, the row id that follows those of its rows.
pub(super) async fn write_list(
    metadata: &TableMetadata,
    snapshot_id: i64,
    parent_snapshot_id: Option<i64>,
    manifests: Vec<ManifestFile>,
) -> Result<(Bytes, Option<u64>)> {
    let sequence_number = metadata.next_sequence_number();
    const NAME: &str = "manifest-list";
    let memory = FileIO::new_with_memory();
    let output = memory.new_output(NAME)?.writer().await?;
    let mut writer = match metadata.format_version() {
        FormatVersion::V3 => {
            let next_row_id = Some(metadata.next_row_id());
            ManifestListWriter::v3(output, snapshot_id, parent_snapshot_id, sequence_number, next_row_id)
        }
        _ => ManifestListWriter::v2(output, snapshot_id, parent_snapshot_id, sequence_number),
    };
    writer.add_manifests(manifests.into_iter())?;
    let next_row_id = writer.next_row_id();
    writer.close().await?;
    Ok((memory.new_input(NAME)?.read().await?, next_row_id))
}
