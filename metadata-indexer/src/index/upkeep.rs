//! Upkeep of an index's own tables, which get a commit, and a few small files, with each batch of changes.
//!
//! Files are written again beside the writer, which commits them: it knows which of their rows changed meanwhile. So batches wait for
//! a commit and never for a rewrite. Nor do small files wait for large ones, which take many seconds.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tarndb_core::maintenance::{
    ExpireSnapshotsOptions, RewriteDataFilesOptions, RewriteGroup, RewrittenGroup, expire_snapshots, plan_rewrite,
};
use tarndb_core::{Error, Lakehouse, Result, Table, WeakLakehouse};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::task::{JoinError, JoinSet};

use super::Index;
use super::new_file::NewFile;
use super::writer::Writer;
use crate::feed::stopped;
use crate::tables;

/// Commits of changes, or of what was not understood, after which there is upkeep.
pub(super) const EVERY: u64 = 16;

const MIB: u64 = 1024 * 1024;

/// Files of this size are as large as they should be: three quarters of their target.
const FULL: u64 = 96 * MIB;

/// Files are put together with all smaller ones when there are some of about the same size in a partition: so no row is written again
/// often, and there are few files of any size.
const LARGE: Tier = Tier { below: None, until: u64::MAX, from: 16 * MIB, files: 4 };
const MEDIUM: Tier = Tier { below: Some(16 * MIB), until: 16 * MIB, from: MIB, files: 8 };
const SMALL: Tier = Tier { below: Some(MIB), until: 16 * MIB, from: 0, files: 12 };

/// A large file is put together with all that are not, when many of its rows are deleted.
const DELETED: Tier = Tier { below: Some(16 * MIB), until: u64::MAX, from: 0, files: usize::MAX };

const TIERS: [Tier; 4] = [LARGE, DELETED, MEDIUM, SMALL];

/// Files of a table of which nobody writes more.
const ALL: Tier = Tier { below: None, until: u64::MAX, from: 0, files: 2 };

/// How long nothing was committed when tables are put in order.
const QUIET_FOR: Duration = Duration::from_secs(30);

/// So many commits of a table after the last one to a partition, it is as if nothing was committed: days of a journal are over.
const QUIET_COMMITS: i64 = 256;

/// Then files are put together, too, when the largest of them has at most so many times as many bytes as the others: no row is written
/// again more often than so many times for one that is new, and few files are left, of very different sizes.
const QUIET_RATIO: u64 = 16;

/// Which files are put together, and when.
#[derive(Debug, Clone, Copy)]
struct Tier {
    /// The size of the files, in bytes; `None` is [`FULL`].
    below: Option<u64>,
    /// From this size on, files stay as they are, even if many of their rows are deleted.
    until: u64,
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
    async fn plan(
        self,
        table: &Table,
        is_by_key: bool,
        upkeep: Upkeep,
        taken: &BTreeMap<String, i64>,
    ) -> Result<Vec<RewriteGroup>> {
        let last = table.metadata().last_sequence_number();
        let options = RewriteDataFilesOptions {
            min_file_size_bytes: self.below,
            min_input_files: 2,
            sort_by: if is_by_key { vec!["key".to_string()] } else { Vec::new() },
            ..RewriteDataFilesOptions::default()
        };
        let is_worth = |group: &RewriteGroup| {
            // A file that is larger is there because many of its rows are deleted.
            let is_larger = |size: u64| size >= self.below.unwrap_or(FULL);
            let are_many = group.sizes().filter(|size| *size >= self.from).count() >= self.files;
            let (all, largest) = (group.sizes().sum::<u64>(), group.sizes().max().unwrap_or(0));
            let is_quiet = upkeep == Upkeep::Quiet || group.newest() + QUIET_COMMITS <= last;
            are_many || group.sizes().any(is_larger) || is_quiet && largest <= QUIET_RATIO.saturating_mul(all - largest)
        };
        let may_be = |file: &str, size: u64| size < self.until && !taken.contains_key(file);
        Ok(plan_rewrite(table, &options, &[], may_be).await?.into_iter().filter(is_worth).collect())
    }
}

/// What there is to keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Upkeep {
    /// What some batches more left.
    Batches,
    /// What many left, and nobody adds to.
    Quiet,
    /// What a listing of all left.
    All,
}

