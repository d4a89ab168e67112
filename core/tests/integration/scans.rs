//! Every scan equals the naive reader: with pruning and without, before and after deletes and compaction.

use arrow::array::RecordBatch;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tarndb_core::{Lakehouse, Version};
use tarndb_testkit::{FaultPlan, TableBuilder, naive};

use crate::{number, rows, run};

fn predicate(random: &mut StdRng) -> String {
    let n: i32 = random.random_range(-520..520);
    let compare = ["=", "<", "<=", ">", ">=", "<>"][random.random_range(0..6)];
    let leaf = match random.random_range(0..20) {
        0 => format!("id {compare} {}", n.abs()),
        1 => format!("i {compare} {n}"),
        2 => format!("x {compare} {}", f64::from(n) / 8.0),
        3 => format!("f {compare} {}", if n % 3 == 0 { 0.0 } else { f64::from(n) / 8.0 }),
        4 => format!("p {compare} {n}.125"),
        5 => format!("d {compare} DATE '1970-01-01' + INTERVAL '{}' DAY", n * 3),
        6 => format!("ts {compare} TIMESTAMP '1970-01-01 00:00:00' + INTERVAL '{}' HOUR", n * 13),
        7 => format!("s {compare} 's{}'", n % 50),
        8 => format!("s LIKE 'shared%{}'", n.rem_euclid(7)),
        9 => format!("id IN ({}, {}, {})", n.abs(), n.abs() / 2, n.abs() / 3),
        10 => ["b", "NOT b", "i IS NULL", "s IS NOT NULL", "x IS NULL"][random.random_range(0..5)].to_string(),
        11 => format!("i BETWEEN {} AND {}", n, n + 40),
        12 => format!("s LIKE 's{}%'", n.rem_euclid(7)),
        13 => format!("s NOT LIKE 's{}%'", n.rem_euclid(7)),
        14 => format!("starts_with(s, 's{}')", n.rem_euclid(20)),
        15 => format!("s LIKE 's{}'", n.rem_euclid(50)),
        16 => format!("s LIKE 's_{}%'", n.rem_euclid(9)),
        17 => format!("s ILIKE 'S{}%'", n.rem_euclid(7)),
        18 => ["s LIKE 's\\%'", "s LIKE '%1'", "s NOT LIKE 'shared%6'", "s LIKE '\\s4%%'", "s LIKE ''"]
            [random.random_range(0..5)]
        .to_string(),
        _ => format!("tz {compare} TIMESTAMPTZ '1970-01-01T00:00:00Z'"),
    };
    match random.random_range(0..5) {
        0 => format!("({leaf}) AND ({})", predicate(random)),
        1 => format!("({leaf}) OR ({})", predicate(random)),
        2 => format!("NOT ({leaf})"),
        _ => leaf,
    }
}

/// Rows that the naive reader gives and the engine's own filter keeps, without any file skipped.
async fn expected(lake: &Lakehouse, all: &[RecordBatch], predicate: &str) -> Vec<String> {
    let context = lake.session_context();
    let frame = context.read_batches(all.to_vec()).unwrap();
    let kept = frame.clone().filter(frame.parse_sql_expr(predicate).unwrap()).unwrap();
    naive::lines(&kept.collect().await.unwrap())
}

