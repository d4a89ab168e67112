//! Sources and hooks of events that users bring.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use object_store::memory::InMemory;
use tarndb_core::{ErrorKind, Lakehouse};
use tarndb_metadata_indexer::{
    EventHook, EventKind, EventSource, Events, IndexState, MetadataIndex, MetadataIndexer, MetadataIndexes, ObjectEvent, Stop,
};
use tarndb_testkit::naive::lines;
use tarndb_testkit::{Fault, FaultPlan};
use tokio::sync::{Notify, mpsc};

use crate::rows;

/// A log of messages, which remembers how many of them were acknowledged.
#[derive(Debug)]
struct Log {
    messages: tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>,
    acknowledged: Mutex<Vec<String>>,
    refused: Mutex<usize>,
    ended: Mutex<usize>,
}

#[async_trait]
impl EventSource for Log {
    async fn run(&self, events: Events, mut stop: Stop) {
        let mut messages = self.messages.lock().await;
        loop {
            let message = tokio::select! {
                () = stop.told() => break,
                message = messages.recv() => message,
            };
            let Some(message) = message else { break };
            while events.commit(message.as_bytes()).await.is_err() && !stop.is_told() {
                *self.refused.lock().unwrap() += 1;
            }
            self.acknowledged.lock().unwrap().push(message);
        }
        *self.ended.lock().unwrap() += 1;
    }
}

/// Takes the folder of a tenant off the keys, and adds who that is; those of one tenant are not heeded, and of another are wrong.
#[derive(Debug)]
struct Tenants;

impl EventHook for Tenants {
    fn apply(&self, event: &mut ObjectEvent) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let Some((tenant, key)) = event.key().split_once('/') else { return Ok(true) };
        let (tenant, key) = (tenant.to_string(), key.to_string());
        match tenant.as_str() {
            "nobody" => return Ok(false),
            "unknown" => return Err(format!("{tenant} is no tenant").into()),
            "broken" => panic!("a tenant is broken"),
            _ => {}
        }
        event.set_key(key);
        event.set_bucket("photos");
        if event.kind() == Some(EventKind::Created) {
            assert!(event.size().is_some() && event.time_micros().is_some() && event.version_id().is_none());
        }
        if let Some(tags) = event.tags_mut() {
            tags.insert("tenant".to_string(), tenant);
        }
        Ok(true)
    }
}

/// Hands a number of messages on at once, when it is told to.
#[derive(Debug)]
struct Many {
    messages: u32,
    begin: Notify,
    are_handed_on: AtomicBool,
}

#[async_trait]
impl EventSource for Many {
    async fn run(&self, events: Events, mut stop: Stop) {
        self.begin.notified().await;
        let messages: Vec<String> = (0..self.messages).map(|number| message(&format!("{number}"), number + 1)).collect();
        join_all(messages.iter().map(|message| events.commit(message.as_bytes()))).await;
        self.are_handed_on.store(true, Ordering::Relaxed);
        stop.told().await;
    }
}

/// Ends as no source should.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl EventSource for Broken {
    async fn run(&self, _: Events, _: Stop) {
        panic!("a source is broken");
    }
}

fn message(key: &str, sequence: u32) -> String {
    let time = chrono::Utc::now().to_rfc3339();
    format!(
        r#"{{"Records":[{{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","eventTime":"{time}","s3":{{"bucket":{{"name":"all"}},"object":{{"key":"{key}","size":3,"eTag":"x","sequencer":"{sequence:016X}"}}}}}}]}}"#
    )
}

async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