/// What nobody has kept up yet.
#[derive(Debug)]
pub(super) struct Due {
    upkeep: Mutex<Option<Upkeep>>,
    /// Commits of this process.
    commits: AtomicU64,
    /// How long nothing has to happen.
    quiet_for: Duration,
    grew: Notify,
    /// One at a time, but for large files.
    one: AsyncMutex<()>,
    /// One writes large files at a time.
    large: AsyncMutex<()>,
    /// One plans at a time: what another took, and committed since, is not in the files that it sees.
    planning: AsyncMutex<()>,
    /// The files that are being written again, and of when the snapshot is from which they are read, in milliseconds since 1970.
    taken: Mutex<BTreeMap<String, i64>>,
    /// Whether someone waits for it.
    is_awaited: AtomicBool,
}

impl Default for Due {
    fn default() -> Self {
        Self {
            upkeep: Mutex::default(),
            commits: AtomicU64::new(0),
            quiet_for: QUIET_FOR,
            grew: Notify::new(),
            one: AsyncMutex::default(),
            large: AsyncMutex::default(),
            planning: AsyncMutex::default(),
            taken: Mutex::default(),
            is_awaited: AtomicBool::new(false),
        }
    }
}

impl Due {
    /// Says that something was committed, of which this is the number.
    pub(super) fn add(&self, number: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
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

    /// Waits until something is due. `in_order` is the number of commits after which tables were put in order last; before that, nobody
    /// knows what others left.
    async fn comes(&self, in_order: &mut Option<u64>) {
        loop {
            let commits = self.commits.load(Ordering::Relaxed);
            tokio::select! {
                () = self.grew.notified() => return,
                () = tokio::time::sleep(self.quiet_for), if *in_order != Some(commits) => {
                    if self.commits.load(Ordering::Relaxed) == commits {
                        *in_order = Some(commits);
                        self.put_back(Upkeep::Quiet);
                        return;
                    }
                }
            }
        }
    }

    fn take(&self) -> Option<Upkeep> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether there is more to do than what batches left.
    fn is_more_than_batches(&self) -> bool {
        *self.upkeep.lock().unwrap_or_else(PoisonError::into_inner) > Some(Upkeep::Batches)
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of when the oldest snapshot is of which files are being written again, in milliseconds since 1970.
    pub(super) fn needed_since(&self) -> Option<i64> {
        self.taken().values().min().copied()
    }

    /// Plans what to write again of a table, and takes it: of the groups, the `most` that have the most files.
    async fn take_groups(
        &self,
        lake: &Lakehouse,
        (table, is_by_key): (&str, bool),
        (tier, upkeep): (Tier, Upkeep),
        most: usize,
    ) -> Result<Vec<(RewriteGroup, Taken<'_>)>> {
        let _planning = self.planning.lock().await;
        // Before the table is loaded.
        let taken = self.taken().clone();
        let table = lake.table(table).await?;
        let since = table.snapshot().map_or(i64::MAX, |snapshot| snapshot.timestamp_ms());
        let mut groups = tier.plan(&table, is_by_key, upkeep, &taken).await?;
        groups.sort_by_key(|group| Reverse(group.files().count()));
        let taken = |group: RewriteGroup| {
            let taken = Taken::new(self, &group, since);
            (group, taken)
        };
        Ok(groups.into_iter().take(most).map(taken).collect())
    }
}

/// The files of a group, until they are replaced or it is given up.
struct Taken<'a> {
    due: &'a Due,
    files: Vec<String>,
}

impl<'a> Taken<'a> {
    fn new(due: &'a Due, group: &RewriteGroup, since: i64) -> Self {
        let files: Vec<String> = group.files().map(str::to_string).collect();
        due.taken().extend(files.iter().map(|file| (file.clone(), since)));
        Self { due, files }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = self.due.taken();
        for file in &self.files {
            taken.remove(file);
        }
    }
}

impl Index {
    /// Keeps the tables up, beside whoever writes to them, until it is told to stop.
    pub(super) async fn keep_up_as_it_comes(self: Arc<Self>, lake: WeakLakehouse, mut stop: watch::Receiver<bool>) {
        self.due.will_be_awaited(true);
        let mut in_order = None;
        let mut large = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = self.due.comes(&mut in_order) => {}
            }
            let Some(lake) = lake.upgrade() else { break };
            while let Some(ended) = large.try_join_next() {
                self.warn_of_panic(ended);
            }
            if large.is_empty() && !self.due.is_more_than_batches() {
                large.spawn(Arc::clone(&self).rewrite_large(lake.clone(), stop.clone()));
            }
            if !self.keep_up_now(&lake, &[MEDIUM, SMALL], Some(&stop)).await {
                in_order = None;
            }
        }
        while let Some(ended) = large.join_next().await {
            self.warn_of_panic(ended);
        }
        self.due.will_be_awaited(false);
    }

    /// Keeps the tables up when there is something to do and nobody else does so.
    pub(super) async fn keep_up_unless_awaited(&self, lake: &Lakehouse) {
        if !self.due.is_awaited.load(Ordering::Relaxed) {
            self.keep_up_now(lake, &TIERS, None).await;
        }
    }

    /// Puts large files together where batches left some: of each table a group, for what comes meanwhile is planned better later.
    async fn rewrite_large(self: Arc<Self>, lake: Lakehouse, stop: watch::Receiver<bool>) {
        let _large = self.due.large.lock().await;
        for tier in [LARGE, DELETED] {
            if let Some(error) = self.rewrite(&lake, (tier, Upkeep::Batches), 1, Some(&stop)).await {
                self.warn(&error);
            }
        }
    }

    fn warn_of_panic(&self, ended: std::result::Result<(), JoinError>) {
        if let Err(error) = ended {
            tracing::warn!(index = self.name, %error, "upkeep of a metadata index ended early");
        }
    }

    fn warn(&self, error: &Error) {
        tracing::warn!(index = self.name, error = error.report(), "upkeep of a metadata index failed");
    }

    /// Whether it was done, as far as there was something to do. What batches left are files of `tiers`.
    async fn keep_up_now(&self, lake: &Lakehouse, tiers: &[Tier], stop: Option<&watch::Receiver<bool>>) -> bool {
        // Who comes while another is at it leaves it to that one, or to who comes next.
        let Ok(_one) = self.due.one.try_lock() else { return false };
        let Some(upkeep) = self.due.take() else { return true };
        if upkeep == Upkeep::Quiet && !self.is_quiet(lake).await {
            return false;
        }
        let tiers = match upkeep {
            Upkeep::Batches => tiers,
            Upkeep::Quiet => &TIERS,
            Upkeep::All => &[ALL],
        };
        let _large = match upkeep {
            Upkeep::Batches => None,
            // What is being written would be left out.
            Upkeep::Quiet | Upkeep::All => Some(self.due.large.lock().await),
        };
        let mut failed = None;
        for tier in tiers {
            failed = self.rewrite(lake, (*tier, upkeep), usize::MAX, stop).await.or(failed);
        }
        failed = self.write_alone(lake, async |writer| writer.expire(lake).await).await.err().or(failed);
        failed = self.keep_up_dead_letters(lake).await.err().or(failed);
        if upkeep == Upkeep::Quiet
            && self.annotates()
            && let Ok(_one) = self.annotating.try_lock()
        {
            failed = keep_up(lake, &self.names.annotations, true, upkeep).await.err().or(failed);
        }
        let Some(error) = failed else { return true };
        self.warn(&error);
        if upkeep != Upkeep::Quiet {
            self.due.put_back(upkeep);
        }
        false
    }

    /// Whether no other process commits either.
    async fn is_quiet(&self, lake: &Lakehouse) -> bool {
        let since =
            lake.storage().clock().now_ms().saturating_sub(i64::try_from(self.due.quiet_for.as_millis()).unwrap_or(i64::MAX));
        lake.table(&self.names.inventory).await.is_ok_and(|inventory| inventory.metadata().last_updated_ms() <= since)
    }

    /// Puts files together, at most so many groups of each table, and returns what failed. One table does not wait for the other.
    async fn rewrite(
        &self,
        lake: &Lakehouse,
        tier: (Tier, Upkeep),
        most: usize,
        stop: Option<&watch::Receiver<bool>>,
    ) -> Option<Error> {
        let journal = self.rewrite_journal(lake, tier, most, stop).await.err();
        self.rewrite_inventory(lake, tier, most, stop).await.err().or(journal)
    }

    async fn rewrite_journal(
        &self,
        lake: &Lakehouse,
        tier: (Tier, Upkeep),
        most: usize,
        stop: Option<&watch::Receiver<bool>>,
    ) -> Result<()> {
        for (group, _taken) in self.due.take_groups(lake, (&self.names.journal, false), tier, most).await? {
            if is_told(stop) {
                break;
            }
            let group = group.write().await?;
            self.replace(lake, group, async |writer, group| writer.replace_in_journal(lake, group).await).await?;
        }
        Ok(())
    }

    async fn rewrite_inventory(
        &self,
        lake: &Lakehouse,
        tier: (Tier, Upkeep),
        most: usize,
        stop: Option<&watch::Receiver<bool>>,
    ) -> Result<()> {
        for (group, _taken) in self.due.take_groups(lake, (&self.names.inventory, true), tier, most).await? {
            if is_told(stop) {
                break;
            }
            let group = group.write().await?;
            match NewFile::of_group(&group).await {
                Ok(new) => {
                    self.replace(lake, group, async |writer, group| writer.replace_in_inventory(group, new).await).await?;
                }
                Err(error) => {
                    group.discard().await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Has the writer commit a group, of which nothing is left when there is no writer.
    async fn replace(
        &self,
        lake: &Lakehouse,
        group: RewrittenGroup,
        work: impl AsyncFnOnce(&mut Writer, RewrittenGroup) -> Result<()>,
    ) -> Result<()> {
        let mut group = Some(group);
        let replaced = self.write_alone(lake, async |writer| match group.take() {
            Some(group) => work(writer, group).await,
            None => Ok(()),
        });
        let replaced = replaced.await;
        if let Some(group) = group {
            group.discard().await;
        }
        replaced
    }

    async fn keep_up_dead_letters(&self, lake: &Lakehouse) -> Result<()> {
        match tables::dead_letters(lake, &self.names).await? {
            Some(_) => keep_up(lake, &self.names.dead_letters, false, Upkeep::Batches).await,
            None => Ok(()),
        }
    }

    /// Does something with the writer, which is not used any more after an error.
    pub(super) async fn write_alone(&self, lake: &Lakehouse, work: impl AsyncFnOnce(&mut Writer) -> Result<()>) -> Result<()> {
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

/// Puts small files together and applies deletes, and expires snapshots, of a table in which nothing depends on positions; the rows of
/// some are in the order of their keys.
///
/// # Errors
/// Those of maintenance.
pub(super) async fn keep_up(lake: &Lakehouse, table: &str, is_by_key: bool, upkeep: Upkeep) -> Result<()> {
    for tier in TIERS {
        for group in tier.plan(&lake.table(table).await?, is_by_key, upkeep, &BTreeMap::new()).await? {
            group.write().await?.commit().await?;
        }
    }
    expire(lake, &lake.table(table).await?, None).await
}

/// Forgets snapshots that are older than `history.expire.max-snapshot-age-ms`, or too many and older than one that is needed, which is of
/// that time in milliseconds since 1970.
///
/// # Errors
/// Those of maintenance.
pub(super) async fn expire(lake: &Lakehouse, table: &Table, needed_since: Option<i64>) -> Result<()> {
    expire_snapshots(table, &ExpireSnapshotsOptions { older_than_ms: None, retain_last: Some(1) }).await?;
    let now = lake.storage().clock().now_ms();
    let mut times: Vec<i64> = table.metadata().snapshots().map(|snapshot| snapshot.timestamp_ms()).collect();
    times.sort_unstable();
    if let Some(too_many) = times.len().checked_sub(SNAPSHOTS)
        && let Some(too_old) = times.get(too_many).copied()
    {
        let older_than_ms = too_old.min(now - LONGEST_QUERY).min(needed_since.unwrap_or(i64::MAX));
        if times.first().is_some_and(|first| *first < older_than_ms) {
            expire_snapshots(table, &ExpireSnapshotsOptions { older_than_ms: Some(older_than_ms), retain_last: Some(1) }).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use tarndb_core::Clock;

    use super::*;
    use crate::{MetadataIndexer, MetadataIndexes};

    #[tokio::test]
    async fn tables_are_put_in_order_when_nothing_happens() {
        let due = Due { quiet_for: Duration::from_millis(20), ..Due::default() };
        let mut in_order = None;
        for commits in [0, 1, 2] {
            due.comes(&mut in_order).await;
            assert_eq!((due.take(), in_order), (Some(Upkeep::Quiet), Some(commits)));
            let more = tokio::time::timeout(Duration::from_millis(100), due.comes(&mut in_order)).await;
            assert!(more.is_err() && due.take().is_none(), "once, until there is another commit");
            due.add(commits + 1);
        }
        due.add(EVERY);
        due.comes(&mut in_order).await;
        assert_eq!((due.take(), in_order), (Some(Upkeep::Batches), Some(2)));
    }

    /// A clock that is so many milliseconds ahead.
    #[derive(Debug, Default)]
    struct Ahead(AtomicI64);

    impl Clock for Ahead {
        fn now_ms(&self) -> i64 {
            chrono::Utc::now().timestamp_millis() + self.0.load(Ordering::Relaxed)
        }
    }

    async fn number(lake: &Lakehouse, sql: &str) -> i64 {
        let rows = lake.sql(sql).await.unwrap().collect().await.unwrap();
        rows[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    /// A lake with an index that nobody follows, of `folder`.
    async fn indexed(folder: &std::path::Path, clock: &Arc<Ahead>) -> (Lakehouse, Arc<Index>) {
        let indexer = Arc::new(MetadataIndexer::default());
        let lake = Lakehouse::builder("memory://").with_extension(Arc::clone(&indexer) as _).with_clock(Arc::clone(clock) as _);
        let lake = lake.build().await.unwrap();
        lake.create_metadata_index("docs", folder.to_str().unwrap()).await.unwrap();
        let index = indexer.index(&lake, "docs").await.unwrap();
        index.stop().await;
        (lake, index)
    }

    /// Writes 200 of 400 files, other ones in each round, and indexes them.
    async fn change(lake: &Lakehouse, index: &Index, folder: &std::path::Path, round: usize) {
        for file in 0..200 {
            let name = folder.join(format!("{:03}.txt", (file * 7 + round * 31) % 400));
            std::fs::write(name, vec![b'x'; 10 + round]).unwrap();
        }
        index.sync(lake).await.unwrap();
    }

    const FILES: &str = "SELECT count(*) FROM docs.\"inventory$files\" WHERE content = 0";

    /// What is in the inventory, which has each object once.
    async fn sizes(lake: &Lakehouse) -> String {
        let objects = lake.sql("SELECT key, size FROM docs.inventory ORDER BY key").await.unwrap().collect().await.unwrap();
        arrow::util::pretty::pretty_format_batches(&objects).unwrap().to_string()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn days_that_are_over_are_few_files() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Ahead::default());
        let (lake, index) = indexed(folder.path(), &clock).await;
        let mut size = 0;
        let mut touch = async || {
            size += 1;
            std::fs::write(folder.path().join("a.txt"), vec![b'x'; size]).unwrap();
            index.sync(&lake).await.unwrap();
        };
        for _ in 0..11 {
            touch().await;
        }
        let over = chrono::Utc::now().to_rfc3339();
        let files = format!("SELECT count(DISTINCT _file) FROM docs.journal WHERE record_timestamp <= TIMESTAMP '{over}'");
        assert_eq!(number(&lake, &files).await, 11);
        clock.0.store(2 * 86_400_000, Ordering::Relaxed);
        // While somebody commits to another all the time.
        for _ in 0..QUIET_COMMITS {
            touch().await;
        }
        let left = number(&lake, &files).await;
        assert!(left <= 3, "{left} files of a day that is over");
        assert_eq!(number(&lake, "SELECT count(*) FROM docs.journal").await, 11 + QUIET_COMMITS);
    }

    #[tokio::test]
    async fn snapshots_stay_for_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Ahead::default());
        let (lake, index) = indexed(folder.path(), &clock).await;
        for round in 0..3 {
            change(&lake, &index, folder.path(), round).await;
        }
        for table in [&index.names.journal, &index.names.inventory] {
            let mut left = Vec::new();
            for hours in [0, 23, 25] {
                clock.0.store(hours * 3_600_000, Ordering::Relaxed);
                expire(&lake, &lake.table(table).await.unwrap(), None).await.unwrap();
                left.push(lake.table(table).await.unwrap().metadata().snapshots().len());
            }
            assert!(left[0] >= 3 && left[1] == left[0] && left[2] == 1, "{left:?}");
        }
        assert!(number(&lake, "SELECT count(*) FROM docs.inventory").await > 200);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn small_files_do_not_wait_for_those_that_are_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, index) = indexed(folder.path(), &Arc::default()).await;
        for round in 0..4 {
            change(&lake, &index, folder.path(), round).await;
        }
        let few = (Tier { below: Some(MIB), until: MIB, from: 0, files: 2 }, Upkeep::Batches);
        let inventory = index.names.inventory.as_str();
        // Many rows of larger files are deleted, which are others' business.
        for (until, groups) in [(u64::MAX, 4), (1, 0)] {
            let larger = Tier { below: Some(1), until, ..DELETED };
            let taken = index.due.take_groups(&lake, (inventory, true), (larger, Upkeep::Batches), usize::MAX).await.unwrap();
            assert_eq!(taken.len(), groups);
        }
        let taken = index.due.take_groups(&lake, (inventory, true), few, usize::MAX).await.unwrap();
        let (large, taken): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        assert_eq!(large.len(), 4, "one of each partition");
        let mut written = Vec::new();
        for group in large {
            written.push(group.write().await.unwrap());
        }
        for round in 4..6 {
            change(&lake, &index, folder.path(), round).await;
        }
        let expected = sizes(&lake).await;
        let beside = number(&lake, FILES).await;
        assert!(index.rewrite(&lake, few, usize::MAX, None).await.is_none());
        assert!(number(&lake, FILES).await < beside, "what came since is put together");
        assert!(sizes(&lake).await == expected);
        for group in written {
            assert!(group.replaced().iter().all(|file| index.due.taken().contains_key(file)));
            let new = NewFile::of_group(&group).await.unwrap();
            index.write_alone(&lake, async |writer| writer.replace_in_inventory(group, new).await).await.unwrap();
        }
        drop(taken);
        assert!(index.due.taken().is_empty());
        assert_eq!(number(&lake, FILES).await, 8, "two in each partition");
        assert!(sizes(&lake).await == expected);
        // Where each row is, is known of all.
        change(&lake, &index, folder.path(), 8).await;
        assert!(sizes(&lake).await != expected);
        let objects = number(&lake, "SELECT count(*) FROM docs.inventory").await;
        assert_eq!(number(&lake, "SELECT count(DISTINCT key) FROM docs.inventory").await, objects);
        assert!(index.rewrite(&lake, few, 1, None).await.is_none());
        assert_eq!(number(&lake, "SELECT count(*) FROM docs.inventory").await, objects);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn few_files_are_left_in_quiet() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Ahead::default());
        let (lake, index) = indexed(folder.path(), &clock).await;
        for round in 0..6 {
            change(&lake, &index, folder.path(), round).await;
        }
        let (files, keys) = (FILES, "SELECT count(*) FROM docs.inventory");
        let (before, known) = (number(&lake, files).await, number(&lake, keys).await);
        assert!(before > 8, "{before} files");
        index.due.put_back(Upkeep::Quiet);
        assert!(!index.keep_up_now(&lake, &TIERS, None).await, "somebody, if not this process, committed a moment ago");
        assert_eq!(number(&lake, files).await, before);
        clock.0.store(60_000, Ordering::Relaxed);
        index.due.put_back(Upkeep::Quiet);
        assert!(index.keep_up_now(&lake, &TIERS, None).await);
        assert_eq!((number(&lake, files).await, number(&lake, keys).await), (4, known), "a file in each partition");
        assert_eq!(number(&lake, "SELECT count(DISTINCT key) FROM docs.inventory").await, known);
        // What is in order is left alone.
        let snapshots = "SELECT count(*) FROM docs.\"inventory$snapshots\"";
        let committed = number(&lake, snapshots).await;
        clock.0.store(120_000, Ordering::Relaxed);
        index.due.put_back(Upkeep::Quiet);
        assert!(index.keep_up_now(&lake, &TIERS, None).await);
        assert_eq!(number(&lake, snapshots).await, committed);
    }
}
