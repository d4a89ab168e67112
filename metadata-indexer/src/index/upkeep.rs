//! Upkeep of an index's own tables, which get a commit, and a few small files, with each batch of changes.
//!
//! Files are written again beside the writer, which commits them: it knows which of their rows changed meanwhile. So batches wait for
//! a commit and never for a rewrite.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt;
use tarndb_core::maintenance::{
    ExpireSnapshotsOptions, RewriteDataFilesOptions, RewriteGroup, RewrittenGroup, expire_snapshots, plan_rewrite,
};
use tarndb_core::{Lakehouse, Result, Table, WeakLakehouse};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};

use super::Index;
use super::key_index;
use super::shard::KeyHash;
use crate::feed::stopped;
use crate::record::ids;
use crate::tables;

/// Commits of changes, or of what was not understood, after which there is upkeep.
pub(super) const EVERY: u64 = 16;

const MIB: u64 = 1024 * 1024;

/// Files of this size are as large as they should be: three quarters of their target.
const FULL: u64 = 96 * MIB;

/// Files are put together with all smaller ones when there are some of about the same size in a partition: so no row is written again
/// often, and there are few files of any size.
const TIERS: [Tier; 3] = [
    Tier { below: None, from: 16 * MIB, files: 4 },
    Tier { below: Some(16 * MIB), from: MIB, files: 8 },
    Tier { below: Some(MIB), from: 0, files: 12 },
];

/// Files of a table of which nobody writes more.
const ALL: Tier = Tier { below: None, from: 0, files: 2 };

/// Which files are put together, and when.
#[derive(Debug, Clone, Copy)]
struct Tier {
    /// The size of the files, in bytes; `None` is [`FULL`].
    below: Option<u64>,
    /// There are so many files of at least this size.
    from: u64,
    files: usize,
}

/// Snapshots that stay, but for those that somebody may be reading: the whole list is part of each commit.
const SNAPSHOTS: usize = 500;

/// How long a query may take, in milliseconds.
const LONGEST_QUERY: i64 = 10 * 60 * 1000;

impl Tier {
    /// The files of a table to put together. The rows of the inventory and of the annotations are looked for by key.
    async fn plan(self, table: &Table, is_by_key: bool) -> Result<Vec<RewriteGroup>> {
        let groups = plan_rewrite(table, &self.options(is_by_key), &[]).await?;
        // A file that is larger is there because many of its rows are deleted.
        let is_worth = |group: &RewriteGroup| {
            let is_larger = |size: u64| size >= self.below.unwrap_or(FULL);
            group.sizes().filter(|size| *size >= self.from).count() >= self.files || group.sizes().any(is_larger)
        };
        Ok(groups.into_iter().filter(is_worth).collect())
    }

    fn options(self, is_by_key: bool) -> RewriteDataFilesOptions {
        RewriteDataFilesOptions {
            min_file_size_bytes: self.below,
            min_input_files: self.files,
            sort_by: if is_by_key { vec!["key".to_string()] } else { Vec::new() },
            ..RewriteDataFilesOptions::default()
        }
    }
}

/// What there is to keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Upkeep {
    /// What some batches more left.
    Batches,
    /// What a listing of all left.
    All,
}

/// What nobody has kept up yet.
#[derive(Debug, Default)]
pub(super) struct Due {
    upkeep: Mutex<Option<Upkeep>>,
    grew: Notify,
    /// One at a time.
    one: AsyncMutex<()>,
    /// Whether someone waits for it.
    is_awaited: AtomicBool,
}

impl Due {
    /// Says that something was committed, of which this is the number.
    pub(super) fn add(&self, number: u64) {
        if number.is_multiple_of(EVERY) {
            self.add_upkeep(Upkeep::Batches);
        }
    }

    /// Says that all objects of the source are there.
    pub(super) fn add_all(&self) {
        self.add_upkeep(Upkeep::All);
    }

    fn add_upkeep(&self, upkeep: Upkeep) {
        self.put_back(upkeep);
        self.grew.notify_one();
    }

    /// Says that what was due was not done: it is tried again after more batches.
    fn put_back(&self, upkeep: Upkeep) {
        let mut due = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(Some(upkeep));
    }

    /// Says whether someone waits for what is due, or soon will.
    pub(super) fn will_be_awaited(&self, is_awaited: bool) {
        self.is_awaited.store(is_awaited, Ordering::Relaxed);
    }

