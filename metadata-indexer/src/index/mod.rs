//! One index: its tables, and what keeps them true.
//!
//! * [`writer`]: the journal, and the inventory that derives from it.
//! * [`conditions`]: which rows of these are asked for.
//! * [`key_index`]: where in the inventory each object is, in [`shard`]s.
//! * [`observe`]: what is so with a file of a folder, against what is known of it; [`follow_folder`]: when that is looked at.
//! * [`bucket`]: what is so with an object of a bucket; [`events`]: what its store tells; [`follow_bucket`]: when.
//! * [`annotate`]: what contents tell, of the objects in the [`backlog`].
//! * [`upkeep`]: of the tables; [`status`]: how the index is.

mod annotate;
mod backlog;
mod bucket;
mod conditions;
mod due;
mod events;
mod follow_bucket;
mod follow_folder;
mod key_index;
mod marks;
mod new_file;
mod observe;
mod shard;
mod status;
mod tiers;
mod upkeep;
mod writer;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tarndb_core::{Error, ErrorKind, Lakehouse, Result, WeakLakehouse};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinHandle;

use status::AnnotationErrors;
pub use status::{EventCounts, IndexState, IndexStatus, Synced};

use crate::options::IndexOptions;
use crate::own::Own;
use crate::source::Source;
use crate::tables::{self, TableNames};
use backlog::Backlog;
use bucket::Touched;
use due::Due;
use observe::Looked;
use shard::KeyHash;
use status::Counters;
use writer::Writer;

/// How long what is touched, or told, is collected before it is committed: a commit costs some milliseconds, however much is in it.
const COLLECTED_FOR: Duration = Duration::from_millis(100);

/// The first pause after a failure, each twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long nobody commits to an inventory that is not complete, and that nobody is listing into, in milliseconds.
const IDLE_MS: i64 = 60_000;

/// What is left to do of the creation of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// Somebody is at it.
    BeingCreated,
    /// It could not be started in this process.
    Failed,
    /// Not all that was there is in the inventory, and nobody is at it.
    Incomplete,
}

/// An index in this process.
pub(crate) struct Index {
    name: String,
    names: TableNames,
    source: Source,
    options: IndexOptions,
    own: Own,
    /// The names of those that the index uses.
    extract: Vec<String>,
    backlog: Arc<Backlog>,
    due: Arc<Due>,
    /// One looks at contents at a time.
    annotating: AsyncMutex<()>,
    annotation_errors: Mutex<AnnotationErrors>,
    /// There is none while one is at work, and after it failed.
    writer: AsyncMutex<Option<Writer>>,
    /// One listing at a time.
    listing: AsyncMutex<()>,
    /// What events told of while a listing is under way.
    touched: Mutex<Option<Touched>>,
    /// Objects of which the store said nothing when it was asked: the next listing asks once more.
    unread: Mutex<HashSet<KeyHash>>,
    counters: Counters,
    state: Mutex<(IndexState, Option<String>)>,
    /// What is wrong with the source of events.
    feed_error: Arc<Mutex<Option<String>>>,
    /// Why the source could not be listed when it was time to, if it was not listed since.
    listing_error: Mutex<Option<String>>,
    following: AsyncMutex<Option<Following>>,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("name", &self.name).field("source", &self.source.url()).finish_non_exhaustive()
    }
}

/// What follows the source in the background.
#[derive(Debug)]
struct Following {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// While what is there comes into the inventory for the first time, however that ends.
struct Backfilling<'a> {
    index: &'a Index,
    before: (IndexState, Option<String>),
}

impl<'a> Backfilling<'a> {
    fn begin(index: &'a Index) -> Self {
        let before = std::mem::replace(&mut *index.state(), (IndexState::Backfilling, None));
        let before = if before.0 == IndexState::Backfilling { Default::default() } else { before };
        Self { index, before }
    }
}

impl Drop for Backfilling<'_> {
    fn drop(&mut self) {
        let mut state = self.index.state();
        if state.0 == IndexState::Backfilling {
            *state = std::mem::take(&mut self.before);
        }
    }
}

