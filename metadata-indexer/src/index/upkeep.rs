//! Upkeep of an index's own tables, which get a commit, and a few small files, with each batch of changes.
//!
//! Files are written again beside the writer, which commits them: it knows which of their rows changed meanwhile. So batches wait for
//! a commit and never for a rewrite.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt;
use tarndb_core::maintenance::{
    ExpireSnapshotsOptions, RewriteDataFilesOptions, RewrittenGroup, expire_snapshots, plan_rewrite, rewrite_data_files,
};
use tarndb_core::{Lakehouse, Result, Table, WeakLakehouse};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};

use super::Index;
use super::key_index::{self, KeyHash};
use crate::feed::stopped;
use crate::record::ids;

/// Batches after which there is upkeep.
pub(super) const EVERY: u64 = 16;

/// Up to which size files are put together, and how often, in batches: the larger, the rarer, so that no row is written again often.
const LEVELS: [(u64, u64); 2] = [(128, 16 * MIB), (EVERY, MIB)];

const MIB: u64 = 1024 * 1024;

/// Batches after which files are brought to their target size.
pub(super) const MAJOR: u64 = 2048;

/// Small files of a partition that are left alone.
const FILES_LEFT: usize = 8;

/// Snapshots that stay, but for those that somebody may be reading: the whole list is part of each commit.
const SNAPSHOTS: usize = 500;

/// How long a query may take, in milliseconds.
const LONGEST_QUERY: i64 = 10 * 60 * 1000;

/// Files below this size are put together after this batch; `None` for those that are below what they should have.
fn small(batch: u64) -> Option<u64> {
    let level = LEVELS.iter().find(|(every, _)| batch.is_multiple_of(*every));
    if batch.is_multiple_of(MAJOR) { None } else { level.map(|(_, size)| *size) }
}

/// Which files are put together after this batch. The rows of the inventory and of the annotations are looked for by key.
fn rewrite(batch: u64, is_by_key: bool) -> RewriteDataFilesOptions {
    let small = small(batch);
    let sort_by = if is_by_key { vec!["key".to_string()] } else { Vec::new() };
    RewriteDataFilesOptions {
        min_file_size_bytes: small,
        min_input_files: if small.is_some() { FILES_LEFT } else { 2 },
        sort_by,
        ..RewriteDataFilesOptions::default()
    }
}

/// Batches after which nobody has kept the tables up yet.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// The one after which there is the most to do.
    batch: Mutex<Option<u64>>,
    grew: Notify,
    /// One at a time.
    one: AsyncMutex<()>,
    /// Whether someone waits for them.
    is_awaited: AtomicBool,
}

impl Due {
    /// Says that a batch was committed.
    pub(super) fn add(&self, batch: u64) {
        if !batch.is_multiple_of(EVERY) {
            return;
        }
        let most = |batch: u64| small(batch).unwrap_or(u64::MAX);
        let mut due = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        if due.is_none_or(|due| most(due) < most(batch)) {
            *due = Some(batch);
        }
        self.grew.notify_one();
    }

    fn take(&self) -> Option<u64> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Index {
    /// Keeps the tables up, beside whoever writes to them, until it is told to stop.
    pub(super) async fn keep_up_as_it_comes(self: Arc<Self>, lake: WeakLakehouse, mut stop: watch::Receiver<bool>) {
        self.due.is_awaited.store(true, Ordering::Relaxed);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = self.due.grew.notified() => {}
            }
            let Some(lake) = lake.upgrade() else { break };
            self.keep_up_now(&lake).await;
        }
        self.due.is_awaited.store(false, Ordering::Relaxed);
    }

    /// Keeps the tables up when there is something to do and nobody else does so.
    pub(super) async fn keep_up_unless_awaited(&self, lake: &Lakehouse) {
        if !self.due.is_awaited.load(Ordering::Relaxed) {
            self.keep_up_now(lake).await;
        }
    }

    async fn keep_up_now(&self, lake: &Lakehouse) {
        let _one = self.due.one.lock().await;
        let Some(batch) = self.due.take() else { return };
        if let Err(error) = self.keep_up(lake, batch).await {
            // The changes are there, and the next upkeep does what this one did not.
            tracing::warn!(index = self.name, error = error.report(), "upkeep of a metadata index failed");
        }
    }

    async fn keep_up(&self, lake: &Lakehouse, batch: u64) -> Result<()> {
        let journal = lake.table(&self.names.journal).await?;
        for group in plan_rewrite(&journal, &rewrite(batch, false), &[]).await? {
            let group = group.write().await?;
            self.write_alone(lake, async |writer| writer.replace_in_journal(lake, group).await).await?;
        }
        let inventory = lake.table(&self.names.inventory).await?;
        for group in plan_rewrite(&inventory, &rewrite(batch, true), &[]).await? {
            let group = group.write().await?;
            let keys = keys_of(&group).await?;
            self.write_alone(lake, async |writer| writer.replace_in_inventory(group, keys).await).await?;
        }
        self.write_alone(lake, async |writer| writer.expire(lake, small(batch).is_none()).await).await
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

/// The keys of the rows of new files, in the order of the rows, by file.
async fn keys_of(group: &RewrittenGroup) -> Result<Vec<(String, Vec<KeyHash>)>> {
    let mut rows = group.rows(&["key", "version_id"])?;
    let mut files: Vec<(String, Vec<KeyHash>)> = Vec::new();
    while let Some((file, batch)) = rows.try_next().await? {
        let keys = ids(&batch)?;
        let keys = keys.iter().map(key_index::hash);
        match files.last_mut() {
            Some((last, known)) if *last == file => known.extend(keys),
            _ => files.push((file, keys.collect())),
        }
    }
    Ok(files)
}

/// Puts small files together and applies deletes, and expires snapshots, of a table to which nobody writes all the time.
///
/// # Errors
/// Those of maintenance.
pub(super) async fn keep_up(lake: &Lakehouse, table: &str, batch: u64) -> Result<()> {
    rewrite_data_files(&lake.table(table).await?, &rewrite(batch, true), &[]).await?;
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
