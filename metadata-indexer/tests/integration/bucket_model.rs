//! Random changes of a bucket, told by events that come twice, late, in any order, or never, to an index that fails and ends at random.
//! What is told by all events is in the journal once; what a listing shows is in the inventory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path as FsPath;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tarndb_core::Lakehouse;
use tarndb_metadata_indexer::{IndexOptions, MetadataIndexer, MetadataIndexes};
use tarndb_testkit::{Fault, FaultPlan, invariants};

use crate::rows;

/// Histories that are tried, of each kind; `TARNDB_SEEDS` asks for more.
const SEEDS: u64 = 5;

/// Of a change: its key, version, sequence number, and what it was.
type Told = (String, Option<String>, String, &'static str);

/// Key and version.
type Id = (String, Option<String>);

/// A bucket that tells what happens in it.
struct Bucket {
    random: StdRng,
    store: Arc<InMemory>,
    versioned: bool,
    /// Whether some events tell of objects that are there, and not what happened.
    touches: bool,
    keys: usize,
    /// The size beyond which the index is not about an object.
    max_size: usize,
    /// When it all happens, in seconds since 1970.
    start: i64,
    changes: u64,
    /// What is there: sizes by key and version; `None` where a version says that the key is deleted.
    live: BTreeMap<Id, Option<i64>>,
    /// Of changes since the index.
    history: BTreeSet<Told>,
    /// Events that nobody got yet.
    pending: Vec<String>,
}

impl Bucket {
    fn new(seed: u64, versioned: bool, touches: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let keys = [5, 100, 1000][random.random_range(0..3)];
        // Long ago, or today.
        let start = if random.random_bool(0.5) { 1_772_619_072 } else { chrono::Utc::now().timestamp() };
        let max_size = if seed % 3 == 1 { 500 } else { 1000 };
        let (store, live, history, pending) = (Arc::default(), BTreeMap::new(), BTreeSet::new(), Vec::new());
        Self { random, store, versioned, touches, keys, max_size, start, changes: 0, live, history, pending }
    }

    /// Digits that grow, of a length that does not matter.
    fn next_sequence(&mut self) -> String {
        self.changes += 1;
        let more = ["", "5", "07"][self.random.random_range(0..3)];
        format!("{:016X}{more}", 0x0065_0000_0000_0000 + self.changes * 3)
    }

    fn tell(&mut self, key: &str, version: Option<&str>, event: &str, kind: &'static str, object: &str) {
        let sequence = self.next_sequence();
        let nanos = self.random.random_range(0..1_000_000_000);
        let time = chrono::DateTime::from_timestamp(self.start + self.changes as i64, nanos).unwrap().to_rfc3339();
        let encoded: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
        let version_id = version.map(|version| format!(r#","versionId":"{version}""#)).unwrap_or_default();
        self.pending.push(format!(
            r#"{{"eventSource":"aws:s3","eventName":"{event}","eventTime":"{time}","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{encoded}","sequencer":"{sequence}"{version_id}{object}}}}}}}"#
        ));
        let digits = sequence.trim_end_matches('0');
        let sequence = format!("{digits:0<16}");
        self.history.insert((key.to_string(), version.map(str::to_string), sequence, kind));
    }

    async fn change(&mut self) {
        let key = format!("k {}/+{}%", self.random.random_range(0..3), self.random.random_range(0..self.keys));
        let path = Path::parse(&key).unwrap();
        let version = self.versioned.then(|| format!("v{}", self.changes));
        let is_there = self.live.contains_key(&(key.clone(), None));
        match self.random.random_range(0..10) {
            0..6 => {
                let size = self.random.random_range(0..1000);
                let put = self.store.put(&path, vec![b'x'; size].into()).await.unwrap();
                let object = format!(r#","size":{size},"eTag":"{}""#, put.e_tag.unwrap());
                let id = (key.clone(), version.clone());
                let kind = if size <= self.max_size {
                    self.live.insert(id, Some(size as i64));
                    "CREATE"
                } else {
                    self.live.remove(&id);
                    "DELETE"
                };
                self.tell(&key, version.as_deref(), "ObjectCreated:Put", kind, &object);
            }
            6..8 if self.versioned => {
                self.live.insert((key.clone(), version.clone()), None);
                self.tell(&key, version.as_deref(), "ObjectRemoved:DeleteMarkerCreated", "DELETE", "");
            }
            _ if self.versioned => {
                let versions: Vec<_> = self.live.keys().filter(|(other, _)| *other == key).cloned().collect();
                if let Some((_, version)) = versions.get(self.random.random_range(0..versions.len().max(1))).cloned() {
                    self.live.remove(&(key.clone(), version.clone()));
                    self.tell(&key, version.as_deref(), "ObjectRemoved:Delete", "DELETE", "");
                }
            }
            6..9 if is_there => {
                self.store.delete(&path).await.unwrap();
                self.live.remove(&(key.clone(), None));
                self.tell(&key, None, "ObjectRemoved:Delete", "DELETE", "");
            }
            // What this is about is looked at.
            _ => {
                let key = if self.touches { key } else { format!("elsewhere/{}", self.changes) };
                let encoded: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
                self.pending.push(format!(
                    r#"{{"eventSource":"aws:s3","eventName":"ObjectTagging:Put","eventTime":"2026-03-04T10:00:00Z","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{encoded}"}}}}}}"#
                ));
            }
        }
    }

    /// Some of what nobody got yet, of which some will come again, and some never does.
    fn deliver(&mut self, loses: bool) -> Vec<String> {
        self.pending.shuffle(&mut self.random);
        let number = self.random.random_range(0..=self.pending.len().min(40));
        let mut delivered = self.pending.split_off(self.pending.len() - number);
        if loses {
            delivered.retain(|_| self.random.random_bool(0.8));
        }
        for event in delivered.clone() {
            if self.random.random_bool(0.2) {
                self.pending.push(event.clone());
            }
            if self.random.random_bool(0.1) {
                delivered.push(event);
            }
        }
        delivered
    }
}

fn message(events: &[String]) -> String {
    format!(r#"{{"Records":[{}]}}"#, events.join(","))
}

async fn open(location: &FsPath, bucket: &Bucket, plan: &FaultPlan) -> Lakehouse {
    let store: Arc<dyn ObjectStore> = Arc::clone(&bucket.store) as _;
    let indexer = MetadataIndexer::default().with_object_store("s3://b", store);
    let lake = Lakehouse::builder(location.to_str().unwrap()).with_extension(Arc::new(indexer)).with_store_layer(plan.layer());
    lake.build().await.unwrap()
}

async fn inventory(lake: &Lakehouse) -> BTreeMap<Id, Option<i64>> {
    let mut found = BTreeMap::new();
    for batch in rows(lake, "SELECT key, version_id, is_delete_marker, size FROM i.inventory").await {
        let (keys, versions) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        let (markers, sizes) = (batch.column(2).as_boolean(), batch.column(3).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let version = versions.is_valid(row).then(|| versions.value(row).to_string());
            let size = (!markers.value(row)).then(|| sizes.value(row));
            let id = (keys.value(row).to_string(), version);
            assert!(found.insert(id.clone(), size).is_none(), "{id:?} is there twice");
        }
    }
    found
}

/// The journal, each row of which is there once; and how many rows are of what was found by looking.
async fn journal(lake: &Lakehouse, of: &str) -> (BTreeSet<Told>, usize) {
    let (mut told, mut found) = (BTreeSet::new(), HashMap::new());
    for batch in rows(lake, "SELECT key, version_id, sequence_number, record_type FROM i.journal").await {
        let text = |column: usize| batch.column(column).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let kind = ["CREATE", "DELETE", "UPDATE_METADATA"].into_iter().find(|kind| *kind == text(3).value(row)).unwrap();
            let version = text(1).is_valid(row).then(|| text(1).value(row).to_string());
            let (key, sequence) = (text(0).value(row).to_string(), text(2).value(row).to_string());
            if sequence.len() > 32 {
                let again = found.insert((key.clone(), version.clone(), sequence.clone()), kind);
                assert!(again.is_none(), "{of}: {key} {sequence} was found twice: {again:?} and {kind}");
            } else {
                let row = (key, version, sequence, kind);
                assert!(told.insert(row.clone()), "{of}: {row:?} is there twice");
            }
        }
    }
    (told, found.len())
}

/// What happens to events, and beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    AllCome,
    AllComeOfVersions,
    /// And the bucket is listed now and then.
    SomeAreLost,
    /// And the bucket is listed while they come.
    AllComeBesideListings,
}

async fn history(seed: u64, kind: Kind) {
    let (versioned, loses, lists) =
        (kind == Kind::AllComeOfVersions, kind == Kind::SomeAreLost, kind == Kind::AllComeBesideListings);
    let mut bucket = Bucket::new(seed, versioned, loses || lists);
    let scratch = tempfile::tempdir().unwrap();
    let plan = FaultPlan::default();
    let mut lake = open(scratch.path(), &bucket, &plan).await;
    if !versioned {
        for _ in 0..bucket.random.random_range(0..30) {
            bucket.change().await;
        }
        bucket.pending.clear();
        bucket.history.clear();
    }
    let fetch = if versioned || seed.is_multiple_of(2) { "none" } else { "metadata" };
    let max_size = bucket.max_size.to_string();
    let options = [("fetch", fetch), ("reconcile_every", "never"), ("max_size", &max_size)];
    let options = options.into_iter().try_fold(IndexOptions::default(), |options, (name, value)| options.with(name, value));
    let options = options.unwrap();
    let index = lake.create_metadata_index_with("i", "s3://b", &options).await.unwrap();
    index.stop().await;
    for _ in 0..bucket.random.random_range(3..15) {
        for _ in 0..bucket.random.random_range(0..40) {
            bucket.change().await;
        }
        let events = bucket.deliver(loses);
        let body = message(&events);
        let index = lake.metadata_index("i").await.unwrap();
        let at = bucket.random.random_range(1..40);
        match bucket.random.random_range(0..4) {
            0 => plan.arm(at, Fault::Fail),
            1 => plan.arm(at, Fault::LoseReply),
            2 => plan.arm(at, Fault::Stall),
            _ => {}
        }
        let reconciles = loses && bucket.random.random_bool(0.3);
        let beside = async {
            if lists {
                drop(index.reconcile().await);
            }
        };
        let applied = tokio::select! {
            (applied, ()) = async { tokio::join!(index.push(&body), beside) } => applied.is_ok(),
            () = async { plan.stalled().await; } => false,
        };
        if reconciles {
            tokio::select! {
                reconciled = index.reconcile() => drop(reconciled),
                () = async { plan.stalled().await; } => {}
            }
        }
        plan.disarm();
        plan.release();
        if !applied {
            // Nobody said that they arrived.
            bucket.pending.extend(events);
        }
        if bucket.random.random_bool(0.3) {
            drop(lake);
            lake = open(scratch.path(), &bucket, &plan).await;
        }
    }
    let index = lake.metadata_index("i").await.unwrap();
    if !loses {
        let mut rest = std::mem::take(&mut bucket.pending);
        rest.shuffle(&mut bucket.random);
        for events in rest.chunks(25) {
            let mut attempts = 0..3;
            while let Err(e) = index.push(&message(events)).await {
                // The first finds out how the last fault ended.
                assert!(attempts.next().is_some(), "seed {seed}: {}", e.report());
            }
        }
        let inventory = inventory(&lake).await;
        let other = |(id, _): &(&Id, &Option<i64>)| inventory.get(*id) != bucket.live.get(*id);
        if let Some((id, size)) = inventory.iter().chain(&bucket.live).find(other) {
            let columns = "sequence_number, record_type, size, record_timestamp";
            let of_key = format!("SELECT {columns} FROM i.journal WHERE key = '{}'", id.0);
            let rows = tarndb_testkit::naive::lines(&rows(&lake, &of_key).await);
            panic!("seed {seed}, {kind:?}: {id:?} is {size:?} in one of inventory and bucket; journal: {rows:#?}");
        }
        let (told, found) = journal(&lake, &format!("seed {seed}, {kind:?}")).await;
        assert_eq!(told, bucket.history, "seed {seed}, {kind:?}");
        assert!(found == 0 || lists, "seed {seed}, {kind:?}");
        if versioned {
            return;
        }
    }
    drop(index.reconcile().await);
    assert_eq!(index.reconcile().await.unwrap(), tarndb_metadata_indexer::Synced::default(), "seed {seed}");
    assert_eq!(inventory(&lake).await, bucket.live, "seed {seed} after a listing");
    let (told, _) = journal(&lake, &format!("seed {seed}, {kind:?}")).await;
    assert!(told.is_subset(&bucket.history), "seed {seed}: the journal has what never happened");
    for table in ["i.journal", "i.inventory"] {
        invariants::assert_referenced_files_exist(lake.storage(), &lake.table(table).await.unwrap()).await;
    }
}

async fn histories(kind: Kind) {
    let seeds = std::env::var("TARNDB_SEEDS").map_or(SEEDS, |number| number.parse().unwrap());
    for seed in 0..seeds {
        history(seed, kind).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_all_come() {
    histories(Kind::AllCome).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_versions_that_all_come() {
    histories(Kind::AllComeOfVersions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_which_some_are_lost() {
    histories(Kind::SomeAreLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_beside_listings() {
    histories(Kind::AllComeBesideListings).await;
}
