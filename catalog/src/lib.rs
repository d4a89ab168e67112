//! Where tarndb finds tables and makes commits atomic.
//!
//! This is the lowest layer: it knows table metadata, catalogs and storage, and nothing of queries.
//!
//! * [`Catalog`]: namespaces, tables and the one atomic operation, [`Catalog::commit`], whose answer is a
//!   [`CommitOutcome`]: committed, conflict, or unknown.
//! * [`Location`]: what a user types to name a lake (`./dir`, `file:///dir`, `memory://`).
//! * [`PathTable`]: a table opened by its path, without a catalog.
//! * [`Storage`]: the objects of one lake, confined to the roots that its catalog vouches for.
//! * [`Clock`] and [`Ids`]: the only sources of time and of identifiers.
//! * [`Error`]: the one error type of the project.

mod catalog;
mod commit;
mod error;
mod metadata_file;
mod path_table;
mod pointer;
mod runtime;
mod storage;

pub use catalog::{Catalog, LoadedTable, table_replaced};
pub use commit::{CommitOutcome, NewFile, TableCommit};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "fuzzing")]
pub use metadata_file::fuzz_metadata;
pub use metadata_file::inline_manifests;
pub use path_table::PathTable;
pub use pointer::{memory_catalog, sqlite_catalog, table_root};
pub use runtime::{Clock, Ids, RandomIds, SystemClock};
pub use storage::{Location, ObjectInfo, Storage, StoreLayer, SyncedLocalStore};
