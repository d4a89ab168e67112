//! One index: its tables, and what keeps them true.
//!
//! * [`writer`]: the journal, and the inventory that derives from it.
//! * [`key_index`]: where in the inventory each key is.
//! * [`observe`]: what is so with an object, against what is known of it.
//! * [`status`]: how the index is.

mod key_index;
mod observe;
mod status;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tarndb_core::{Error, ErrorKind, Lakehouse, Result, WeakLakehouse};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use status::{IndexState, IndexStatus, Synced};

use crate::folder::Folder;
use crate::folder::watch::Watch;
use crate::tables::{self, TableNames};
use observe::Looked;
use writer::Writer;

/// How long what is touched is collected before it is looked at: a commit costs some milliseconds, however much is in it.
const COLLECTED_FOR: Duration = Duration::from_millis(100);

/// How often all of the source is looked at although nothing was missed.
const LISTED_EVERY: Duration = Duration::from_secs(10 * 60);

/// Pauses after failures, each twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An index in this process.
#[derive(Debug)]
pub(crate) struct Index {
    name: String,
    names: TableNames,
    folder: Folder,
    /// There is none while one is at work, and after it failed.
    writer: AsyncMutex<Option<Writer>>,
    state: Mutex<(IndexState, Option<String>)>,
    following: AsyncMutex<Option<Following>>,
}

/// What follows the source in the background.
#[derive(Debug)]
struct Following {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

impl Index {
    pub(crate) fn new(name: &str, folder: Folder) -> Self {
        Self {
            name: name.to_string(),
            names: TableNames::of(name),
            folder,
            writer: AsyncMutex::default(),
            state: Mutex::default(),
            following: AsyncMutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn source(&self) -> String {
        self.folder.url()
    }

    pub(crate) fn names(&self) -> &TableNames {
        &self.names
    }

    fn state(&self) -> MutexGuard<'_, (IndexState, Option<String>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: IndexState, error: Option<&Error>) {
        *self.state() = (state, error.map(Error::report));
    }

    /// Follows the source from now on. What happened before comes into the tables until this returns.
    pub(crate) async fn start(self: &Arc<Self>, lake: &Lakehouse) -> Result<()> {
        let mut following = self.following.lock().await;
        if following.as_ref().is_some_and(|following| !following.task.is_finished()) {
            return Ok(());
        }
        // Before the listing, so that nothing happens between them.
        let watch = self.watch().await;
        let unreadable = self.bring_up(lake).await?.unreadable;
        match &watch {
            Ok(_) => self.set_state(IndexState::Active, unreadable.as_ref()),
            Err(error) => self.set_state(IndexState::Failed, Some(error)),
        }
        let stop = Arc::new(Notify::new());
        let task = tokio::spawn(Arc::clone(self).follow(lake.downgrade(), watch.ok(), Arc::clone(&stop)));
        *following = Some(Following { task, stop });
        Ok(())
    }

    async fn watch(&self) -> Result<Watch> {
        let folder = self.folder.clone();
        let watch = tokio::task::spawn_blocking(move || {
            folder.check()?;
            Watch::start(&folder)
        });
        watch.await.map_err(|e| Error::internal("watching a folder ended early").with_source(e))?
    }

    /// Without a watch, the source is listed now and then, until it can be watched.
    async fn follow(self: Arc<Self>, lake: WeakLakehouse, mut watch: Option<Watch>, stop: Arc<Notify>) {
        let mut next_listing = Instant::now() + LISTED_EVERY;
        let mut pause = FIRST_PAUSE;
        let mut stopping = false;
        while !stopping {
            let touched = async {
                match &watch {
                    Some(watch) => {
                        tokio::select! {
                            () = watch.changed() => {}
                            () = tokio::time::sleep_until(next_listing) => {}
                        }
                        tokio::time::sleep(COLLECTED_FOR).await;
                    }
                    None => tokio::time::sleep(pause).await,
                }
            };
            tokio::select! {
                () = stop.notified() => stopping = true,
                () = touched => {}
            }
            let Some(lake) = lake.upgrade() else { return };
            match self.look(&lake, &mut watch, &mut next_listing).await {
                Ok(looked) => {
                    pause = FIRST_PAUSE;
                    self.set_state(IndexState::Active, looked.unreadable.as_ref());
                }
                // It was dropped, or the lake closed.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                    tracing::info!(index = self.name, error = error.report(), "a metadata index ends");
                    return self.set_state(IndexState::Stopped, Some(&error));
                }
                Err(error) => {
                    tracing::warn!(index = self.name, error = error.report(), "a metadata index cannot follow its source now");
                    self.set_state(IndexState::Failed, Some(&error));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    // What was touched is not known any more.
                    watch = None;
                }
            }
        }
        self.set_state(IndexState::Stopped, None);
    }

