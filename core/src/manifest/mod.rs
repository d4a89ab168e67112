//! Manifests, read into columns and cached.
//!
//! The `iceberg` crate's parser builds a tree of values for every entry; planning needs a few columns of very many
//! entries. So manifests are decoded here straight into columns. The crate's parser stays the oracle of the tests
//! and reads the few manifests that a commit rewrites.

mod avro;
mod cache;
mod columns;

pub(crate) use cache::ManifestCache;
pub(crate) use columns::{Count, ManifestColumns};
pub use columns::{Entry, EntryStatus, FileContent, FileFormat};
