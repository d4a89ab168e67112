//! Many small changes of rows, as those make who know where the rows are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use roaring::RoaringTreemap;
use tarndb_core::{ErrorKind, Lakehouse, RowChange};
use tarndb_testkit::naive;

use crate::{number, rows, run};

/// Where the live rows are, by their ids.
async fn places(lake: &Lakehouse) -> BTreeMap<i64, (String, u64)> {
    let mut places = BTreeMap::new();
    for batch in rows(lake, "SELECT id, _pos, _file FROM t").await.unwrap() {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
        let files = arrow::compute::cast(batch.column(2), &DataType::Utf8).unwrap();
        for row in 0..batch.num_rows() {
            let place = (files.as_string::<i32>().value(row).to_string(), numbers(1).value(row) as u64);
            assert_eq!(places.insert(numbers(0).value(row), place), None);
        }
    }
    places
}

fn change(added: impl IntoIterator<Item = i64>, deleted: impl IntoIterator<Item = (String, u64)>) -> RowChange {
    let ids = Int64Array::from_iter_values(added);
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let mut change =
        RowChange { added: vec![RecordBatch::try_new(schema, vec![Arc::new(ids)]).unwrap()], ..RowChange::default() };
    for (file, position) in deleted {
        change.deleted.entry(file).or_default().insert(position);
    }
    change
}

#[tokio::test]
async fn what_a_change_tells_is_of_the_table_and_of_its_snapshot() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT)"]).await;
    let mut table = lake.table("t").await.unwrap();
    for place in ["1", "2"] {
        let properties = HashMap::from([("a.place".to_string(), place.to_string())]);
        let summary = properties.clone();
        table = lake.change_rows(&table, RowChange { properties, summary, ..change([7, 8], []) }).await.unwrap();
        assert_eq!(table.metadata().properties()["a.place"], place);
    }
    for reserved in ["operation", "added-records", "total-data-files", "engine-name"] {
        let summary = [(reserved.to_string(), "1".to_string())].into();
        let refused = lake.change_rows(&table, RowChange { summary, ..change([7], []) }).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains(reserved), "{refused}");
    }
    let told = "SELECT summary['a.place'], summary['added-records'] FROM \"t$snapshots\"";
    assert_eq!(naive::lines(&rows(&lake, told).await.unwrap()), ["1|2", "2|2"]);
}

#[tokio::test]
async fn deletes_of_a_data_file_stay_few_and_are_seldom_written_again() {
    const ROWS: i64 = 20_000;
    const ROUNDS: i64 = 80;
    let mut written = Vec::new();
    for version in [2, 3] {
        let lake = tarndb_core::connect("memory://").await.unwrap();
        let create = format!("CREATE TABLE t (id BIGINT) TBLPROPERTIES ('format-version' = '{version}')");
        run(&lake, &[&create, &format!("INSERT INTO t SELECT value FROM generate_series(0, {})", ROWS - 1)]).await;
        let mut table = lake.table("t").await.unwrap();
        let (mut random, mut live) = (StdRng::seed_from_u64(version), (0..ROWS).collect::<BTreeSet<i64>>());
        let mut found = places(&lake).await;
        let mut most = 0;
        for round in 0..ROUNDS {
            // Now and then a lot.
            let count = if round % 30 == 29 { 2_000 } else { random.random_range(1..20) };
            let leaving: Vec<i64> = live.iter().copied().filter(|id| *id < ROWS).choose_multiple(&mut random, count);
            let new = ROWS + round;
            table = lake.change_rows(&table, change([new], leaving.iter().map(|id| found[id].clone()))).await.unwrap();
            live.insert(new);
            for id in leaving {
                live.remove(&id);
                found.remove(&id);
            }
            let files = number(&lake, "SELECT count(*) FROM \"t$files\" WHERE content = 1").await;
            most = most.max(files);
            if round % 16 == 0 {
                assert_eq!(places(&lake).await.into_keys().collect::<BTreeSet<i64>>(), live, "version {version}, round {round}");
                let lines = naive::lines(&rows(&lake, "SELECT * FROM t").await.unwrap());
                assert_eq!(lines, naive::lines(&naive::read(lake.storage(), &table).await));
            }
        }
        assert_eq!(most, if version == 3 { 1 } else { 8 });
        let summaries = "SELECT sum(CAST(summary['added-position-deletes'] AS BIGINT)) FROM \"t$snapshots\"";
        written.push(number(&lake, summaries).await);
        // What was deleted while somebody else looked at the same file is not forgotten.
        let before = table.clone();
        let two: Vec<i64> = live.iter().copied().filter(|id| *id < ROWS).take(2).collect();
        lake.change_rows(&table, change([], [found[&two[0]].clone()])).await.unwrap();
        let refused = lake.change_rows(&before, change([], [found[&two[1]].clone()])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::CommitConflict);
        // All that is left of the file.
        table = lake.table("t").await.unwrap();
        let rest = live.iter().filter(|id| **id < ROWS && **id != two[0]).map(|id| found[id].clone());
        let deleted: BTreeMap<String, RoaringTreemap> = change([], rest).deleted;
        assert_eq!(deleted.len(), 1);
        lake.change_rows(&table, RowChange { deleted, ..RowChange::default() }).await.unwrap();
        let files = number(&lake, "SELECT count(*) FROM \"t$files\"").await;
        assert_eq!(files, ROUNDS, "a data file of each round, and no deletes");
        let left: Vec<i64> = places(&lake).await.into_keys().collect();
        assert_eq!(left, (ROWS..ROWS + ROUNDS).collect::<Vec<i64>>());
    }
    // A vector holds all of them each time.
    assert!(written[0] < written[1] / 4, "{written:?}");
}

