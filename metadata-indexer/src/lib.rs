//! The metadata index: what happens to the objects of a source, kept as ordinary Iceberg tables.
//!
//! `CREATE METADATA INDEX docs ON './some/folder'` makes the namespace `docs` with the tables of S3 Metadata: `journal`, a row for
//! each change, and `inventory`, a row for each object that is there. This crate plugs into the engine through
//! [`tarndb_core::Extension`].
//!
//! * [`indexer`]: the extension, and the indexes of a lake.
//! * [`statements`]: their SQL.
//! * [`index`]: one index, what it writes and when.
//! * [`folder`]: a folder as a source.
//! * [`record`], [`tables`]: changes of objects, and the tables that hold them.

mod folder;
mod index;
mod indexer;
mod record;
mod statements;
mod tables;

pub use index::{IndexState, IndexStatus, Synced};
pub use indexer::{MetadataIndex, MetadataIndexer, MetadataIndexes};
