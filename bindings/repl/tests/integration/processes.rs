use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::{run, tarndb, value};

/// Eight processes append to one table while a ninth compacts and a tenth deletes.
#[test]
fn many_processes_on_one_table() {
    const APPENDERS: usize = 8;
    const COMMITS: usize = 25;
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let setup =
        run(&lake, &["CREATE TABLE t (id BIGINT, writer INT)", "INSERT INTO t SELECT value, -1 FROM generate_series(1, 60)"]);
    assert!(setup.status.success());
    thread::scope(|scope| {
        for writer in 0..APPENDERS {
            let lake = &lake;
            scope.spawn(move || {
                let inserts: Vec<String> =
                    (0..COMMITS).map(|n| format!("INSERT INTO t VALUES ({}, {writer})", 1000 + writer * COMMITS + n)).collect();
                let output = run(lake, &inserts.iter().map(String::as_str).collect::<Vec<_>>());
                assert!(output.status.success(), "writer {writer}: {}", String::from_utf8_lossy(&output.stderr));
            });
        }
        scope.spawn(|| {
            for _ in 0..3 {
                // Others may always come first, which compaction says and survives.
                let output = run(&lake, &["OPTIMIZE t"]);
                let message = String::from_utf8_lossy(&output.stderr).to_string();
                assert!(
                    output.status.success() || message.contains("another writer") || message.contains("gave up"),
                    "{message}"
                );
            }
        });
        scope.spawn(|| {
            for id in 1..=10 {
                assert_eq!(value(&lake, &format!("DELETE FROM t WHERE id = {id}")), "1");
            }
        });
    });
    let expected = (50 + APPENDERS * COMMITS).to_string();
    assert_eq!(value(&lake, "SELECT count(*) FROM t"), expected);
    assert_eq!(value(&lake, "SELECT count(DISTINCT id) FROM t"), expected);
    assert_eq!(value(&lake, "SELECT count(*) FROM t WHERE id <= 10"), "0");
    assert!(run(&lake, &["OPTIMIZE t", "VACUUM t RETAIN 0 HOURS"]).status.success());
    assert_eq!(value(&lake, "SELECT count(*) FROM t"), expected);
}

/// SIGKILL at 50 points of load, delete, compaction and vacuum: the lake opens, and every row that was acknowledged is
/// there once.
#[test]
fn killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    assert!(
        run(&lake, &["CREATE TABLE t (id BIGINT, k INT) PARTITIONED BY (k)", "CREATE TABLE log (id BIGINT)"]).status.success()
    );
    let mut acknowledged: u64 = 0;
    let mut random: u64 = 0x2545_f491_4f6c_dd17;
    for round in 0..50 {
        // Ten rows a statement; the even ones are deleted right after; then upkeep.
        let mut statements = Vec::new();
        let first = 1 + round * 1000;
        for batch in 0..40_u64 {
            let (from, to) = (first + batch * 10, first + batch * 10 + 9);
            statements.push(format!("INSERT INTO t SELECT value, value % 3 FROM generate_series({from}, {to})"));
            statements.push(format!("DELETE FROM t WHERE id BETWEEN {from} AND {to} AND id % 2 = 0"));
            statements.push(format!("INSERT INTO log VALUES ({from})"));
            if batch % 3 == 2 {
                statements.push("OPTIMIZE t".to_string());
                statements.push("VACUUM t RETAIN 0 HOURS".to_string());
            }
        }
        let mut command = tarndb();
        command.arg(&lake).args(["--format", "csv"]).stdout(Stdio::piped()).stderr(Stdio::null());
        for statement in &statements {
            command.args(["-c", statement]);
        }
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let reader =
            thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).filter(|line| line == "10").count());
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(Duration::from_millis(20 + random % 600));
        child.kill().unwrap();
        child.wait().unwrap();
        let inserts = reader.join().unwrap() as u64;
        acknowledged += inserts;
        let label = format!("round {round}, {inserts} inserts acknowledged");
        // Odd rows of acknowledged inserts stay for ever; at most one insert more took effect without its reply.
        for batch in 0..inserts {
            let (from, to) = (first + batch * 10, first + batch * 10 + 9);
            let odd = value(
                &lake,
                &format!("SELECT count(*) || '-' || count(DISTINCT id) FROM t WHERE id BETWEEN {from} AND {to} AND id % 2 = 1"),
            );
            assert_eq!(odd, "5-5", "{label}, batch {batch}");
            if batch > 8 {
                break;
            }
        }
        let total: u64 = value(&lake, &format!("SELECT count(*) FROM t WHERE id >= {first} AND id % 2 = 1")).parse().unwrap();
        assert!(total == inserts * 5 || total == inserts * 5 + 5, "{label}: {total} rows");
        // A logged batch was deleted from before.
        let back = value(&lake, "SELECT count(*) FROM t JOIN log ON t.id BETWEEN log.id AND log.id + 9 WHERE t.id % 2 = 0");
        assert_eq!(back, "0", "{label}: deleted rows came back");
    }
    assert!(acknowledged > 50, "only {acknowledged} statements were acknowledged in all");
    assert!(run(&lake, &["OPTIMIZE t", "VACUUM t RETAIN 0 HOURS"]).status.success());
}