#[tokio::test]
async fn a_data_file_goes_with_its_last_row_wherever_its_deletes_are() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT)", "INSERT INTO t SELECT value FROM generate_series(0, 99)"]).await;
    let found = places(&lake).await;
    // Many at first, then so few that these stay as they are.
    for (leaving, left) in [(0..80, 1), (80..85, 2), (85..90, 3), (90..95, 4), (95..100, 0)] {
        let table = lake.table("t").await.unwrap();
        lake.change_rows(&table, change([], leaving.map(|id| found[&id].clone()))).await.unwrap();
        assert_eq!(number(&lake, "SELECT count(*) FROM \"t$files\" WHERE content = 1").await, left);
    }
    assert_eq!(number(&lake, "SELECT count(*) FROM \"t$files\"").await, 0);
}

/// A table with a data file of which several delete files tell what is deleted, and the ids that are left.
async fn with_several_delete_files() -> (Lakehouse, Vec<i64>) {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT)", "INSERT INTO t SELECT value FROM generate_series(0, 999)"]).await;
    let found = places(&lake).await;
    for leaving in [0..500, 500..510, 520..530, 540..541] {
        let table = lake.table("t").await.unwrap();
        lake.change_rows(&table, change([], leaving.map(|id| found[&id].clone()))).await.unwrap();
    }
    assert_eq!(number(&lake, "SELECT count(*) FROM \"t$files\" WHERE content = 1").await, 4);
    (lake, (510..520).chain(530..540).chain(541..1000).collect())
}

async fn holds(lake: &Lakehouse, left: &[i64]) {
    assert_eq!(places(lake).await.into_keys().collect::<Vec<i64>>(), left);
    let table = lake.table("t").await.unwrap();
    let lines = naive::lines(&rows(lake, "SELECT * FROM t").await.unwrap());
    assert_eq!(lines, naive::lines(&naive::read(lake.storage(), &table).await));
}

#[tokio::test]
async fn a_compaction_applies_all_deletes_of_a_data_file() {
    let (lake, left) = with_several_delete_files().await;
    run(&lake, &["OPTIMIZE t"]).await;
    assert_eq!(number(&lake, "SELECT count(*) FROM \"t$files\" WHERE content = 1").await, 0);
    holds(&lake, &left).await;
}

#[tokio::test]
async fn a_vector_takes_the_place_of_all_deletes_of_a_data_file() {
    let (lake, mut left) = with_several_delete_files().await;
    run(&lake, &["ALTER TABLE t SET TBLPROPERTIES ('format-version' = '3')"]).await;
    holds(&lake, &left).await;
    // By a change of rows, and by a statement.
    let (table, found) = (lake.table("t").await.unwrap(), places(&lake).await);
    lake.change_rows(&table, change([], [found[&999].clone()])).await.unwrap();
    left.retain(|id| *id != 999);
    holds(&lake, &left).await;
    run(&lake, &["DELETE FROM t WHERE id = 998"]).await;
    left.retain(|id| *id != 998);
    assert_eq!(number(&lake, "SELECT count(*) FROM \"t$files\" WHERE content = 1").await, 1);
    holds(&lake, &left).await;
}

