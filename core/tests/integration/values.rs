//! Rows that are found by what data files tell of their values: the same that a filter keeps, with fewer of them read.

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tarndb_core::{ErrorKind, Lakehouse};
use tarndb_testkit::naive::{self, lines};

use crate::{number, rows, run};

const ROWS: usize = 4000;

fn predicate(random: &mut StdRng) -> String {
    let n = random.random_range(0..12);
    let leaf = match random.random_range(0..10) {
        0 => format!("kind = 'k{n}'"),
        1 => format!("kind IN ('k{n}', 'k{}', 'none')", n / 2),
        2 => format!("tags['colour'] = 'c{n}'"),
        3 => format!("'c{n}' = tags['colour']"),
        4 => format!("tags['colour'] IN ('c{n}', 'c0')"),
        5 => format!("tags['id'] = '{}'", n * 400),
        6 => format!("tags['rare'] = 'r{n}'"),
        7 => format!("tags['nothing'] = 'r{n}'"),
        8 => format!("id % 7 = {}", n % 7),
        _ => "tags['colour'] IS NULL".to_string(),
    };
    match random.random_range(0..6) {
        0 => format!("({leaf}) AND ({})", predicate(random)),
        1 => format!("({leaf}) OR ({})", predicate(random)),
        2 => format!("NOT ({leaf})"),
        _ => leaf,
    }
}

/// Rows from `start` on: values that are frequent, rare, NULL, of their own, or an entry of no map.
fn insert(start: usize, count: usize) -> String {
    let kind = "CASE WHEN value % 11 = 0 THEN NULL ELSE 'k' || (value * 7919 % 97) END";
    let colour = "CASE WHEN value % 9 = 0 THEN NULL ELSE 'c' || (value * 31 % 67) END";
    // DataFusion 54 takes no keys of maps that are the same in each row, with values that are not.
    let none = "left(CAST(value AS STRING), 0)";
    let tags = format!("MAP {{'colour' || {none}: {colour}, 'id' || {none}: CAST(value AS STRING)}}");
    let rare = format!("MAP {{'rare' || {none}: 'r' || (value % 3)}}");
    let tags = format!("CASE value % 20 WHEN 0 THEN NULL WHEN 1 THEN {rare} ELSE {tags} END");
    format!("INSERT INTO t SELECT value, {kind}, {tags} FROM generate_series({start}, {})", start + count - 1)
}

async fn expected(all: &[RecordBatch], predicate: &str) -> Vec<String> {
    let context = SessionContext::new();
    let frame = context.read_batches(all.to_vec()).unwrap();
    context.register_table("t", frame.into_view()).unwrap();
    let kept = context.sql(&format!("SELECT id, kind FROM t WHERE {predicate}")).await.unwrap();
    lines(&kept.collect().await.unwrap())
}

