use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use tarndb_core::ErrorKind;
use tarndb_metadata_indexer::{IndexState, MetadataIndexes, Synced};
use tarndb_testkit::naive::lines;

use crate::bucket::Behind;
use crate::{assert_history, builder, inventory, journal, listing, rows};

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_created_brought_up_and_dropped() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("it's");
    fs::create_dir_all(docs.join("img")).unwrap();
    fs::write(docs.join("img/a b.png"), "12345").unwrap();
    fs::write(docs.join("ü%20#.txt"), "").unwrap();
    let location = scratch.path().join("lake");
    let lake = builder(location.to_str().unwrap()).build().await.unwrap();
    let create = format!("CREATE METADATA INDEX docs ON '{}'", docs.to_str().unwrap().replace('\'', "''"));
    rows(&lake, &create).await;
    assert_eq!(inventory(&lake).await, listing(&docs));
    assert_eq!(lines(&rows(&lake, "SELECT key, size FROM docs.inventory WHERE key LIKE 'img/%'").await), ["img/a b.png|5"]);
    assert!(journal(&lake).await.is_empty(), "what was there before is no change");
    assert_eq!(lake.sql(&create).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    rows(&lake, &create.replace("INDEX docs", "INDEX IF NOT EXISTS docs")).await;
    let shown = lines(&rows(&lake, "SHOW METADATA INDEXES").await);
    assert_eq!(shown.len(), 1);
    assert!(shown[0].starts_with("docs|file://") && shown[0].contains("|Active|2|0|"), "{shown:?}");

    // Another process, to which nobody told what happened meanwhile.
    rows(&lake, "CALL system.stop_metadata_index('docs')").await;
    lake.close().await;
    fs::write(docs.join("new"), "1").unwrap();
    fs::write(docs.join("img/a b.png"), "123456").unwrap();
    fs::remove_file(docs.join("ü%20#.txt")).unwrap();
    let lake = builder(location.to_str().unwrap()).build().await.unwrap();
    let index = lake.metadata_index("docs").await.unwrap();
    assert_eq!(index.status().await.unwrap().state, IndexState::Stopped);
    assert_eq!(index.sync().await.unwrap(), Synced { created: 1, overwritten: 1, deleted: 1 });
    assert_eq!(lines(&rows(&lake, "CALL system.reconcile_metadata_index('docs')").await), ["0|0|0"]);
    assert_eq!(inventory(&lake).await, listing(&docs));
    let status = index.status().await.unwrap();
    assert_eq!((status.objects, status.changes, status.last_error), (2, 3, None));
    let kinds = "SELECT key, record_type, is_delete_marker, size FROM docs.journal ORDER BY key";
    assert_eq!(
        lines(&rows(&lake, kinds).await),
        ["img/a b.png|CREATE|false|6", "new|CREATE|false|1", "ü%20#.txt|DELETE|NULL|NULL"]
    );

    rows(&lake, "DROP METADATA INDEX docs").await;
    assert!(rows(&lake, "SHOW METADATA INDEXES").await.iter().all(|batch| batch.num_rows() == 0));
    assert_eq!(lake.sql("DROP METADATA INDEX docs").await.unwrap_err().kind(), ErrorKind::NotFound);
    rows(&lake, "DROP METADATA INDEX IF EXISTS docs").await;
    assert!(!lake.namespaces().await.unwrap().contains(&"docs".to_string()));
    rows(&lake, &create).await;
    assert_eq!(inventory(&lake).await, listing(&docs));
    lake.close().await;
}

/// Those of S3 Metadata, in its order, and times that are the files'.
#[tokio::test(flavor = "multi_thread")]
async fn tables_have_the_columns_of_s3_metadata() {
    let docs = tempfile::tempdir().unwrap();
    let file = docs.path().join("a");
    fs::write(&file, "12345").unwrap();
    let lake = builder("memory://").build().await.unwrap();
    let index = lake.create_metadata_index("docs", docs.path().to_str().unwrap()).await.unwrap();
    index.stop().await;
    let object = "is_delete_marker bool, size i64, last_modified_date time, e_tag text, storage_class text, is_multipart bool, \
        encryption_status text, is_bucket_key_enabled bool, kms_key_arn text, checksum_algorithm text, object_tags map, \
        user_metadata map";
    let keys = "bucket text!, key text!, sequence_number text!";
    let record = "record_type text!, record_timestamp time!";
    let origin = "requester text, source_ip_address text, request_id text";
    let journal = format!("{keys}, {record}, version_id text, {object}, {origin}");
    for (table, columns) in [("journal", journal), ("inventory", format!("{keys}, version_id text, {object}"))] {
        let all = lake.sql(&format!("SELECT * FROM docs.{table}")).await.unwrap().schema().clone();
        let column = |field: &Arc<Field>| {
            let kind = match field.data_type() {
                DataType::Utf8 => "text",
                DataType::Int64 => "i64",
                DataType::Boolean => "bool",
                DataType::Timestamp(TimeUnit::Microsecond, None) => "time",
                DataType::Map(entries, _) => match entries.data_type() {
                    DataType::Struct(pair) if pair.iter().all(|field| *field.data_type() == DataType::Utf8) => "map",
                    other => panic!("{other}"),
                },
                other => panic!("{other}"),
            };
            format!("{} {kind}{}", field.name(), if field.is_nullable() { "" } else { "!" })
        };
        assert_eq!(all.fields().iter().map(column).collect::<Vec<_>>().join(", "), columns, "{table}");
    }

    let looked = chrono::Utc::now();
    fs::write(&file, "123456").unwrap();
    index.sync().await.unwrap();
    let modified: chrono::DateTime<chrono::Utc> = fs::metadata(&file).unwrap().modified().unwrap().into();
    let text = |time: chrono::DateTime<chrono::Utc>| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    let is_so = format!(
        "SELECT last_modified_date = TIMESTAMP '{}', record_timestamp >= TIMESTAMP '{}' AND record_timestamp <= now(), size, \
         is_delete_marker, e_tag LIKE '6-%' FROM docs.journal ORDER BY record_timestamp DESC",
        text(modified),
        text(looked - chrono::TimeDelta::milliseconds(1))
    );
    assert_eq!(lines(&rows(&lake, &is_so).await), ["true|true|6|false|true"]);
    lake.close().await;
}

