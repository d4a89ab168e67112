//! Indexes of buckets, whose stores are in memory.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};
use tarndb_core::{Clock, ErrorKind, Lakehouse};
use tarndb_metadata_indexer::{EventCounts, EventHook, IndexState, MetadataIndexer, MetadataIndexes, ObjectEvent, Synced};
use tarndb_testkit::naive::lines;
use tokio::sync::Semaphore;

use crate::s3_server::{Pairs, S3Server, Version};
use crate::{builder, options, rows};

async fn lake_with(store: &Arc<InMemory>) -> Lakehouse {
    lake_at("memory://", store).await
}

async fn lake_at(location: &str, store: &Arc<InMemory>) -> Lakehouse {
    let indexer = MetadataIndexer::default().with_object_store("gs://photos", Arc::clone(store) as _);
    Lakehouse::builder(location).with_extension(Arc::new(indexer)).build().await.unwrap()
}

async fn put(store: &InMemory, key: &str, size: usize) {
    let attributes = Attributes::from_iter([(Attribute::Metadata("Colour".into()), "red")]);
    let options = PutOptions { attributes, ..PutOptions::default() };
    store.put_opts(&Path::parse(key).unwrap(), vec![b'x'; size].into(), options).await.unwrap();
}

pub(crate) fn created(bucket: &str, key: &str, sequence: u32, size: u32) -> String {
    let time = chrono::Utc::now().to_rfc3339();
    format!(
        r#"{{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","eventTime":"{time}","s3":{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"{key}","size":{size},"eTag":"{sequence}","sequencer":"{sequence:016X}"}}}}}}"#
    )
}

pub(crate) fn message(events: &[String]) -> String {
    format!(r#"{{"Records":[{}]}}"#, events.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_bucket_is_listed_and_told_of() {
    let store = Arc::new(InMemory::new());
    for (key, size) in [("img/a.png", 1), ("img/b it's.png", 2), ("imgs", 3), ("other/c", 4)] {
        put(&store, key, size).await;
    }
    let lake = lake_with(&store).await;
    rows(&lake, "CREATE METADATA INDEX i ON 'gs://photos/img/' WITH (reconcile_every = 'never')").await;
    let shown = "SELECT bucket, key, size, sequence_number, user_metadata['colour'] FROM i.inventory ORDER BY key";
    let first = ["photos|img/a.png|1|0000000000000000|red", "photos|img/b it's.png|2|0000000000000000|red"];
    assert_eq!(lines(&rows(&lake, shown).await), first);
    let index = lake.metadata_index("i").await.unwrap();
    let status = index.status().await.unwrap();
    assert_eq!((status.state, status.source.as_str(), status.objects), (IndexState::Active, "gs://photos/img", 2));

    let events = [
        created("photos", "img/new", 7, 5),
        created("photos", "img/new", 9, 6),
        created("photos", "img/new", 7, 5),
        created("photos", "elsewhere", 8, 6),
        created("videos", "img/x", 8, 6),
        "{}".to_string(),
    ];
    let counts = EventCounts { received: 6, applied: 2, duplicates: 1, ignored: 1, dead: 2, late: 0 };
    assert_eq!(index.push(&message(&events)).await.unwrap(), counts);
    // Late, and then again.
    let late = [created("photos", "img/new", 8, 1)];
    assert_eq!(
        index.push(&message(&late)).await.unwrap(),
        EventCounts { received: 1, applied: 1, late: 1, ..EventCounts::default() }
    );
    let again = EventCounts { received: 1, duplicates: 1, ..EventCounts::default() };
    assert_eq!(index.push(&message(&late)).await.unwrap(), again);
    assert_eq!(index.push(&message(&events[..1])).await.unwrap(), again);
    let new = "SELECT size FROM i.inventory WHERE key = 'img/new'";
    assert_eq!(lines(&rows(&lake, new).await), ["6"]);
    let journal = "SELECT key, size FROM i.journal";
    assert_eq!(lines(&rows(&lake, journal).await), ["img/new|1", "img/new|5", "img/new|6"]);
    let dead = lines(&rows(&lake, "SELECT reason, body FROM i.dead_letters ORDER BY reason").await);
    assert!(dead[0].contains("eventName") && dead[1].contains("`videos`"), "{dead:?}");

    // It never was in the bucket.
    assert_eq!(index.reconcile().await.unwrap(), Synced { deleted: 1, ..Synced::default() });
    assert_eq!(lines(&rows(&lake, shown).await), first);
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    assert_eq!(index.push("{").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    rows(&lake, "DROP METADATA INDEX i").await;
    assert!(!lake.namespaces().await.unwrap().contains(&"i".to_string()), "dead letters go with their index");
    lake.close().await;
}

/// Snapshots of the inventory say of which of the journal they are.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_inventory_is_read_with_its_journal() {
    let lake = lake_with(&Arc::new(InMemory::new())).await;
    rows(&lake, "CREATE METADATA INDEX i ON 'gs://photos' WITH (reconcile_every = 'never')").await;
    let index = lake.metadata_index("i").await.unwrap();
    for batch in 1..=3 {
        index.push(&message(&[created("photos", &format!("{batch}"), 1, batch)])).await.unwrap();
    }
    let told = |table: &str, name: &str| {
        let name = format!("summary['tarndb.metadata-index.{name}']");
        format!("SELECT snapshot_id, {name} FROM i.\"{table}$snapshots\" WHERE {name} IS NOT NULL")
    };
    let pairs = lines(&rows(&lake, &told("inventory", "journal-snapshot-id")).await);
    let mut batches = Vec::new();
    for (inventory, journal) in pairs.iter().map(|pair| pair.split_once('|').unwrap()) {
        let read = async |table: &str, snapshot: &str| {
            let keys = lines(&rows(&lake, &format!("SELECT count(*) FROM i.{table} FOR VERSION AS OF {snapshot}")).await);
            let told = lines(&rows(&lake, &told(table, "batch")).await);
            assert!(told.contains(&format!("{snapshot}|{}", keys[0])), "{told:?}");
            keys[0].clone()
        };
        batches.push(read("inventory", inventory).await);
        assert_eq!(batches.last(), Some(&read("journal", journal).await));
    }
    batches.sort();
    assert_eq!(batches, ["1", "2", "3"]);
    lake.close().await;
}

/// Of other keys neither listings nor events make rows.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_about_keys_that_end_as_it_says() {
    let store = Arc::new(InMemory::new());
    for key in ["a.png", "b.PNG", "c/d.jpg", "c/d.jpg.tmp", ".png/e"] {
        put(&store, key, 1).await;
    }
    let lake = lake_with(&store).await;
    rows(&lake, "CREATE METADATA INDEX i ON 'gs://photos' WITH (suffix = '.png, .jpg', reconcile_every = 'never')").await;
    let keys = "SELECT key FROM i.inventory ORDER BY key";
    assert_eq!(lines(&rows(&lake, keys).await), ["a.png", "c/d.jpg"]);
    let index = lake.metadata_index("i").await.unwrap();
    put(&store, "f.png", 3).await;
    put(&store, "f.tmp", 3).await;
    let events = [created("photos", "f.png", 7, 3), created("photos", "f.tmp", 8, 3)];
    let counts = EventCounts { received: 2, applied: 1, ignored: 1, ..EventCounts::default() };
    assert_eq!(index.push(&message(&events)).await.unwrap(), counts);
    assert_eq!(lines(&rows(&lake, keys).await), ["a.png", "c/d.jpg", "f.png"]);
    put(&store, "g.jpg", 1).await;
    put(&store, "g.txt", 1).await;
    // The tag of an event's object is the event's own here, so that it is another by the listing.
    let synced = index.reconcile().await.unwrap();
    assert_eq!((synced.created, synced.deleted), (1, 0));
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    assert_eq!(lines(&rows(&lake, keys).await), ["a.png", "c/d.jpg", "f.png", "g.jpg"]);
    lake.close().await;
}

