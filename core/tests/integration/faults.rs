//! A fault at every request of every kind of commit: the old state or the new, never between; the caller is told which; a
//! retry converges; no file that is needed is gone, and after orphan removal nothing else is left.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use tarndb_core::maintenance::{
    ExpireSnapshotsOptions, RemoveOrphanFilesOptions, expirable_files, expire_snapshots, remove_orphan_files,
};
use tarndb_core::{ErrorKind, Lakehouse, Result, RowChange};
use tarndb_testkit::{Fault, FaultPlan, LosingCatalog, Loss, invariants, naive};

use crate::{number, rows, run};

/// A lake of two commits and a delete, with the statement to break next.
async fn lake(plan: &FaultPlan) -> Lakehouse {
    lake_at("memory://", plan).await
}

async fn lake_at(location: &str, plan: &FaultPlan) -> Lakehouse {
    let lake = Lakehouse::builder(location).with_store_layer(plan.layer()).build().await.unwrap();
    run(
        &lake,
        &[
            "CREATE TABLE t (id BIGINT, k INT) PARTITIONED BY (k)",
            "INSERT INTO t SELECT value, value % 2 FROM generate_series(1, 10)",
            "INSERT INTO t SELECT value, value % 2 FROM generate_series(11, 20)",
            "DELETE FROM t WHERE id % 5 = 1",
        ],
    )
    .await;
    lake
}

async fn contents(lake: &Lakehouse) -> Vec<String> {
    naive::lines(&rows(lake, "SELECT * FROM t").await.unwrap())
}

async fn break_at_every_request(statement: &str) {
    break_change_at_every_request(statement, async |lake| rows(lake, statement).await.map(drop)).await;
}

