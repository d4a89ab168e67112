//! Statements as deep as they may be, on the stack of a worker thread, and deeper ones.

use tarndb_core::ErrorKind;

use crate::{number, rows, run};

/// Links of the longest chain that is allowed, less the function around it.
const MOST: usize = if cfg!(debug_assertions) { 400 } else { 1000 };

fn chain(link: impl Fn(usize) -> String, links: usize, between: &str) -> String {
    (0..links).map(link).collect::<Vec<_>>().join(between)
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chains_do_not_overflow_the_stack() {
    // The test itself has a larger stack than the two megabytes that a spawned task gets.
    tokio::spawn(async {
        let lake = tarndb_core::connect("memory://").await.unwrap();
        run(&lake, &["CREATE TABLE t (a BIGINT, b BIGINT)", "INSERT INTO t SELECT value, 1 FROM generate_series(1, 2000)"]).await;
        let sum = chain(|_| "b".into(), MOST, " + ");
        assert_eq!(number(&lake, &format!("SELECT max({sum}) FROM t")).await, i64::try_from(MOST).unwrap());
        let any = chain(|i| format!("a = {i}"), MOST - 1, " OR ");
        assert_eq!(number(&lake, &format!("SELECT count(*) FROM t WHERE {any}")).await, i64::try_from(MOST - 2).unwrap());
        assert_eq!(number(&lake, &format!("DELETE FROM t WHERE {any}")).await, i64::try_from(MOST - 2).unwrap());
        let union = chain(|_| "SELECT 1 AS a".into(), MOST, " UNION ALL ");
        assert_eq!(number(&lake, &format!("SELECT count(*) FROM ({union})")).await, i64::try_from(MOST).unwrap());
        let join = chain(|i| format!("(SELECT 1) AS t{i}"), 100, " CROSS JOIN ");
        assert_eq!(number(&lake, &format!("SELECT count(*) FROM {join}")).await, 1);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn deeper_statements_are_refused() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (a BIGINT)"]).await;
    let any = chain(|i| format!("a = {i}"), 50_000, " OR ");
    let table = lake.table("t").await.unwrap();
    for error in [
        rows(&lake, &format!("SELECT {}", chain(|_| "1".into(), 50_000, " + "))).await.unwrap_err(),
        rows(&lake, &format!("SELECT * FROM t WHERE {any}")).await.unwrap_err(),
        lake.delete("t", &any).await.unwrap_err(),
        lake.scan(&table, None, Some(&any), None).await.unwrap_err(),
        lake.predicate(&table, &any).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().len() < 400, "the statement itself is left out");
    }
}