/// Objects of other sizes are not there, in whatever order it is told of them, and what becomes one of them leaves.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_about_objects_of_the_sizes_that_it_says() {
    let store = Arc::new(InMemory::new());
    for (key, size) in [("small", 1), ("a", 10), ("b", 100), ("large", 101)] {
        put(&store, key, size).await;
    }
    let scratch = tempfile::tempdir().unwrap();
    let location = scratch.path().to_str().unwrap();
    let lake = lake_at(location, &store).await;
    let options = "min_size = '10', max_size = '100', reconcile_every = 'never', fetch = 'none'";
    rows(&lake, &format!("CREATE METADATA INDEX i ON 'gs://photos' WITH ({options})")).await;
    let inventory = "SELECT key, size FROM i.inventory ORDER BY key";
    let journal = "SELECT key, sequence_number, record_type FROM i.journal ORDER BY key, sequence_number";
    assert_eq!(lines(&rows(&lake, inventory).await), ["a|10", "b|100"]);
    let index = lake.metadata_index("i").await.unwrap();
    let event = |key: &str, sequence: u32, size: u32| created("photos", key, sequence, size);
    // It comes and leaves; it leaves; it was never there, and what was before that is told late; it comes after all.
    let first = [event("c", 1, 50), event("c", 2, 500), event("a", 3, 5), event("d", 5, 5), event("e", 6, 5)];
    let counts = EventCounts { received: 5, applied: 5, ..EventCounts::default() };
    assert_eq!(index.push(&message(&first)).await.unwrap(), counts);
    drop(index);
    lake.close().await;
    // By another process.
    let lake = lake_at(location, &store).await;
    let index = lake.metadata_index("i").await.unwrap();
    let second = [event("d", 4, 50), event("e", 7, 50), event("c", 2, 500), event("e", 6, 5)];
    let counts = EventCounts { received: 4, applied: 2, duplicates: 2, late: 1, ..EventCounts::default() };
    assert_eq!(index.push(&message(&second)).await.unwrap(), counts);
    assert_eq!(lines(&rows(&lake, inventory).await), ["b|100", "e|50"]);
    let told = |key: &str, number: u32, kind: &str| format!("{key}|{number:016X}|{kind}");
    let expected = [
        told("a", 3, "DELETE"),
        told("c", 1, "CREATE"),
        told("c", 2, "DELETE"),
        told("d", 4, "CREATE"),
        told("d", 5, "DELETE"),
        told("e", 6, "DELETE"),
        told("e", 7, "CREATE"),
    ];
    assert_eq!(lines(&rows(&lake, journal).await), expected);
    // A listing sees the same: what events told is not so in this store.
    for (key, size) in [("b", 1), ("f", 20), ("g", 2000), ("e", 50)] {
        put(&store, key, size).await;
    }
    index.reconcile().await.unwrap();
    assert_eq!(lines(&rows(&lake, inventory).await), ["a|10", "e|50", "f|20"]);
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    // An event that does not tell, and the object has another size by now.
    put(&store, "f", 2).await;
    let touched = event("f", 0, 0).replace("ObjectCreated:Put", "ObjectTagging:Put");
    index.push(&message(&[touched])).await.unwrap();
    assert_eq!(lines(&rows(&lake, inventory).await), ["a|10", "e|50"]);
    lake.close().await;
}

/// What other events tell is found by the next listing.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_heeds_the_events_that_it_says() {
    let store = Arc::new(InMemory::new());
    put(&store, "a", 1).await;
    put(&store, "b", 1).await;
    let lake = lake_with(&store).await;
    let options = "event_kinds = 'created', reconcile_every = 'never', fetch = 'none'";
    rows(&lake, &format!("CREATE METADATA INDEX i ON 'gs://photos' WITH ({options})")).await;
    let index = lake.metadata_index("i").await.unwrap();
    store.delete(&Path::from("a")).await.unwrap();
    put(&store, "c", 3).await;
    let event = |key: &str, sequence: u32, what: &str| created("photos", key, sequence, 3).replace("ObjectCreated:Put", what);
    let events = [
        event("a", 7, "ObjectRemoved:Delete"),
        event("b", 8, "ObjectTagging:Put"),
        event("c", 9, "ObjectCreated:Copy"),
        event("b", 9, "ObjectRemoved:DeleteMarkerCreated"),
    ];
    let counts = EventCounts { received: 4, applied: 1, ignored: 3, ..EventCounts::default() };
    assert_eq!(index.push(&message(&events)).await.unwrap(), counts);
    let keys = "SELECT key FROM i.inventory ORDER BY key";
    assert_eq!(lines(&rows(&lake, keys).await), ["a", "b", "c"]);
    assert_eq!(index.reconcile().await.unwrap().deleted, 1);
    assert_eq!(lines(&rows(&lake, keys).await), ["b", "c"]);
    lake.close().await;
}

/// A deletion is remembered since it was noticed, whatever the event says that led to it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_gone_by_an_old_event_stays_known() {
    let (store, scratch) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let location = scratch.path().to_str().unwrap();
    let lake = lake_at(location, &store).await;
    let options = options(&[("fetch", "none")]);
    let index = lake.create_metadata_index_with("i", "gs://photos", &options).await.unwrap();
    let create = message(&[created("photos", "a", 7, 5)]);
    assert_eq!(index.push(&create).await.unwrap().applied, 1);
    let tagged = r#"{"eventSource":"aws:s3","eventName":"ObjectTagging:Put","eventTime":"2026-03-04T10:00:00Z","s3":{"bucket":{"name":"photos"},"object":{"key":"a"}}}"#;
    assert_eq!(index.push(&message(&[tagged.to_string()])).await.unwrap().applied, 1, "it is not there");
    lake.close().await;

    let lake = lake_at(location, &store).await;
    let index = lake.metadata_index("i").await.unwrap();
    let again = EventCounts { received: 1, duplicates: 1, ..EventCounts::default() };
    assert_eq!(index.push(&create).await.unwrap(), again);
    let journal = "SELECT key, record_type, size FROM i.journal";
    assert_eq!(lines(&rows(&lake, journal).await), ["a|CREATE|5", "a|DELETE|NULL"]);
    lake.close().await;
}

