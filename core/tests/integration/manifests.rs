//! The columnar decoder says the same of a manifest as the `iceberg` crate's parser.

use iceberg::spec::{Literal, ManifestList};

use crate::{rows, run};

#[tokio::test(flavor = "multi_thread")]
async fn metadata_tables_agree_with_the_parser_of_iceberg() {
    let lake = tarndb_core::connect("memory://").await.unwrap();
    run(
        &lake,
        &[
            "CREATE TABLE t (id BIGINT, p DECIMAL(20,2), d DATE, s STRING, x DOUBLE, u UUID) PARTITIONED BY (truncate(10, p), month(d), s, bucket(4, id))",
            "INSERT INTO t (id, p, d, s, x) SELECT value, -value, CAST(CAST(value - 3 AS INT) AS DATE), 'ü' || value, value + 0 FROM generate_series(1, 30)",
            "INSERT INTO t (id) VALUES (NULL)",
            "DELETE FROM t WHERE id = 7 OR id = 8",
            "DELETE FROM t WHERE id % 9 = 1 AND x >= 0",
        ],
    )
    .await;
    let table = lake.table("t").await.unwrap();
    let snapshot = table.snapshot().unwrap();
    let storage = lake.storage();
    let list = storage.read(snapshot.manifest_list()).await.unwrap();
    let list = ManifestList::parse_with_version(&list, table.metadata().format_version()).unwrap();
    let mut oracle = Vec::new();
    for manifest in list.consume_entries() {
        let loaded = manifest.load_manifest(&storage.file_io()).await.unwrap();
        for entry in loaded.entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            oracle.push(format!(
                "{}|{}|{}|{}",
                entry.content_type() as i32,
                file.file_path(),
                file.record_count(),
                file.file_size_in_bytes()
            ));
            assert!(file.partition().iter().all(|value| value.is_none_or(|value| matches!(value, Literal::Primitive(_)))));
        }
    }
    oracle.sort();
    let found = rows(&lake, "SELECT content, file_path, record_count, file_size_in_bytes FROM \"t$files\"").await.unwrap();
    assert_eq!(tarndb_testkit::naive::lines(&found), oracle);
}