async fn break_change_at_every_request(name: &str, change: impl AsyncFn(&Lakehouse) -> Result<()>) {
    let plan = FaultPlan::default();
    let reference = lake(&plan).await;
    let before = contents(&reference).await;
    change(&reference).await.unwrap();
    let after = contents(&reference).await;
    for fault in [Fault::Fail, Fault::LoseReply] {
        let mut hit = 0;
        for number in 1..1000 {
            let plan = FaultPlan::default();
            let lake = lake(&plan).await;
            plan.arm(number, fault);
            let result = change(&lake).await;
            let requests = plan.requests();
            plan.disarm();
            let label = format!("{name}, {fault:?} at request {number}");
            let now = contents(&lake).await;
            match &result {
                Ok(_) => assert_eq!(now, after, "{label}: reported as done"),
                Err(e) if e.kind() == ErrorKind::CommitStateUnknown => assert!(now == before || now == after, "{label}: {e:?}"),
                Err(e) => assert!(now == before || before == after, "{label}: reported as failed: {e:?}"),
            }
            let table = lake.table("t").await.unwrap();
            invariants::assert_referenced_files_exist(lake.storage(), &table).await;
            // A retry converges.
            if now == before && before != after {
                change(&lake).await.unwrap();
                assert_eq!(contents(&lake).await, after, "{label}: after a retry");
            }
            let table = lake.table("t").await.unwrap();
            let options = RemoveOrphanFilesOptions { force: true, ..RemoveOrphanFilesOptions::default() };
            remove_orphan_files(&table, &options).await.unwrap();
            let table = lake.table("t").await.unwrap();
            invariants::assert_referenced_files_exist(lake.storage(), &table).await;
            invariants::assert_no_other_files(lake.storage(), &table).await;
            assert_eq!(contents(&lake).await, if before == after { before.clone() } else { after.clone() }, "{label}: after all");
            hit += 1;
            if requests < number {
                break;
            }
        }
        assert!(hit > 3, "{name}: only {hit} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn append() {
    break_at_every_request("INSERT INTO t SELECT value, value % 2 FROM generate_series(21, 30)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_rows() {
    break_at_every_request("DELETE FROM t WHERE id % 3 = 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_whole_files() {
    break_at_every_request("DELETE FROM t WHERE k = 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_all() {
    break_at_every_request("DELETE FROM t").await;
}

/// Rows that come and rows that leave two files, by who knows where these are.
async fn change_rows(lake: &Lakehouse) -> Result<()> {
    let table = lake.table("t").await?;
    let added = rows(lake, "SELECT value AS id, CAST(value % 2 AS INT) AS k FROM generate_series(21, 30)").await?;
    let mut change = RowChange { added, ..RowChange::default() };
    for batch in rows(lake, "SELECT arrow_cast(_file, 'Utf8'), _pos FROM t WHERE id % 7 = 3").await? {
        for (file, position) in batch.column(0).as_string::<i32>().iter().zip(batch.column(1).as_primitive::<Int64Type>()) {
            change.deleted.entry(file.unwrap().to_string()).or_default().insert(position.unwrap() as u64);
        }
    }
    assert!(!change.deleted.is_empty());
    lake.change_rows(&table, change).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_their_places() {
    break_change_at_every_request("a change of rows", change_rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expire() {
    break_at_every_request("VACUUM t RETAIN 0 HOURS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrite() {
    let plan = FaultPlan::default();
    for fault in [Fault::Fail, Fault::LoseReply] {
        for number_of_request in 1..1000 {
            let plan_now = FaultPlan::default();
            let lake = lake(&plan_now).await;
            let before = contents(&lake).await;
            let table = lake.table("t").await.unwrap();
            let options = tarndb_core::maintenance::RewriteDataFilesOptions { rewrite_all: true, ..Default::default() };
            plan_now.arm(number_of_request, fault);
            let result = tarndb_core::maintenance::rewrite_data_files(&table, &options, &[]).await;
            let requests = plan_now.requests();
            plan_now.disarm();
            let label = format!("{fault:?} at request {number_of_request}");
            assert_eq!(contents(&lake).await, before, "{label}");
            let files = number(&lake, "SELECT count(*) FROM \"t$files\"").await;
            match &result {
                Ok(done) => assert_eq!((files, done.rewritten_data_files_count), (2, 4), "{label}"),
                Err(e) if e.kind() == ErrorKind::CommitStateUnknown => {}
                Err(e) => assert!(files > 2, "{label}: {e:?}"),
            }
            let table = lake.table("t").await.unwrap();
            invariants::assert_referenced_files_exist(lake.storage(), &table).await;
            let orphans = RemoveOrphanFilesOptions { force: true, ..RemoveOrphanFilesOptions::default() };
            remove_orphan_files(&table, &orphans).await.unwrap();
            invariants::assert_no_other_files(lake.storage(), &lake.table("t").await.unwrap()).await;
            assert_eq!(contents(&lake).await, before, "{label}");
            if requests < number_of_request {
                break;
            }
        }
    }
    plan.disarm();
}

/// A table that is created from a query appears with all of its rows or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn create_table_as() {
    let statement = "CREATE TABLE made AS SELECT value AS id, value % 3 AS k FROM generate_series(1, 50)";
    for fault in [Fault::Fail, Fault::LoseReply] {
        for number in 1..1000 {
            let plan = FaultPlan::default();
            let lake = Lakehouse::builder("memory://").with_store_layer(plan.layer()).build().await.unwrap();
            plan.arm(number, fault);
            let result = rows(&lake, statement).await;
            let requests = plan.requests();
            plan.disarm();
            let label = format!("{fault:?} at request {number}");
            if let Err(error) = &result {
                assert!(lake.tables(None).await.unwrap().is_empty(), "{label}: {error:?}");
                run(&lake, &[statement]).await;
            }
            assert_eq!(crate::number(&lake, "SELECT count(DISTINCT id) FROM made").await, 50, "{label}");
            let table = lake.table("made").await.unwrap();
            invariants::assert_referenced_files_exist(lake.storage(), &table).await;
            if requests < number {
                break;
            }
        }
    }
}

/// A commit whose reply is lost is found by its snapshot id and reported as done; one that never arrived is reported as
/// unknown, and nothing of it is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_of_the_catalog() {
    for statement in ["INSERT INTO t VALUES (21, 1)", "DELETE FROM t WHERE id = 2", "VACUUM t RETAIN 0 HOURS"] {
        lose_replies(statement, async |lake| rows(lake, statement).await.map(drop)).await;
    }
    lose_replies("a change of rows", change_rows).await;
}

async fn lose_replies(name: &str, change: impl AsyncFn(&Lakehouse) -> Result<()>) {
    let next = Arc::new(AtomicU8::new(0));
    let layer = Arc::clone(&next);
    let lake = Lakehouse::builder("memory://")
        .with_catalog_layer(Arc::new(move |inner| Arc::new(LosingCatalog::new(inner, Arc::clone(&layer)))))
        .build()
        .await
        .unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT, k INT)", "INSERT INTO t VALUES (1, 1), (2, 2)", "INSERT INTO t VALUES (3, 3)"])
        .await;
    let before = contents(&lake).await;
    let table = lake.table("t").await.unwrap();
    let files = async || lake.storage().list(table.metadata().location()).unwrap().count().await;
    let files_before = files().await;
    LosingCatalog::arm(&next, Loss::BeforeCommit);
    let error = change(&lake).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitStateUnknown, "{name}: {error:?}");
    assert_eq!(contents(&lake).await, before, "{name}");
    let is_change_of_rows = !name.starts_with("VACUUM");
    if is_change_of_rows {
        assert!(files().await > files_before, "{name}: what may be part of the table stays");
    }

    LosingCatalog::arm(&next, Loss::AfterCommit);
    change(&lake).await.unwrap_or_else(|e| panic!("{name}: {e:?}"));
    if is_change_of_rows {
        assert_ne!(contents(&lake).await, before, "{name}");
    }
    let table = lake.table("t").await.unwrap();
    invariants::assert_referenced_files_exist(lake.storage(), &table).await;
}

/// Another writer commits while each request of a statement in turn waits: the statement then sees what happened, and
/// neither's change is lost, nor does a row come back.
#[tokio::test(flavor = "multi_thread")]
async fn another_commit_at_every_request() {
    let cases = [
        ("INSERT INTO t SELECT value, value % 2 FROM generate_series(21, 30)", "INSERT INTO t VALUES (100, 0), (101, 1)"),
        ("INSERT INTO t VALUES (100, 0)", "OPTIMIZE t"),
        ("DELETE FROM t WHERE id % 3 = 0", "INSERT INTO t VALUES (100, 0), (101, 1)"),
        ("DELETE FROM t WHERE id % 3 = 0", "DELETE FROM t WHERE id % 4 = 0"),
        ("DELETE FROM t WHERE id % 3 = 0", "DELETE FROM t WHERE k = 1"),
        ("DELETE FROM t WHERE k = 1", "DELETE FROM t WHERE id % 3 = 0"),
        ("OPTIMIZE t", "DELETE FROM t WHERE id % 4 = 0"),
        ("OPTIMIZE t", "DELETE FROM t WHERE k = 1"),
        ("OPTIMIZE t", "INSERT INTO t VALUES (100, 0), (101, 1)"),
        ("VACUUM t RETAIN 0 HOURS", "INSERT INTO t VALUES (100, 0), (101, 1)"),
        ("VACUUM t RETAIN 0 HOURS", "DELETE FROM t WHERE id % 4 = 0"),
    ];
    for (stalled, other) in cases {
        let reference = lake(&FaultPlan::default()).await;
        run(&reference, &[stalled, other]).await;
        let wanted = contents(&reference).await;
        for number in 1..1000 {
            let plan = FaultPlan::default();
            let folder = tempfile::tempdir().unwrap();
            let location = folder.path().join("lake").display().to_string();
            let one = lake_at(&location, &plan).await;
            // The other writer waits for no request that the first one shares with it.
            let lake = tarndb_core::connect(&location).await.unwrap();
            plan.arm(number, Fault::Stall);
            let label = format!("{stalled}, stalled at request {number} while {other}");
            let statement = stalled.to_string();
            let mut task = tokio::spawn(async move { rows(&one, &statement).await.map(|_| ()) });
            let finished = tokio::select! {
                () = plan.stalled() => None,
                done = &mut task => Some(done),
            };
            let reached = finished.is_none();
            run(&lake, &[other]).await;
            plan.release();
            match finished {
                None => task.await,
                Some(done) => done,
            }
            .unwrap()
            .unwrap_or_else(|e| panic!("{label}: {e:?}"));
            assert_eq!(contents(&lake).await, wanted, "{label}");
            let table = lake.table("t").await.unwrap();
            invariants::assert_referenced_files_exist(lake.storage(), &table).await;
            if !reached {
                break;
            }
        }
    }
}

/// A statement that is given up while it waits leaves the old state or the new, and nothing that cannot be removed.
#[tokio::test(flavor = "multi_thread")]
async fn given_up_at_every_request() {
    for statement in ["INSERT INTO t VALUES (100, 0), (101, 1)", "DELETE FROM t WHERE id % 3 = 0", "OPTIMIZE t"] {
        for number in 1..1000 {
            let plan = FaultPlan::default();
            let lake = lake(&plan).await;
            let before = contents(&lake).await;
            plan.arm(number, Fault::Stall);
            let reached = tokio::select! {
                () = plan.stalled() => true,
                done = rows(&lake, statement) => { done.unwrap(); false }
            };
            if !reached {
                break;
            }
            plan.disarm();
            let label = format!("{statement}, given up at request {number}");
            assert_eq!(contents(&lake).await, before, "{label}: a commit needs all its requests");
            let options = RemoveOrphanFilesOptions { force: true, ..RemoveOrphanFilesOptions::default() };
            remove_orphan_files(&lake.table("t").await.unwrap(), &options).await.unwrap();
            let table = lake.table("t").await.unwrap();
            invariants::assert_referenced_files_exist(lake.storage(), &table).await;
            invariants::assert_no_other_files(lake.storage(), &table).await;
            run(&lake, &[statement]).await;
        }
    }
}

/// Files large enough to be uploaded in parts.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_in_parts() {
    let large = "INSERT INTO large SELECT value, repeat(chr(64 + value), 1000000 + value) FROM generate_series(1, 25)";
    for fault in [Fault::Fail, Fault::LoseReply] {
        let mut hit = 0;
        for number in 1..1000 {
            let plan = FaultPlan::default();
            let lake = Lakehouse::builder("memory://").with_store_layer(plan.layer()).build().await.unwrap();
            let uncompressed = "TBLPROPERTIES ('write.parquet.compression-codec' = 'uncompressed')";
            run(&lake, &[&format!("CREATE TABLE large (id BIGINT, s STRING) {uncompressed}")]).await;
            plan.arm(number, fault);
            let result = rows(&lake, large).await;
            let requests = plan.requests();
            plan.disarm();
            let label = format!("{fault:?} at request {number}");
            let count = crate::number(&lake, "SELECT count(*) FROM large").await;
            assert_eq!(count, if result.is_ok() { 25 } else { 0 }, "{label}: {:?}", result.err());
            let options = RemoveOrphanFilesOptions { force: true, ..RemoveOrphanFilesOptions::default() };
            remove_orphan_files(&lake.table("large").await.unwrap(), &options).await.unwrap();
            let table = lake.table("large").await.unwrap();
            invariants::assert_referenced_files_exist(lake.storage(), &table).await;
            invariants::assert_no_other_files(lake.storage(), &table).await;
            hit += 1;
            if requests < number {
                break;
            }
        }
        assert!(hit > 5, "only {hit} requests: the file was not uploaded in parts");
    }
}

/// What snapshots that stay refer to is read once, however often it is asked what goes with those that do not.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_stay_are_read_once() {
    let plan = FaultPlan::default();
    let lake = lake(&plan).await;
    run(&lake, &["CREATE TABLE s (a BIGINT)"]).await;
    for turn in 0..40 {
        let insert = format!("INSERT INTO s VALUES ({turn}), ({})", turn + 100);
        run(&lake, &[&insert, &format!("DELETE FROM s WHERE a = {turn}")]).await;
    }
    let table = lake.table("s").await.unwrap();
    let options = ExpireSnapshotsOptions { older_than_ms: Some(i64::MAX), retain_last: Some(70) };
    let mut asked = Vec::new();
    for _ in 0..2 {
        plan.arm(u64::MAX, Fault::Fail);
        asked.push((expirable_files(&table, &options).await.unwrap(), plan.requests()));
    }
    let [(first, reads), (again, fewer)] = asked.try_into().unwrap();
    assert!(!first.is_empty() && first == again);
    assert!(reads > 50 && fewer < 20, "{reads} requests, then {fewer}");
    plan.disarm();
    expire_snapshots(&table, &options).await.unwrap();
    invariants::assert_referenced_files_exist(lake.storage(), &lake.table("s").await.unwrap()).await;
    assert_eq!(number(&lake, "SELECT count(*) FROM \"s$snapshots\"").await, 70);
    for file in first {
        assert!(lake.storage().read(&file).await.is_err(), "{file} is gone");
    }
}
