//! Missing, truncated and damaged files: an error that names the thing, nothing lost, no panic.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::DataType;
use bytes::Bytes;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use parquet::file::metadata::ParquetMetaDataReader;
use tarndb_core::ErrorKind;
use tarndb_testkit::naive::lines;

use crate::{rows, run};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damaged_file_is_named() {
    let kinds = [
        ("metadata.json", "metadata/"),
        ("snap-", "metadata/snap-"),
        ("-m", "-m"),
        ("data", ".parquet"),
        ("deletes", "-deletes.parquet"),
    ];
    for (label, _) in kinds {
        for damage in ["missing", "truncated", "overwritten"] {
            let folder = tempfile::tempdir().unwrap();
            let location = folder.path().join("lake");
            let lake = tarndb_core::connect(location.to_str().unwrap()).await.unwrap();
            run(
                &lake,
                &[
                    "CREATE TABLE t (id BIGINT, s STRING)",
                    "INSERT INTO t SELECT value, 'x' || value FROM generate_series(1, 100)",
                    "DELETE FROM t WHERE id = 5",
                ],
            )
            .await;
            let table = lake.table("t").await.unwrap();
            let current = table.metadata_location().to_string();
            let list = table.snapshot().unwrap().manifest_list().to_string();
            drop(lake);
            let mut all = Vec::new();
            files(&location, &mut all);
            let name = |path: &PathBuf| path.display().to_string();
            let victim = all
                .iter()
                .find(|path| {
                    let path = name(path);
                    match label {
                        "metadata.json" => current.ends_with(&path),
                        "snap-" => list.ends_with(&path),
                        "-m" => path.contains("-m0.avro"),
                        "data" => path.ends_with(".parquet") && !path.ends_with("-deletes.parquet"),
                        _ => path.ends_with("-deletes.parquet"),
                    }
                })
                .unwrap_or_else(|| panic!("no {label} in {all:?}"))
                .clone();
            let content = std::fs::read(&victim).unwrap();
            match damage {
                "missing" => std::fs::remove_file(&victim).unwrap(),
                "truncated" => std::fs::write(&victim, &content[..content.len() / 2]).unwrap(),
                _ => std::fs::write(&victim, vec![0x5a; content.len()]).unwrap(),
            }
            let lake = tarndb_core::connect(location.to_str().unwrap()).await.unwrap();
            let error = rows(&lake, "SELECT sum(id) FROM t WHERE s <> 'y'").await.expect_err(&format!("{label} {damage}"));
            let file = victim.file_name().unwrap().to_str().unwrap();
            // The message alone, for it is what most people see; metadata may be named by a cause.
            let told = if file.ends_with(".parquet") { error.to_string() } else { error.report() };
            assert!(told.contains(file), "{label} {damage}: {told}");
            assert!(matches!(error.kind(), ErrorKind::DataInvalid | ErrorKind::NotFound), "{label} {damage}: {error:?}");
            // The file comes back, and everything is as it was.
            std::fs::write(&victim, &content).unwrap();
            let lake = tarndb_core::connect(location.to_str().unwrap()).await.unwrap();
            assert!(rows(&lake, "SELECT sum(id) FROM t").await.is_ok(), "{label} {damage}");
        }
    }
}

/// Where the column chunks of a Parquet file lie.
fn chunks(path: &Path) -> Vec<std::ops::Range<usize>> {
    let file = Bytes::from(std::fs::read(path).unwrap());
    let footer = ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
    let ranges = footer.row_groups().iter().flat_map(|group| group.columns()).map(|column| column.byte_range());
    ranges.map(|(start, length)| usize::try_from(start).unwrap()..usize::try_from(start + length).unwrap()).collect()
}

/// Bytes of the columns of a file of ours change: it is an error of that file, or every value is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_is_never_another_value() {
    for (codec, step) in [("uncompressed", 2), ("zstd", 7)] {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("lake");
        let lake = tarndb_core::connect(folder.to_str().unwrap()).await.unwrap();
        run(
            &lake,
            &[
                &format!(
                    "CREATE TABLE t (id BIGINT, s STRING, d DOUBLE) TBLPROPERTIES ('write.parquet.compression-codec' = '{codec}')"
                ),
                "INSERT INTO t SELECT value, 'x' || (value % 7), CASE WHEN value % 5 > 0 THEN value / 8.0 END \
                 FROM generate_series(1, 60) AS g(value)",
                "DELETE FROM t WHERE id % 9 = 5",
            ],
        )
        .await;
        let table = lake.table("t").await.unwrap().location().trim_start_matches("file://").to_string();
        let select = format!("SELECT * FROM iceberg_scan('{table}') WHERE id > 0 ORDER BY id");
        let whole = lines(&rows(&lake, &select).await.unwrap());
        let mut all = Vec::new();
        files(Path::new(&table), &mut all);
        let (mut errors, mut same) = (0, 0);
        for path in all.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "parquet")) {
            let content = std::fs::read(&path).unwrap();
            let file = path.file_name().unwrap().to_str().unwrap();
            for at in chunks(&path).into_iter().flatten().step_by(step) {
                let mut changed = content.clone();
                changed[at] ^= 1 << (at % 8);
                std::fs::write(&path, changed).unwrap();
                // A lake of its own, for files are cached by their names.
                let lake = tarndb_core::connect("memory://").await.unwrap();
                match rows(&lake, &select).await {
                    Ok(found) => {
                        assert_eq!(lines(&found), whole, "{codec}: byte {at} of {file}");
                        same += 1;
                    }
                    Err(error) => {
                        assert!(error.to_string().contains(file), "{codec}: byte {at} of {file}: {error}");
                        assert_eq!(error.kind(), ErrorKind::DataInvalid, "{codec}: byte {at} of {file}: {error:?}");
                        errors += 1;
                    }
                }
            }
            std::fs::write(&path, content).unwrap();
        }
        // What has no effect: paths in delete files that the manifest names, and what of a header is not looked at.
        assert!(errors > 2 * same, "{codec}: {errors} errors, {same} without effect");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_cannot_point_outside_the_lake() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("lake");
    let lake = tarndb_core::connect(location.to_str().unwrap()).await.unwrap();
    run(&lake, &["CREATE TABLE t (id BIGINT)", "INSERT INTO t VALUES (1)"]).await;
    let table = lake.table("t").await.unwrap();
    let list = table.snapshot().unwrap().manifest_list().to_string();
    let outside = folder.path().join("outside.avro");
    std::fs::copy(list.trim_start_matches("file://"), &outside).unwrap();
    let metadata = table.metadata_location().trim_start_matches("file://").to_string();
    let text = std::fs::read_to_string(&metadata).unwrap();
    std::fs::write(&metadata, text.replace(&list, &format!("file://{}", outside.display()))).unwrap();
    drop(lake);
    let lake = tarndb_core::connect(location.to_str().unwrap()).await.unwrap();
    let error = rows(&lake, "SELECT * FROM t").await.unwrap_err();
    assert!(error.report().contains("outside the lake"), "{}", error.report());
}

