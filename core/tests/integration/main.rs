//! Integration tests of the engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // these are tests

mod changes;
mod concurrency;
mod corpus;
mod damage;
mod deep;
mod faults;
mod manifests;
mod mutations;
mod renames;
mod rewrites;
mod scans;
mod slt;
mod values;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use tarndb_core::{Lakehouse, Result};

/// Runs statements one after the other.
async fn run(lake: &Lakehouse, statements: &[&str]) {
    for statement in statements {
        rows(lake, statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
}

async fn rows(lake: &Lakehouse, statement: &str) -> Result<Vec<RecordBatch>> {
    lake.sql(statement).await?.collect().await
}

/// The one number of a query.
async fn number(lake: &Lakehouse, query: &str) -> i64 {
    let batches = rows(lake, query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    batch.column(0).as_primitive::<Int64Type>().value(0)
}
