use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tarndb_core::Lakehouse;
use tarndb_metadata_indexer::{IndexState, MetadataIndexes};

use crate::{assert_history, builder, inventory, journal, listing, rows};

/// Waits until the inventory is what the folder is.
async fn follows(lake: &Lakehouse, folder: &Path) -> Duration {
    let start = Instant::now();
    let wanted = listing(folder);
    loop {
        let found = inventory(lake).await;
        if found == wanted {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{found:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Files that end otherwise are not there, whatever happens to them.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_followed_that_end_as_the_index_says() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir_all(docs.join("c.png")).unwrap();
    fs::write(docs.join("a.png"), "1").unwrap();
    fs::write(docs.join("a.tmp"), "1").unwrap();
    let location = scratch.path().join("lake");
    let lake = builder(location.to_str().unwrap()).build().await.unwrap();
    rows(&lake, &format!("CREATE METADATA INDEX docs ON '{}' WITH (suffix = '.png')", docs.display())).await;
    fs::rename(docs.join("a.tmp"), docs.join("b.png")).unwrap();
    fs::rename(docs.join("a.png"), docs.join("a.tmp")).unwrap();
    fs::write(docs.join("c.png/d.txt"), "1").unwrap();
    fs::write(docs.join("c.png/d.png"), "12").unwrap();
    let index = lake.metadata_index("docs").await.unwrap();
    index.sync().await.unwrap();
    assert_eq!(inventory(&lake).await, BTreeMap::from([("b.png".to_string(), 1), ("c.png/d.png".to_string(), 2)]));
    let journal = journal(&lake).await;
    let changed: BTreeSet<&str> = journal.iter().map(|(key, ..)| key.as_str()).collect();
    assert_eq!(changed, BTreeSet::from(["a.png", "b.png", "c.png/d.png"]));
    let gone: Vec<&str> = journal.iter().filter(|(.., size)| size.is_none()).map(|(key, ..)| key.as_str()).collect();
    assert_eq!(gone, ["a.png"]);
    lake.close().await;
}

/// Files of other sizes are not there; one that grows beyond leaves.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_followed_whose_sizes_the_index_says() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir(&docs).unwrap();
    for (name, size) in [("a", 1), ("b", 4), ("c", 9)] {
        fs::write(docs.join(name), "x".repeat(size)).unwrap();
    }
    let location = scratch.path().join("lake");
    let lake = builder(location.to_str().unwrap()).build().await.unwrap();
    rows(&lake, &format!("CREATE METADATA INDEX docs ON '{}' WITH (min_size = '2', max_size = '8')", docs.display())).await;
    assert_eq!(inventory(&lake).await, BTreeMap::from([("b".to_string(), 4)]));
    fs::write(docs.join("a"), "12").unwrap();
    fs::write(docs.join("b"), "123456789").unwrap();
    fs::write(docs.join("d"), "").unwrap();
    lake.metadata_index("docs").await.unwrap().sync().await.unwrap();
    assert_eq!(inventory(&lake).await, BTreeMap::from([("a".to_string(), 2)]));
    let journal = journal(&lake).await;
    let changed: BTreeSet<&str> = journal.iter().map(|(key, ..)| key.as_str()).collect();
    assert_eq!(changed, BTreeSet::from(["a", "b"]));
    lake.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_followed_without_being_asked() {
    let scratch = tempfile::tempdir().unwrap();
    // The lake lies in the folder, and is not part of it.
    let docs = scratch.path().join("docs");
    fs::create_dir_all(docs.join("img/deep")).unwrap();
    fs::write(docs.join("img/deep/a"), "1").unwrap();
    let lake = builder(scratch.path().join("lake").to_str().unwrap()).build().await.unwrap();
    rows(&lake, &format!("CREATE METADATA INDEX docs ON '{}'", docs.display())).await;
    let before = inventory(&lake).await;
    assert_eq!(before, listing(&docs));

    fs::write(docs.join("b"), "22").unwrap();
    follows(&lake, &docs).await;
    fs::write(docs.join("b"), "333").unwrap();
    follows(&lake, &docs).await;
    fs::rename(docs.join("b"), docs.join("img/c")).unwrap();
    follows(&lake, &docs).await;
    // Folders that come, move and go, with what is in them.
    fs::create_dir_all(docs.join("x/y")).unwrap();
    for number in 0..50 {
        fs::write(docs.join(format!("x/y/{number}")), "x").unwrap();
    }
    follows(&lake, &docs).await;
    fs::rename(docs.join("x"), docs.join("it's")).unwrap();
    follows(&lake, &docs).await;
    fs::rename(docs.join("it's"), scratch.path().join("elsewhere")).unwrap();
    follows(&lake, &docs).await;
    fs::rename(scratch.path().join("elsewhere"), docs.join("back")).unwrap();
    follows(&lake, &docs).await;
    fs::remove_dir_all(docs.join("img")).unwrap();
    follows(&lake, &docs).await;
    // A folder takes the place of a file, and the other way.
    fs::write(docs.join("z"), "1").unwrap();
    follows(&lake, &docs).await;
    fs::remove_file(docs.join("z")).unwrap();
    fs::create_dir(docs.join("z")).unwrap();
    fs::write(docs.join("z/1"), "1").unwrap();
    follows(&lake, &docs).await;
    fs::remove_dir_all(docs.join("z")).unwrap();
    fs::write(docs.join("z"), "1").unwrap();
    follows(&lake, &docs).await;
    assert_eq!(lake.metadata_index("docs").await.unwrap().status().await.unwrap().state, IndexState::Active);
    lake.close().await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn links_are_no_objects_and_lead_to_none() {
    use std::os::unix::fs::symlink;
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir_all(docs.join("releases")).unwrap();
    fs::write(docs.join("releases/f"), "1").unwrap();
    fs::write(scratch.path().join("outside"), "1").unwrap();
    symlink("releases", docs.join("current")).unwrap();
    symlink("../outside", docs.join("link")).unwrap();
    let lake = builder("memory://").build().await.unwrap();
    let index = lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
    assert_eq!(inventory(&lake).await, BTreeMap::from([("releases/f".to_string(), 1)]));
    fs::write(docs.join("releases/g"), "22").unwrap();
    follows(&lake, &docs).await;
    // A folder goes elsewhere, and a link to it takes its place.
    fs::rename(docs.join("releases"), docs.join("old")).unwrap();
    symlink("old", docs.join("releases")).unwrap();
    follows(&lake, &docs).await;
    index.sync().await.unwrap();
    assert_eq!(inventory(&lake).await, listing(&docs));
    lake.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_take_the_place_of_others() {
    let scratch = tempfile::tempdir().unwrap();
    let (docs, spare) = (scratch.path().join("docs"), scratch.path().join("spare"));
    for (folder, file) in [(docs.join("x"), "a"), (docs.join("it''s \\'"), "b"), (spare.clone(), "c")] {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), "1").unwrap();
    }
    let lake = builder("memory://").build().await.unwrap();
    lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
    fs::rename(docs.join("x"), scratch.path().join("old")).unwrap();
    fs::rename(&spare, docs.join("x")).unwrap();
    follows(&lake, &docs).await;
    fs::rename(docs.join("it''s \\'"), scratch.path().join("gone")).unwrap();
    follows(&lake, &docs).await;
    // The source itself.
    fs::rename(&docs, scratch.path().join("away")).unwrap();
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("d"), "1").unwrap();
    follows(&lake, &docs).await;
    fs::write(docs.join("e"), "1").unwrap();
    follows(&lake, &docs).await;
    lake.close().await;
}

/// What was told until then; the operating system may take a moment to tell.
#[tokio::test(flavor = "multi_thread")]
async fn closing_a_lake_commits_what_is_under_way() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir(&docs).unwrap();
    let location = scratch.path().join("lake");
    let open = || async { builder(location.to_str().unwrap()).build().await.unwrap() };
    open().await.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap().stop().await;
    for attempt in 0..10 {
        let lake = open().await;
        let index = lake.metadata_index("docs").await.unwrap();
        index.start().await.unwrap();
        fs::write(docs.join(format!("{attempt}")), "1").unwrap();
        // It waits, or is there by now.
        let start = Instant::now();
        while index.status().await.unwrap().lag_ms.is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "nobody heard of it");
            tokio::task::yield_now().await;
        }
        lake.close().await;
        assert!(lake.sql("SELECT 1").await.is_err());
        assert_eq!(inventory(&open().await).await, listing(&docs));
    }
}

