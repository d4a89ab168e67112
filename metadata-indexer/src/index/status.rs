use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tarndb_core::Error;

use super::shard::KeyHash;
use crate::record::Change;

/// What an index is doing in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexState {
    /// It follows nothing in this process: its tables are what they were.
    #[default]
    Stopped,
    /// The objects that were there when it was created come into the inventory.
    Backfilling,
    /// It follows what happens.
    Active,
    /// Its last attempt failed; it tries again.
    Failed,
}

impl fmt::Display for IndexState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "Stopped",
            Self::Backfilling => "Backfilling",
            Self::Active => "Active",
            Self::Failed => "Failed",
        })
    }
}

/// How an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexStatus {
    /// Its name, which is the namespace of its tables.
    pub name: String,
    /// What is indexed, as a URL.
    pub source: String,
    /// What it does in this process.
    pub state: IndexState,
    /// Objects in the inventory.
    pub objects: u64,
    /// Changes in the journal.
    pub changes: u64,
    /// Objects whose content was looked at: rows of the table `annotations`; `None` when the index has no extractors.
    pub annotated: Option<u64>,
    /// Objects that a listing by this process has shown so far, of the source's; `None` when none is under way.
    pub listed: Option<u64>,
    /// Events that came to this process since it opened the index.
    pub events: EventCounts,
    /// How old the newest event of the last commit was when it was in the tables, or how long ago what the folder tells of was told; and
    /// when something waits for longer than that, for how long. In milliseconds; `None` before the first.
    pub lag_ms: Option<u64>,
    /// What went wrong last in this process, if what came after it did not go well.
    pub last_error: Option<String>,
}

impl IndexStatus {
    /// Of one whose tables cannot be read.
    pub(crate) fn failed(name: &str, source: String, error: &Error) -> Self {
        Self {
            name: name.to_string(),
            source,
            state: IndexState::Failed,
            objects: 0,
            changes: 0,
            annotated: None,
            listed: None,
            events: EventCounts::default(),
            lag_ms: None,
            last_error: Some(error.report()),
        }
    }
}

/// What looking at a source changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Synced {
    /// Objects that are new.
    pub created: u64,
    /// Objects that have another content, or of which something else is known beside it.
    pub overwritten: u64,
    /// Objects that are gone.
    pub deleted: u64,
}

impl Synced {
    /// Counts a change of an object that was there before, or was not.
    pub(super) fn count(&mut self, change: &Change, was_there: bool) {
        let count = match (change, was_there) {
            (Change::Deleted, _) => &mut self.deleted,
            (_, true) => &mut self.overwritten,
            (_, false) => &mut self.created,
        };
        *count += 1;
    }
}

impl std::ops::AddAssign for Synced {
    fn add_assign(&mut self, other: Self) {
        self.created += other.created;
        self.overwritten += other.overwritten;
        self.deleted += other.deleted;
    }
}

/// What became of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCounts {
    /// All that came, as often as they came.
    pub received: u64,
    /// Those that are rows of the journal.
    pub applied: u64,
    /// Those of `applied` that came after a later change of the same object: the inventory does not change by them.
    pub late: u64,
    /// Those that were known already.
    pub duplicates: u64,
    /// Those that are about nothing that is indexed.
    pub ignored: u64,
    /// Those that were not understood: rows of the table `dead_letters`.
    pub dead: u64,
}

impl std::ops::AddAssign for EventCounts {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.applied += other.applied;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.ignored += other.ignored;
        self.dead += other.dead;
    }
}

/// What is wrong with annotations.
#[derive(Debug, Default)]
pub(super) struct AnnotationErrors {
    /// Why the last attempt failed, or contents cannot be read now.
    pub(super) failing: Option<String>,
    /// Why a content is not ours to read.
    refused: Option<String>,
    /// Those contents, which are not asked for again with each listing: there may be as many as are archived.
    not_ours: HashSet<KeyHash>,
    /// Since when they are remembered.
    since: Option<Instant>,
}

/// How long they are.
const NOT_OURS_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Contents that are remembered at most because they are not ours to read.
const NOT_OURS_AT_MOST: usize = 1_000_000;

impl AnnotationErrors {
    /// Remembers that a content is not ours to read.
    pub(super) fn add_not_ours(&mut self, content: KeyHash) {
        self.since.get_or_insert_with(Instant::now);
        if self.not_ours.len() < NOT_OURS_AT_MOST {
            self.not_ours.insert(content);
        }
    }

    /// The contents that are not ours to read, which are then forgotten: those that are still there are to be added again.
    pub(super) fn take_not_ours(&mut self) -> HashSet<KeyHash> {
        let is_old = self.since.is_some_and(|since| since.elapsed() > NOT_OURS_FOR);
        let contents = std::mem::take(&mut self.not_ours);
        if is_old {
            self.forget_not_ours();
            return HashSet::new();
        }
        contents
    }

    /// Forgets them: they may be ours to read by now.
    pub(super) fn forget_not_ours(&mut self) {
        self.since = None;
        self.not_ours.clear();
    }

    /// Says why a content was not ours to read; `None` when all that were left were.
    pub(super) fn note_refused(&mut self, refused: Option<&Error>) {
        if refused.is_some() || self.not_ours.is_empty() {
            self.refused = refused.map(Error::report);
        }
    }

    pub(super) fn told(&self) -> Option<String> {
        self.failing.clone().or_else(|| self.refused.clone())
    }
}

/// [`EventCounts`], counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    counts: Mutex<EventCounts>,
    lag: Mutex<Option<u64>>,
    /// Since when something waits to come into the tables.
    waiting: Mutex<Option<Instant>>,
    listed: Mutex<Option<u64>>,
}

fn milliseconds_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A listing that is under way.
#[derive(Debug)]
pub(super) struct Listing<'a>(&'a Counters);

impl Listing<'_> {
    /// Counts objects that it showed.
    pub(super) fn add(&self, objects: usize) {
        *self.0.listed().get_or_insert(0) += objects as u64;
    }
}

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        *self.0.listed() = None;
    }
}

impl Counters {
    pub(super) fn add(&self, counts: EventCounts, lag_ms: Option<u64>) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) += counts;
        let mut lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        *lag = lag_ms.or(*lag);
    }

    pub(super) fn counts(&self) -> EventCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed(&self) -> MutexGuard<'_, Option<u64>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A listing begins, which ends with what this returns.
    pub(super) fn listing(&self) -> Listing<'_> {
        let listing = Listing(self);
        listing.add(0);
        listing
    }

    pub(super) fn objects_listed(&self) -> Option<u64> {
        *self.listed()
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something waits.
    pub(super) fn waits(&self) {
        self.waiting().get_or_insert_with(Instant::now);
    }

    /// Says that nothing does any more, and for how long it did, in milliseconds.
    pub(super) fn has_waited(&self) -> Option<u64> {
        self.waiting().take().map(milliseconds_since)
    }

    pub(super) fn lag_ms(&self) -> Option<u64> {
        let lag = *self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        lag.max(self.waiting().map(milliseconds_since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_lags() {
        let counters = Counters::default();
        assert_eq!(counters.lag_ms(), None);
        counters.add(EventCounts::default(), Some(5));
        assert_eq!((counters.lag_ms(), counters.has_waited()), (Some(5), None));
        *counters.waiting() = Instant::now().checked_sub(Duration::from_secs(3));
        counters.waits();
        assert!(counters.lag_ms() >= Some(3000) && counters.has_waited() >= Some(3000));
        assert_eq!(counters.lag_ms(), Some(5));
    }
}