#[tokio::test]
async fn locations_that_cannot_be_lakes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = tarndb_core::connect(file.to_str().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(tarndb_core::connect("s3://bucket/x").await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_below_is_an_error_of_the_statement() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(&lake, &["CREATE TABLE t (a BIGINT)", "INSERT INTO t VALUES (1), (2)"]).await;
    let panics = create_udf(
        "panics",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Volatile,
        Arc::new(|_: &[ColumnarValue]| -> datafusion::common::Result<ColumnarValue> { panic!("boom") }),
    );
    lake.session_context().register_udf(panics);
    for statement in ["SELECT panics(a) FROM t", "SELECT sum(panics(a)) FROM t GROUP BY a", "DELETE FROM t WHERE panics(a) = 1"] {
        let error = rows(&lake, statement).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{statement}: {error:?}");
        assert!(error.report().contains("boom"), "{statement}: {}", error.report());
    }
    assert_eq!(rows(&lake, "SELECT * FROM t").await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
    // A closed lake is not used.
    lake.clone().close().await;
    assert_eq!(rows(&lake, "SELECT 1").await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_unknown_types_are_named_and_the_others_read() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("lake");
    let lake = tarndb_core::connect(folder.to_str().unwrap()).await.unwrap();
    run(&lake, &["CREATE TABLE t (id INT, v BINARY)", "INSERT INTO t VALUES (1, X'00'), (2, NULL)"]).await;
    let location = lake.table("t").await.unwrap().metadata_location().to_string();
    let path = location.strip_prefix("file://").unwrap();
    let text = std::fs::read_to_string(path).unwrap().replace(r#""type":"binary""#, r#""type":"variant""#);
    assert!(text.contains("variant"));
    std::fs::write(path, text).unwrap();
    let lake = tarndb_core::connect(folder.to_str().unwrap()).await.unwrap();
    assert_eq!(crate::number(&lake, "SELECT count(*) FROM t WHERE id > 0").await, 2);
    assert_eq!(crate::number(&lake, "SELECT sum(id) FROM t").await, 3);
    for statement in ["SELECT * FROM t", "SELECT v FROM t", "INSERT INTO t (id) VALUES (3)", "ALTER TABLE t ADD COLUMN a INT"] {
        let error = rows(&lake, statement).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{statement}: {error:?}");
        assert!(error.to_string().contains("`v`") && error.to_string().contains("variant"), "{statement}: {error}");
    }
    let described = rows(&lake, "DESCRIBE t").await.unwrap();
    assert!(lines(&described).iter().any(|line| line.starts_with("v|variant|")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_by_path_reads_nothing_beside_its_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("lake");
    let lake = tarndb_core::connect(folder.to_str().unwrap()).await.unwrap();
    run(&lake, &["CREATE TABLE t (id INT)", "INSERT INTO t VALUES (1), (2)"]).await;
    let table = lake.table("t").await.unwrap();
    let location = table.metadata_location().strip_prefix("file://").unwrap().to_string();
    let text = std::fs::read_to_string(&location).unwrap();
    let moved = scratch.path().join("moved");
    std::fs::create_dir_all(moved.join("metadata")).unwrap();
    let copy = moved.join("metadata/v1.metadata.json");
    let scan = format!("SELECT * FROM iceberg_scan('{}')", moved.display());
    // As if the table had been elsewhere: what it names then lies in the lake, which is beside this folder.
    std::fs::write(
        &copy,
        text.replace(table.location(), "file:///elsewhere").replacen(
            "file:///elsewhere/metadata/snap-",
            &format!("{}/metadata/snap-", table.location()),
            usize::MAX,
        ),
    )
    .unwrap();
    let error = rows(&lake, &scan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataInvalid, "{error:?}");
    assert!(error.to_string().contains("outside"), "{error}");
    // A folder that the table itself calls its own is read.
    let text = std::fs::read_to_string(&copy).unwrap();
    assert!(!text.contains("properties"));
    let own = format!(r#"{{"properties":{{"write.metadata.path":"{}"}},"#, folder.display());
    let text = text.replacen('{', &own, 1);
    std::fs::write(&copy, text).unwrap();
    assert_eq!(rows(&lake, &scan).await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
}
