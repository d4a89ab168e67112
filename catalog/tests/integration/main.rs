//! The conformance suite of catalogs, over each of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // these are tests

mod storage;
mod suite;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use iceberg::NamespaceIdent;
use tarndb_catalog::{Catalog, Location, Storage, memory_catalog, sqlite_catalog};

fn memory() -> Arc<dyn Catalog> {
    Arc::new(memory_catalog(Storage::new(Location::parse("memory://").unwrap())))
}

async fn sqlite(folder: &std::path::Path) -> Arc<dyn Catalog> {
    let storage = Storage::new(Location::parse(folder.to_str().unwrap()).unwrap());
    Arc::new(sqlite_catalog(&folder.join("catalog.db"), storage).await.unwrap())
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn memory() {
                crate::suite::$name(crate::memory()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                let folder = tempfile::tempdir().unwrap();
                crate::suite::$name(crate::sqlite(folder.path()).await).await;
            }
        }
    )*};
}

conformance!(
    namespaces_are_created_listed_and_dropped,
    tables_are_created_loaded_renamed_and_dropped,
    requirements_are_checked,
    old_metadata_files_go_when_the_table_asks,
    several_tables_commit_together_or_not_at_all,
    concurrent_commits_lose_nothing,
);

#[tokio::test(flavor = "multi_thread")]
async fn two_handles_on_one_database_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (sqlite(folder.path()).await, sqlite(folder.path()).await);
    suite::contend(vec![one, two]).await;
}

/// Whoever gives up, at whatever moment, leaves no lock behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (sqlite(folder.path()).await, sqlite(folder.path()).await);
    for attempt in 0..1000 {
        let gives_up = async {
            for _ in 0..attempt % 100 {
                tokio::task::yield_now().await;
            }
        };
        let name = NamespaceIdent::new(format!("n{attempt}"));
        tokio::select! {
            created = one.create_namespace(&name, HashMap::new()) => created.unwrap(),
            () = gives_up => {}
        }
        if attempt % 50 == 49 {
            let name = NamespaceIdent::new(format!("other{attempt}"));
            let created = tokio::time::timeout(Duration::from_secs(20), two.create_namespace(&name, HashMap::new()));
            created.await.unwrap_or_else(|_| panic!("after {attempt} the catalog is locked")).unwrap();
        }
    }
}

/// Names the lake's folder to a child process of [`processes_on_one_database_lose_nothing`], and its number.
const CONTENDER: &str = "TARNDB_TEST_CONTENDER";

/// Runs this very test in child processes, each of which is one writer.
#[tokio::test(flavor = "multi_thread")]
async fn processes_on_one_database_lose_nothing() {
    const PROCESSES: usize = 6;
    const COMMITS: usize = 10;
    if let Ok(contender) = std::env::var(CONTENDER) {
        let (number, folder) = contender.split_once(' ').unwrap();
        let catalog = sqlite(std::path::Path::new(folder)).await;
        return suite::write_in_contention(catalog.as_ref(), number.parse().unwrap(), COMMITS).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let catalog = sqlite(folder.path()).await;
    suite::prepare_contention(catalog.as_ref()).await;
    let start = |number: usize| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes_on_one_database_lose_nothing"])
            .env(CONTENDER, format!("{number} {}", folder.path().display()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(suite::commits_in_contention(catalog.as_ref()).await, PROCESSES * COMMITS);
}

#[tokio::test]
async fn a_lake_that_was_moved_or_copied_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    std::fs::create_dir(&first).unwrap();
    suite::prepare_contention(sqlite(&first).await.as_ref()).await;
    let open = async |folder: &std::path::Path| {
        let storage = Storage::new(Location::parse(folder.to_str().unwrap()).unwrap());
        sqlite_catalog(&folder.join("catalog.db"), storage).await.map(|_| ()).map_err(|e| e.to_string())
    };
    std::fs::rename(&first, &second).unwrap();
    let moved = open(&second).await.unwrap_err();
    assert!(moved.contains(&format!("ln -s {} {}", second.display(), first.display())), "{moved}");
    std::os::unix::fs::symlink(&second, &first).unwrap();
    open(&second).await.unwrap();
    open(&first).await.unwrap();
    assert_eq!(suite::commits_in_contention(sqlite(&second).await.as_ref()).await, 0);

    let copy = folder.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(&second).arg(&copy).status().unwrap();
    assert!(copied.success());
    let refused = open(&copy).await.unwrap_err();
    assert!(refused.contains("is a copy of the lake"), "{refused}");
}

#[tokio::test]
async fn a_damaged_database_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    std::fs::write(&path, vec![7; 10_000]).unwrap();
    let storage = Storage::new(Location::parse(folder.path().to_str().unwrap()).unwrap());
    let error = sqlite_catalog(&path, storage).await.unwrap_err();
    assert_eq!(error.kind(), tarndb_catalog::ErrorKind::DataInvalid);
    assert!(error.to_string().contains("catalog.db"), "{error}");
}
