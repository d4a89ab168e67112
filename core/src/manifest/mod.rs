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
pub(crate) use fields::{FILE_PATH_FIELD_ID, POS_FIELD_ID};
