//! tarndb: an embeddable analytics lakehouse.
//!
//! [`connect`] opens a lake, a folder of Apache Iceberg tables; [`Lakehouse::sql`] runs SQL over it. There is no server.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> tarndb::Result<()> {
//! let lake = tarndb::connect("memory://").await?;
//! lake.sql("CREATE TABLE trips (id BIGINT NOT NULL, city STRING)").await?.collect().await?;
//! lake.sql("INSERT INTO trips VALUES (1, 'Bern'), (2, 'Oslo')").await?.collect().await?;
//! let batches = lake.sql("SELECT city FROM trips WHERE id = 2").await?.collect().await?;
//! assert_eq!(batches[0].num_rows(), 1);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

pub use tarndb_core::*;
pub use tarndb_metadata_indexer::{
    Content, EventCounts, EventHook, EventKind, EventSource, Events, Extractor, Extractors, IndexOptions, IndexState,
    IndexStatus, MetadataIndex, MetadataIndexer, MetadataIndexes, ObjectEvent, Stop, Synced,
};

/// Opens the lake at `url`, and creates it when there is none, with all that this package offers: see
/// [`tarndb_core::connect`] for the locations.
///
/// Files are read and written by threads of the caller's runtime that may block. Where memory matters, let them end soon
/// (`tokio::runtime::Builder::thread_keep_alive` of 100 ms, as the shell and the wheel have it): each holds what it freed.
///
/// # Errors
/// `Unsupported` for other locations; `Unavailable` when the folder cannot be used; `DataInvalid` when its catalog is
/// damaged.
pub async fn connect(url: &str) -> Result<Lakehouse> {
    Lakehouse::builder(url).with_extension(Arc::new(MetadataIndexer::default())).build().await
}

/// Runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
