//! The tarndb engine: Iceberg tables, their transactions, scans and upkeep, and SQL over them.
//!
//! Users depend on the package `tarndb`, which re-exports this one. Start at [`connect`]:
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> tarndb_core::Result<()> {
//! let lake = tarndb_core::connect("memory://").await?;
//! lake.sql("CREATE TABLE t (id BIGINT NOT NULL, name STRING)").await?.collect().await?;
//! lake.sql("INSERT INTO t VALUES (1, 'one'), (2, 'two')").await?.collect().await?;
//! let rows = lake.sql("SELECT name FROM t WHERE id = 2").await?.collect().await?;
//! assert_eq!(rows[0].num_rows(), 1);
//! # Ok(())
//! # }
//! ```

mod bloom_filters;
mod byte_cache;
mod error;
mod extension;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod lakehouse;
pub mod maintenance;
mod manifest;
mod named_files;
mod positions;
mod query;
mod scan;
mod table;
mod transaction;
mod writer;

pub use extension::Extension;
pub use lakehouse::{AppendResult, CatalogLayer, DeleteResult, Lakehouse, LakehouseBuilder, QueryResult, WeakLakehouse, connect};
pub use manifest::{Entry, EntryStatus, FileContent, FileFormat};
pub use query::{RowChange, Tokens, WrittenChange, ends_statement, split_statements};
pub use scan::decode_parquet_footer;
pub use table::inspect;
pub use table::{Table, Version, is_uuid_field};
pub use tarndb_catalog::{Catalog, Clock, Error, ErrorKind, Ids, Location, Result, Storage, StoreLayer};
