//! What is learnt from the content of objects.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::{ObjectStoreExt, PutPayload};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tarndb_core::{ErrorKind, Lakehouse};
use tarndb_metadata_indexer::{Content, Extractor, Extractors, IndexOptions, MetadataIndex, MetadataIndexer, MetadataIndexes};
use tarndb_testkit::naive::lines;
use tarndb_testkit::{Fault, FaultPlan};

use crate::bucket::{created, message};
use crate::rows;
use crate::s3_server::{S3Server, Version};

/// Says whether the word is in an object, and counts how often it is asked.
#[derive(Debug, Default)]
struct Cat {
    asked: AtomicUsize,
}

impl Extractor for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn extract(&self, mut object: Content) -> Result<BTreeMap<String, String>, Box<dyn std::error::Error + Send + Sync>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::new();
        object.read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes)?;
        let found = text.matches("cat").count();
        let found = (found > 0).then(|| [(String::new(), "true".to_string()), ("count".to_string(), found.to_string())]);
        Ok(found.into_iter().flatten().collect())
    }
}

async fn lake_at(location: &str, cat: &Arc<Cat>) -> Lakehouse {
    let extractors = Extractors::default();
    extractors.register(Arc::clone(cat) as _).unwrap();
    let indexer = MetadataIndexer::default().with_extractors(&extractors);
    Lakehouse::builder(location).with_extension(Arc::new(indexer)).build().await.unwrap()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let end = b"\0\0\0\0\0\0\0\0IEND\0\0\0\0";
    [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &[8, 6, 0, 0, 0], end].concat()
}

