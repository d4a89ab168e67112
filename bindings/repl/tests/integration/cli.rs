use std::io::Write;
use std::process::Stdio;

use crate::{run, tarndb, value};

#[test]
fn formats() {
    let expected = [
        ("table", "+---+------+\n| a | b    |\n+==========+\n| 1 | x    |\n| 2 | NULL |\n+---+------+\n2 rows\n"),
        ("csv", "a,b\n1,x\n2,\n"),
        ("json", "[{\"a\":1,\"b\":\"x\"},{\"a\":2,\"b\":null}]\n"),
        ("ndjson", "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":null}\n"),
        ("markdown", "| a | b    |\n|---|------|\n| 1 | x    |\n| 2 | NULL |\n"),
        ("vertical", "-- row 1 --\na: 1\nb: x\n-- row 2 --\na: 2\nb: NULL\n"),
    ];
    for (format, text) in expected {
        let sql = "SELECT * FROM (VALUES (1, 'x'), (2, NULL)) t(a, b) ORDER BY a";
        let output = tarndb().args(["--format", format, "-c", sql]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{format}");
    }
}

#[test]
fn uuids_are_printed_as_people_know_them() {
    let sql = "SELECT UUID 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6' AS id";
    for format in ["table", "csv", "json", "ndjson", "markdown", "vertical"] {
        let output = tarndb().args(["--format", format, "-c", sql]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), "{format}: {text}");
    }
}

#[test]
fn commands_that_are_not_offered_yet() {
    for command in [&["maintain", "lake"][..], &["serve", "lake", "--listen", "127.0.0.1:8181"], &["--timer", "maintain"]] {
        let output = tarndb().args(command).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("is not supported yet"));
    }
}

#[test]
fn errors_go_to_stderr_with_status_1_and_bad_usage_with_2() {
    let output = tarndb().args(["-c", "SELECT * FROM missing"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: table `default.missing` does not exist\n");
    assert_eq!(tarndb().arg("--nope").output().unwrap().status.code(), Some(2));
    assert_eq!(tarndb().args(["--format", "nope"]).output().unwrap().status.code(), Some(2));
    let version = tarndb().arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("tarndb {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn files_of_a_folder_are_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, docs) = (folder.path().join("lake"), folder.path().join("docs"));
    std::fs::create_dir_all(docs.join("img")).unwrap();
    std::fs::write(docs.join("img/a.png"), "12345").unwrap();
    let create = format!("CREATE METADATA INDEX docs ON '{}'", docs.display());
    let found = "SELECT key, size FROM docs.inventory WHERE key LIKE 'img/%'";
    let output = run(&lake, &[&create, found, "SHOW METADATA INDEXES"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("key,size\nimg/a.png,5\n"), "{text}");
    assert!(text.contains("\ndocs,file://") && text.contains(",Active,1,0,"), "{text}");
    // What happened since is found by the next process, when it is asked to.
    std::fs::write(docs.join("img/b.png"), "1").unwrap();
    assert_eq!(value(&lake, "CALL system.reconcile_metadata_index('docs')"), "1,0,0");
    assert_eq!(
        value(&lake, "SELECT key, record_type, size FROM docs.journal ORDER BY record_timestamp DESC"),
        "img/b.png,CREATE,1"
    );
    assert!(run(&lake, &["DROP METADATA INDEX docs"]).status.success());
    let gone = run(&lake, &[found]);
    assert_eq!(gone.status.code(), Some(1));
    let told = String::from_utf8(gone.stderr).unwrap();
    assert!(told.contains("docs"), "{told}");
}

#[test]
fn a_broken_pipe_is_no_failure() {
    for format in ["table", "csv", "json", "ndjson", "markdown", "vertical"] {
        let mut child = tarndb()
            .args(["--format", format, "-c", "SELECT value, 'x' AS s FROM generate_series(1, 300000) AS t(value)"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Some rows are read, then no more.
        let mut first = [0; 100];
        let mut stdout = child.stdout.take().unwrap();
        std::io::Read::read_exact(&mut stdout, &mut first).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{format}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{format}");
    }
}

#[test]
fn files_standard_input_and_dot_commands() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let script = folder.path().join("script.sql");
    std::fs::write(&script, "CREATE TABLE t (id INT); -- a comment\nINSERT INTO t\n  VALUES (1), (2);\n.tables\n").unwrap();
    let output = tarndb().arg(&lake).arg("-f").arg(&script).args(["--format", "csv"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "rows\n2\nnamespace,table\ndefault,t\n");
    let mut child = tarndb().arg(&lake).args(["--format", "csv"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b".schema t\n.snapshots t\n.files t\n.format ndjson\nSELECT count(*) AS n FROM t")
        .unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(output.contains("id,int,true") && output.contains("append") && output.contains("PARQUET"), "{output}");
    assert!(output.ends_with("{\"n\":2}\n"), "{output}");
    let unknown = run(&lake, &[".nope"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("`.nope` is not a command"));
}

#[test]
fn settings() {
    let output = tarndb()
        .args(["--set", "datafusion.execution.batch_size=77", "--format", "csv", "-c", "SHOW datafusion.execution.batch_size"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(",77"));
    let wrong = tarndb().args(["--set", "nope", "-c", "SELECT 1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("`--set nope`"));
}

/// A read-only folder, by a read-only mount of itself. Needs root, as in CI; says so when it cannot.
#[test]
fn full_disk_and_read_only_lake() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let done = std::process::Command::new("mount").args(arguments).arg(folder.path()).output().unwrap();
        assert!(done.status.success(), "mounting needs root: {}", String::from_utf8_lossy(&done.stderr));
    };
    mount(&["-t", "tmpfs", "-o", "size=3m", "tmpfs"]);
    let lake = folder.path().join("lake");
    let result = std::panic::catch_unwind(|| {
        assert!(
            run(&lake, &["CREATE TABLE t (id BIGINT, s STRING)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"]).status.success()
        );
        let full = run(
            &lake,
            &["INSERT INTO t SELECT value, md5(value::text) || md5((value + 1)::text) FROM generate_series(1, 200000)"],
        );
        let message = String::from_utf8_lossy(&full.stderr).to_string();
        assert_eq!(full.status.code(), Some(1), "{message}");
        assert!(message.contains("no space left"), "{message}");
        // Nothing is lost, nothing of the failed statement stays, and there is room again.
        assert_eq!(value(&lake, "SELECT sum(id) FROM t"), "3");
        assert_eq!(value(&lake, "INSERT INTO t VALUES (3, 'c')"), "1");
        mount(&["-o", "remount,ro"]);
        assert_eq!(value(&lake, "SELECT sum(id) FROM t"), "6");
        for statement in
            ["INSERT INTO t VALUES (4, 'd')", "DELETE FROM t WHERE id = 1", "CREATE TABLE u (id INT)", "DROP TABLE t"]
        {
            let refused = run(&lake, &[statement]);
            let message = String::from_utf8_lossy(&refused.stderr).to_string();
            assert_eq!(refused.status.code(), Some(1), "{statement}");
            assert!(message.to_lowercase().contains("read-only"), "{statement}: {message}");
        }
        assert_eq!(value(&lake, "SELECT sum(id) FROM t"), "6");
    });
    let unmounted = std::process::Command::new("umount").arg(folder.path()).status().unwrap();
    assert!(unmounted.success());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
