//! Many writers in one process: no row is lost, none comes back.

use std::collections::BTreeSet;
use std::sync::Arc;

use tarndb_core::Lakehouse;
use tarndb_testkit::{Actors, invariants, naive};

use crate::{number, rows, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appenders_beside_upkeep_and_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("lake").display().to_string();
    let mut actors = Actors::new(&location, "t", 1..101).await;
    for writer in 0..6 {
        actors.append(writer, 1000 + writer * 8..1008 + writer * 8);
    }
    actors.delete(1..21);
    actors.upkeep("OPTIMIZE t", 4);
    actors.upkeep("VACUUM t", 4);
    actors.watch(20);
    check(&location, &actors.finish().await).await;
}

/// Snapshots expire, and their manifests go, under the writers' feet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appenders_beside_expiry() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("lake").display().to_string();
    let mut actors = Actors::new(&location, "t", 1..11).await;
    for writer in 0..4 {
        actors.append(writer, 1000 + writer * 15..1015 + writer * 15);
    }
    actors.upkeep("VACUUM t RETAIN 0 HOURS", 25);
    check(&location, &actors.finish().await).await;
}

/// The table has these ids, each once, and the naive reader sees the same.
async fn check(location: &str, expected: &BTreeSet<i64>) {
    let lake = tarndb_core::connect(location).await.unwrap();
    let found = naive::lines(&rows(&lake, "SELECT id FROM t").await.unwrap());
    let mut wanted: Vec<String> = expected.iter().map(i64::to_string).collect();
    wanted.sort();
    assert_eq!(found, wanted);
    run(&lake, &["OPTIMIZE t", "VACUUM t RETAIN 0 HOURS"]).await;
    let table = lake.table("t").await.unwrap();
    invariants::assert_referenced_files_exist(lake.storage(), &table).await;
    let found = naive::lines(&rows(&lake, "SELECT * FROM t").await.unwrap());
    assert_eq!(found, naive::lines(&naive::read(lake.storage(), &table).await));
}

/// A compaction that started before a delete of its inputs' rows must not bring them back, whichever commits first.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_never_brings_rows_back() {
    for round in 0..10 {
        let lake = Arc::new(Lakehouse::builder("memory://").build().await.unwrap());
        run(&lake, &["CREATE TABLE t (id BIGINT)"]).await;
        for start in 0..6 {
            run(&lake, &[&format!("INSERT INTO t SELECT value FROM generate_series({}, {})", start * 10, start * 10 + 9)]).await;
        }
        let (one, two) = (Arc::clone(&lake), Arc::clone(&lake));
        let compaction = tokio::spawn(async move { rows(&one, "OPTIMIZE t").await });
        let delete = tokio::spawn(async move { number(&two, &format!("DELETE FROM t WHERE id % 10 = {}", round % 10)).await });
        compaction.await.unwrap().unwrap();
        assert_eq!(delete.await.unwrap(), 6);
        assert_eq!(number(&lake, &format!("SELECT count(*) FROM t WHERE id % 10 = {}", round % 10)).await, 0);
        assert_eq!(number(&lake, "SELECT count(*) FROM t").await, 54);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_stay_few() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT) TBLPROPERTIES ('commit.manifest.min-count-to-merge' = '5')"]).await;
    for id in 0..40 {
        run(&lake, &[&format!("INSERT INTO t VALUES ({id})")]).await;
    }
    assert!(number(&lake, "SELECT count(*) FROM \"t$manifests\"").await <= 6);
    assert_eq!(number(&lake, "SELECT count(*) FROM t").await, 40);
    assert_eq!(number(&lake, "SELECT count(*) FROM \"t$files\"").await, 40);
    run(&lake, &["DELETE FROM t WHERE id < 10"]).await;
    assert_eq!(number(&lake, "SELECT count(*) FROM \"t$files\"").await, 30);
}

/// A row that someone else adds while a DELETE runs is deleted too if it matches: isolation is serializable.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_are_serializable() {
    let lake = Arc::new(tarndb_core::connect("memory://").await.unwrap());
    run(&lake, &["CREATE TABLE t (id BIGINT, k BIGINT)", "INSERT INTO t SELECT value, 1 FROM generate_series(1, 50)"]).await;
    let adder = Arc::clone(&lake);
    let adding = tokio::spawn(async move {
        for id in 0..20 {
            run(&adder, &[&format!("INSERT INTO t VALUES ({}, 2)", 1000 + id)]).await;
        }
    });
    for _ in 0..5 {
        run(&lake, &["DELETE FROM t WHERE id % 2 = 0 AND k = 1"]).await;
    }
    adding.await.unwrap();
    assert_eq!(number(&lake, "SELECT count(*) FROM t WHERE k = 2").await, 20);
    assert_eq!(number(&lake, "SELECT count(*) FROM t WHERE k = 1").await, 25);
}
