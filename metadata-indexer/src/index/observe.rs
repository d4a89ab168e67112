use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tarndb_core::{Error, ErrorKind, Lakehouse, Result};
use tokio::sync::mpsc;

use super::status::Synced;
use super::writer::Writer;
use super::{Index, key_index, marks};
use crate::folder::watch::Touched;
use crate::folder::{Folder, Listed, is_below};
use crate::record::{Change, ObjectId, ObjectState, Origin, Record};

/// Objects that are looked at, and committed, at once.
const OBSERVED_AT_ONCE: usize = 50_000;

/// Attempts beside others who write to the same tables, and the longest pause between two; they are of random length.
const ATTEMPTS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 500;

/// What came of looking at a source.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) synced: Synced,
    /// What could not be looked at. The rest was.
    pub(super) unreadable: Option<Error>,
    /// Folders that were touched, with what is in them.
    pub(super) folders: Vec<PathBuf>,
}

impl Looked {
    pub(super) fn add(&mut self, other: Self) {
        self.synced += other.synced;
        self.unreadable = self.unreadable.take().or(other.unreadable);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("looking at a folder ended early").with_source(e))?
}

/// The number of the next attempt after a conflict; other errors are handed back.
pub(super) async fn pause_after(lake: &Lakehouse, error: Error, attempt: u64) -> Result<u64> {
    if error.kind() != ErrorKind::CommitConflict || attempt >= ATTEMPTS {
        return Err(error);
    }
    let pause = lake.storage().ids().jitter((attempt * 50).min(LONGEST_PAUSE_MS));
    tokio::time::sleep(Duration::from_millis(pause)).await;
    Ok(attempt + 1)
}

impl Index {
    /// Looks at objects, and records what is not as it is known. One observer at a time, so that what is recorded later was seen
    /// later.
    async fn observe(&self, lake: &Lakehouse, folder: &Folder, keys: Vec<String>) -> Result<Looked> {
        let mut looked = Looked::default();
        for keys in keys.chunks(OBSERVED_AT_ONCE) {
            let mut attempt = 1;
            loop {
                match self.observe_once(lake, folder, keys.to_vec()).await {
                    Ok(found) => {
                        looked.add(found);
                        break;
                    }
                    // Someone compacted a table, or another process follows the same source: what is known is read again.
                    Err(e) => attempt = pause_after(lake, e, attempt).await?,
                }
            }
        }
        Ok(looked)
    }

    async fn observe_once(&self, lake: &Lakehouse, folder: &Folder, keys: Vec<String>) -> Result<Looked> {
        let mut guard = self.writer.lock().await;
        let mut writer = self.take_writer(lake, &mut guard).await?;
        let folder = folder.clone();
        let states = blocking(move || folder.states(keys)).await?;
        let (records, synced) = changes(&mut writer, lake.storage().clock().now_ms(), states.found);
        writer.record(lake, &records).await?;
        *guard = Some(writer);
        drop(guard);
        self.keep_up_unless_awaited(lake).await;
        Ok(Looked { synced, unreadable: states.unreadable, ..Looked::default() })
    }

    /// The writer, opened unless it is there and still right. It is taken out, so that nobody uses it after an error, nor after this
    /// was cancelled.
    pub(super) async fn take_writer(&self, lake: &Lakehouse, writer: &mut Option<Writer>) -> Result<Writer> {
        if let Some(writer) = writer.take()
            && writer.is_current(lake).await?
        {
            return Ok(writer);
        }
        // What another process committed, or this one without knowing, was not told.
        self.backlog.add_all();
        let mut attempt = 1;
        let told = (self.annotates().then(|| Arc::clone(&self.backlog)), Arc::clone(&self.due));
        loop {
            match Writer::open(lake, &self.names, &self.source.bucket(), &self.source.url(), told.clone()).await {
                Ok(writer) => return Ok(writer),
                Err(e) => attempt = pause_after(lake, e, attempt).await?,
            }
        }
    }

    /// Whether what was there when the index was created is in the inventory.
    pub(crate) async fn is_complete(&self, lake: &Lakehouse) -> Result<bool> {
        lake.table(&self.names.inventory).await.map(|inventory| marks::is_complete(&inventory))
    }

    /// Says that it is.
    pub(super) async fn complete(&self, lake: &Lakehouse) -> Result<()> {
        let mut guard = self.writer.lock().await;
        let mut writer = self.take_writer(lake, &mut guard).await?;
        if !writer.is_complete() {
            writer.complete(lake).await?;
        }
        *guard = Some(writer);
        drop(guard);
        self.keep_up_unless_awaited(lake).await;
        Ok(())
    }