/// What an event does not tell is asked for, and what it says happened is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_looked_at() {
    let store = Arc::new(InMemory::new());
    let lake = lake_with(&store).await;
    let options = options(&[]);
    let index = lake.create_metadata_index_with("i", "gs://photos", &options).await.unwrap();
    put(&store, "a", 3).await;
    let touched = |key: &str| {
        format!(
            r#"{{"key":"/buckets/photos/{key}","message":{{"new_entry":{{"name":"{key}"}},"new_parent_path":"/buckets/photos"}}}}"#
        )
    };
    let both = format!("[{}, {}]", touched("a"), touched("missing"));
    let counts = EventCounts { received: 2, applied: 1, duplicates: 1, ..EventCounts::default() };
    assert_eq!(index.push(&both).await.unwrap(), counts);
    assert_eq!(index.push(&touched("a")).await.unwrap().applied, 0, "nothing happened since");
    let shown = "SELECT key, size, user_metadata['colour'] FROM i.inventory";
    assert_eq!(lines(&rows(&lake, shown).await), ["a|3|red"]);
    put(&store, "a", 4).await;
    assert_eq!(index.push(&touched("a")).await.unwrap().applied, 1);
    assert_eq!(lines(&rows(&lake, shown).await), ["a|4|red"]);
    store.delete(&Path::from("a")).await.unwrap();
    assert_eq!(index.push(&touched("a")).await.unwrap().applied, 1);
    assert!(lines(&rows(&lake, shown).await).is_empty());
    let kinds = "SELECT record_type FROM i.journal ORDER BY sequence_number";
    assert_eq!(lines(&rows(&lake, kinds).await), ["CREATE", "CREATE", "DELETE"]);
    lake.close().await;
}

/// There is upkeep although no process writes often.
#[tokio::test(flavor = "multi_thread")]
async fn upkeep_by_processes_that_write_once() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::new(InMemory::new());
    let open = || lake_at(scratch.path().to_str().unwrap(), &store);
    let options = options(&[("fetch", "none"), ("journal_retention", "30 days")]);
    open().await.create_metadata_index_with("i", "gs://photos", &options).await.unwrap().stop().await;
    for change in 1..=40 {
        let index = open().await.metadata_index("i").await.unwrap();
        assert_eq!(index.push(&message(&[created("photos", "a", change, change)])).await.unwrap().applied, 1);
    }
    let lake = open().await;
    let files: usize = lines(&rows(&lake, "SELECT count(*) FROM i.\"journal$files\"").await)[0].parse().unwrap();
    assert!(files <= 20, "{files} files of the journal");
    assert_eq!(lines(&rows(&lake, "SELECT count(*) FROM i.journal").await), ["40"]);
    assert_eq!(lines(&rows(&lake, "SELECT size FROM i.inventory").await), ["40"]);
}

/// Objects that the store does not tell of are indexed as far as their events tell.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_cannot_be_looked_at() {
    let store = Arc::new(InMemory::new());
    put(&store, "a", 1).await;
    let lake = lake_with(&store).await;
    let options = options(&[]);
    let index = lake.create_metadata_index_with("i", "gs://photos", &options).await.unwrap();
    // `object_store` takes no such keys.
    let events = [created("photos", "folder/", 7, 5), created("photos", "x//y", 8, 6)];
    assert_eq!(index.push(&message(&events)).await.unwrap().applied, 2);
    let touched = r#"{"key":"/buckets/photos/z//y","message":{"new_entry":{"name":"y"},"new_parent_path":"/buckets/photos/z/"}}"#;
    assert_eq!(index.push(touched).await.unwrap().dead, 1);
    assert!(index.status().await.unwrap().last_error.unwrap().contains("z//y"));
    let keys = "SELECT key FROM i.inventory";
    assert_eq!(lines(&rows(&lake, keys).await), ["a", "folder/", "x//y"]);
    assert_eq!(index.reconcile().await.unwrap(), Synced::default(), "what cannot be looked at is not taken for gone");
    // What no time is stops nothing.
    let long = message(&[created("photos", &"k".repeat(4097), 9, 1)]);
    assert_eq!(index.push(&long).await.unwrap().dead, 1);
    let odd = message(&[created("photos", "b", 9, 1), created("photos", "c", 9, 1)]);
    let time = odd.split("\"eventTime\":\"").nth(1).unwrap().split('"').next().unwrap();
    let counts = index.push(&odd.replacen(time, "0001-01-01T00:00:00Z", 1)).await.unwrap();
    assert_eq!((counts.applied, counts.dead), (1, 1));
    lake.close().await;
}