#[tokio::test]
async fn a_statement_deletes_beside_several_delete_files() {
    let (lake, mut left) = with_several_delete_files().await;
    run(&lake, &["DELETE FROM t WHERE id >= 900"]).await;
    left.retain(|id| *id < 900);
    holds(&lake, &left).await;
}

/// The files below a folder of the lake.
async fn files_below(lake: &Lakehouse, folder: &str) -> BTreeSet<String> {
    let files = lake.storage().list(folder).unwrap();
    files.map_ok(|file| file.location).try_collect().await.unwrap()
}

#[tokio::test]
async fn what_is_written_becomes_part_of_a_table_when_it_is_committed() {
    for version in [2, 3] {
        let lake = tarndb_core::connect("memory://").await.unwrap();
        let create = format!("CREATE TABLE t (id BIGINT) TBLPROPERTIES ('format-version' = '{version}')");
        // Two data files, of both of which rows leave: deletion vectors share a file.
        run(&lake, &[&create, "INSERT INTO t VALUES (1), (2), (3)", "INSERT INTO t VALUES (4), (5), (6)"]).await;
        let (table, found) = (lake.table("t").await.unwrap(), places(&lake).await);
        let data = format!("{}/data", table.metadata().location());
        let before = files_below(&lake, &data).await;
        let leaving = || [2, 5].map(|id| found[&id].clone());
        let refused = [
            // Nobody wants it any more.
            None,
            // It tells what is not its to tell.
            Some(HashMap::from([("operation".to_string(), "append".to_string())])),
        ];
        for summary in refused {
            let written = lake.write_change(&table, change([7, 8], leaving())).await.unwrap();
            assert!(files_below(&lake, &data).await.len() > before.len());
            assert_eq!(written.files().map(|(_, rows)| rows).collect::<Vec<_>>(), [2]);
            match summary {
                None => written.discard().await,
                Some(summary) => assert_eq!(written.commit(summary).await.unwrap_err().kind(), ErrorKind::InvalidInput),
            }
            assert_eq!(files_below(&lake, &data).await, before);
            assert_eq!(places(&lake).await, found);
        }
        let written = lake.write_change(&table, change([7, 8], leaving())).await.unwrap();
        let files = files_below(&lake, &data).await;
        let late = lake.write_change(&table, change([9], [found[&1].clone()])).await.unwrap();
        let summary = |told: &str| HashMap::from([("a.place".to_string(), told.to_string())]);
        let file = written.files().next().unwrap().0.to_string();
        let committed = written.commit(summary("first")).await.unwrap();
        // Rows came since it was written.
        assert_eq!(late.commit(summary("late")).await.unwrap_err().kind(), ErrorKind::CommitConflict);
        assert_eq!(files_below(&lake, &data).await, files, "what is in no snapshot is deleted");
        let now = places(&lake).await;
        assert_eq!(now.keys().copied().collect::<Vec<_>>(), [1, 3, 4, 6, 7, 8]);
        assert_eq!((&now[&7], &now[&8]), (&(file.clone(), 0), &(file, 1)));
        assert_eq!(committed.metadata_location(), lake.table("t").await.unwrap().metadata_location());
        assert_eq!(committed.snapshot().unwrap().summary().additional_properties["a.place"], "first");
    }
}

#[tokio::test]
async fn nothing_stays_of_a_change_of_which_a_part_cannot_be_written() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT NOT NULL)", "INSERT INTO t VALUES (1), (2), (3)"]).await;
    let (table, found) = (lake.table("t").await.unwrap(), places(&lake).await);
    let data = format!("{}/data", table.metadata().location());
    let before = files_below(&lake, &data).await;
    // A row without an id, beside a delete file that can be written.
    let ids = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![None])) as _)]).unwrap();
    let refused = RowChange { added: vec![ids], ..change([], [found[&2].clone()]) };
    assert_eq!(lake.write_change(&table, refused).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(files_below(&lake, &data).await, before);
    assert_eq!(places(&lake).await, found);
}