    fn take(&self) -> Option<Upkeep> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Index {
    /// Keeps the tables up, beside whoever writes to them, until it is told to stop.
    pub(super) async fn keep_up_as_it_comes(self: Arc<Self>, lake: WeakLakehouse, mut stop: watch::Receiver<bool>) {
        self.due.will_be_awaited(true);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = self.due.grew.notified() => {}
            }
            let Some(lake) = lake.upgrade() else { break };
            self.keep_up_now(&lake, Some(&stop)).await;
        }
        self.due.will_be_awaited(false);
    }

    /// Keeps the tables up when there is something to do and nobody else does so.
    pub(super) async fn keep_up_unless_awaited(&self, lake: &Lakehouse) {
        if !self.due.is_awaited.load(Ordering::Relaxed) {
            self.keep_up_now(lake, None).await;
        }
    }

    async fn keep_up_now(&self, lake: &Lakehouse, stop: Option<&watch::Receiver<bool>>) {
        // Who comes while another is at it leaves it to that one, or to who comes next.
        let Ok(_one) = self.due.one.try_lock() else { return };
        let Some(upkeep) = self.due.take() else { return };
        let tiers: &[Tier] = if upkeep == Upkeep::All { &[ALL] } else { &TIERS };
        let mut failed = None;
        for tier in tiers {
            // One does not wait for another.
            failed = self.rewrite_journal(lake, *tier, stop).await.err().or(failed);
            failed = self.rewrite_inventory(lake, *tier, stop).await.err().or(failed);
        }
        failed = self.write_alone(lake, async |writer| writer.expire(lake).await).await.err().or(failed);
        failed = self.keep_up_dead_letters(lake).await.err().or(failed);
        if let Some(error) = failed {
            tracing::warn!(index = self.name, error = error.report(), "upkeep of a metadata index failed");
            self.due.put_back(upkeep);
        }
    }

    async fn rewrite_journal(&self, lake: &Lakehouse, tier: Tier, stop: Option<&watch::Receiver<bool>>) -> Result<()> {
        for group in tier.plan(&lake.table(&self.names.journal).await?, false).await? {
            if is_told(stop) {
                break;
            }
            let group = group.write().await?;
            self.write_alone(lake, async |writer| writer.replace_in_journal(lake, group).await).await?;
        }
        Ok(())
    }

    async fn rewrite_inventory(&self, lake: &Lakehouse, tier: Tier, stop: Option<&watch::Receiver<bool>>) -> Result<()> {
        for group in tier.plan(&lake.table(&self.names.inventory).await?, true).await? {
            if is_told(stop) {
                break;
            }
            let group = group.write().await?;
            match keys_of(&group).await {
                Ok(keys) => self.write_alone(lake, async |writer| writer.replace_in_inventory(group, keys).await).await?,
                Err(error) => {
                    group.discard().await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn keep_up_dead_letters(&self, lake: &Lakehouse) -> Result<()> {
        match tables::dead_letters(lake, &self.names).await? {
            Some(_) => keep_up(lake, &self.names.dead_letters, false).await,
            None => Ok(()),
        }
    }

    /// Does something with the writer, which is not used any more after an error.
    async fn write_alone(
        &self,
        lake: &Lakehouse,
        work: impl AsyncFnOnce(&mut super::writer::Writer) -> Result<()>,
    ) -> Result<()> {
        let mut guard = self.writer.lock().await;
        let mut writer = self.take_writer(lake, &mut guard).await?;
        work(&mut writer).await?;
        *guard = Some(writer);
        Ok(())
    }
}

fn is_told(stop: Option<&watch::Receiver<bool>>) -> bool {
    stop.is_some_and(|stop| *stop.borrow())
}

/// The keys of the rows of new files, in the order of the rows, by file.
async fn keys_of(group: &RewrittenGroup) -> Result<Vec<(String, Vec<KeyHash>)>> {
    let mut rows = group.rows(&["key", "version_id"])?;
    let mut files: Vec<(String, Vec<KeyHash>)> = Vec::new();
    while let Some((file, batch)) = rows.try_next().await? {
        let keys = ids(&batch)?;
        let keys = keys.iter().map(key_index::hash);
        match files.last_mut() {
            Some((last, known)) if *last == file => {
                // There are millions: not as many again, but an eighth.
                if known.len() + keys.len() > known.capacity() {
                    known.reserve_exact(keys.len().max(known.len() / 8));
                }
                known.extend(keys);
            }
            _ => files.push((file, keys.collect())),
        }
    }
    Ok(files)
}

/// Puts small files together and applies deletes, and expires snapshots, of a table in which nothing depends on positions; the rows of
/// some are in the order of their keys.
///
/// # Errors
/// Those of maintenance.
pub(super) async fn keep_up(lake: &Lakehouse, table: &str, is_by_key: bool) -> Result<()> {
    for tier in TIERS {
        for group in tier.plan(&lake.table(table).await?, is_by_key).await? {
            group.write().await?.commit().await?;
        }
    }
    expire(lake, &lake.table(table).await?).await
}

/// Forgets snapshots that are older than `history.expire.max-snapshot-age-ms`, or too many.
///
/// # Errors
/// Those of maintenance.
pub(super) async fn expire(lake: &Lakehouse, table: &Table) -> Result<()> {
    expire_snapshots(table, &ExpireSnapshotsOptions { older_than_ms: None, retain_last: Some(1) }).await?;
    let now = lake.storage().clock().now_ms();
    let mut times: Vec<i64> = table.metadata().snapshots().map(|snapshot| snapshot.timestamp_ms()).collect();
    times.sort_unstable();
    if let Some(too_many) = times.len().checked_sub(SNAPSHOTS)
        && let Some(too_old) = times.get(too_many).copied()
    {
        let older_than_ms = too_old.min(now - LONGEST_QUERY);
        if times.first().is_some_and(|first| *first < older_than_ms) {
            expire_snapshots(table, &ExpireSnapshotsOptions { older_than_ms: Some(older_than_ms), retain_last: Some(1) }).await?;
        }
    }
    Ok(())
}
