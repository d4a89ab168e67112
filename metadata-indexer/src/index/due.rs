use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tarndb_core::maintenance::RewriteGroup;
use tarndb_core::{Lakehouse, Result};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::tiers::Tier;

/// Commits of changes, or of what was not understood, after which there is upkeep.
pub(super) const EVERY: u64 = 16;

/// How long nothing was committed when tables are put in order.
const QUIET_FOR: Duration = Duration::from_secs(30);

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
    pub(super) one: AsyncMutex<()>,
    /// One writes large files at a time.
    pub(super) large: AsyncMutex<()>,
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

    /// Says that something was committed that is no batch.
    pub(super) fn add_listed(&self) {
        let before = self.commits.fetch_add(1, Ordering::Relaxed);
        if (before + 1).is_multiple_of(EVERY) {
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
    pub(super) fn put_back(&self, upkeep: Upkeep) {
        let mut due = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(Some(upkeep));
    }

    /// How long nothing has to happen, in milliseconds.
    pub(super) fn quiet_for_ms(&self) -> i64 {
        i64::try_from(self.quiet_for.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether someone waits for what is due.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }

    /// Waits until something is due. `in_order` is the number of commits after which tables were put in order last; before that, nobody
    /// knows what others left.
    pub(super) async fn comes(&self, in_order: &mut Option<u64>) {
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

    pub(super) fn take(&self) -> Option<Upkeep> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether there is more to do than what batches left.
    pub(super) fn is_more_than_batches(&self) -> bool {
        *self.upkeep.lock().unwrap_or_else(PoisonError::into_inner) > Some(Upkeep::Batches)
    }

    pub(super) fn taken(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of when the oldest snapshot is of which files are being written again, in milliseconds since 1970.
    pub(super) fn needed_since(&self) -> Option<i64> {
        self.taken().values().min().copied()
    }

    /// Plans what to write again of a table, and takes it: of the groups, the `most` that have the most files.
    ///
    /// # Errors
    /// Those of [`Tier::plan`].
    pub(super) async fn take_groups(
        &self,
        lake: &Lakehouse,
        (table, is_by_key): (&str, bool),
        (tier, is_quiet): (Tier, bool),
        most: usize,
    ) -> Result<Vec<(RewriteGroup, Taken<'_>)>> {
        let _planning = self.planning.lock().await;
        // Before the table is loaded.
        let taken = self.taken().clone();
        let table = lake.table(table).await?;
        let since = table.snapshot().map_or(i64::MAX, |snapshot| snapshot.timestamp_ms());
        let mut groups = tier.plan(&table, is_by_key, is_quiet, |file| !taken.contains_key(file)).await?;
        groups.sort_by_key(|group| Reverse(group.files().count()));
        let taken = |group: RewriteGroup| {
            let taken = Taken::new(self, &group, since);
            (group, taken)
        };
        Ok(groups.into_iter().take(most).map(taken).collect())
    }
}

/// Someone who waits for what is due, however that ends.
#[derive(Debug)]
pub(super) struct Awaited(Arc<Due>);

impl Awaited {
    pub(super) fn new(due: &Arc<Due>) -> Self {
        due.is_awaited.store(true, Ordering::Relaxed);
        Self(Arc::clone(due))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.is_awaited.store(false, Ordering::Relaxed);
    }
}

/// The files of a group, until they are replaced or it is given up.
pub(super) struct Taken<'a> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