fn parquet(rows: i64) -> Vec<u8> {
    let numbers: ArrayRef = Arc::new((0..rows).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("id", numbers)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

const SHOWN: &str = "SELECT key, media_type, image_width, image_height, parquet_rows, parquet_columns['id'], text_lines, \
     text_encoding, attributes['cat'], attributes['cat.count'], errors['cat'], errors['media'] FROM docs.annotations ORDER BY key";

/// Waits until a query has these rows.
async fn becomes(lake: &Lakehouse, sql: &str, wanted: &[&str]) {
    let start = Instant::now();
    loop {
        // A fault may hit the query.
        let found = match lake.sql(sql).await {
            Ok(result) => result.collect().await.map(|batches| lines(&batches)).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        if found == wanted {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{found:#?}\ninstead of\n{wanted:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_of_a_folder_are_looked_at_as_they_come() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("docs");
    fs::create_dir_all(docs.join("img")).unwrap();
    fs::write(docs.join("img/a.png"), png(640, 480)).unwrap();
    fs::write(docs.join("it's.txt"), "a cat\nand a cat").unwrap();
    fs::write(docs.join("t.parquet"), parquet(7)).unwrap();
    fs::write(docs.join("empty"), "").unwrap();
    let (location, cat) = (scratch.path().join("lake"), Arc::new(Cat::default()));
    let location = location.to_str().unwrap();
    let lake = lake_at(location, &cat).await;
    let create = |extract: &str| format!("CREATE METADATA INDEX docs ON '{}' WITH (extract = '{extract}')", docs.display());
    let unknown = lake.sql(&create("media, dog")).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unsupported);
    assert!(unknown.to_string().contains("`dog`"), "{unknown}");

    rows(&lake, &create("media, parquet, text, cat")).await;
    let first = [
        "empty|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL",
        "img/a.png|image/png|640|480|NULL|NULL|NULL|NULL|NULL|NULL|invalid utf-8 sequence of 1 bytes from index 0|NULL",
        "it's.txt|text/plain|NULL|NULL|NULL|NULL|2|US-ASCII|true|2|NULL|NULL",
    ];
    let parquet_row = "t.parquet|application/vnd.apache.parquet|NULL|NULL|7|Int64|NULL|NULL|NULL|NULL|";
    let shown = "SELECT key FROM docs.annotations WHERE attributes['cat'] = 'true'";
    becomes(&lake, shown, &["it's.txt"]).await;
    becomes(&lake, "SELECT count(*) FROM docs.annotations", &["4"]).await;
    let found = lines(&rows(&lake, SHOWN).await);
    assert_eq!(found[..3], first);
    assert!(found[3].starts_with(parquet_row), "{found:#?}");

    // What changes is looked at again, and what goes is gone.
    fs::write(docs.join("it's.txt"), "a dog\n").unwrap();
    fs::write(docs.join("new.txt"), "cat").unwrap();
    fs::remove_file(docs.join("empty")).unwrap();
    fs::rename(docs.join("img"), docs.join("pictures")).unwrap();
    let shown = "SELECT key, text_lines, attributes['cat'], image_width FROM docs.annotations ORDER BY key";
    let now = ["it's.txt|1|NULL|NULL", "new.txt|1|true|NULL", "pictures/a.png|NULL|NULL|640", "t.parquet|NULL|NULL|NULL"];
    becomes(&lake, shown, &now).await;
    let joined = "SELECT count(*) FROM docs.inventory i JOIN docs.annotations a \
                  ON i.key = a.key AND i.e_tag = a.e_tag AND i.sequence_number = a.sequence_number AND i.bucket = a.bucket";
    assert_eq!(lines(&rows(&lake, joined).await), ["4"]);
    let index = lake.metadata_index("docs").await.unwrap();
    assert_eq!(index.status().await.unwrap().annotated, Some(4));
    lake.close().await;

    // What happened meanwhile is found out, and nothing is read twice.
    fs::write(docs.join("new.txt"), "cat cat cat").unwrap();
    fs::remove_file(docs.join("t.parquet")).unwrap();
    let cat = Arc::new(Cat::default());
    let lake = lake_at(location, &cat).await;
    lake.metadata_index("docs").await.unwrap().sync().await.unwrap();
    let shown = "SELECT key, attributes['cat.count'] FROM docs.annotations ORDER BY key";
    assert_eq!(lines(&rows(&lake, shown).await), ["it's.txt|NULL", "new.txt|3", "pictures/a.png|NULL"]);
    assert_eq!(cat.asked.load(Ordering::Relaxed), 1);
    lake.close().await;

    // Who lacks an extractor keeps the rest up, and is told.
    let lake = crate::builder(location).build().await.unwrap();
    let index = lake.metadata_index("docs").await.unwrap();
    fs::write(docs.join("later.txt"), "cat").unwrap();
    assert!(index.sync().await.unwrap_err().to_string().contains("`cat`"));
    assert_eq!(lines(&rows(&lake, "SELECT count(*) FROM docs.inventory").await), ["4"]);
    index.start().await.unwrap();
    let start = Instant::now();
    while !index.status().await.unwrap().last_error.is_some_and(|error| error.contains("`cat`")) {
        assert!(start.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rows(&lake, "DROP METADATA INDEX docs").await;
    assert!(!lake.namespaces().await.unwrap().contains(&"docs".to_string()), "annotations go with their index");
    lake.close().await;
}

async fn index_of(store: &Arc<InMemory>, cat: &Arc<Cat>) -> (Lakehouse, MetadataIndex) {
    let extractors = Extractors::default();
    extractors.register(Arc::clone(cat) as _).unwrap();
    let indexer =
        MetadataIndexer::default().with_object_store("gs://photos", Arc::clone(store) as _).with_extractors(&extractors);
    let lake = Lakehouse::builder("memory://").with_extension(Arc::new(indexer)).build().await.unwrap();
    let options = [("reconcile_every", "never"), ("extract", "media,cat,text")];
    let options = options.iter().try_fold(IndexOptions::default(), |options, (name, value)| options.with(name, value));
    let index = lake.create_metadata_index_with("docs", "gs://photos", &options.unwrap()).await.unwrap();
    (lake, index)
}

/// Objects of a bucket, of which events tell; more than are committed at once.
#[tokio::test(flavor = "multi_thread")]
async fn contents_of_a_bucket_are_looked_at_as_they_come() {
    let (store, cat) = (Arc::new(InMemory::new()), Arc::new(Cat::default()));
    let put = async |key: &str, text: &str| store.put(&StorePath::from(key), PutPayload::from(text.to_string())).await.unwrap();
    for number in 0..2500 {
        put(&format!("{number}"), if number % 5 == 0 { "one cat" } else { "none" }).await;
    }
    let (lake, index) = index_of(&store, &cat).await;
    becomes(&lake, "SELECT attributes['cat'], count(*) FROM docs.annotations GROUP BY 1", &["NULL|2000", "true|500"]).await;
    // A store tells only that something happened.
    let touched = |key: &str| {
        format!(
            r#"{{"key":"/buckets/photos/{key}","message":{{"new_entry":{{"name":"{key}"}},"new_parent_path":"/buckets/photos"}}}}"#
        )
    };
    put("1", "a cat, and a cat").await;
    store.delete(&StorePath::from("5")).await.unwrap();
    index.push(&format!("[{}, {}]", touched("1"), touched("5"))).await.unwrap();
    let shown = "SELECT key, attributes['cat.count'] FROM docs.annotations WHERE key IN ('0', '1', '5') ORDER BY key";
    becomes(&lake, shown, &["0|1", "1|2"]).await;
    assert_eq!(cat.asked.load(Ordering::Relaxed), 2501, "each content is read once");
    lake.close().await;
}

/// Two processes, and any number of changes: what is learnt is what the contents are.
#[tokio::test(flavor = "multi_thread")]
async fn annotations_become_what_contents_are() {
    let seeds = std::env::var("TARNDB_SEEDS").map_or(3, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let scratch = tempfile::tempdir().unwrap();
        let (docs, location) = (scratch.path().join("docs"), scratch.path().join("lake"));
        fs::create_dir_all(&docs).unwrap();
        let location = location.to_str().unwrap();
        let cats = [Arc::new(Cat::default()), Arc::new(Cat::default())];
        let mut lakes = [lake_at(location, &cats[0]).await, lake_at(location, &cats[1]).await];
        let create = format!("CREATE METADATA INDEX docs ON '{}' WITH (extract = 'cat,text')", docs.display());
        rows(&lakes[0], &create).await;
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..random.random_range(5..40) {
            for _ in 0..random.random_range(1..20) {
                change(&docs, &mut random);
            }
            let at = random.random_range(0..2);
            match random.random_range(0..10) {
                0 => {
                    lakes[at].close().await;
                    lakes[at] = lake_at(location, &cats[at]).await;
                }
                1 => lakes[at].metadata_index("docs").await.unwrap().start().await.unwrap(),
                2 => lakes[at].metadata_index("docs").await.unwrap().stop().await,
                3 => drop(lakes[at].metadata_index("docs").await.unwrap().sync().await.unwrap()),
                _ => tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await,
            }
        }
        lakes[1].close().await;
        lakes[0].metadata_index("docs").await.unwrap().sync().await.unwrap();
        let mut wanted = Vec::new();
        for entry in fs::read_dir(&docs).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let cats = text.matches("cat").count();
            let cats = if cats > 0 { cats.to_string() } else { "NULL".to_string() };
            let lines = text.lines().count();
            let lines = if text.is_empty() { "NULL".to_string() } else { lines.to_string() };
            wanted.push(format!("{}|{cats}|{lines}", path.file_name().unwrap().to_str().unwrap()));
        }
        wanted.sort_unstable();
        let shown = "SELECT key, attributes['cat.count'], text_lines FROM docs.annotations ORDER BY key";
        assert_eq!(lines(&rows(&lakes[0], shown).await), wanted, "seed {seed}");
        lakes[0].close().await;
    }
}

fn change(docs: &Path, random: &mut StdRng) {
    let path = |random: &mut StdRng| docs.join(random.random_range(0..30).to_string());
    let one = path(random);
    match random.random_range(0..6) {
        0 => drop(fs::remove_file(one)),
        1 => drop(fs::rename(one, path(random))),
        _ => fs::write(one, "a cat\n".repeat(random.random_range(0..9))).unwrap(),
    }
}

/// Objects that cannot be read for as long as they like: the others do not wait for them, and then they are annotated, too.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_cannot_be_read_for_long() {
    const BROKEN: usize = 40;
    let server = S3Server::start(false).await;
    // Events have the sequence number as the tag of a content.
    let put = |key: &str, size: usize, sequence: usize| {
        server.objects().put(key, Version { size, e_tag: sequence.to_string(), ..Version::default() });
    };
    put("sound", 2, 1);
    for number in 0..BROKEN {
        put(&format!("broken-{number}"), 1, 1);
        server.objects().broken.insert(format!("broken-{number}"));
    }
    let lake = Lakehouse::builder("memory://").with_extension(Arc::new(MetadataIndexer::default())).build().await.unwrap();
    let options = [("endpoint", server.endpoint()), ("region", "x".into()), ("fetch", "none".into()), ("extract", "text".into())];
    let options = options.iter().try_fold(IndexOptions::default(), |options, (name, value)| options.with(name, value));
    let index = lake.create_metadata_index_with("docs", "s3://photos", &options.unwrap()).await.unwrap();
    becomes(&lake, "SELECT key FROM docs.annotations", &["sound"]).await;
    let error = async || index.status().await.unwrap().last_error.unwrap_or_default();
    while !error().await.contains("broken") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for turn in 2..6 {
        put("late", turn, turn);
        let event = created("photos", "late", turn as u32, turn as u32);
        index.push(&message(&[event])).await.unwrap();
        let seen = format!("SELECT e_tag FROM docs.annotations WHERE key = 'late' AND e_tag = '{turn}'");
        becomes(&lake, &seen, &[&turn.to_string()]).await;
        assert!(error().await.contains("broken"));
    }
    // Who lists the bucket is told what became of it.
    put("listed", 1, 9);
    assert_eq!(index.reconcile().await.unwrap().created, 1);
    becomes(&lake, "SELECT key FROM docs.annotations WHERE key = 'listed'", &["listed"]).await;
    server.objects().broken.clear();
    let all = format!("{}", BROKEN + 3);
    becomes(&lake, "SELECT count(*) FROM docs.annotations WHERE text_lines = 1", &[&all]).await;
    while !error().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lake.close().await;
}

/// Archived contents are asked for once, not with each listing, and again when somebody asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn contents_that_are_not_ours_to_read() {
    let server = S3Server::start(false).await;
    for key in ["archived", "sound"] {
        server.objects().put(key, Version { size: 1, e_tag: "1".to_string(), ..Version::default() });
    }
    server.objects().archived.insert("archived".to_string());
    let lake = Lakehouse::builder("memory://").with_extension(Arc::new(MetadataIndexer::default())).build().await.unwrap();
    let options = [("endpoint", server.endpoint()), ("region", "x".into()), ("fetch", "none".into()), ("extract", "text".into())];
    let often = [("reconcile_every", "1 second".to_string())];
    let options =
        options.iter().chain(&often).try_fold(IndexOptions::default(), |options, (name, value)| options.with(name, value));
    let index = lake.create_metadata_index_with("docs", "s3://photos", &options.unwrap()).await.unwrap();
    let error = async || index.status().await.unwrap().last_error.unwrap_or_default();
    becomes(&lake, "SELECT key FROM docs.annotations", &["sound"]).await;
    let start = Instant::now();
    while !error().await.contains("archived") {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", error().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked = || server.objects().asked.get("archived").copied();
    let before = asked();
    assert!(before >= Some(1));
    // By three listings of the schedule.
    for turn in 0..3 {
        let key = format!("new-{turn}");
        server.objects().put(&key, Version { size: 1, e_tag: "1".to_string(), ..Version::default() });
        becomes(&lake, &format!("SELECT key FROM docs.annotations WHERE key = '{key}'"), &[&key]).await;
    }
    assert_eq!(asked(), before);
    assert!(error().await.contains("archived"), "it stays told");
    server.objects().archived.clear();
    index.reconcile().await.unwrap();
    becomes(&lake, "SELECT key FROM docs.annotations WHERE key = 'archived'", &["archived"]).await;
    assert_eq!(error().await, "");
    lake.close().await;
}

/// Whichever request of the bucket or of the lake fails: the others are annotated, and then what failed is.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_any_request_is_made_up_for() {
    let store = Arc::new(InMemory::new());
    for number in 0..40 {
        store.put(&StorePath::from(format!("{number}")), PutPayload::from_static(b"a cat")).await.unwrap();
    }
    for (of_lake, at) in [(false, 2), (false, 5), (false, 23), (true, 30), (true, 60), (true, 90), (true, 120)] {
        let (plan, cat) = (FaultPlan::default(), Arc::new(Cat::default()));
        let extractors = Extractors::default();
        extractors.register(Arc::clone(&cat) as _).unwrap();
        let bucket = if of_lake { Arc::clone(&store) as _ } else { plan.layer()(Arc::clone(&store) as _) };
        let indexer = MetadataIndexer::default().with_object_store("gs://photos", bucket).with_extractors(&extractors);
        let lake = Lakehouse::builder("memory://").with_extension(Arc::new(indexer));
        let lake = if of_lake { lake.with_store_layer(plan.layer()) } else { lake };
        let lake = lake.build().await.unwrap();
        let options = [("reconcile_every", "never"), ("extract", "cat"), ("fetch", "none")];
        let options = options.iter().try_fold(IndexOptions::default(), |options, (name, value)| options.with(name, value));
        let index = lake.create_metadata_index_with("docs", "gs://photos", &options.unwrap()).await.unwrap();
        becomes(&lake, "SELECT count(*) FROM docs.annotations", &["40"]).await;
        // All of it again, and a request fails meanwhile.
        let events: Vec<String> = (0..40).map(|number| format!(
            r#"{{"key":"/buckets/photos/{number}","message":{{"new_entry":{{"name":"{number}"}},"new_parent_path":"/buckets/photos"}}}}"#
        )).collect();
        for number in 0..40 {
            store.put(&StorePath::from(format!("{number}")), PutPayload::from_static(b"a cat, a cat")).await.unwrap();
        }
        plan.arm(at, Fault::Fail);
        while index.push(&format!("[{}]", events.join(","))).await.is_err() {}
        let shown = "SELECT attributes['cat.count'], count(*), count(DISTINCT key) FROM docs.annotations GROUP BY 1";
        becomes(&lake, shown, &["2|40|40"]).await;
        plan.disarm();
        lake.close().await;
        for number in 0..40 {
            store.put(&StorePath::from(format!("{number}")), PutPayload::from_static(b"a cat")).await.unwrap();
        }
    }
}
