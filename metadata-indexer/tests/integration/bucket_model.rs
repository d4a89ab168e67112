//! Random changes of a bucket, of every second one with versions, told by events that come twice, late, in any order, or never, to an
//! index that fails and ends at random. What is told by all events is in the journal once; what a listing shows is in the inventory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path as FsPath;

use arrow::array::{Array, AsArray, MapArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tarndb_core::Lakehouse;
use tarndb_metadata_indexer::{MetadataIndexes, Synced};
use tarndb_testkit::{Fault, FaultPlan, invariants};

use crate::s3_server::{Pairs, S3Server, Version};
use crate::{builder, options, rows};

/// Histories that are tried, of each kind; `TARNDB_SEEDS` asks for more, `TARNDB_SEED` for a single one.
const SEEDS: u64 = 6;

/// Of a change: its key, version, sequence number, and what it was.
type Told = (String, Option<String>, String, &'static str);

/// Key and version.
type Id = (String, Option<String>);

/// What the inventory has of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// A version that says that it is deleted, since when in seconds since 1970.
    Marker { modified: i64 },
    Content {
        modified: i64,
        size: i64,
        e_tag: String,
        /// Where it is asked for, and events tell of all.
        tags: Option<Pairs>,
        metadata: Option<Pairs>,
        class: Option<String>,
    },
}

/// What an index asks of the store for each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fetch {
    tags: bool,
    metadata: bool,
}

/// A bucket that tells what happens in it.
struct Bucket {
    random: StdRng,
    store: S3Server,
    versioned: bool,
    /// Tells as Ceph does, which names only some of the versions that it makes, and shows what says that an object is deleted in
    /// listings only.
    is_ceph: bool,
    /// Whether some events tell of objects that are there, and not what happened.
    touches: bool,
    keys: usize,
    /// The size beyond which the index is not about an object.
    max_size: usize,
    /// When it all happens, in seconds since 1970.
    start: i64,
    changes: u64,
    /// Of changes since the index.
    history: BTreeSet<Told>,
    /// Events that nobody got yet.
    pending: Vec<String>,
}

impl Bucket {
    async fn new(seed: u64, touches: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let (versioned, is_ceph) = (seed % 2 == 1, seed % 5 > 2);
        // Of each there are four keys.
        let keys = [5, 50, 250][random.random_range(0..3)];
        // Long ago, or today.
        let start = if random.random_bool(0.5) { 1_772_619_072 } else { chrono::Utc::now().timestamp() };
        let max_size = if seed % 3 == 1 { 500 } else { 1000 };
        let (store, history, pending) = (S3Server::start(versioned).await, BTreeSet::new(), Vec::new());
        store.objects().hides_markers = is_ceph;
        Self { random, store, versioned, is_ceph, touches, keys, max_size, start, changes: 0, history, pending }
    }

    /// What there is of the objects that the index is about.
    fn live(&self, fetch: Fetch) -> BTreeMap<Id, State> {
        let objects = self.store.objects();
        let all = objects.versions.iter().flat_map(|(key, versions)| versions.iter().map(move |version| (key, version)));
        let is_kept = |(_, version): &(&String, &Version)| version.size <= self.max_size;
        let state = |(key, version): (&String, &Version)| {
            let modified = version.modified;
            let content = || State::Content {
                modified,
                size: version.size as i64,
                e_tag: version.e_tag.clone(),
                tags: fetch.tags.then(|| version.tags.clone()),
                metadata: fetch.metadata.then(|| version.metadata.clone()),
                class: fetch.metadata.then(|| version.class.to_string()),
            };
            ((key.clone(), version.id.clone()), if version.is_marker { State::Marker { modified } } else { content() })
        };
        all.filter(is_kept).map(state).collect()
    }

    fn pairs(&mut self) -> Pairs {
        let number = self.random.random_range(0..3);
        (0..number).map(|name| (format!("n{name}"), format!("é <{}>", self.random.random_range(0..3)))).collect()
    }

    /// A number that grows, as the store tells it and as the journal has it.
    fn next_sequence(&mut self) -> (String, String) {
        self.changes += 1;
        let number = 0x0065_0000_0000_0000 + self.changes * 3;
        if self.is_ceph {
            let (seconds, nanos) = ((number >> 32) as u32, number as u32);
            return (format!("{:08X}{:08X}", seconds.swap_bytes(), nanos.swap_bytes()), format!("{number:016X}"));
        }
        // Of a length that does not matter.
        let more = ["", "5", "07"][self.random.random_range(0..3)];
        let told = format!("{number:016X}{more}");
        let kept = format!("{:0<16}", told.trim_end_matches('0'));
        (told, kept)
    }

