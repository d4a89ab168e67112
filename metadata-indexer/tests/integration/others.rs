//! Indexes beside other processes, upkeep by others, and faults.

use std::collections::BTreeMap;
use std::fs;

use tarndb_core::ErrorKind;
use tarndb_metadata_indexer::{MetadataIndexes, Synced};
use tarndb_testkit::{Fault, FaultPlan};

use crate::{assert_history, builder, inventory, journal, listing, rows};

/// What one process knows, another made old.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_sync_in_turn() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("x"), "1").unwrap();
    let location = scratch.path().join("lake");
    let first = builder(location.to_str().unwrap()).build().await.unwrap();
    let one = first.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
    one.stop().await;
    let second = builder(location.to_str().unwrap()).build().await.unwrap();
    let other = second.metadata_index("docs").await.unwrap();
    let before = inventory(&first).await;

    fs::write(docs.join("y"), "22").unwrap();
    assert_eq!(other.sync().await.unwrap(), Synced { created: 1, ..Synced::default() });
    fs::remove_file(docs.join("y")).unwrap();
    assert_eq!(one.sync().await.unwrap(), Synced { deleted: 1, ..Synced::default() });
    fs::rename(docs.join("x"), scratch.path().join("x")).unwrap();
    assert_eq!(other.sync().await.unwrap(), Synced { deleted: 1, ..Synced::default() });
    fs::rename(scratch.path().join("x"), docs.join("x")).unwrap();
    assert_eq!(one.sync().await.unwrap(), Synced { created: 1, ..Synced::default() });
    assert_history(&before, &journal(&first).await, &listing(&docs));
}

/// Compaction and the expiry of all but the last snapshot leave an index as it is, in this process and in the next.
#[tokio::test(flavor = "multi_thread")]
async fn upkeep_by_others() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir(&docs).unwrap();
    let location = scratch.path().join("lake");
    let plan = FaultPlan::default();
    let open = || async { builder(location.to_str().unwrap()).with_store_layer(plan.layer()).build().await.unwrap() };
    let lake = open().await;
    lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap().stop().await;
    let upkeep = [
        "OPTIMIZE docs.journal",
        "OPTIMIZE docs.inventory",
        "VACUUM docs.journal RETAIN 0 HOURS",
        "VACUUM docs.inventory RETAIN 0 HOURS",
    ];
    let mut lake = lake;
    for round in 0..6 {
        for number in 0..4 {
            fs::write(docs.join(format!("{}", (round + number) % 5)), vec![b'x'; round * 7 + number]).unwrap();
        }
        drop(fs::remove_file(docs.join(format!("{}", round % 5))));
        let index = lake.metadata_index("docs").await.unwrap();
        if round % 2 == 1 {
            // The journal has the changes, and the inventory does not.
            for at in 1.. {
                let changes = journal(&lake).await.len();
                plan.arm(at, Fault::Fail);
                let synced = index.sync().await;
                plan.disarm();
                if synced.is_ok() || journal(&lake).await.len() > changes {
                    break;
                }
            }
        } else {
            index.sync().await.unwrap();
        }
        for statement in upkeep {
            rows(&lake, statement).await;
        }
        if round % 3 == 2 {
            lake.close().await;
            lake = open().await;
        }
        lake.metadata_index("docs").await.unwrap().sync().await.unwrap();
        let now = inventory(&lake).await;
        assert_eq!(now, listing(&docs), "round {round}");
        assert_history(&BTreeMap::new(), &journal(&lake).await, &now);
    }
}

/// What could not be created is not there, and can be created then.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_every_request_of_a_creation() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("a"), "1").unwrap();
    let mut failures = 0;
    for fault in [Fault::Fail, Fault::LoseReply] {
        for at in 1.. {
            let plan = FaultPlan::default();
            let lake = builder("memory://").with_store_layer(plan.layer()).build().await.unwrap();
            plan.arm(at, fault);
            let created = lake.create_metadata_index("docs", docs.to_str().unwrap()).await;
            let requests = plan.requests();
            plan.disarm();
            if created.is_err() {
                failures += 1;
                lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
            }
            assert_eq!(inventory(&lake).await, listing(&docs), "{fault:?} at {at}");
            assert!(journal(&lake).await.is_empty());
            if requests < at {
                break;
            }
        }
    }
    assert!(failures > 5, "{failures} failures");
}

/// An index that another process dropped and made again on another folder is not written to as the first.
#[tokio::test(flavor = "multi_thread")]
async fn another_index_of_the_same_name() {
    let scratch = tempfile::tempdir().unwrap();
    let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
    for folder in [&a, &b] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join(folder.file_name().unwrap()), "1").unwrap();
    }
    let location = scratch.path().join("lake");
    let first = builder(location.to_str().unwrap()).build().await.unwrap();
    let old = first.create_metadata_index("docs", a.to_str().unwrap()).await.unwrap();
    let second = builder(location.to_str().unwrap()).build().await.unwrap();
    second.drop_metadata_index("docs").await.unwrap();
    second.create_metadata_index("docs", b.to_str().unwrap()).await.unwrap();
    fs::write(a.join("new"), "1").unwrap();
    assert_eq!(old.sync().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(inventory(&first).await, listing(&b));
    let again = format!("CREATE METADATA INDEX IF NOT EXISTS docs ON '{}'", a.display());
    assert_eq!(first.sql(&again).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(first.metadata_index("docs").await.unwrap().sync().await.unwrap(), Synced::default());
    first.close().await;
    second.close().await;
}
