//! Metadata indexes, as users make them.
#![allow(clippy::unwrap_used, clippy::panic)] // these are tests

mod annotations;
mod bucket;
mod bucket_model;
mod follow;
mod model;
mod others;
mod own_source;
mod s3_server;
mod statements;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use tarndb_core::{Lakehouse, LakehouseBuilder};
use tarndb_metadata_indexer::{IndexOptions, MetadataIndexer};

fn builder(location: &str) -> LakehouseBuilder {
    Lakehouse::builder(location).with_extension(Arc::new(MetadataIndexer::default()))
}

async fn rows(lake: &Lakehouse, sql: &str) -> Vec<RecordBatch> {
    let result = lake.sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", e.report()));
    result.collect().await.unwrap_or_else(|e| panic!("{sql}: {}", e.report()))
}

/// Options of an index that is listed when it is told to.
fn options(options: &[(&str, &str)]) -> IndexOptions {
    let options = options.iter().chain(&[("reconcile_every", "never")]);
    options.fold(IndexOptions::default(), |options, (name, value)| options.with(name, value).unwrap())
}

/// Sizes by key, as the file system has them.
fn listing(folder: &Path) -> BTreeMap<String, i64> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, i64>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                walk(root, &path, found);
            } else if metadata.is_file() {
                let key = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
                found.insert(key, metadata.len().try_into().unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// Sizes by key, as the inventory of `docs` has them; each key once.
async fn inventory(lake: &Lakehouse) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for batch in rows(lake, "SELECT key, size FROM docs.inventory").await {
        let sizes = batch.column(1).as_primitive::<Int64Type>();
        for (row, key) in batch.column(0).as_string::<i32>().iter().enumerate() {
            assert!(found.insert(key.unwrap().to_string(), sizes.value(row)).is_none(), "{key:?} is there twice");
        }
    }
    found
}

/// A row of the journal: key, sequence number, size unless it is a deletion.
type Change = (String, String, Option<i64>);

/// The journal of `docs`, in its order.
async fn journal(lake: &Lakehouse) -> Vec<Change> {
    let mut found = Vec::new();
    let sql = "SELECT key, sequence_number, record_type, size FROM docs.journal ORDER BY sequence_number";
    for batch in rows(lake, sql).await {
        let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_string();
        let sizes = batch.column(3).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let size = sizes.is_valid(row).then(|| sizes.value(row));
            assert_eq!(size.is_some(), text(2, row) == "CREATE");
            found.push((text(0, row), text(1, row), size));
        }
    }
    found
}

/// Each change is there once, nothing is deleted that was not there, and what was there at first with all changes is what is
/// there now.
fn assert_history(before: &BTreeMap<String, i64>, journal: &[Change], now: &BTreeMap<String, i64>) {
    assert!(journal.windows(2).all(|pair| pair[0].1 < pair[1].1), "sequence numbers are there once");
    let mut state = before.clone();
    for (key, sequence, size) in journal {
        match size {
            Some(size) => drop(state.insert(key.clone(), *size)),
            None => assert!(state.remove(key).is_some(), "{key} was deleted at {sequence} and was not there"),
        }
    }
    assert_eq!(&state, now);
}