    /// Looks at what was touched.
    pub(super) async fn observe_touched(&self, lake: &Lakehouse, folder: &Folder, touched: Touched) -> Result<Looked> {
        let looked_at = folder.clone();
        let (mut keys, gone, folders, unreadable) = blocking(move || {
            let (mut keys, mut gone, mut folders, mut unreadable) = (Vec::new(), HashSet::new(), Vec::new(), None);
            let again = touched.again.into_iter().map(|path| (path, false, true));
            for (path, was_folder, again) in touched.paths.into_iter().map(|(path, was)| (path, was, false)).chain(again) {
                let Some(key) = looked_at.key(&path) else { continue };
                if looked_at.is_folder(&key) {
                    looked_at.list(&key, |found| {
                        match found {
                            Listed::Keys(more) => keys.extend(more),
                            Listed::Unreadable(_, error) => drop(unreadable.get_or_insert(error)),
                        }
                        true
                    });
                    if !again {
                        folders.push(path);
                    }
                }
                if was_folder {
                    gone.insert(key.clone());
                }
                keys.push(key);
            }
            Ok((keys, gone, folders, unreadable))
        })
        .await?;
        if !gone.is_empty() {
            let mut guard = self.writer.lock().await;
            let writer = self.take_writer(lake, &mut guard).await?;
            // What was a file had no files below.
            let gone = gone.into_iter().filter(|key: &String| writer.known(&ObjectId::of_key(key)).is_none()).collect();
            keys.extend(writer.objects_below(lake, &gone).await?.into_iter().map(|id| id.key));
            *guard = Some(writer);
        }
        keys.sort_unstable();
        keys.dedup();
        let mut looked = Looked { unreadable, folders, ..Looked::default() };
        looked.add(self.observe(lake, folder, keys).await?);
        Ok(looked)
    }

    /// Lists the source, and records what makes the inventory true again. Of what is below a part that cannot be listed nothing is taken
    /// for gone.
    pub(super) async fn look_at_folder(&self, lake: &Lakehouse, folder: &Folder) -> Result<Looked> {
        let (sender, mut listed) = mpsc::channel(2);
        let (looked_at, listing) = (folder.clone(), self.counters.listing());
        let lists = tokio::task::spawn_blocking(move || {
            looked_at.check()?;
            looked_at.list("", |found| sender.blocking_send(found).is_ok());
            Ok::<(), Error>(())
        });
        let mut looked = Looked::default();
        let (mut seen, mut unreadable) = (HashSet::new(), HashSet::new());
        while let Some(found) = listed.recv().await {
            match found {
                Listed::Keys(keys) => {
                    listing.add(keys.len());
                    seen.extend(keys.iter().map(|key| key_index::hash_of(key, None)));
                    looked.add(self.observe(lake, folder, keys).await?);
                }
                Listed::Unreadable(key, error) => {
                    unreadable.insert(key);
                    looked.unreadable.get_or_insert(error);
                }
            }
        }
        lists.await.map_err(|e| Error::internal("listing a folder ended early").with_source(e))??;
        let gone = {
            let mut guard = self.writer.lock().await;
            let writer = self.take_writer(lake, &mut guard).await?;
            let others = writer.others(lake, &seen).await?;
            *guard = Some(writer);
            others
        };
        let gone = gone.into_iter().map(|id| id.key).filter(|key| !is_below(key, &unreadable)).collect();
        looked.add(self.observe(lake, folder, gone).await?);
        Ok(looked)
    }
}

/// What is not as it is known.
fn changes(writer: &mut Writer, now_ms: i64, states: Vec<(String, Option<ObjectState>)>) -> (Vec<Record>, Synced) {
    let (mut records, mut synced) = (Vec::new(), Synced::default());
    for (key, state) in states {
        let id = ObjectId { key, version: None };
        let known = writer.known(&id);
        if state.as_ref().map_or(known.is_none(), |state| known.is_some_and(|known| known.is_same(state))) {
            continue;
        }
        let sequence = writer.next_sequence(u64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000_000));
        // Both grow together, whatever the clock does.
        let timestamp = i64::try_from(sequence.time() / 1000).unwrap_or(i64::MAX);
        let change = state.map_or(Change::Deleted, Change::Created);
        synced.count(&change, known.is_some());
        records.push(Record { id, sequence, timestamp, change, origin: Origin::default() });
    }
    (records, synced)
}