    /// Looks at what was touched, or at everything when something was missed; and now and then at everything, watched anew, for nobody
    /// promises that nothing is missed.
    async fn look(&self, lake: &Lakehouse, watch: &mut Option<Watch>, next_listing: &mut Instant) -> Result<Looked> {
        if let Some(watching) = watch
            && Instant::now() < *next_listing
        {
            let touched = watching.take();
            if touched.all && !touched.unwatched {
                // To watch many folders anew would be told of in more events than there is room for, of which this may come.
                return self.bring_up(lake).await;
            }
            if !touched.unwatched {
                let mut looked = self.observe_touched(lake, touched).await?;
                watching.look_again(std::mem::take(&mut looked.folders));
                return Ok(looked);
            }
        }
        *watch = None;
        let watched = self.watch().await;
        *next_listing = Instant::now() + LISTED_EVERY;
        let looked = self.bring_up(lake).await?;
        *watch = Some(watched?);
        Ok(looked)
    }

    /// Ends following, after what is under way is committed.
    pub(crate) async fn stop(&self) {
        if let Some(Following { task, stop }) = self.following.lock().await.take() {
            stop.notify_one();
            if let Err(error) = task.await {
                tracing::warn!(index = self.name, %error, "a metadata index ended early");
            }
        }
        self.set_state(IndexState::Stopped, None);
    }

    /// Ends following at once, where nobody can wait: what is under way takes effect or not, and the next to start finds out.
    pub(crate) fn abort(&self) {
        if let Ok(mut following) = self.following.try_lock()
            && let Some(Following { task, .. }) = following.take()
        {
            task.abort();
        }
    }

    /// Lists the source and records what is not as it is known; first of all, what was there when the index was created.
    pub(crate) async fn sync(&self, lake: &Lakehouse) -> Result<Synced> {
        let looked = self.bring_up(lake).await?;
        looked.unreadable.map_or(Ok(looked.synced), Err)
    }

    async fn bring_up(&self, lake: &Lakehouse) -> Result<Looked> {
        if self.is_complete(lake).await? {
            return self.look_at_all(lake).await;
        }
        let before = std::mem::replace(&mut *self.state(), (IndexState::Backfilling, None));
        let before = if before.0 == IndexState::Backfilling { <(IndexState, Option<String>)>::default() } else { before };
        let backfilled = async {
            let looked = self.look_at_all(lake).await?;
            self.complete(lake).await?;
            Ok(looked)
        };
        let backfilled = backfilled.await;
        let mut state = self.state();
        if state.0 == IndexState::Backfilling {
            *state = before;
        }
        backfilled
    }

    /// How the index is when that cannot be learnt from its tables.
    pub(crate) fn failed_status(&self, error: &Error) -> IndexStatus {
        IndexStatus {
            name: self.name.clone(),
            source: self.folder.url(),
            state: IndexState::Failed,
            objects: 0,
            changes: 0,
            last_error: Some(error.report()),
        }
    }

    pub(crate) async fn status(&self, lake: &Lakehouse) -> Result<IndexStatus> {
        let (journal, inventory) = (lake.table(&self.names.journal).await?, lake.table(&self.names.inventory).await?);
        let (state, last_error) = self.state().clone();
        Ok(IndexStatus {
            name: self.name.clone(),
            source: self.folder.url(),
            state,
            objects: tables::row_count(&inventory)?,
            changes: tables::row_count(&journal)?,
            last_error,
        })
    }
}