async fn until_stopped(index: &MetadataIndex) {
    let wait = async {
        while index.status().await.unwrap().state != IndexState::Stopped {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_come_together_are_committed_together() {
    const MESSAGES: u32 = 400;
    let indexer = MetadataIndexer::default().with_object_store("gs://all", Arc::new(InMemory::new()));
    let lake = Lakehouse::builder("memory://").with_extension(Arc::new(indexer)).build().await.unwrap();
    let many = Arc::new(Many { messages: MESSAGES, begin: Notify::new(), are_handed_on: AtomicBool::default() });
    lake.register_event_source("many", Arc::clone(&many) as _).unwrap();
    let create = "CREATE METADATA INDEX i ON 'gs://all' WITH (events = 'own://many', fetch = 'none', reconcile_every = 'never')";
    rows(&lake, create).await;
    many.begin.notify_one();
    until(|| many.are_handed_on.load(Ordering::Relaxed)).await;
    let index = lake.metadata_index("i").await.unwrap();
    index.stop().await;
    assert_eq!(index.status().await.unwrap().events.applied, u64::from(MESSAGES));
    for table in ["journal", "inventory"] {
        let counts = format!("SELECT count(*), (SELECT count(*) < 20 FROM i.\"{table}$snapshots\") FROM i.{table}");
        assert_eq!(lines(&rows(&lake, &counts).await), [format!("{MESSAGES}|true")], "{table}");
    }
    lake.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_ones_own_are_acknowledged_when_they_are_committed() {
    let (sender, messages) = mpsc::unbounded_channel();
    let log = Arc::new(Log {
        messages: tokio::sync::Mutex::new(messages),
        acknowledged: Mutex::default(),
        refused: Mutex::default(),
        ended: Mutex::default(),
    });
    let plan = FaultPlan::default();
    let indexer = MetadataIndexer::default().with_object_store("gs://photos", Arc::new(InMemory::new()));
    let lake =
        Lakehouse::builder("memory://").with_store_layer(plan.layer()).with_extension(Arc::new(indexer)).build().await.unwrap();
    let create = "CREATE METADATA INDEX i ON 'gs://photos' \
        WITH (events = 'own://log', hook = 'tenants', fetch = 'none', reconcile_every = 'never')";
    let failed = lake.sql(create).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unsupported);
    assert!(failed.to_string().contains("`log`"), "{failed}");
    lake.register_event_source("log", Arc::clone(&log) as _).unwrap();
    let failed = lake.sql(create).await.unwrap_err();
    assert!(failed.kind() == ErrorKind::Unsupported && failed.to_string().contains("`tenants`"), "{failed}");
    lake.register_event_hook("tenants", Arc::new(Tenants)).unwrap();
    assert_eq!(lake.register_event_hook("a b", Arc::new(Tenants)).unwrap_err().kind(), ErrorKind::InvalidInput);
    rows(&lake, create).await;
    // A commit that fails is one that is not acknowledged.
    plan.arm(1, Fault::Fail);
    for (number, key) in ["cats/a", "dogs/a", "nobody/b", "unknown/c", "broken/c", "cats/b"].into_iter().enumerate() {
        sender.send(message(key, 7 + number as u32)).unwrap();
    }
    sender.send("no JSON".to_string()).unwrap();
    until(|| log.acknowledged.lock().unwrap().len() == 7).await;
    assert!(*log.refused.lock().unwrap() > 0);
    let shown = "SELECT key, object_tags['tenant'] FROM i.inventory ORDER BY key";
    assert_eq!(lines(&rows(&lake, shown).await), ["a|dogs", "b|cats"]);
    let dead = lines(&rows(&lake, "SELECT reason, body FROM i.dead_letters").await);
    assert!(dead.iter().any(|dead| dead == "the hook: unknown is no tenant|unknown/c"), "{dead:?}");
    assert!(dead.iter().any(|dead| dead == "the hook: it panicked|broken/c"), "{dead:?}");
    assert!(dead.iter().any(|dead| dead.ends_with("|no JSON")), "{dead:?}");
    let index = lake.metadata_index("i").await.unwrap();
    index.push(&message("birds/d", 20)).await.unwrap();
    assert_eq!(lines(&rows(&lake, shown).await), ["a|dogs", "b|cats", "d|birds"]);
    index.stop().await;
    assert_eq!(*log.ended.lock().unwrap(), 1);
    assert_eq!(index.status().await.unwrap().state, IndexState::Stopped);
    index.start().await.unwrap();
    sender.send(message("cats/e", 30)).unwrap();
    until(|| log.acknowledged.lock().unwrap().len() == 8).await;
    // A source that ends before it is told to.
    drop(sender);
    until_stopped(&index).await;
    let status = index.status().await.unwrap();
    assert!(status.last_error.as_deref().is_some_and(|error| error.contains("source of events ended")), "{status:?}");
    // Nor does one that panics stop others, or the tables.
    lake.register_event_source("broken", Arc::new(Broken)).unwrap();
    rows(&lake, "CREATE METADATA INDEX broken ON 'gs://photos' WITH (events = 'own://broken', reconcile_every = 'never')").await;
    let broken = lake.metadata_index("broken").await.unwrap();
    until_stopped(&broken).await;
    let status = broken.status().await.unwrap();
    assert!(status.last_error.as_deref().is_some_and(|error| error.contains("panicked")), "{status:?}");
    rows(&lake, "CREATE METADATA INDEX other ON 'gs://photos' WITH (fetch = 'none', reconcile_every = 'never')").await;
    let other = lake.metadata_index("other").await.unwrap();
    other.push(&message("x", 1).replace("\"all\"", "\"photos\"")).await.unwrap();
    assert_eq!(lines(&rows(&lake, "SELECT key FROM other.inventory").await), ["x"]);
    assert_eq!(other.status().await.unwrap().state, IndexState::Active);
    rows(&lake, "CREATE TABLE t AS SELECT 1 AS a").await;
    lake.close().await;
    assert_eq!(*log.ended.lock().unwrap(), 2);
}