/// One object of which the store says nothing, whoever asks how often, holds up nothing; a store that says nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_for_ever() {
    let server = S3Server::start(false).await;
    // Events have the sequence number as the tag of a content.
    let put = |key: &str, size: usize, sequence: u32| {
        let (e_tag, tags) = (sequence.to_string(), Pairs::from([("cat".to_string(), "yes".to_string())]));
        server.objects().put(key, Version { size, e_tag, tags, ..Version::default() });
    };
    put("broken", 1, 1);
    put("sound", 2, 2);
    server.objects().broken.insert("broken".to_string());
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x")]);
    let index = lake.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    let shown = "SELECT key, size, object_tags['cat'] FROM i.inventory ORDER BY key";
    assert_eq!(lines(&rows(&lake, shown).await), ["broken|1|NULL", "sound|2|yes"]);
    let error = index.status().await.unwrap().last_error.unwrap();
    assert!(error.contains("broken"), "{error}");
    // What is told of it is heeded, and of what is only touched, nothing is known.
    put("broken", 3, 5);
    put("sound", 4, 6);
    let events = [created("photos", "broken", 5, 3), created("photos", "sound", 6, 4)];
    let counts = index.push(&message(&events)).await.unwrap();
    assert_eq!((counts.applied, counts.dead), (2, 0));
    let tagged = created("photos", "broken", 7, 3).replace("ObjectCreated:Put", "ObjectTagging:Put");
    assert_eq!(index.push(&message(&[tagged])).await.unwrap().dead, 1);
    assert_eq!(lines(&rows(&lake, shown).await), ["broken|3|NULL", "sound|4|yes"]);
    // The listing tells of its storage class.
    assert_eq!(index.reconcile().await.unwrap(), Synced { overwritten: 1, ..Synced::default() });
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    // It is asked for until it answers.
    server.objects().broken.clear();
    assert_eq!(index.reconcile().await.unwrap(), Synced { overwritten: 1, ..Synced::default() });
    assert_eq!(lines(&rows(&lake, shown).await), ["broken|3|yes", "sound|4|yes"]);
    assert_eq!(index.status().await.unwrap().last_error, None);
    // Nobody answers: it is not the object.
    drop(server);
    let error = index.push(&message(&[created("photos", "sound", 8, 5)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(lines(&rows(&lake, shown).await), ["broken|3|yes", "sound|4|yes"]);
}

/// Of objects for which a store asks for patience, the others do not wait, and none is asked for again that answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_asks_for_patience_gets_it() {
    const OBJECTS: usize = 200;
    let server = S3Server::start(false).await;
    let key = |number: usize| format!("{number:03}");
    for number in 0..OBJECTS {
        server.objects().put(&key(number), Version { size: number, e_tag: "1".to_string(), ..Version::default() });
    }
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x")]);
    // More often than the client asks.
    server.objects().busy = (0..OBJECTS).step_by(50).map(|number| (key(number), 4)).collect();
    let index = lake.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    assert_eq!(index.status().await.unwrap().objects, OBJECTS as u64);
    let asked = server.objects().asked.clone();
    let often = |number: usize| if number.is_multiple_of(50) { 6 } else { 2 };
    let unlike = (0..OBJECTS).filter(|number| asked.get(&key(*number)) != Some(&often(*number))).count();
    assert_eq!(unlike, 0, "for it and for its tags, and where patience was asked for, four times more: {asked:?}");
    lake.close().await;
}

/// An object from before there were versions has tags of its own.
#[tokio::test(flavor = "multi_thread")]
async fn versions_have_their_own_tags() {
    let server = S3Server::start(true).await;
    let put = |id: Option<&str>, team: &str| {
        let tags = Pairs::from([("team".to_string(), team.to_string())]);
        let version = Version { id: id.map(str::to_string), e_tag: team.to_string(), tags, size: 1, ..Version::default() };
        server.objects().put("a", version);
    };
    put(None, "blue");
    put(Some("v1"), "red");
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x")]);
    let index = lake.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    let shown = "SELECT version_id, object_tags['team'] FROM i.inventory ORDER BY version_id NULLS FIRST";
    assert_eq!(lines(&rows(&lake, shown).await), ["NULL|blue", "v1|red"]);
    server.objects().put("a", Version { id: Some("v2".to_string()), is_marker: true, ..Version::default() });
    index.reconcile().await.unwrap();
    assert_eq!(lines(&rows(&lake, shown).await), ["NULL|blue", "v1|red", "v2|NULL"]);
    assert_eq!(index.status().await.unwrap().last_error, None);
    lake.close().await;
}

/// As by Ceph, which does not name some versions, and does not tell of those that say that an object is deleted, but in listings.
#[tokio::test(flavor = "multi_thread")]
async fn versions_of_which_little_is_told() {
    let server = S3Server::start(true).await;
    server.objects().hides_markers = true;
    let put = |key: &str, id: Option<&str>, is_marker: bool| {
        let e_tag = id.unwrap_or("old").to_string();
        let version = Version { id: id.map(str::to_string), is_marker, size: 1, e_tag, ..Version::default() };
        server.objects().put(key, version);
    };
    put("a", Some("a1"), false);
    put("ab", Some("1"), false);
    put("n", None, false);
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x")]);
    let index = lake.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    let event = |source: &str, name: &str, key: &str, rest: &str| {
        let head = format!(r#""eventSource":"{source}","eventTime":"2026-03-04T10:11:12Z","eventName":"{name}""#);
        format!(r#"{{{head},"s3":{{"bucket":{{"name":"photos"}},"object":{{"key":"{key}","size":1,{rest}}}}}}}"#)
    };
    let unnamed = |name: &str, key: &str| event("ceph:s3", name, key, r#""versionId":"","sequencer":"12000069AAAAAAAA""#);
    let shown = async || lines(&rows(&lake, "SELECT key, version_id, is_delete_marker FROM i.inventory").await);
    // Two of each before anything is told.
    for (key, id, is_marker) in [("a", "a2", true), ("a", "a3", true), ("c", "c1", false), ("c", "c2", false)] {
        put(key, Some(id), is_marker);
    }
    let (marked, copied) = (unnamed("ObjectRemoved:DeleteMarkerCreated", "a"), unnamed("ObjectCreated:Copy", "c"));
    for applied in [4, 0] {
        let told = index.push(&message(&[marked.clone(), copied.clone()])).await.unwrap();
        let (received, duplicates) = (2, if applied == 0 { 2 } else { 0 });
        assert_eq!(told, EventCounts { received, applied, duplicates, ..EventCounts::default() });
    }
    let mut objects = ["ab|1|false", "a|a1|false", "a|a2|true", "a|a3|true", "c|c1|false", "c|c2|false", "n|NULL|false"];
    assert_eq!(shown().await, objects);
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    // One of which nothing is told, and one that goes.
    put("ab", Some("2"), true);
    server.objects().remove("a", Some("a2"));
    let gone = event("ceph:s3", "ObjectRemoved:Delete", "a", r#""versionId":"a2","sequencer":"13000069AAAAAAAA""#);
    assert_eq!(index.push(&message(&[gone])).await.unwrap().applied, 1);
    objects[..4].copy_from_slice(&["ab|1|false", "ab|2|true", "a|a1|false", "a|a3|true"]);
    for created in [1, 0] {
        assert_eq!(index.reconcile().await.unwrap(), Synced { created, ..Synced::default() });
        assert_eq!(shown().await, objects);
    }
    // As while versions are suspended: what says that an object is deleted takes the place of the one without a version.
    server.objects().hides_markers = false;
    server.objects().remove("n", None);
    put("n", None, true);
    let touched = event("aws:s3", "ObjectRemoved:DeleteMarkerCreated", "n", r#""versionId":"null""#);
    assert_eq!(index.push(&message(&[touched])).await.unwrap().applied, 1);
    objects[6] = "n|NULL|true";
    assert_eq!(shown().await, objects);
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    lake.close().await;
}

/// As by moto, which names no versions, and tells of no order.
#[tokio::test(flavor = "multi_thread")]
async fn versions_of_which_none_is_named() {
    let server = S3Server::start(true).await;
    let put = |key: &str, id: &str, is_marker: bool| {
        let version = Version { id: Some(id.to_string()), is_marker, size: 1, e_tag: id.to_string(), ..Version::default() };
        server.objects().put(key, version);
    };
    put("a", "a1", false);
    put("ab", "1", false);
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x")]);
    let index = lake.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    let event = |name: &str, key: &str| {
        let head = format!(r#""eventSource":"aws:s3","eventTime":"2026-03-04T10:11:12Z","eventName":"{name}""#);
        format!(r#"{{{head},"s3":{{"bucket":{{"name":"photos"}},"object":{{"key":"{key}","size":1,"eTag":"t"}}}}}}"#)
    };
    let shown = async || lines(&rows(&lake, "SELECT key, version_id, is_delete_marker FROM i.inventory").await);
    for id in ["a2", "a3", "a4"] {
        put("a", id, id == "a3");
    }
    server.objects().remove("a", Some("a1"));
    put("c", "c1", false);
    let told = ["a", "a", "a", "c"].map(|key| event("ObjectCreated:Put", key));
    assert_eq!(index.push(&message(&told)).await.unwrap().applied, 5);
    assert_eq!(shown().await, ["ab|1|false", "a|a2|false", "a|a3|true", "a|a4|false", "c|c1|false"]);
    assert_eq!(index.push(&message(&told)).await.unwrap().applied, 0);
    server.objects().remove("a", Some("a4"));
    server.objects().remove("c", Some("c1"));
    let told = ["a", "c"].map(|key| event("ObjectRemoved:Delete", key));
    assert_eq!(index.push(&message(&told)).await.unwrap().applied, 2);
    assert_eq!(shown().await, ["ab|1|false", "a|a2|false", "a|a3|true"]);
    let journal = "SELECT key, version_id, record_type FROM i.journal";
    let of_a = ["a|a1|DELETE", "a|a2|CREATE", "a|a3|DELETE", "a|a4|CREATE", "a|a4|DELETE"];
    assert_eq!(lines(&rows(&lake, journal).await), [&of_a[..], &["c|c1|CREATE", "c|c1|DELETE"]].concat());
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    lake.close().await;
}

/// An object that went so long ago that nobody remembers comes after that, when it is found again by what is told of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_touched_comes_after_what_happened_long_ago() {
    let server = S3Server::start(false).await;
    let folder = tempfile::tempdir().unwrap();
    let lake = async || builder(folder.path().to_str().unwrap()).build().await.unwrap();
    let event = |name: &str, time: &str, rest: &str| {
        let head = format!(r#""eventSource":"aws:s3","eventTime":"{time}","eventName":"{name}""#);
        format!(r#"{{{head},"s3":{{"bucket":{{"name":"photos"}},"object":{{"key":"a"{rest}}}}}}}"#)
    };
    let before = lake().await;
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x")]);
    let index = before.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    let created = event("ObjectCreated:Put", "2020-03-04T10:11:12Z", r#","size":1,"eTag":"t","sequencer":"12""#);
    let removed = event("ObjectRemoved:Delete", "2020-03-04T10:11:13Z", r#","sequencer":"13""#);
    assert_eq!(index.push(&message(&[created, removed])).await.unwrap().applied, 2);
    before.close().await;
    let after = lake().await;
    server.objects().put("a", Version { size: 2, e_tag: "new".to_string(), ..Version::default() });
    let tagged = event("ObjectTagging:Put", &chrono::Utc::now().to_rfc3339(), "");
    assert_eq!(after.metadata_index("i").await.unwrap().push(&message(&[tagged])).await.unwrap().applied, 1);
    let last = "SELECT record_type, size FROM i.journal ORDER BY sequence_number DESC LIMIT 1";
    assert_eq!(lines(&rows(&after, last).await), ["CREATE|2"]);
    after.close().await;
}

/// Of what a listing passed already is told meanwhile, and nobody shows it but listings.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_behind_a_listing_stays() {
    let server = S3Server::start(true).await;
    server.objects().hides_markers = true;
    for key in 0..50 {
        server.objects().put(&format!("{key:02}"), Version { id: Some("1".to_string()), size: 1, ..Version::default() });
    }
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x"), ("fetch", "none")]);
    let index = lake.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    server.parts.forget_permits(server.parts.available_permits() - 1);
    let reconciled = tokio::spawn({
        let index = lake.metadata_index("i").await.unwrap();
        async move { index.reconcile().await }
    });
    while index.status().await.unwrap().listed != Some(40) {
        assert!(!reconciled.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server.objects().put("00", Version { id: Some("2".to_string()), is_marker: true, ..Version::default() });
    let head = r#""eventSource":"ceph:s3","eventTime":"2026-03-04T10:11:12Z","eventName":"ObjectRemoved:DeleteMarkerCreated""#;
    let object = r#"{"key":"00","size":1,"versionId":"2","sequencer":"12000069AAAAAAAA"}"#;
    let marked = format!(r#"{{{head},"s3":{{"bucket":{{"name":"photos"}},"object":{object}}}}}"#);
    assert_eq!(index.push(&message(&[marked])).await.unwrap().applied, 1);
    server.parts.add_permits(100);
    assert_eq!(reconciled.await.unwrap().unwrap(), Synced::default());
    let shown = "SELECT version_id, is_delete_marker FROM i.inventory WHERE key = '00'";
    assert_eq!(lines(&rows(&lake, shown).await), ["1|false", "2|true"]);
    lake.close().await;
}

/// Without versions, what Ceph tells is in its order.
#[tokio::test(flavor = "multi_thread")]
async fn copies_are_told_in_their_order() {
    let server = S3Server::start(false).await;
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x")]);
    let index = lake.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    server.objects().put("a", Version { size: 2, e_tag: "new".to_string(), ..Version::default() });
    for (name, time) in [("ObjectCreated:Copy", "13"), ("ObjectRemoved:Delete", "12")] {
        let head = format!(r#""eventSource":"ceph:s3","eventTime":"2026-03-04T10:11:12Z","eventName":"{name}""#);
        let object = format!(r#"{{"key":"a","size":2,"eTag":"new","versionId":"","sequencer":"{time}000069AAAAAAAA"}}"#);
        let event = format!(r#"{{{head},"s3":{{"bucket":{{"name":"photos"}},"object":{object}}}}}"#);
        assert_eq!(index.push(&message(&[event])).await.unwrap().applied, 1);
    }
    assert_eq!(lines(&rows(&lake, "SELECT key, size FROM i.inventory").await), ["a|2"]);
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    lake.close().await;
}

/// Without a version, Ceph says of an object that it is not there when the newest version says so, and hides that one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_marker_stays() {
    let server = S3Server::start(true).await;
    server.objects().hides_markers = true;
    server.objects().put("a", Version { size: 1, e_tag: "old".to_string(), ..Version::default() });
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x")]);
    let index = lake.create_metadata_index_with("i", "s3://photos", &options).await.unwrap();
    server.objects().put("a", Version { id: Some("1".to_string()), is_marker: true, ..Version::default() });
    for (name, shown) in [("ObjectTagging:Put", vec!["a|NULL|false"]), ("ObjectCreated:Post", vec!["a|1|true", "a|NULL|false"])] {
        let head = format!(r#""eventSource":"ceph:s3","eventTime":"2026-03-04T10:11:12Z","eventName":"{name}""#);
        let object = r#"{"key":"a","size":1,"versionId":""}"#;
        let event = format!(r#"{{{head},"s3":{{"bucket":{{"name":"photos"}},"object":{object}}}}}"#);
        assert_eq!(index.push(&message(&[event])).await.unwrap().applied, shown.len() as u64 - 1);
        assert_eq!(lines(&rows(&lake, "SELECT key, version_id, is_delete_marker FROM i.inventory").await), shown);
    }
    assert_eq!(index.reconcile().await.unwrap(), Synced::default());
    server.objects().remove("a", None);
    server.objects().remove("a", Some("1"));
    let lost = Synced { deleted: 2, ..Synced::default() };
    assert_eq!(index.reconcile().await.unwrap(), lost);
    lake.close().await;
}

/// However many events come late or again at once.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_late_events_are_known_or_new() {
    let lake = lake_with(&Arc::new(InMemory::new())).await;
    let index = lake.create_metadata_index_with("i", "gs://photos", &options(&[("fetch", "none")])).await.unwrap();
    let events = [10, 20, 30].map(|sequence| -> Vec<String> {
        (0..2_500).map(|key| created("photos", &format!("k{key}"), sequence, sequence)).collect()
    });
    for place in [0, 2] {
        assert_eq!(index.push(&message(&events[place])).await.unwrap().applied, 2_500);
    }
    let told = index.push(&message(&events.concat())).await.unwrap();
    let late = EventCounts { received: 7_500, applied: 2_500, duplicates: 5_000, late: 2_500, ..EventCounts::default() };
    assert_eq!(told, late);
    assert_eq!(lines(&rows(&lake, "SELECT count(*), min(size), max(size) FROM i.inventory").await), ["2500|30|30"]);
    assert_eq!(lines(&rows(&lake, "SELECT count(*) FROM i.journal").await), ["7500"]);
    lake.close().await;
}

/// Of a hundred objects, until there are more permits for parts of a listing.
async fn bucket_that_shows_80() -> S3Server {
    let server = S3Server::start(false).await;
    for key in 0..100 {
        server.objects().put(&format!("k{key}"), Version { e_tag: "t".to_string(), ..Version::default() });
    }
    server.parts.forget_permits(Semaphore::MAX_PERMITS - 2);
    server
}

/// How far a listing is, and that of one index which goes on for ever the others and the tables know nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_tells_how_far_it_is_and_holds_up_nobody() {
    let server = bucket_that_shows_80().await;
    let lake = builder("memory://").build().await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x"), ("fetch", "none")]);
    let creates = tokio::spawn({
        let (lake, options) = (lake.clone(), options.clone());
        async move { lake.create_metadata_index_with("i", "s3://photos", &options).await.map(|_| ()) }
    });
    let status = async |name: &str| lake.metadata_indexes().await.unwrap().into_iter().find(|status| status.name == name);
    loop {
        let far = status("i").await.map(|status| (status.state, status.listed, status.objects));
        if far == Some((IndexState::Backfilling, Some(80), 80)) {
            break;
        }
        assert!(!creates.is_finished(), "{far:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "a").unwrap();
    let other = lake.create_metadata_index("other", folder.path().to_str().unwrap()).await.unwrap();
    assert_eq!(other.status().await.unwrap().state, IndexState::Active);
    assert_eq!(lines(&rows(&lake, "SELECT key FROM other.inventory").await), ["a"]);
    rows(&lake, "CREATE TABLE t AS SELECT 1 AS a").await;
    server.parts.add_permits(1);
    creates.await.unwrap().unwrap();
    let done = status("i").await.unwrap();
    assert_eq!((done.state, done.listed, done.objects), (IndexState::Active, None, 100));
    // One that fails says so, and the other follows.
    drop(server);
    let index = lake.metadata_index("i").await.unwrap();
    assert_eq!(index.reconcile().await.unwrap_err().kind(), ErrorKind::Unavailable);
    std::fs::write(folder.path().join("b"), "b").unwrap();
    other.sync().await.unwrap();
    assert_eq!(lines(&rows(&lake, "SELECT key FROM other.inventory").await), ["a", "b"]);
    lake.close().await;
}

/// What was listed before an index could not be created is not listed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_fails_is_gone_on_with() {
    let server = bucket_that_shows_80().await;
    let folder = tempfile::tempdir().unwrap();
    // Processes, some of which come later.
    let open = |seconds: i64| builder(folder.path().to_str().unwrap()).with_clock(Arc::new(Behind(-1000 * seconds))).build();
    let lake = open(0).await.unwrap();
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x"), ("fetch", "none")]);
    let fails = async {
        while lake.metadata_indexes().await.unwrap().first().is_none_or(|status| status.listed != Some(80)) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        server.objects().fails = true;
        server.parts.add_permits(1000);
    };
    let (created, ()) = tokio::join!(lake.create_metadata_index_with("i", "s3://photos", &options), fails);
    let error = created.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("80 objects") && error.to_string().contains("start_metadata_index('i')"), "{error}");
    let index = lake.metadata_index("i").await.unwrap();
    assert_eq!(index.status().await.unwrap().state, IndexState::Failed);
    // While it fails, to create it again fails, too, and in a later process.
    let (at_once, other) = (open(1).await.unwrap(), open(100).await.unwrap());
    let create = async |lake: &Lakehouse, options| lake.create_metadata_index_with("i", "s3://photos", options).await;
    for lake in [&lake, &other] {
        let error = create(lake, &options).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("80 objects"), "{error}");
    }
    let error = create(&at_once, &options).await.unwrap_err();
    assert!(error.kind() == ErrorKind::AlreadyExists && error.to_string().contains("being created"), "{error}");
    let if_not_exists = "CREATE METADATA INDEX IF NOT EXISTS i ON 's3://photos' WITH (fetch = 'none', reconcile_every = 'never', \
         region = 'x', endpoint = '";
    rows(&at_once, &format!("{if_not_exists}{}')", server.endpoint())).await;
    assert_eq!(at_once.metadata_index("i").await.unwrap().status().await.unwrap().state, IndexState::Stopped);
    // It is not what another process is creating that goes when one that would join it cannot.
    let without = options.clone().with("hook", "nowhere").unwrap();
    assert_eq!(create(&other, &without).await.unwrap_err().kind(), ErrorKind::AlreadyExists, "it is another");
    server.objects().fails = false;
    rows(&other, &format!("{if_not_exists}{}')", server.endpoint())).await;
    let index = other.metadata_index("i").await.unwrap();
    let status = index.status().await.unwrap();
    assert_eq!((status.state, status.objects, status.changes), (IndexState::Active, 100, 0));
    for lake in [&other, &at_once, &open(1000).await.unwrap()] {
        assert_eq!(create(lake, &options).await.unwrap_err().kind(), ErrorKind::AlreadyExists, "all of it is there");
    }
    rows(&lake, "CALL system.start_metadata_index('i')").await;
    assert_eq!(lake.metadata_index("i").await.unwrap().status().await.unwrap().state, IndexState::Active);
    at_once.close().await;
    other.close().await;
    lake.close().await;
}

#[derive(Debug)]
struct AsItIs;

impl EventHook for AsItIs {
    fn apply(&self, _event: &mut ObjectEvent) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        Ok(true)
    }
}

/// What one process is creating does not go when another, which would, cannot.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_fails_drops_what_it_made_and_nothing_else() {
    let server = bucket_that_shows_80().await;
    server.parts.forget_permits(server.parts.available_permits());
    let folder = tempfile::tempdir().unwrap();
    let open = |seconds: i64, hook: bool| {
        let indexer = MetadataIndexer::default();
        let builder = Lakehouse::builder(folder.path().to_str().unwrap()).with_clock(Arc::new(Behind(-1000 * seconds)));
        async move {
            let lake = builder.with_extension(Arc::new(indexer)).build().await.unwrap();
            if hook {
                lake.register_event_hook("as-it-is", Arc::new(AsItIs)).unwrap();
            }
            lake
        }
    };
    let options = options(&[("endpoint", &server.endpoint()), ("region", "x"), ("fetch", "none"), ("hook", "as-it-is")]);
    let (first, without) = (open(0, true).await, open(100, false).await);
    let creates = tokio::spawn({
        let (lake, options) = (first.clone(), options.clone());
        async move { lake.create_metadata_index_with("i", "s3://photos", &options).await.map(|_| ()) }
    });
    while first.metadata_indexes().await.unwrap().first().is_none_or(|status| status.listed.is_none()) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let error = first.create_metadata_index_with("i", "s3://photos", &options).await.unwrap_err();
    assert!(error.kind() == ErrorKind::AlreadyExists && error.to_string().contains("being created"), "{error}");
    let error = without.create_metadata_index_with("i", "s3://photos", &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    server.parts.add_permits(1000);
    creates.await.unwrap().unwrap();
    assert_eq!(first.metadata_index("i").await.unwrap().status().await.unwrap().objects, 100);
    // What it made itself is gone.
    let error = without.create_metadata_index_with("other", "s3://photos", &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!without.namespaces().await.unwrap().contains(&"other".to_string()));
    first.close().await;
}

/// A clock that is behind.
#[derive(Debug)]
pub(crate) struct Behind(pub(crate) i64);

impl Clock for Behind {
    fn now_ms(&self) -> i64 {
        chrono::Utc::now().timestamp_millis() - self.0
    }
}

/// What files tell of tags, metadata and classes, so that others are not read: of events, and after they were put together.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_found_by_their_tags() {
    const OBJECTS: u32 = 72_000;
    let lake = lake_with(&Arc::new(InMemory::new())).await;
    let index = lake.create_metadata_index_with("i", "gs://photos", &options(&[("fetch", "none")])).await.unwrap();
    index.stop().await;
    let tagged = |number: u32| {
        let review = if number % 5_000 == 7 { "wanted" } else { "done" };
        let tags = format!(r#","tags":[{{"key":"review","val":"{review}"}},{{"key":"team","val":"t{}"}}]}}}}}}"#, number % 90);
        let event = created("photos", &format!("{:05}", number * 7919 % OBJECTS), number + 1, number);
        event.strip_suffix("}}}").unwrap().to_string() + &tags
    };
    let numbers: Vec<u32> = (0..OBJECTS).collect();
    let wanted = numbers.iter().filter(|number| *number % 5_000 == 7);
    let mut wanted: Vec<String> = wanted.map(|number| format!("{:05}", number * 7919 % OBJECTS)).collect();
    wanted.sort();
    let found = async || {
        let sql = "SELECT key FROM i.inventory WHERE object_tags['review'] = 'wanted' ORDER BY key";
        assert_eq!(lines(&rows(&lake, sql).await), wanted);
        let sql = "SELECT count(*) FROM i.inventory WHERE object_tags['review'] = 'wanted' AND object_tags['team'] = 't7'";
        assert_eq!(lines(&rows(&lake, sql).await), ["2"], "7 and 45,007");
        let mut pruned = Vec::new();
        for condition in ["object_tags['review'] = 'wanted'", "object_tags['team'] = 'none'"] {
            let plan = format!("EXPLAIN ANALYZE SELECT key, size FROM i.inventory WHERE {condition}");
            let plan = lines(&rows(&lake, &plan).await).join("\n");
            let number = plan.split("iceberg_rows_pruned_by_value=").nth(1).unwrap_or_else(|| panic!("{plan}"));
            let number = number.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap().parse::<f64>().unwrap();
            pruned.push(number > 0.0);
        }
        assert_eq!(pruned, [true; 2]);
    };
    let files = async || lines(&rows(&lake, "SELECT count(*) FROM i.\"inventory$files\" WHERE content = 0").await)[0].clone();
    for (number, some) in numbers.chunks(OBJECTS as usize / 15).enumerate() {
        let events: Vec<String> = some.iter().map(|number| tagged(*number)).collect();
        index.push(&message(&events)).await.unwrap();
        // The upkeep of sixteen batches.
        if number == 14 {
            found().await;
        }
    }
    // More upkeep, of what did not happen yet.
    for turn in 1..200_u32 {
        if files().await == "4" {
            break;
        }
        index.push(&message(&[tagged(0).replace("sequencer\":\"0000", &format!("sequencer\":\"1{turn:03X}"))])).await.unwrap();
    }
    found().await;
    // In files that upkeep wrote, rows are in the order of their keys, and there are deletes by position only.
    let sql = "SELECT key, _file FROM i.inventory ORDER BY _file, _pos";
    let keys = lines(&rows(&lake, sql).await);
    let keys: Vec<(&str, &str)> = keys.iter().map(|line| line.split_once('|').unwrap()).collect();
    assert!(keys.windows(2).all(|pair| pair[0].1 != pair[1].1 || pair[0].0 < pair[1].0));
    let equality = "SELECT count(*) FROM i.\"inventory$files\" WHERE content = 2";
    assert_eq!(lines(&rows(&lake, equality).await), ["0"]);
    lake.close().await;
}

/// The journal and the dead letters forget what the index says, and the inventory does not.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_kept_for_as_long_as_the_index_says() {
    const DAY: i64 = 86_400_000;
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::new(InMemory::new());
    let event = |key: &str, sequence: u32, days: i64| {
        let event = created("photos", key, sequence, 1);
        let time = event.split("\"eventTime\":\"").nth(1).unwrap().split('"').next().unwrap().to_string();
        event.replace(&time, &(chrono::Utc::now() - chrono::TimeDelta::days(days)).to_rfc3339())
    };
    let open = async |behind: i64| {
        let given: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
        let indexer = MetadataIndexer::default().with_object_store("gs://photos", given);
        let lake = Lakehouse::builder(scratch.path().to_str().unwrap()).with_extension(Arc::new(indexer));
        lake.with_clock(Arc::new(Behind(behind))).build().await.unwrap()
    };
    let lake = open(40 * DAY).await;
    let options = options(&[("fetch", "none"), ("journal_retention", "15 days")]);
    let index = lake.create_metadata_index_with("i", "gs://photos", &options).await.unwrap();
    index.push(&message(&[event("old", 1, 40), "{}".to_string()])).await.unwrap();
    index.push(&message(&[event("younger", 2, 10)])).await.unwrap();
    let kept = "SELECT key FROM i.journal ORDER BY key";
    assert_eq!(lines(&rows(&lake, kept).await), ["old", "younger"]);
    lake.close().await;
    let lake = open(0).await;
    let index = lake.metadata_index("i").await.unwrap();
    index.push(&message(&[event("new", 3, 0), "{}".to_string()])).await.unwrap();
    assert_eq!(lines(&rows(&lake, kept).await), ["new", "younger"]);
    assert_eq!(lines(&rows(&lake, "SELECT count(*) FROM i.dead_letters").await), ["1"]);
    assert_eq!(lines(&rows(&lake, "SELECT key FROM i.inventory").await), ["new", "old", "younger"]);
    lake.close().await;
}

/// A table that an index did not make stays whatever becomes of the index.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_others_are_left_alone() {
    let lake = lake_with(&Arc::new(InMemory::new())).await;
    rows(&lake, "CREATE NAMESPACE i").await;
    rows(&lake, "CREATE TABLE i.dead_letters AS SELECT 1 AS a").await;
    let error = lake.create_metadata_index_with("i", "gs://photos", &options(&[])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    rows(&lake, "DROP TABLE i.dead_letters").await;
    lake.create_metadata_index_with("i", "gs://photos", &options(&[])).await.unwrap();
    rows(&lake, "CREATE TABLE i.dead_letters AS SELECT 1 AS a").await;
    lake.drop_metadata_index("i").await.unwrap();
    assert_eq!(lines(&rows(&lake, "SELECT a FROM i.dead_letters").await), ["1"]);
    lake.close().await;
}

/// Files below a folder.
fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}

/// Whatever happens how often, there are few files and few snapshots, and nothing stays behind on disk.
#[tokio::test(flavor = "multi_thread")]
async fn upkeep_keeps_tables_small() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::new(InMemory::new());
    let lake = lake_at(scratch.path().to_str().unwrap(), &store).await;
    let options = options(&[("fetch", "none")]);
    let index = lake.create_metadata_index_with("i", "gs://photos", &options).await.unwrap();
    assert_eq!(index.push("{}").await.unwrap().dead, 1);
    let tables = ["journal", "inventory", "dead_letters"];
    for table in tables {
        // Not a day, and of two of them not for as long as a query may take: nobody reads here.
        let few = if table == "dead_letters" { "86400000" } else { "1" };
        rows(&lake, &format!("ALTER TABLE i.{table} SET TBLPROPERTIES ('history.expire.max-snapshot-age-ms' = '{few}')")).await;
    }
    let number = |table: &str, what: &str| format!("SELECT count(*) FROM i.\"{table}${what}\"");
    let mut on_disk = Vec::new();
    for change in 1..=300 {
        let mut keys: Vec<String> =
            (0..3).map(|key| created("photos", &format!("{}", (change * 7 + key) % 50), change, change)).collect();
        keys.push("{}".to_string());
        assert_eq!(index.push(&message(&keys)).await.unwrap().applied, 3);
        if change % 100 == 0 {
            for table in tables {
                let files: usize = lines(&rows(&lake, &number(table, "files")).await)[0].parse().unwrap();
                assert!(files < 100, "{files} files of the {table} after {change}");
                let snapshots: usize = lines(&rows(&lake, &number(table, "snapshots")).await)[0].parse().unwrap();
                assert!(snapshots < 700, "{snapshots} snapshots of the {table} after {change}");
            }
            let folders = std::fs::read_dir(scratch.path().join("i")).unwrap().map(|entry| entry.unwrap().path());
            on_disk
                .push(folders.filter(|path| !path.display().to_string().contains("dead")).map(|path| walk(&path)).sum::<usize>());
        }
    }
    assert!(on_disk.iter().all(|files| *files < 600), "{on_disk:?} files on disk after 100, 200 and 300 changes");
    index.stop().await;
    assert_eq!(lines(&rows(&lake, "SELECT count(*) FROM i.dead_letters").await), ["301"]);
    assert_eq!(lines(&rows(&lake, "SELECT count(*), count(DISTINCT key) FROM i.inventory").await), ["50|50"]);
    assert_eq!(lines(&rows(&lake, "SELECT count(*), count(DISTINCT (key, size)) FROM i.journal").await), ["900|900"]);
    let wrong = "SELECT count(*) FROM i.inventory WHERE size <> (SELECT max(size) FROM i.journal j WHERE j.key = inventory.key)";
    assert_eq!(lines(&rows(&lake, wrong).await), ["0"]);
    lake.close().await;
}

/// Two processes that take events and keep the tables up beside each other.
#[tokio::test(flavor = "multi_thread")]
async fn upkeep_beside_another_process() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::new(InMemory::new());
    let open = || lake_at(scratch.path().to_str().unwrap(), &store);
    let lakes = [open().await, open().await];
    let options = options(&[("fetch", "none")]);
    let first = lakes[0].create_metadata_index_with("i", "gs://photos", &options).await.unwrap();
    let second = lakes[1].metadata_index("i").await.unwrap();
    let pushed = [(first, 0), (second, 1)].map(|(index, at)| {
        tokio::spawn(async move {
            for change in 1..=60u32 {
                let sequence = 2 * change + at;
                let keys =
                    (0..5).map(|key| created("photos", &format!("{}", (sequence * 7 + key * 11) % 97), sequence, sequence));
                assert_eq!(index.push(&message(&keys.collect::<Vec<_>>())).await.unwrap().dead, 0);
            }
        })
    });
    for pushed in pushed {
        pushed.await.unwrap();
    }
    let mut wanted = std::collections::BTreeMap::new();
    for sequence in 2..=121u32 {
        wanted.extend((0..5).map(|key| (format!("{}", (sequence * 7 + key * 11) % 97), sequence)));
    }
    let mut wanted: Vec<String> = wanted.into_iter().map(|(key, size)| format!("{key}|{size}")).collect();
    wanted.sort_unstable();
    assert_eq!(lines(&rows(&lakes[0], "SELECT key, size FROM i.inventory").await), wanted);
    assert_eq!(lines(&rows(&lakes[0], "SELECT count(*) FROM i.journal").await), ["600"]);
    for lake in lakes {
        lake.close().await;
    }
}
