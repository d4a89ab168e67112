//! tarndb: an embeddable analytics lakehouse.
//!
//! [`connect`] opens a lake, a folder of Apache Iceberg tables; [`Lakehouse::sql`] runs SQL over it. There is no server.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let lake = tarndb::connect("memory://").await?;
//! lake.sql("CREATE TABLE trips (id BIGINT NOT NULL, city STRING)").await?.collect().await?;
//! lake.sql("INSERT INTO trips VALUES (1, 'Bern'), (2, 'Oslo')").await?.collect().await?;
//! let batches = lake.sql("SELECT city FROM trips WHERE id = 2").await?.collect().await?;
//! assert_eq!(batches[0].num_rows(), 1);
//! # Ok::<(), tarndb::Error>(())
//! # }).unwrap();
//! ```

pub use tarndb_core::*;
