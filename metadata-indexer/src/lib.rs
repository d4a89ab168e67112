//! The metadata index: what happens to the objects of a source, kept as ordinary Iceberg tables.
//!
//! `CREATE METADATA INDEX docs ON './some/folder'` makes the namespace `docs` with the tables of S3 Metadata: `journal`, a row for
//! each change, and `inventory`, a row for each object that is there. This crate plugs into the engine through
//! [`tarndb_core::Extension`].
//!
//! * [`indexer`]: the extension, and the indexes of a lake; [`handle`]: their methods; [`statements`]: their SQL; [`options`].
//! * [`index`]: one index, what it writes and when.
//! * [`source`]: what is indexed: a [`folder`], or a [`bucket`], of which [`stores`] are the user's own, and of either what [`object_filter`]
//!   keeps.
//! * [`aws`]: what Amazon's services have in common.
//! * [`extract`]: what is learnt from contents, for the table `annotations`.
//! * [`event`]: what stores tell of their objects; [`feed`]: how that comes here. [`own`], [`registry`]: what users bring under names.
//! * [`record`], [`tables`]: changes of objects, and the tables that hold them.

mod aws;
mod bucket;
mod event;
mod extract;
mod feed;
mod folder;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod index;
mod indexer;
mod object_filter;
mod options;
mod own;
mod record;
mod registry;
mod source;
mod statements;
mod stores;
mod tables;

pub use event::{EventHook, EventKind, ObjectEvent};
pub use extract::{Content, Extractor, Extractors};
pub use feed::{EventSource, Events, Stop};
pub use handle::{MetadataIndex, MetadataIndexes};
pub use index::{EventCounts, IndexState, IndexStatus, Synced};
pub use indexer::MetadataIndexer;
pub use options::IndexOptions;