impl Index {
    /// # Errors
    /// `InvalidInput` for wrong options.
    pub(crate) fn new(name: &str, source: Source, options: IndexOptions, own: Own) -> Result<Self> {
        Ok(Self {
            name: name.to_string(),
            names: TableNames::of(name),
            source,
            extract: options.extract()?,
            options,
            own,
            backlog: Arc::default(),
            due: Arc::default(),
            annotating: AsyncMutex::default(),
            annotation_errors: Mutex::default(),
            writer: AsyncMutex::default(),
            listing: AsyncMutex::default(),
            touched: Mutex::default(),
            unread: Mutex::default(),
            counters: Counters::default(),
            state: Mutex::default(),
            feed_error: Arc::default(),
            listing_error: Mutex::default(),
            following: AsyncMutex::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn source(&self) -> String {
        self.source.url()
    }

    pub(crate) fn options(&self) -> &IndexOptions {
        &self.options
    }

    pub(crate) fn names(&self) -> &TableNames {
        &self.names
    }

    /// What is left to do of its creation.
    pub(crate) async fn left(&self, lake: &Lakehouse) -> Result<Left> {
        let follows = match self.following.try_lock() {
            Ok(following) => following.is_some(),
            Err(_) => return Ok(Left::BeingCreated),
        };
        if !follows && self.state().0 == IndexState::Failed {
            return Ok(Left::Failed);
        }
        let inventory = match lake.table(&self.names.inventory).await {
            // It is half dropped.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Left::Nothing),
            other => other?,
        };
        let idle_ms = lake.storage().clock().now_ms().saturating_sub(inventory.metadata().last_updated_ms());
        Ok(match (marks::is_complete(&inventory), follows || idle_ms < IDLE_MS) {
            (true, _) => Left::Nothing,
            (false, true) => Left::BeingCreated,
            (false, false) => Left::Incomplete,
        })
    }

    /// Says that it failed.
    pub(crate) fn set_failed(&self, error: &Error) {
        self.set_state(IndexState::Failed, Some(error));
    }

    fn annotation_errors(&self) -> MutexGuard<'_, AnnotationErrors> {
        self.annotation_errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, (IndexState, Option<String>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: IndexState, error: Option<&Error>) {
        *self.state() = (state, error.map(Error::report));
    }

    /// Follows the source from now on. What happened before comes into the tables until this returns; but what a queue of events keeps.
    pub(crate) async fn start(self: &Arc<Self>, lake: &Lakehouse) -> Result<()> {
        let mut following = self.following.lock().await;
        // The first is the one that follows.
        if following.as_ref().is_some_and(|running| running.tasks.first().is_some_and(|task| !task.is_finished())) {
            return Ok(());
        }
        if let Some(ended) = following.take() {
            self.end(ended).await;
        }
        // What is listed first may be very much, and is kept up, too.
        let (stop, stopping) = watch::channel(false);
        let awaited = due::Awaited::new(&self.due);
        let mut tasks = vec![tokio::spawn(Arc::clone(self).keep_up_as_it_comes(lake.downgrade(), stopping.clone(), awaited))];
        let started = match &self.source {
            Source::Folder(folder) => self.start_folder(lake, folder, stopping.clone(), &mut tasks).await,
            Source::Bucket(_) => self.start_bucket(lake, stopping.clone(), &mut tasks).await,
        };
        if let Err(error) = started {
            self.end(Following { tasks, stop }).await;
            self.set_state(IndexState::Failed, Some(&error));
            return Err(error);
        }
        if self.annotates() {
            let annotate = Arc::clone(self).annotate_as_it_comes(lake.downgrade(), stopping);
            tasks.push(tokio::spawn(annotate));
        }
        *following = Some(Following { tasks, stop });
        Ok(())
    }

    fn set_listing_error(&self, error: Option<&Error>) {
        *self.listing_error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(Error::report);
    }

    /// Whether an error came because there is no index any more, or no lake: it was dropped, or closed. Files that others expired are
    /// not found either, and can be read again.
    async fn is_end(&self, lake: &WeakLakehouse, error: &Error) -> bool {
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) {
            return false;
        }
        let Some(lake) = lake.upgrade() else { return true };
        match lake.table(&self.names.journal).await {
            Ok(journal) => tables::source(&journal) != Some(&self.source.url()) || lake.sql("SELECT 1").await.is_err(),
            Err(e) => matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput),
        }
    }

    /// Ends following, after what is under way is committed.
    pub(crate) async fn stop(&self) {
        if let Some(following) = self.following.lock().await.take() {
            self.end(following).await;
        }
        self.set_state(IndexState::Stopped, None);
    }

    async fn end(&self, Following { tasks, stop }: Following) {
        stop.send_replace(true);
        for task in tasks {
            if let Err(error) = task.await {
                tracing::warn!(index = self.name, %error, "a metadata index ended early");
            }
        }
    }

    /// Ends following at once, where nobody can wait: what is under way takes effect or not, and the next to start finds out.
    pub(crate) fn abort(&self) {
        if let Ok(mut following) = self.following.try_lock()
            && let Some(Following { tasks, .. }) = following.take()
        {
            tasks.iter().for_each(JoinHandle::abort);
        }
    }

    /// Lists the source and records what is not as it is known; first of all, what was there when the index was created. Then what
    /// contents tell.
    pub(crate) async fn sync(&self, lake: &Lakehouse) -> Result<Synced> {
        let looked = self.bring_up(lake).await?;
        if self.annotates() {
            self.annotate_now(lake).await?;
        }
        looked.unreadable.map_or(Ok(looked.synced), Err)
    }

    async fn look_at_all(&self, lake: &Lakehouse) -> Result<Looked> {
        match &self.source {
            Source::Folder(folder) => self.look_at_folder(lake, folder).await,
            Source::Bucket(bucket) => self.look_at_bucket(lake, bucket).await,
        }
    }

    async fn bring_up(&self, lake: &Lakehouse) -> Result<Looked> {
        if self.is_complete(lake).await? {
            let looked = self.look_at_all(lake).await?;
            // What another process changed was not told here.
            self.backlog.add_all();
            return Ok(looked);
        }
        let _until_it_ends = Backfilling::begin(self);
        let looked = self.look_at_all(lake).await?;
        self.complete(lake).await?;
        Ok(looked)
    }

    pub(crate) async fn status(&self, lake: &Lakehouse) -> Result<IndexStatus> {
        let (journal, inventory) = (lake.table(&self.names.journal).await?, lake.table(&self.names.inventory).await?);
        let annotated = match self.annotates() {
            true => Some(tables::row_count(&lake.table(&self.names.annotations).await?)?),
            false => None,
        };
        let (state, error) = self.state().clone();
        let listing_error = self.listing_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = if state == IndexState::Active && listing_error.is_some() { IndexState::Failed } else { state };
        let feed_error = || self.feed_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let annotation_error = || self.annotation_errors().told();
        let denied = || if let Source::Bucket(bucket) = &self.source { bucket.denied() } else { None };
        Ok(IndexStatus {
            name: self.name.clone(),
            source: self.source.url(),
            state,
            objects: tables::row_count(&inventory)?,
            changes: tables::row_count(&journal)?,
            annotated,
            listed: self.counters.objects_listed(),
            events: self.counters.counts(),
            lag_ms: self.counters.lag_ms(),
            last_error: error.or(listing_error).or_else(feed_error).or_else(denied).or_else(annotation_error),
        })
    }
}
