//! Upkeep of an index's own tables, which get a commit, and a few small files, with each batch of changes.
//!
//! Files are written again beside the writer, which commits them: it knows which of their rows changed meanwhile. So batches wait for
//! a commit and never for a rewrite. Nor do small files wait for large ones, which take many seconds.

use std::sync::Arc;

use tarndb_core::maintenance::{ExpireSnapshotsOptions, RewrittenGroup, expire_snapshots};
use tarndb_core::{Error, Lakehouse, Result, Table, WeakLakehouse};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::Index;
use super::due::{Awaited, Upkeep};
use super::new_file::NewFile;
use super::tiers::{ALL, DELETED, LARGE, MEDIUM, SMALL, TIERS, Tier};
use super::writer::Writer;
use crate::feed::stopped;
use crate::tables;

/// Snapshots that stay, but for those that somebody may be reading: the whole list is part of each commit.
const SNAPSHOTS: usize = 500;

/// How long a query may take, in milliseconds.
const LONGEST_QUERY: i64 = 10 * 60 * 1000;

/// What is done to both tables.
#[derive(Debug, Clone, Copy)]
struct Pass<'a> {
    tier: Tier,
    /// Whether nobody adds to them.
    is_quiet: bool,
    /// Groups of each table at most.
    most: usize,
    /// Says when to leave the rest.
    stop: Option<&'a watch::Receiver<bool>>,
}

impl Pass<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| *stop.borrow())
    }
}