async fn compare(lake: &Lakehouse, table: &str, random: &mut StdRng, predicates: usize) {
    let state = lake.table(table).await.unwrap();
    let all = naive::read(lake.storage(), &state).await;
    let found = rows(lake, &format!("SELECT * FROM {table}")).await.unwrap();
    assert_eq!(naive::lines(&found), naive::lines(&all), "{table}");
    let count = i64::try_from(all.iter().map(RecordBatch::num_rows).sum::<usize>()).unwrap();
    assert_eq!(number(lake, &format!("SELECT count(*) FROM {table}")).await, count);
    for _ in 0..predicates {
        let predicate = predicate(random);
        let found = rows(lake, &format!("SELECT * FROM {table} WHERE {predicate}"))
            .await
            .unwrap_or_else(|e| panic!("{predicate}: {e:?}"));
        assert_eq!(naive::lines(&found), expected(lake, &all, &predicate).await, "{table} WHERE {predicate}");
        let limited = rows(lake, &format!("SELECT * FROM {table} WHERE {predicate} LIMIT 3")).await.unwrap();
        let limited = naive::lines(&limited);
        let whole = naive::lines(&found);
        assert_eq!(limited.len(), whole.len().min(3));
        assert!(limited.iter().all(|line| whole.contains(line)), "{table} WHERE {predicate} LIMIT 3");
    }
    for column in ["id", "i", "x", "p", "d", "ts", "s"] {
        let query = format!("SELECT min({column}), max({column}), count({column}) FROM");
        let found = rows(lake, &format!("{query} {table}")).await.unwrap();
        let context = lake.session_context();
        context.register_table("naive_rows", context.read_batches(all.clone()).unwrap().into_view()).unwrap();
        let wanted = rows(lake, &format!("{query} naive_rows")).await.unwrap();
        context.deregister_table("naive_rows").unwrap();
        assert_eq!(naive::lines(&found), naive::lines(&wanted), "{query} {table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_predicates_over_every_partitioning() {
    let partitionings = [
        "",
        "bucket(3, id), year(d)",
        "month(ts), b",
        "truncate(2, s)",
        "truncate(100, i), bucket(2, s)",
        "day(tz), truncate(10, p)",
        "f, hour(ts)",
        "bin, bucket(4, p)",
    ];
    for (seed, partitioning) in partitionings.iter().enumerate() {
        let mut random = StdRng::seed_from_u64(seed as u64);
        let lake = tarndb_core::connect("memory://").await.unwrap();
        // Whether filters are evaluated with the reading, beside pruning.
        run(&lake, &[&format!("SET datafusion.execution.parquet.pushdown_filters = {}", seed % 2 == 1)]).await;
        let before = TableBuilder::new("t").partitioned_by(partitioning).build(&lake, &mut random).await;
        compare(&lake, "t", &mut random, 30).await;
        let first = before.snapshot().unwrap().snapshot_id();
        for _ in 0..3 {
            let predicate = predicate(&mut random);
            let all = naive::read(lake.storage(), &lake.table("t").await.unwrap()).await;
            let gone = expected(&lake, &all, &predicate).await;
            let deleted = number(&lake, &format!("DELETE FROM t WHERE {predicate}")).await;
            assert_eq!(deleted, i64::try_from(gone.len()).unwrap(), "DELETE WHERE {predicate}");
            let left = naive::lines(&naive::read(lake.storage(), &lake.table("t").await.unwrap()).await);
            assert!(gone.iter().all(|line| !left.contains(line)), "DELETE WHERE {predicate}");
            assert_eq!(left.len() + gone.len(), all.iter().map(RecordBatch::num_rows).sum::<usize>());
        }
        compare(&lake, "t", &mut random, 15).await;
        run(&lake, &["OPTIMIZE t"]).await;
        compare(&lake, "t", &mut random, 10).await;
        let then = lake.table("t").await.unwrap().at(&Version::Snapshot(first)).unwrap();
        let found = rows(&lake, &format!("SELECT * FROM t FOR VERSION AS OF {first}")).await.unwrap();
        assert_eq!(naive::lines(&found), naive::lines(&naive::read(lake.storage(), &then).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_opened_for_one_value() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT, d DATE, s STRING) PARTITIONED BY (bucket(8, id))"]).await;
    run(&lake, &["INSERT INTO t SELECT value, DATE '2026-01-01', 's' || value FROM generate_series(1, 1000)"]).await;
    let files = |plan: String| {
        let metric = |name: &str| {
            let rest = plan.split(&format!("{name}=")).nth(1).unwrap_or_else(|| panic!("{name} is not in {plan}"));
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().unwrap()
        };
        (metric("iceberg_files"), metric("iceberg_files_pruned"))
    };
    let plan = rows(&lake, "EXPLAIN ANALYZE SELECT * FROM t WHERE id = 7777777").await.unwrap();
    assert_eq!(files(naive::lines(&plan).join("\n")), (8, 8), "nothing is left to read");
    for predicate in ["id = 77", "id IN (77)", "id = 77 AND s > 'a'"] {
        let plan =
            naive::lines(&rows(&lake, &format!("EXPLAIN ANALYZE SELECT * FROM t WHERE {predicate}")).await.unwrap()).join("\n");
        assert_eq!(files(plan), (8, 7), "{predicate}");
    }
}

/// Bounds of files and of pages prune by what a text begins with.
#[tokio::test(flavor = "multi_thread")]
async fn prefixes_prune() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    let pages = "'write.parquet.page-row-limit' = '100', 'write.parquet.page-size-bytes' = '1024'";
    run(&lake, &[&format!("CREATE TABLE t (s STRING, other STRING) TBLPROPERTIES ({pages})")]).await;
    for part in ["a", "b", "c"] {
        let values = format!("'{part}/' || lpad(CAST(value AS STRING), 5, '0'), 'x' || value");
        run(&lake, &[&format!("INSERT INTO t SELECT {values} FROM generate_series(0, 9999)")]).await;
    }
    for pushdown in [false, true] {
        run(&lake, &[&format!("SET datafusion.execution.parquet.pushdown_filters = {pushdown}")]).await;
        for (predicate, count) in [
            ("s LIKE 'b/012%'", 100),
            ("starts_with(s, 'b/012')", 100),
            ("s LIKE 'b/012%' AND other NOT LIKE 'x129%'", 90),
            ("s LIKE 'b/012%' OR s LIKE 'b/0130_'", 110),
        ] {
            assert_eq!(number(&lake, &format!("SELECT count(*) FROM t WHERE {predicate}")).await, count, "{predicate}");
            if pushdown && predicate.contains('_') && !predicate.contains("starts_with") {
                // What is more than the filter keeps cannot stand for it.
                continue;
            }
            let plan = rows(&lake, &format!("EXPLAIN ANALYZE SELECT * FROM t WHERE {predicate}")).await.unwrap();
            let plan = naive::lines(&plan).join("\n");
            assert!(plan.contains("iceberg_files_pruned=2"), "{predicate}: {plan}");
            assert!(plan.contains("page_index_rows_pruned=10.00 K total → 1.02 K matched"), "{predicate}: {plan}");
        }
    }
}

/// What patterns mean is what they mean without pruning; each text is a file, which its bounds keep or leave out.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_with_escapes() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (s STRING)"]).await;
    let texts = ["ab", "a%b", "a_b", "a\\b", "a\nb", "axb", "\u{D7FF}x", "\u{E000}x", "\u{10FFFF}y", "", "A%b", "b"];
    for text in texts {
        run(&lake, &[&format!("INSERT INTO t VALUES ('{text}')")]).await;
    }
    let all = naive::read(lake.storage(), &lake.table("t").await.unwrap()).await;
    let patterns = [
        "a%",
        "a\\%%",
        "a\\%b",
        "a\\_%",
        "a_b",
        "a_%",
        "a\\\\%",
        "a\\b%",
        "a\n%",
        "\u{D7FF}%",
        "\u{10FFFF}%",
        "",
        "%",
        "%b",
        "a%b",
        "ab",
        "a\\",
    ];
    for pushdown in [false, true] {
        run(&lake, &[&format!("SET datafusion.execution.parquet.pushdown_filters = {pushdown}")]).await;
        for pattern in patterns {
            for predicate in
                [format!("s LIKE '{pattern}'"), format!("s NOT LIKE '{pattern}'"), format!("starts_with(s, '{pattern}')")]
            {
                let found = rows(&lake, &format!("SELECT * FROM t WHERE {predicate}")).await.unwrap();
                assert_eq!(naive::lines(&found), expected(&lake, &all, &predicate).await, "{predicate}");
            }
        }
    }
}

/// Of many deletes those are looked at that lie in pages which are read.
#[tokio::test(flavor = "multi_thread")]
async fn many_deletes_beside_pages_that_are_left_out() {
    for version in [2, 3] {
        let lake = tarndb_core::connect("memory://").await.unwrap();
        let pages = "'write.parquet.page-row-limit' = '1024', 'write.parquet.row-group-size-bytes' = '100000'";
        let properties = format!("TBLPROPERTIES ({pages}, 'format-version' = '{version}')");
        run(&lake, &[&format!("CREATE TABLE t (id BIGINT, s STRING, part INT) PARTITIONED BY (part) {properties}")]).await;
        let text = "CASE WHEN value % 50 = 0 THEN NULL ELSE lpad(CAST(value AS STRING), 6, '0') END";
        run(&lake, &[&format!("INSERT INTO t SELECT value, {text}, value / 20000 FROM generate_series(0, 39999)")]).await;
        run(&lake, &["DELETE FROM t WHERE id % 2 = 1 OR id BETWEEN 9000 AND 11000"]).await;
        let all = naive::read(lake.storage(), &lake.table("t").await.unwrap()).await;
        for predicate in [
            "id = 4566",
            "id = 4567",
            "id = 10000",
            "id BETWEEN 1000 AND 3100 OR id > 39990",
            "s LIKE '0123%'",
            "s IS NULL AND id < 9050",
            "s >= '039' AND part = 1",
            "part = 0",
            "id <> 8",
        ] {
            let found = rows(&lake, &format!("SELECT * FROM t WHERE {predicate}")).await.unwrap();
            assert_eq!(naive::lines(&found), expected(&lake, &all, predicate).await, "version {version}: {predicate}");
        }
    }
}

/// Page indexes that do not fit into the read of the footer: they are read when a predicate needs them, and kept.
#[tokio::test(flavor = "multi_thread")]
async fn page_indexes_are_read_once() {
    let plan = FaultPlan::default();
    let lake = Lakehouse::builder("memory://").with_store_layer(plan.layer()).build().await.unwrap();
    let pages = "'write.parquet.page-row-limit' = '100', 'write.parquet.page-size-bytes' = '1024'";
    run(&lake, &[&format!("CREATE TABLE t (id BIGINT, s STRING) TBLPROPERTIES ({pages})")]).await;
    let values = "lpad(CAST(value AS STRING), 60, 'x')";
    run(&lake, &[&format!("INSERT INTO t SELECT value, {values} FROM generate_series(1, 100000)")]).await;
    let wanted = "SELECT count(*) FROM t WHERE s = lpad('4711', 60, 'x')";
    let mut requests = Vec::new();
    for _ in 0..3 {
        let before = plan.requests();
        assert_eq!(number(&lake, wanted).await, 1);
        requests.push(plan.requests() - before);
    }
    // The footer, the page indexes, and the pages; then the pages alone.
    assert!(requests[0] >= requests[1] + 2, "{requests:?}");
    assert_eq!(requests[1], requests[2], "{requests:?}");
    assert_eq!(requests[1], 1, "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_ends_planning() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT) TBLPROPERTIES ('commit.manifest-merge.enabled' = 'false')"]).await;
    for commit in 0..40 {
        run(&lake, &[&format!("INSERT INTO t VALUES ({commit}), ({commit})")]).await;
    }
    let planned = |plan: Vec<RecordBatch>| {
        let text = naive::lines(&plan).join("\n");
        let rest = text.split("iceberg_files=").nth(1).unwrap_or_else(|| panic!("{text}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().unwrap()
    };
    assert_eq!(planned(rows(&lake, "EXPLAIN ANALYZE SELECT * FROM t LIMIT 3").await.unwrap()), 2);
    assert_eq!(planned(rows(&lake, "EXPLAIN ANALYZE SELECT * FROM t").await.unwrap()), 40);
    assert_eq!(rows(&lake, "SELECT * FROM t LIMIT 3").await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
}

/// What the best rows so far, or the other side of a join, leave no row of.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_left_out_while_the_query_runs() {
    const FILES: usize = 20;
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["SET datafusion.execution.target_partitions = 2"]).await;
    run(&lake, &["CREATE TABLE t (id BIGINT, s STRING)", "CREATE TABLE few (id BIGINT)"]).await;
    for file in 0..FILES {
        let (first, last) = (file * 1000, file * 1000 + 999);
        run(&lake, &[&format!("INSERT INTO t SELECT value, 's' || value FROM generate_series({first}, {last})")]).await;
    }
    run(&lake, &["INSERT INTO few VALUES (4321), (4400)"]).await;
    let pruned = async |query: &str| {
        let text = naive::lines(&rows(&lake, &format!("EXPLAIN ANALYZE {query}")).await.unwrap()).join("\n");
        let counts = text
            .split("iceberg_files_pruned_while_running=")
            .skip(1)
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().unwrap());
        counts.sum::<usize>()
    };
    for _ in 0..2 {
        // Which files are opened before the first rows are there is a matter of luck.
        assert!(pruned("SELECT * FROM t ORDER BY id LIMIT 3").await > FILES / 2);
        assert!(pruned("SELECT * FROM t ORDER BY s LIMIT 3").await > 0, "bounds of texts, which are not exact");
        assert_eq!(pruned("SELECT t.s FROM t JOIN few ON t.id = few.id").await, FILES - 1);
        // Deletes change nothing about it.
        run(&lake, &["DELETE FROM t WHERE id % 1000 = 1"]).await;
    }
    assert_eq!(pruned("SELECT * FROM t").await, 0);
    let joined = rows(&lake, "SELECT t.s FROM t JOIN few ON t.id = few.id").await.unwrap();
    assert_eq!(naive::lines(&joined), ["s4321", "s4400"]);
    assert_eq!(naive::lines(&rows(&lake, "SELECT * FROM t ORDER BY id LIMIT 2").await.unwrap()), ["0|s0", "2|s2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_positions_take_memory_from_the_pool() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(
        &lake,
        &[
            "CREATE TABLE t (id BIGINT)",
            "INSERT INTO t SELECT value FROM generate_series(1, 500000)",
            "DELETE FROM t WHERE id % 2 = 0",
            "SET datafusion.runtime.memory_limit = '20K'",
        ],
    )
    .await;
    let error = rows(&lake, "SELECT id FROM t WHERE id < 5").await.unwrap_err();
    assert_eq!(error.kind(), tarndb_core::ErrorKind::ResourcesExhausted, "{error:?}");
    run(&lake, &["SET datafusion.runtime.memory_limit = '20M'"]).await;
    assert_eq!(naive::lines(&rows(&lake, "SELECT id FROM t WHERE id < 5").await.unwrap()), ["1", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bloom_filters_prune_row_groups() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(
        &lake,
        &[
            "CREATE TABLE t (id BIGINT, s STRING) TBLPROPERTIES ('write.parquet.bloom-filter-enabled.column.s' = 'true',
               'write.parquet.bloom-filter-enabled.column.id' = 'true')",
            "INSERT INTO t SELECT value * 2, 's' || (value * 2) FROM generate_series(1000, 2000)",
        ],
    )
    .await;
    // Of texts they are looked at before the file is opened.
    for (condition, pruned) in [
        ("id = 3001", "row_groups_pruned_bloom_filter=1 total \u{2192} 0 matched"),
        ("s = 's3001'", "iceberg_files_pruned_while_running=1"),
    ] {
        let explained = rows(&lake, &format!("EXPLAIN ANALYZE SELECT * FROM t WHERE {condition}")).await.unwrap();
        let plan = naive::lines(&explained).join("\n");
        assert!(plan.contains(pruned), "{plan}");
    }
    assert_eq!(number(&lake, "SELECT count(*) FROM t WHERE s = 's3000'").await, 1);
    assert_eq!(number(&lake, "SELECT count(*) FROM t WHERE id = 3000").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_nested_too_deep_are_refused() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    for (open, close) in [("ARRAY<", ">"), ("STRUCT<a: ", ">"), ("MAP<INT, ", ">"), ("", "[]")] {
        let statement = format!("CREATE TABLE t (a {}INT{})", open.repeat(20_000), close.repeat(20_000));
        let error = rows(&lake, &statement).await.unwrap_err();
        assert_eq!(error.kind(), tarndb_core::ErrorKind::Unsupported, "{error:?}");
    }
    run(&lake, &[&format!("CREATE TABLE t (a {}INT{})", "ARRAY<".repeat(20), ">".repeat(20))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_columns() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(
        &lake,
        &[
            "CREATE TABLE t (id INT, st STRUCT<a: INT, b: STRUCT<c: STRING, d: LIST<INT>>>, l LIST<STRUCT<k: STRING>>, m MAP<STRING, DOUBLE>)",
            "INSERT INTO t VALUES (1, named_struct('a', 1, 'b', named_struct('c', 'x', 'd', [1, 2])), [named_struct('k', 'z')], MAP {'p': 1.5})",
            "INSERT INTO t (id) VALUES (2)",
        ],
    )
    .await;
    let state = lake.table("t").await.unwrap();
    let found = rows(&lake, "SELECT * FROM t").await.unwrap();
    assert_eq!(naive::lines(&found), naive::lines(&naive::read(lake.storage(), &state).await));
    let leaf = rows(&lake, "SELECT st['b']['c'] FROM t WHERE st['a'] = 1").await.unwrap();
    assert_eq!(naive::lines(&leaf), vec!["x"]);
    assert_eq!(number(&lake, "DELETE FROM t WHERE st['a'] = 1").await, 1);
    assert_eq!(number(&lake, "SELECT count(*) FROM t").await, 1);
}

/// Conditions that come as text mean what they say, quotes in their values too.
#[tokio::test(flavor = "multi_thread")]
async fn quotes_in_conditions() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    let texts = ["a''b", "a'b", "a\\'b", "''", "plain"];
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let rows: Vec<String> = texts.iter().map(|text| format!("({})", quoted(text))).collect();
    lake.sql("CREATE TABLE t (s STRING)").await.unwrap();
    lake.sql(&format!("INSERT INTO t VALUES {}", rows.join(", "))).await.unwrap();
    let table = lake.table("t").await.unwrap();
    for text in texts {
        for condition in [format!("s = {}", quoted(text)), format!("s IN ({}, 'x')", quoted(text))] {
            let found = lake.scan(&table, None, Some(&condition), None).await.unwrap().collect().await.unwrap();
            assert_eq!(naive::lines(&found), [text], "{condition}");
        }
        lake.sql(&format!("OPTIMIZE t WHERE s = {}", quoted(text))).await.unwrap();
    }
}