/// Compares queries with the naive reader's rows; of how many of them rows were left out by their values.
async fn compare(lake: &Lakehouse, random: &mut StdRng, predicates: usize) -> usize {
    let all = naive::read(lake.storage(), &lake.table("t").await.unwrap()).await;
    let mut pruned = 0;
    for _ in 0..predicates {
        let predicate = predicate(random);
        let query = format!("SELECT id, kind FROM t WHERE {predicate}");
        let found = lines(&rows(lake, &query).await.unwrap_or_else(|e| panic!("{query}: {e:?}")));
        assert_eq!(found, expected(&all, &predicate).await, "{query}");
        let plan = lines(&rows(lake, &format!("EXPLAIN ANALYZE {query}")).await.unwrap()).join("\n");
        pruned += usize::from(plan.contains("iceberg_rows_pruned_by_value=") && !plan.contains("iceberg_rows_pruned_by_value=0"));
    }
    pruned
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_value() {
    let tables = [
        ("", "'format-version' = '2'", false),
        (
            "PARTITIONED BY (bucket(2, id))",
            "'format-version' = '3', 'write.parquet.bloom-filter-enabled.column.kind' = 'true'",
            false,
        ),
        (
            "PARTITIONED BY (bucket(2, kind))",
            "'write.parquet.row-group-size-bytes' = '20000', 'write.parquet.page-row-limit' = '100'",
            true,
        ),
    ];
    for (seed, (partitioned, properties, pushdown)) in tables.into_iter().enumerate() {
        let mut random = StdRng::seed_from_u64(seed as u64);
        let lake = tarndb_core::connect("memory://").await.unwrap();
        let columns = "id BIGINT, kind STRING, tags MAP<STRING, STRING>";
        let bitmaps = "'tarndb.bitmap-columns' = 'kind, tags, no longer there'";
        run(
            &lake,
            &[
                &format!("SET datafusion.execution.parquet.pushdown_filters = {pushdown}"),
                &format!("CREATE TABLE t ({columns}) {partitioned} TBLPROPERTIES ({bitmaps}, {properties})"),
                // Of these rows no file tells: they are few.
                &insert(0, 500),
            ],
        )
        .await;
        assert_eq!(compare(&lake, &mut random, 5).await, 0);
        for part in 1..3 {
            run(&lake, &[&insert(part * ROWS, ROWS)]).await;
        }
        assert!(compare(&lake, &mut random, 15).await >= 3);
        run(&lake, &["DELETE FROM t WHERE id % 10 = 3", "DELETE FROM t WHERE tags['colour'] = 'c4'"]).await;
        compare(&lake, &mut random, 10).await;
        // Whoever renames a column or writes without the property changes nothing about the files that are there.
        run(&lake, &["ALTER TABLE t RENAME COLUMN kind TO sort", "ALTER TABLE t RENAME COLUMN sort TO kind"]).await;
        run(&lake, &["ALTER TABLE t SET TBLPROPERTIES ('tarndb.bitmap-columns' = 'tags')"]).await;
        run(&lake, &[&insert(3 * ROWS, ROWS)]).await;
        assert!(compare(&lake, &mut random, 10).await >= 2);
        run(&lake, &["OPTIMIZE t"]).await;
        assert!(compare(&lake, &mut random, 10).await >= 2);
        // What others leave out while the query runs.
        let sorted = "SELECT id FROM t WHERE tags['rare'] IN ('r0', 'r1', NULL) AND kind <> 'k1' ORDER BY id DESC LIMIT 3";
        let all = naive::read(lake.storage(), &lake.table("t").await.unwrap()).await;
        let wanted = expected(&all, "tags['rare'] IN ('r0', 'r1') AND kind <> 'k1'").await;
        let mut wanted: Vec<i64> = wanted.iter().map(|line| line.split('|').next().unwrap().parse().unwrap()).collect();
        wanted.sort_unstable();
        let found = lines(&rows(&lake, sorted).await.unwrap());
        let mut found: Vec<i64> = found.iter().map(|line| line.parse().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, wanted[wanted.len() - 3..]);
        let chain = (0..300).map(|n| if n % 2 == 0 { format!("kind = 'k{n}'") } else { format!("tags['t{n}'] = 'x'") });
        let chain = chain.collect::<Vec<_>>().join(" OR ");
        assert_eq!(
            lines(&rows(&lake, &format!("SELECT id, kind FROM t WHERE {chain}")).await.unwrap()),
            expected(&all, &chain).await
        );
        let query = "SELECT count(*) FROM t WHERE tags['rare'] = 'r1' LIMIT 5";
        let all = naive::read(lake.storage(), &lake.table("t").await.unwrap()).await;
        let rare = expected(&all, "tags['rare'] = 'r1'").await.len();
        assert_eq!(number(&lake, query).await, i64::try_from(rare).unwrap());
    }
}

/// Files that have none of the values by their bloom filters are not opened, however their bounds lie.
#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_value_are_not_opened() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    let insert = |part: usize| {
        let kind = format!("CASE WHEN value = 7 THEN NULL ELSE 'k' || ((value * 20 + {part}) * 7919 % 999983) END");
        format!("INSERT INTO t (id, kind) SELECT value * 20 + {part}, {kind} FROM generate_series(0, 99)")
    };
    run(&lake, &["CREATE TABLE t (id BIGINT, kind STRING)", &insert(0)]).await;
    run(&lake, &["ALTER TABLE t SET TBLPROPERTIES ('write.parquet.bloom-filter-enabled.column.kind' = 'true')"]).await;
    for part in 1..12 {
        run(&lake, &[&insert(part)]).await;
    }
    let kind = |id: usize| format!("'k{}'", id * 7919 % 999_983);
    let opened = async |predicate: &str| {
        let query = format!("SELECT id, kind FROM t WHERE {predicate}");
        let all = naive::read(lake.storage(), &lake.table("t").await.unwrap()).await;
        let plan = lines(&rows(&lake, &format!("EXPLAIN ANALYZE {query}")).await.unwrap()).join("\n");
        for _ in 0..2 {
            assert_eq!(lines(&rows(&lake, &query).await.unwrap()), expected(&all, predicate).await, "{query}");
        }
        let pruned = plan.split("iceberg_files_pruned_while_running=").nth(1).unwrap();
        12 - pruned.split([',', ']']).next().unwrap().trim().parse::<usize>().unwrap()
    };
    // The first file has no filter. One other of a hundred lets a value through that it has not.
    let (first, third) = (kind(40 * 20 + 5), kind(11 * 20 + 9));
    assert!(opened(&format!("kind = {first}")).await <= 3);
    assert!(opened(&format!("{first} = kind")).await <= 3);
    assert!(opened(&format!("kind IN ({first}, {third}, NULL, 'k')")).await <= 4);
    assert!(opened(&format!("kind = {first} OR (kind = {third} AND id < 1000)")).await <= 4);
    assert!(opened("kind = 'k5 nowhere' AND id > 5").await <= 2);
    for all in [
        &format!("kind = {first} OR id = 46"),
        &format!("kind <> {first}"),
        &format!("NOT (kind = {first})"),
        &format!("kind > {first} OR kind = {first}"),
        "kind IS NULL",
    ] {
        assert_eq!(opened(all).await, 12, "{all}");
    }
    // Columns are known by their ids, whatever they are called and whatever came after the files.
    run(&lake, &["ALTER TABLE t RENAME COLUMN kind TO sort", "ALTER TABLE t ADD COLUMN kind STRING"]).await;
    assert_eq!(lines(&rows(&lake, &format!("SELECT id FROM t WHERE kind = {first}")).await.unwrap()), Vec::<String>::new());
    assert_eq!(lines(&rows(&lake, &format!("SELECT id FROM t WHERE sort = {first}")).await.unwrap()), ["805"]);
    run(&lake, &["ALTER TABLE t SET TBLPROPERTIES ('write.parquet.bloom-filter-enabled.column.sort' = 'true')"]).await;
    assert_eq!(lines(&rows(&lake, &format!("SELECT id FROM t WHERE sort = {first}")).await.unwrap()), ["805"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_texts_are_told_of() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT, s STRING)", "INSERT INTO t VALUES (1, 'a')"]).await;
    let wrong = "ALTER TABLE t SET TBLPROPERTIES ('tarndb.bitmap-columns' = 's,id')";
    let error = rows(&lake, wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("`id`"), "{error}");
    let create = "CREATE TABLE u (id BIGINT) TBLPROPERTIES ('tarndb.bitmap-columns' = 'id')";
    assert_eq!(rows(&lake, create).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // A column that is another by now bothers nobody.
    let bitmaps = "ALTER TABLE t SET TBLPROPERTIES ('tarndb.bitmap-columns' = 's, s')";
    run(&lake, &[bitmaps, "INSERT INTO t SELECT value, 'a' FROM generate_series(1, 3000)"]).await;
    run(&lake, &["ALTER TABLE t DROP COLUMN s", "ALTER TABLE t ADD COLUMN s INT"]).await;
    run(&lake, &["INSERT INTO t SELECT value, 1 FROM generate_series(1, 3000)"]).await;
    assert_eq!(number(&lake, "SELECT count(*) FROM t WHERE s = 1").await, 3000);
    run(&lake, &["ALTER TABLE t DROP COLUMN s", "ALTER TABLE t ADD COLUMN s STRING"]).await;
    run(&lake, &["INSERT INTO t SELECT value, 's' || value FROM generate_series(1, 3000)"]).await;
    for (condition, count) in [("s = 'a'", 0), ("s IN ('s7', 'a', NULL)", 1), ("s IS NULL", 6001)] {
        assert_eq!(number(&lake, &format!("SELECT count(*) FROM t WHERE {condition}")).await, count, "{condition}");
    }
}

/// A set that is damaged is an error that names the file, and never other rows.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_sets_are_errors() {
    let (query, mut random, mut errors) = ("SELECT count(*) FROM t WHERE s = 's4'", StdRng::seed_from_u64(0), 0);
    for attempt in 0..200 {
        // Another lake each time, for what is known of a file stays known.
        let lake = tarndb_core::connect("memory://").await.unwrap();
        let bitmaps = "TBLPROPERTIES ('tarndb.bitmap-columns' = 's')";
        run(&lake, &[&format!("CREATE TABLE t (id BIGINT, s STRING) {bitmaps}")]).await;
        run(&lake, &["INSERT INTO t SELECT value, 's' || (value % 9) FROM generate_series(1, 5000)"]).await;
        let file = lines(&rows(&lake, "SELECT DISTINCT _file FROM t").await.unwrap()).remove(0);
        let (store, path) = (lake.storage().object_store(), lake.storage().path(&file).unwrap());
        let mut bytes = store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        let mut magic = bytes.windows(4).enumerate().filter(|(_, bytes)| bytes == b"PFA1").map(|(offset, _)| offset);
        let (start, end) = (magic.next().unwrap(), magic.next_back().unwrap() + 4);
        let byte = random.random_range(start..end);
        bytes[byte] ^= 1 << random.random_range(0..8);
        if attempt > 0 {
            store.put(&path, bytes.into()).await.unwrap();
        }
        match rows(&lake, query).await {
            Ok(found) => assert_eq!(lines(&found), ["556"], "byte {byte}"),
            Err(error) => {
                errors += 1;
                assert_eq!(error.kind(), ErrorKind::DataInvalid, "byte {byte}: {error:?}");
                assert!(error.report().contains(&file), "byte {byte}: {}", error.report());
            }
        }
    }
    assert!(errors > 10, "{errors} errors");
}
