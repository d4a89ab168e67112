//! Compaction in two steps: files are written, and committed with what was deleted meanwhile.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tarndb_core::maintenance::{RewriteDataFilesOptions, RewrittenGroup, plan_rewrite};
use tarndb_core::{ErrorKind, Lakehouse};
use tarndb_testkit::naive::lines;

use crate::{number, rows, run};

async fn lake_with(version: u8) -> Lakehouse {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &[&format!("CREATE TABLE t (id BIGINT, name STRING) TBLPROPERTIES ('format-version' = '{version}')")]).await;
    for part in 0..6 {
        run(&lake, &[&format!("INSERT INTO t SELECT 99 - (value * 6 + {part}), 'x' FROM generate_series(0, 15) AS s(value)")])
            .await;
    }
    lake
}

async fn written(lake: &Lakehouse) -> RewrittenGroup {
    let options = RewriteDataFilesOptions { sort_by: vec!["id".to_string()], ..RewriteDataFilesOptions::default() };
    let mut groups = plan_rewrite(&lake.table("t").await.unwrap(), &options, &[], |_, _| true).await.unwrap();
    assert_eq!(groups.len(), 1);
    groups.pop().unwrap().write().await.unwrap()
}

/// The positions in the new files of the rows with these ids.
async fn places(group: &RewrittenGroup, ids: &[i64]) -> BTreeMap<String, RoaringTreemap> {
    let mut places: BTreeMap<String, RoaringTreemap> = BTreeMap::new();
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let mut found = group.rows(&["id"]).unwrap();
    while let Some((file, batch)) = found.try_next().await.unwrap() {
        let values = batch.column(0).as_primitive::<Int64Type>().values();
        assert!(values.is_sorted());
        for id in values {
            let position = next.entry(file.clone()).or_default();
            if ids.contains(id) {
                places.entry(file.clone()).or_default().insert(*position);
            }
            *position += 1;
        }
    }
    places
}

async fn files(lake: &Lakehouse) -> i64 {
    number(lake, "SELECT count(*) FROM \"t$files\" WHERE content = 0").await
}

#[tokio::test]
async fn rows_that_leave_while_files_are_rewritten_stay_away() {
    for version in [2, 3] {
        let lake = lake_with(version).await;
        run(&lake, &["DELETE FROM t WHERE id = 50"]).await;
        let group = written(&lake).await;
        assert_eq!(files(&lake).await, 6, "what is written is in no snapshot yet");
        run(&lake, &["DELETE FROM t WHERE id IN (7, 99) OR id % 6 = 3", "INSERT INTO t VALUES (7, 'new')"]).await;
        let expected = lines(&rows(&lake, "SELECT * FROM t").await.unwrap());
        let gone: Vec<i64> = (0..100).filter(|id| [7, 99].contains(id) || id % 6 == 3).collect();
        let places = places(&group, &gone).await;
        let table = group.commit_with_deletes(&lake.table("t").await.unwrap(), places).await.unwrap();
        assert_eq!(lines(&rows(&lake, "SELECT * FROM t").await.unwrap()), expected);
        assert_eq!(files(&lake).await, 2, "one of them is that of the new row");
        assert_eq!(table.metadata_location(), lake.table("t").await.unwrap().metadata_location());
        // And deletes come on top.
        run(&lake, &["DELETE FROM t WHERE id = 8"]).await;
        assert_eq!(lines(&rows(&lake, "SELECT * FROM t").await.unwrap()).len(), expected.len() - 1);

        // Nothing of it is left.
        let lake = lake_with(version).await;
        let group = written(&lake).await;
        run(&lake, &["DELETE FROM t WHERE id >= 0"]).await;
        let places = places_of_all(&group).await;
        group.commit_with_deletes(&lake.table("t").await.unwrap(), places).await.unwrap();
        assert_eq!((number(&lake, "SELECT count(*) FROM t").await, files(&lake).await), (0, 0));
    }
}

#[tokio::test]
async fn small_files_are_put_together_while_others_are_written() {
    for version in [2, 3] {
        let lake = lake_with(version).await;
        let group = written(&lake).await;
        let taken = group.replaced().clone();
        for id in 100..106 {
            run(&lake, &[&format!("INSERT INTO t VALUES ({id}, 'new')")]).await;
        }
        let expected = lines(&rows(&lake, "SELECT * FROM t").await.unwrap());
        let options = RewriteDataFilesOptions::default();
        let mut groups =
            plan_rewrite(&lake.table("t").await.unwrap(), &options, &[], |file, _| !taken.contains(file)).await.unwrap();
        assert!(groups.iter().all(|group| group.files().count() == 6 && group.files().all(|file| !taken.contains(file))));
        groups.pop().unwrap().write().await.unwrap().commit().await.unwrap();
        assert_eq!((groups.len(), files(&lake).await), (0, 7));
        let table = lake.table("t").await.unwrap();
        let table = group.commit_with_deletes(&table, BTreeMap::new()).await.unwrap();
        assert_eq!(lines(&rows(&lake, "SELECT * FROM t").await.unwrap()), expected);
        assert_eq!(files(&lake).await, 2);
        assert!(plan_rewrite(&table, &options, &[], |_, _| true).await.unwrap().is_empty());
    }
}

async fn places_of_all(group: &RewrittenGroup) -> BTreeMap<String, RoaringTreemap> {
    places(group, &(0..100).collect::<Vec<_>>()).await
}

#[tokio::test]
async fn what_was_not_known_when_it_was_decided_conflicts() {
    let lake = lake_with(2).await;
    let (group, known) = (written(&lake).await, lake.table("t").await.unwrap());
    run(&lake, &["DELETE FROM t WHERE id = 50"]).await;
    let error = group.commit_with_deletes(&known, BTreeMap::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitConflict);
    let group = written(&lake).await;
    run(&lake, &["DELETE FROM t WHERE id = 51"]).await;
    assert_eq!(group.commit().await.unwrap_err().kind(), ErrorKind::CommitConflict);
    assert_eq!(number(&lake, "SELECT count(*) FROM t").await, 94);
    // Rows that come are none of its business.
    let group = written(&lake).await;
    run(&lake, &["INSERT INTO t VALUES (500, 'new')"]).await;
    group.commit().await.unwrap();
    assert_eq!((number(&lake, "SELECT count(*) FROM t").await, files(&lake).await), (95, 2));
    assert!(written_nothing(&lake).await);
}

async fn written_nothing(lake: &Lakehouse) -> bool {
    let options =
        RewriteDataFilesOptions { sort_by: vec!["nothing".to_string()], rewrite_all: true, ..RewriteDataFilesOptions::default() };
    let mut groups = plan_rewrite(&lake.table("t").await.unwrap(), &options, &[], |_, _| true).await.unwrap();
    groups.pop().unwrap().write().await.is_err_and(|error| error.kind() == ErrorKind::InvalidInput)
}