/// The order of a folder's changes is that in which they were seen, whatever clocks say.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_in_order_when_the_clock_goes_back() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir(&docs).unwrap();
    let open = async |behind: i64| {
        let location = scratch.path().join("lake");
        builder(location.to_str().unwrap()).with_clock(Arc::new(Behind(behind))).build().await.unwrap()
    };
    let lake = open(0).await;
    lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap().stop().await;
    lake.close().await;
    for (size, behind) in [(1, 0), (2, 60_000), (3, 3_600_000), (4, 0)] {
        fs::write(docs.join("a"), "x".repeat(size)).unwrap();
        fs::write(docs.join(format!("b{size}")), "x").unwrap();
        let lake = open(behind).await;
        lake.metadata_index("docs").await.unwrap().sync().await.unwrap();
        lake.close().await;
    }
    let lake = open(0).await;
    let (journal, now) = (journal(&lake).await, inventory(&lake).await);
    assert_eq!(now, listing(&docs));
    let sizes: Vec<_> = journal.iter().filter(|(key, ..)| key == "a").map(|(.., size)| *size).collect();
    assert_eq!(sizes, [Some(1), Some(2), Some(3), Some(4)]);
    assert_history(&BTreeMap::new(), &journal, &now);
    lake.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_indexed_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let location = scratch.path().join("lake");
    let lake = builder(location.to_str().unwrap()).build().await.unwrap();
    fs::write(scratch.path().join("file"), "").unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let cases = [
        (path("missing"), ErrorKind::NotFound, "missing"),
        (path("file"), ErrorKind::InvalidInput, "not a folder"),
        (path("lake"), ErrorKind::InvalidInput, "inside of the lake"),
        ("ftp://host/folder".to_string(), ErrorKind::Unsupported, "ftp://"),
        ("s3://".to_string(), ErrorKind::InvalidInput, "s3://BUCKET"),
    ];
    for (source, kind, told) in cases {
        let error = lake.create_metadata_index("docs", &source).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{source}: {error:?}");
        assert!(error.to_string().contains(told), "{error}");
    }
    assert!(lake.metadata_indexes().await.unwrap().is_empty());
    assert_eq!(lake.namespaces().await.unwrap(), ["default"], "nothing stays of what failed");
    // A namespace with tables of someone else's is no index, and is not made one over them.
    rows(&lake, "CREATE NAMESPACE docs").await;
    rows(&lake, "CREATE TABLE docs.inventory (a INT)").await;
    assert_eq!(lake.metadata_index("docs").await.unwrap_err().kind(), ErrorKind::NotFound);
    let folder = path("folder");
    fs::create_dir(&folder).unwrap();
    assert_eq!(lake.create_metadata_index("docs", &folder).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(lines(&rows(&lake, "SHOW TABLES IN docs").await), ["docs|inventory"]);
    // Other statements are not taken for these.
    let plain = tarndb_core::connect("memory://").await.unwrap();
    assert_eq!(plain.metadata_index("docs").await.unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A folder that went away as a whole, as one that is not mounted, has not lost its files.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_away_loses_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (docs, away) = (scratch.path().join("docs"), scratch.path().join("away"));
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("a"), "1").unwrap();
    let lake = builder("memory://").build().await.unwrap();
    let index = lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
    index.stop().await;
    fs::rename(&docs, &away).unwrap();
    for _ in 0..2 {
        assert_eq!(index.reconcile().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(index.start().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(inventory(&lake).await.len(), 1);
    // Elsewhere, and a link where it was.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&away, &docs).unwrap();
        assert_eq!(index.reconcile().await.unwrap(), Synced::default());
        fs::remove_file(&docs).unwrap();
    }
    fs::rename(&away, &docs).unwrap();
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    assert!(journal(&lake).await.is_empty());
    // Another process, which never saw the folder, knows the index, and drops it.
    fs::rename(&docs, &away).unwrap();
    let location = scratch.path().join("lake");
    let open = || async { builder(location.to_str().unwrap()).build().await.unwrap() };
    fs::create_dir(&docs).unwrap();
    let lake = open().await;
    lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
    lake.close().await;
    fs::remove_dir(&docs).unwrap();
    let lake = open().await;
    assert_eq!(lake.metadata_indexes().await.unwrap().len(), 1);
    assert_eq!(lake.create_metadata_index("docs", away.to_str().unwrap()).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    lake.drop_metadata_index("docs").await.unwrap();
    assert!(lake.metadata_indexes().await.unwrap().is_empty());
}