impl Index {
    /// Keeps the tables up, beside whoever writes to them, until it is told to stop.
    pub(super) async fn keep_up_as_it_comes(
        self: Arc<Self>,
        lake: WeakLakehouse,
        mut stop: watch::Receiver<bool>,
        _awaited: Awaited,
    ) {
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
            if !self.keep_up_now(&lake, Some(&stop)).await {
                in_order = None;
            }
        }
        while let Some(ended) = large.join_next().await {
            self.warn_of_panic(ended);
        }
    }

    /// Keeps the tables up when there is something to do and nobody else does so.
    pub(super) async fn keep_up_unless_awaited(&self, lake: &Lakehouse) {
        if !self.due.is_awaited() {
            self.keep_up_now(lake, None).await;
        }
    }

    /// Puts large files together where batches left some: of each table a group, for what comes meanwhile is planned better later.
    async fn rewrite_large(self: Arc<Self>, lake: Lakehouse, stop: watch::Receiver<bool>) {
        let _large = self.due.large.lock().await;
        for tier in [LARGE, DELETED] {
            let pass = Pass { tier, is_quiet: false, most: 1, stop: Some(&stop) };
            if let Some(error) = self.rewrite(&lake, pass).await {
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

    /// Whether it was done, as far as there was something to do. Where there is a `stop`, large files are put together beside this.
    async fn keep_up_now(&self, lake: &Lakehouse, stop: Option<&watch::Receiver<bool>>) -> bool {
        // Who comes while another is at it leaves it to that one, or to who comes next.
        let Ok(_one) = self.due.one.try_lock() else { return false };
        let Some(upkeep) = self.due.take() else { return true };
        if upkeep == Upkeep::Quiet && !self.is_quiet(lake).await {
            // Of which there may be some.
            self.due.put_back(Upkeep::Batches);
            return false;
        }
        let tiers: &[Tier] = match upkeep {
            Upkeep::Batches if stop.is_some() => &[MEDIUM, SMALL],
            Upkeep::Batches | Upkeep::Quiet => &TIERS,
            Upkeep::All => &[ALL],
        };
        let _large = match upkeep {
            Upkeep::Batches => None,
            // What is being written would be left out.
            Upkeep::Quiet | Upkeep::All => Some(self.due.large.lock().await),
        };
        let mut failed = None;
        for tier in tiers {
            let pass = Pass { tier: *tier, is_quiet: upkeep == Upkeep::Quiet, most: usize::MAX, stop };
            failed = self.rewrite(lake, pass).await.or(failed);
        }
        failed = self.write_alone(lake, async |writer| writer.expire(lake).await).await.err().or(failed);
        failed = self.keep_up_dead_letters(lake).await.err().or(failed);
        if upkeep == Upkeep::Quiet
            && self.annotates()
            && let Ok(_one) = self.annotating.try_lock()
        {
            failed = keep_up(lake, &self.names.annotations, true, true).await.err().or(failed);
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
        let since = lake.storage().clock().now_ms().saturating_sub(self.due.quiet_for_ms());
        lake.table(&self.names.inventory).await.is_ok_and(|inventory| inventory.metadata().last_updated_ms() <= since)
    }

    /// Puts files together, and returns what failed. One table does not wait for the other.
    async fn rewrite(&self, lake: &Lakehouse, pass: Pass<'_>) -> Option<Error> {
        let journal = self.rewrite_table(lake, false, pass).await.err();
        self.rewrite_table(lake, true, pass).await.err().or(journal)
    }

    /// Puts files of the inventory or of the journal together.
    async fn rewrite_table(&self, lake: &Lakehouse, is_inventory: bool, pass: Pass<'_>) -> Result<()> {
        let table = if is_inventory { &self.names.inventory } else { &self.names.journal };
        for (group, _taken) in self.due.take_groups(lake, (table, is_inventory), (pass.tier, pass.is_quiet), pass.most).await? {
            if pass.is_stopped() {
                break;
            }
            let group = group.write().await?;
            let new = if is_inventory { NewFile::of_group(&group).await.map(Some) } else { Ok(None) };
            match new {
                Ok(new) => self.replace(lake, group, new).await?,
                Err(error) => {
                    group.discard().await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Has the writer commit a group, of the inventory when its new files are known; nothing is left of it when there is no writer.
    async fn replace(&self, lake: &Lakehouse, group: RewrittenGroup, new: Option<Vec<NewFile>>) -> Result<()> {
        let mut group = Some(group);
        let replaced = self.write_alone(lake, async |writer| match (group.take(), new) {
            (Some(group), Some(new)) => writer.replace_in_inventory(group, new).await,
            (Some(group), None) => writer.replace_in_journal(lake, group).await,
            (None, _) => Ok(()),
        });
        let replaced = replaced.await;
        if let Some(group) = group {
            group.discard().await;
        }
        replaced
    }

    async fn keep_up_dead_letters(&self, lake: &Lakehouse) -> Result<()> {
        match tables::dead_letters(lake, &self.names).await? {
            Some(_) => keep_up(lake, &self.names.dead_letters, false, false).await,
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

/// Puts small files together and applies deletes, and expires snapshots, of a table in which nothing depends on positions; the rows of
/// some are in the order of their keys.
///
/// # Errors
/// Those of maintenance.
pub(super) async fn keep_up(lake: &Lakehouse, table: &str, is_by_key: bool, is_quiet: bool) -> Result<()> {
    for tier in TIERS {
        for group in tier.plan(&lake.table(table).await?, is_by_key, is_quiet, |_| true).await? {
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
    use std::sync::atomic::{AtomicI64, Ordering};

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use tarndb_core::Clock;

    use super::super::tiers::{MIB, QUIET_COMMITS};
    use super::*;
    use crate::{MetadataIndexer, MetadataIndexes};

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
        const DAYS: i64 = 30;
        const COMMITS: i64 = 2;
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Ahead::default());
        let (lake, index) = indexed(folder.path(), &clock).await;
        let mut size = 0;
        let mut touch = async || {
            size += 1;
            std::fs::write(folder.path().join("a.txt"), vec![b'x'; size]).unwrap();
            index.sync(&lake).await.unwrap();
        };
        for day in 0..DAYS {
            clock.0.store(day * 86_400_000, Ordering::Relaxed);
            for _ in 0..COMMITS {
                touch().await;
            }
        }
        // While somebody commits to another all the time.
        clock.0.store(DAYS * 86_400_000, Ordering::Relaxed);
        for _ in 0..QUIET_COMMITS {
            touch().await;
        }
        let over = format!("TIMESTAMP '{}'", (chrono::Utc::now() + chrono::TimeDelta::days(DAYS - 1)).to_rfc3339());
        let files = format!("SELECT count(DISTINCT _file) FROM docs.journal WHERE record_timestamp < {over}");
        let left = number(&lake, &files).await;
        // The files of a day that began with the upkeep of the day before are two.
        assert!((DAYS - 2..=DAYS + 5).contains(&left), "{left} files of {DAYS} days that are over");
        assert_eq!(number(&lake, "SELECT count(*) FROM docs.journal").await, DAYS * COMMITS + QUIET_COMMITS);
        for (table, most) in [("journal", 2 * DAYS + 40), ("inventory", 40)] {
            for what in ["files", "manifests", "snapshots"] {
                let most = if what == "snapshots" { SNAPSHOTS as i64 + 40 } else { most };
                let left = number(&lake, &format!("SELECT count(*) FROM docs.\"{table}${what}\"")).await;
                assert!(left <= most, "{left} {what} of the {table}");
            }
        }
    }

    /// A day of commits each second is too many to be named in each of them.
    #[tokio::test]
    async fn of_many_snapshots_those_stay_that_somebody_may_read() {
        let clock = Arc::new(Ahead::default());
        let lake = Lakehouse::builder("memory://").with_clock(Arc::clone(&clock) as _).build().await.unwrap();
        lake.sql("CREATE TABLE t (a INT)").await.unwrap().collect().await.unwrap();
        for ahead in 0..SNAPSHOTS + 20 {
            clock.0.store(ahead as i64 * 2, Ordering::Relaxed);
            lake.sql("INSERT INTO t VALUES (1)").await.unwrap().collect().await.unwrap();
        }
        let mut left = Vec::new();
        let long = LONGEST_QUERY + 60_000;
        for (ahead, needed_since) in [(0, None), (long, Some(0)), (long, None)] {
            clock.0.store(ahead, Ordering::Relaxed);
            expire(&lake, &lake.table("t").await.unwrap(), needed_since).await.unwrap();
            left.push(lake.table("t").await.unwrap().metadata().snapshots().len());
        }
        assert_eq!(left, [SNAPSHOTS + 20, SNAPSHOTS + 20, SNAPSHOTS]);
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
        let few = Tier { below: Some(MIB), until: MIB, from: 0, files: 2 };
        let pass = |most| Pass { tier: few, is_quiet: false, most, stop: None };
        let inventory = index.names.inventory.as_str();
        // Many rows of larger files are deleted, which are others' business.
        for (until, groups) in [(u64::MAX, 4), (1, 0)] {
            let larger = Tier { below: Some(1), until, ..DELETED };
            let taken = index.due.take_groups(&lake, (inventory, true), (larger, false), usize::MAX).await.unwrap();
            assert_eq!(taken.len(), groups);
        }
        let taken = index.due.take_groups(&lake, (inventory, true), (few, false), usize::MAX).await.unwrap();
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
        assert!(index.rewrite(&lake, pass(usize::MAX)).await.is_none());
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
        assert!(index.rewrite(&lake, pass(1)).await.is_none());
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
        assert!(!index.keep_up_now(&lake, None).await, "somebody, if not this process, committed a moment ago");
        assert_eq!(number(&lake, files).await, before);
        clock.0.store(60_000, Ordering::Relaxed);
        index.due.put_back(Upkeep::Quiet);
        assert!(index.keep_up_now(&lake, None).await);
        assert_eq!((number(&lake, files).await, number(&lake, keys).await), (4, known), "a file in each partition");
        assert_eq!(number(&lake, "SELECT count(DISTINCT key) FROM docs.inventory").await, known);
        // What is in order is left alone.
        let snapshots = "SELECT count(*) FROM docs.\"inventory$snapshots\"";
        let committed = number(&lake, snapshots).await;
        clock.0.store(120_000, Ordering::Relaxed);
        index.due.put_back(Upkeep::Quiet);
        assert!(index.keep_up_now(&lake, None).await);
        assert_eq!(number(&lake, snapshots).await, committed);
    }
}
