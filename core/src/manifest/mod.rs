//! Manifests, read into columns and cached.
//!
//! The `iceberg` crate's parser builds a tree of values for every entry; planning needs a few columns of very many
//! entries. So manifests are decoded here straight into columns. The crate's parser stays the oracle of the tests.
//!
//! * [`avro`]: the encoding, walked against the writer's schema.
//! * [`columns`]: a manifest as planning needs it; [`entries`]: as a commit does that writes it anew.
//! * [`list`]: manifest lists; [`cache`]: both, by path.
//! * [`fields`]: field ids for files without; [`values`]: single values.

mod avro;
mod cache;
mod columns;
mod entries;
mod fields;
mod list;
mod values;

pub(crate) use avro::with_header as with_avro_header;
pub(crate) use cache::ManifestCache;
pub(crate) use columns::{Count, ManifestColumns};
pub use columns::{Entry, EntryStatus, FileContent, FileFormat};
pub(crate) use entries::FileEntry;
pub(crate) use fields::{FILE_FIELD_ID, FILE_PATH_FIELD_ID, POS_FIELD_ID};

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use iceberg::spec::{ManifestFile, TableMetadata};
    use tarndb_catalog::Result;

    use super::entries::FileEntry;
    use super::{ManifestColumns, columns, entries, list};

    pub(crate) fn list(bytes: &[u8]) -> Result<Vec<ManifestFile>> {
        list::decode(bytes)
    }

    pub(crate) fn line_of(bytes: &[u8]) -> Result<ManifestFile> {
        list::line_of("m", bytes)
    }

    pub(crate) fn columns(bytes: &[u8], line: &ManifestFile) -> Result<ManifestColumns> {
        ManifestColumns::decode(bytes, columns::Inherited::from(line))
    }

    pub(crate) fn entries(bytes: &[u8], line: &ManifestFile, table: &TableMetadata) -> Result<Vec<Option<FileEntry>>> {
        entries::decode(bytes, line, table)
    }
}