/// Nothing that others write to a lake is taken for an object.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_inside_of_the_folder_is_no_part_of_it() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path();
    fs::write(docs.join("a"), "1").unwrap();
    let location = docs.join("lake");
    let lake = builder(location.to_str().unwrap()).build().await.unwrap();
    lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
    assert_eq!(inventory(&lake).await, BTreeMap::from([("a".to_string(), 1)]));
    rows(&lake, "CREATE TABLE t AS SELECT 1 AS a").await;
    fs::write(docs.join("b"), "22").unwrap();
    let index = lake.metadata_index("docs").await.unwrap();
    index.sync().await.unwrap();
    let wanted = BTreeMap::from([("a".to_string(), 1), ("b".to_string(), 2)]);
    assert_eq!(inventory(&lake).await, wanted);
    lake.close().await;
    let lake = builder(location.to_str().unwrap()).build().await.unwrap();
    assert_history(&BTreeMap::from([("a".to_string(), 1)]), &journal(&lake).await, &wanted);
}

/// Two processes follow the same folder, and someone compacts the tables: each change is there once.
#[tokio::test(flavor = "multi_thread")]
async fn two_followers_and_a_compaction() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir(&docs).unwrap();
    let location = scratch.path().join("lake");
    let first = builder(location.to_str().unwrap()).build().await.unwrap();
    first.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
    let second = builder(location.to_str().unwrap()).build().await.unwrap();
    second.metadata_index("docs").await.unwrap().start().await.unwrap();
    for round in 0..8 {
        for number in 0..20 {
            fs::write(docs.join(format!("{number}")), vec![b'x'; round * 20 + number]).unwrap();
        }
        follows(&first, &docs).await;
        rows(&first, "OPTIMIZE docs.inventory").await;
        fs::remove_file(docs.join(format!("{round}"))).unwrap();
        rows(&second, "OPTIMIZE docs.journal").await;
    }
    follows(&second, &docs).await;
    first.close().await;
    second.close().await;
    let lake = builder(location.to_str().unwrap()).build().await.unwrap();
    let now = inventory(&lake).await;
    assert_eq!(now, listing(&docs));
    assert_history(&BTreeMap::new(), &journal(&lake).await, &now);
}
