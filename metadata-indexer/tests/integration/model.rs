//! Random changes of a folder, and an index of it that fails and ends at random: after it was brought up, its inventory is what the
//! folder is, and its journal tells how that came.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tarndb_metadata_indexer::{MetadataIndexes, Synced};
use tarndb_testkit::{Fault, FaultPlan, invariants};

use crate::{assert_history, builder, inventory, journal, listing};

/// Histories that are tried; `TARNDB_SEEDS` asks for more.
const SEEDS: u64 = 12;

fn change(random: &mut StdRng, folder: &Path) {
    let path = |random: &mut StdRng| {
        let depth = random.random_range(0..3);
        (0..depth)
            .fold(folder.to_path_buf(), |path, _| path.join(format!("f{}", random.random_range(0..4))))
            .join(format!("{}.txt", random.random_range(0..40)))
    };
    let file = path(random);
    match random.random_range(0..10) {
        0..6 => {
            // A folder may have such a name by now, and a file that of a folder.
            drop(fs::create_dir_all(file.parent().unwrap()));
            drop(fs::write(file, vec![b'x'; random.random_range(0..500)]));
        }
        6..8 => drop(fs::remove_file(file)),
        8 => {
            let to = path(random);
            drop(fs::create_dir_all(to.parent().unwrap()));
            let from = if random.random_bool(0.5) { file.parent().unwrap() } else { &file };
            if from != folder {
                drop(fs::rename(from, to));
            }
        }
        _ if file.parent() != Some(folder) => drop(fs::remove_dir_all(file.parent().unwrap())),
        _ => {}
    }
}

async fn history(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir(&docs).unwrap();
    for _ in 0..random.random_range(0..60) {
        change(&mut random, &docs);
    }
    let before = listing(&docs);
    let plan = FaultPlan::default();
    let lake = builder("memory://").with_store_layer(plan.layer()).build().await.unwrap();
    let index = lake.create_metadata_index("docs", docs.to_str().unwrap()).await.unwrap();
    assert_eq!(inventory(&lake).await, before, "seed {seed}");
    index.stop().await;
    let mut failures = 0;
    for _ in 0..random.random_range(5..25) {
        for _ in 0..random.random_range(0..30) {
            change(&mut random, &docs);
        }
        let at = random.random_range(1..40);
        match random.random_range(0..4) {
            0 => plan.arm(at, Fault::Fail),
            1 => plan.arm(at, Fault::LoseReply),
            2 => plan.arm(at, Fault::Stall),
            _ => {}
        }
        // Who stalls is ended, wherever it is.
        let stalled = async {
            plan.stalled().await;
        };
        let synced = tokio::select! {
            synced = index.sync() => synced.map(Some),
            () = stalled => Ok(None),
        };
        plan.disarm();
        plan.release();
        match synced {
            Ok(Some(_)) => assert_eq!(inventory(&lake).await, listing(&docs), "seed {seed}"),
            _ => failures += 1,
        }
    }
    // Twice at most: an outcome that nobody knew may be found out at first.
    tokio::time::timeout(Duration::from_secs(60), index.sync()).await.unwrap().unwrap();
    assert_eq!(index.sync().await.unwrap(), Synced::default(), "seed {seed}");
    let now = inventory(&lake).await;
    assert_eq!(now, listing(&docs), "seed {seed}, {failures} failures");
    assert_history(&before, &journal(&lake).await, &now);
    for table in ["docs.journal", "docs.inventory"] {
        invariants::assert_referenced_files_exist(lake.storage(), &lake.table(table).await.unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_changes_and_faults() {
    let seeds = std::env::var("TARNDB_SEEDS").map_or(SEEDS, |number| number.parse().unwrap());
    for seed in 0..seeds {
        history(seed).await;
    }
}