    fn tell(&mut self, key: &str, version: Option<&str>, event: &str, kind: &'static str, object: &str) {
        let (sequence, kept) = self.next_sequence();
        let nanos = self.random.random_range(0..1_000_000_000);
        let time = chrono::DateTime::from_timestamp(self.start + self.changes as i64, nanos).unwrap().to_rfc3339();
        let is_unnamed = self.is_ceph && ["ObjectCreated:Copy", "ObjectRemoved:DeleteMarkerCreated"].contains(&event);
        let named = if is_unnamed { None } else { version };
        self.send(event, key, named, &time, &format!(r#","sequencer":"{sequence}"{object}"#));
        // What made a version that is not named is found by looking.
        if named == version {
            self.history.insert((key.to_string(), version.map(str::to_string), kept, kind));
        }
    }

    /// Tells that something was done to an object, and nothing more.
    fn tell_of(&mut self, event: &str, key: &str, version: Option<&str>) {
        self.send(event, key, version, "2026-03-04T10:00:00Z", "");
    }

    fn send(&mut self, event: &str, key: &str, version: Option<&str>, time: &str, object: &str) {
        let source = if self.is_ceph { "ceph:s3" } else { "aws:s3" };
        // Ceph does not encode keys, and has a place for versions that it does not name.
        let encoded = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
        let key: String = if self.is_ceph { key.to_string() } else { encoded };
        let version = version.or(self.is_ceph.then_some(""));
        let version_id = version.map(|version| format!(r#","versionId":"{version}""#)).unwrap_or_default();
        self.pending.push(format!(
            r#"{{"eventSource":"{source}","eventName":"{event}","eventTime":"{time}","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{key}"{version_id}{object}}}}}}}"#
        ));
    }

    fn change(&mut self) {
        let number = self.random.random_range(0..self.keys);
        let key = match self.random.random_range(0..4) {
            // Such keys have many buckets, and few libraries.
            3 => format!("k//{number}/"),
            folder => format!("k {folder}/+{number}%"),
        };
        let version = self.versioned.then(|| format!("v{}", self.changes));
        let is_there = self.store.objects().versions.contains_key(&key);
        match self.random.random_range(0..12) {
            0..6 => {
                let (size, e_tag) = (self.random.random_range(0..1000), format!("{:032x}", self.changes));
                let (tags, metadata) = (self.pairs(), Pairs::from([("colour".to_string(), format!("c{}", self.changes % 3))]));
                let object = format!(r#","size":{size},"eTag":"{e_tag}""#);
                let modified = self.start + self.changes as i64 + 1;
                let put = Version { id: version.clone(), size, e_tag, metadata, tags, modified, ..Version::default() };
                self.store.objects().put(&key, put);
                let kind = if size <= self.max_size { "CREATE" } else { "DELETE" };
                self.tell(&key, version.as_deref(), "ObjectCreated:Put", kind, &object);
            }
            6 if self.versioned => {
                let modified = self.start + self.changes as i64 + 1;
                let marker = Version { id: version.clone(), is_marker: true, modified, ..Version::default() };
                self.store.objects().put(&key, marker);
                self.tell(&key, version.as_deref(), "ObjectRemoved:DeleteMarkerCreated", "DELETE", "");
            }
            // Of a version for good, also of one that says that the object is deleted, which brings it back.
            7 if self.versioned && is_there => {
                let versions = self.store.objects().versions.get(&key).cloned().unwrap_or_default();
                let version = &versions[self.random.random_range(0..versions.len())];
                self.store.objects().remove(&key, version.id.as_deref());
                self.tell(&key, version.id.as_deref(), "ObjectRemoved:Delete", "DELETE", "");
            }
            6..8 if !self.versioned && is_there => {
                self.store.objects().remove(&key, None);
                self.tell(&key, None, "ObjectRemoved:Delete", "DELETE", "");
            }
            8 if is_there => {
                let tags = self.pairs();
                let mut changed = None;
                if let Some(newest) = self.store.objects().versions.get_mut(&key).and_then(|versions| versions.last_mut())
                    && !newest.is_marker
                {
                    newest.tags = tags;
                    changed = Some(newest.id.clone());
                }
                if let Some(id) = changed {
                    self.tell_of("ObjectTagging:Put", &key, id.as_deref());
                }
            }
            // To another class, or onto itself, which is how metadata is changed: of the same content.
            kind @ (9 | 10) if is_there => {
                let newest = self.store.objects().versions.get(&key).and_then(|versions| versions.last().cloned());
                let Some(mut newest) = newest.filter(|newest| !newest.is_marker && newest.size <= self.max_size) else { return };
                if kind == 9 {
                    newest.class = ["GLACIER", "STANDARD_IA", "STANDARD"][self.random.random_range(0..3)];
                    let id = newest.id.clone();
                    self.store.objects().remove(&key, id.as_deref());
                    self.store.objects().put(&key, newest);
                    self.tell_of("LifecycleTransition", &key, id.as_deref());
                } else {
                    newest.id = version.clone();
                    newest.modified = self.start + self.changes as i64 + 1;
                    newest.metadata = [("colour".to_string(), format!("d{}", self.changes))].into();
                    let object = format!(r#","size":{},"eTag":"{}""#, newest.size, newest.e_tag);
                    self.store.objects().put(&key, newest);
                    self.tell(&key, version.as_deref(), "ObjectCreated:Copy", "CREATE", &object);
                }
            }
            // What this is about is looked at.
            _ => {
                let key = if self.touches { key } else { format!("elsewhere/{}", self.changes) };
                self.tell_of("ObjectTagging:Put", &key, None);
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

async fn open(location: &FsPath, plan: &FaultPlan) -> Lakehouse {
    builder(location.to_str().unwrap()).with_store_layer(plan.layer()).build().await.unwrap()
}

fn pairs(maps: &MapArray, row: usize) -> Pairs {
    let entries = maps.value(row);
    let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
    (0..entries.len()).map(|entry| (names.value(entry).to_string(), values.value(entry).to_string())).collect()
}

/// The columns of which [`states`] are made.
const STATE: &str =
    "key, version_id, is_delete_marker, size, e_tag, object_tags, user_metadata, storage_class, last_modified_date";

/// What rows say of objects, in their order; `None` of those that are gone.
fn states(batches: &[RecordBatch], fetch: Fetch) -> Vec<(Id, Option<State>)> {
    let mut found = Vec::new();
    for batch in batches {
        let text = |column: usize| batch.column(column).as_string::<i32>();
        let (keys, versions, e_tags, classes) = (text(0), text(1), text(4), text(7));
        let (markers, sizes) = (batch.column(2).as_boolean(), batch.column(3).as_primitive::<Int64Type>());
        let (tags, metadata) = (batch.column(5).as_map(), batch.column(6).as_map());
        let times = batch.column(8).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let version = versions.is_valid(row).then(|| versions.value(row).to_string());
            // None is long before all.
            let modified = times.value(row).div_euclid(1_000_000);
            let content = || State::Content {
                modified,
                size: sizes.value(row),
                e_tag: e_tags.value(row).to_string(),
                tags: fetch.tags.then(|| pairs(tags, row)),
                metadata: fetch.metadata.then(|| pairs(metadata, row)),
                class: fetch.metadata.then(|| classes.value(row).to_string()),
            };
            let state = markers.is_valid(row).then(|| if markers.value(row) { State::Marker { modified } } else { content() });
            found.push(((keys.value(row).to_string(), version), state));
        }
    }
    found
}

async fn inventory(lake: &Lakehouse, fetch: Fetch) -> BTreeMap<Id, State> {
    let mut found = BTreeMap::new();
    for (id, state) in states(&rows(lake, &format!("SELECT {STATE} FROM i.inventory")).await, fetch) {
        assert!(found.insert(id.clone(), state.unwrap()).is_none(), "{id:?} is there twice");
    }
    found
}

/// What there is after the changes of the journal, in the order of each object's sequence numbers: of what was there before them.
async fn replayed(lake: &Lakehouse, mut objects: BTreeMap<Id, State>, fetch: Fetch) -> BTreeMap<Id, State> {
    let changes = format!("SELECT {STATE} FROM i.journal ORDER BY key, version_id, sequence_number");
    for (id, state) in states(&rows(lake, &changes).await, fetch) {
        match state {
            Some(state) => drop(objects.insert(id, state)),
            None => drop(objects.remove(&id)),
        }
    }
    objects
}

/// What the journal has of what was told, each row of which is there once, as are those of what was found by looking.
async fn journal(lake: &Lakehouse, of: &str) -> BTreeSet<Told> {
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
    told
}

/// What happens to events, and beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    AllCome,
    /// And the bucket is listed now and then.
    SomeAreLost,
    /// And the bucket is listed while they come.
    AllComeBesideListings,
}

async fn history(seed: u64, kind: Kind) {
    let (loses, lists) = (kind == Kind::SomeAreLost, kind == Kind::AllComeBesideListings);
    let mut bucket = Bucket::new(seed, loses || lists).await;
    let scratch = tempfile::tempdir().unwrap();
    let plan = FaultPlan::default();
    let mut lake = open(scratch.path(), &plan).await;
    for _ in 0..bucket.random.random_range(0..30) {
        bucket.change();
    }
    bucket.pending.clear();
    bucket.history.clear();
    let (fetched, tags, metadata) =
        [("none", false, false), ("metadata", false, true), ("metadata,tags", true, true)][bucket.random.random_range(0..3)];
    let fetch = Fetch { tags, metadata };
    let (max_size, endpoint) = (bucket.max_size.to_string(), bucket.store.endpoint());
    let options = options(&[("fetch", fetched), ("max_size", &max_size), ("endpoint", &endpoint), ("region", "x")]);
    let index = lake.create_metadata_index_with("i", "s3://b", &options).await.unwrap();
    index.stop().await;
    let before = inventory(&lake, fetch).await;
    // So that most of a thousand keys change more than once.
    let (most, at_once) = if bucket.keys == 250 { (400, 250) } else { (40, 25) };
    for _ in 0..bucket.random.random_range(3..15) {
        for _ in 0..bucket.random.random_range(0..most) {
            bucket.change();
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
            lake = open(scratch.path(), &plan).await;
        }
    }
    let index = lake.metadata_index("i").await.unwrap();
    if !loses {
        let mut rest = std::mem::take(&mut bucket.pending);
        rest.shuffle(&mut bucket.random);
        for events in rest.chunks(at_once) {
            let mut attempts = 0..3;
            while let Err(e) = index.push(&message(events)).await {
                // The first finds out how the last fault ended.
                assert!(attempts.next().is_some(), "seed {seed}: {}", e.report());
            }
        }
        let (inventory, live) = (inventory(&lake, fetch).await, bucket.live(fetch));
        let other = |(id, _): &(&Id, &State)| inventory.get(*id) != live.get(*id);
        if let Some((id, _)) = inventory.iter().chain(&live).find(other) {
            let columns = "sequence_number, record_type, version_id, size, object_tags, record_timestamp";
            let of_key = format!("SELECT {columns} FROM i.journal WHERE key = '{}'", id.0);
            let rows = tarndb_testkit::naive::lines(&rows(&lake, &of_key).await);
            let (known, is) = (inventory.get(id), live.get(id));
            panic!("seed {seed}, {kind:?}: {id:?} is {known:?} in the inventory, {is:?} in the bucket; journal: {rows:#?}");
        }
        let told = journal(&lake, &format!("seed {seed}, {kind:?}")).await;
        assert_eq!(told, bucket.history, "seed {seed}, {kind:?}");
    }
    let changes = async || index.status().await.unwrap().changes;
    let before_it = changes().await;
    // It may find out how the last fault ended.
    if let Ok(Synced { created, overwritten, deleted }) = index.reconcile().await {
        assert_eq!(changes().await - before_it, created + overwritten + deleted, "seed {seed}: what is in the journal of it");
    }
    assert_eq!(index.reconcile().await.unwrap(), Synced::default(), "seed {seed}");
    assert_eq!(
        replayed(&lake, before, fetch).await,
        inventory(&lake, fetch).await,
        "seed {seed}, {kind:?}: what the journal makes"
    );
    // A listing tells of no tags.
    let listed = Fetch { tags: false, ..fetch };
    assert_eq!(inventory(&lake, listed).await, bucket.live(listed), "seed {seed} after a listing");
    let told = journal(&lake, &format!("seed {seed}, {kind:?}")).await;
    assert!(told.is_subset(&bucket.history), "seed {seed}: the journal has what never happened");
    for table in ["i.journal", "i.inventory"] {
        invariants::assert_referenced_files_exist(lake.storage(), &lake.table(table).await.unwrap()).await;
    }
}

async fn histories(kind: Kind) {
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let seeds = match number("TARNDB_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TARNDB_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        history(seed, kind).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_all_come() {
    histories(Kind::AllCome).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_which_some_are_lost() {
    histories(Kind::SomeAreLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_beside_listings() {
    histories(Kind::AllComeBesideListings).await;
}
