//! Watching a folder: which paths were touched, and nothing of what became of them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RemoveKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tarndb_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;

use super::Folder;

/// Paths that are remembered at most. When more are touched before someone looks, all of the folder is looked at.
const MAX_TOUCHED: usize = 100_000;

/// How long it takes at most, in all likelihood, until a new folder is watched.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What was touched since someone looked.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Whether a path may have been that of a folder, whose files went with it.
    pub(crate) paths: HashMap<PathBuf, bool>,
    /// Folders that are looked at again: see [`Watch::look_again`].
    pub(crate) again: HashSet<PathBuf>,
    /// Something was missed.
    pub(crate) all: bool,
    /// The folder itself went, and its watch with it.
    pub(crate) unwatched: bool,
}

#[derive(Debug, Default)]
struct Shared {
    touched: Mutex<Touched>,
    changed: Notify,
}

/// Watches a folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    _watcher: RecommendedWatcher,
}

impl Shared {
    fn touch(&self, root: &Path, event: notify::Result<Event>) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(event) if event.need_rescan() => touched.all = true,
            Ok(event) => {
                // What is only read does not change.
                if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
                    return;
                }
                let was_folder = match event.kind {
                    EventKind::Remove(kind) => kind != RemoveKind::File,
                    EventKind::Modify(kind) => matches!(kind, ModifyKind::Any | ModifyKind::Name(_)),
                    EventKind::Create(_) | EventKind::Access(_) => false,
                    EventKind::Any | EventKind::Other => true,
                };
                for path in event.paths {
                    touched.unwatched |= was_folder && path == root;
                    *touched.paths.entry(path).or_default() |= was_folder;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a watched folder told of an error, and is looked at as a whole");
                touched.all = true;
            }
        }
        if touched.paths.len() > MAX_TOUCHED {
            *touched = Touched { all: true, unwatched: touched.unwatched, ..Touched::default() };
        }
        drop(touched);
        self.changed.notify_one();
    }
}

impl Watch {
    /// Begins to watch: what happens after this returns is told.
    ///
    /// # Errors
    /// `Unavailable` when the operating system does not watch the folder, for instance because too many are watched.
    pub(crate) fn start(folder: &Folder) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let failed = |e: notify::Error| {
            Error::new(ErrorKind::Unavailable, "the folder cannot be watched")
                .with_context("path", folder.root().display().to_string())
                .with_source(e)
        };
        let (told, root) = (Arc::clone(&shared), folder.root().to_path_buf());
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(move |event| told.touch(&root, event), config).map_err(failed)?;
        watcher.watch(folder.root(), RecursiveMode::Recursive).map_err(failed)?;
        Ok(Self { shared, _watcher: watcher })
    }

    /// Waits until something was touched since [`Watch::take`].
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// As if the system said that it has dropped events, for which it had no room.
    #[cfg(test)]
    pub(crate) fn overflow(&self) {
        let event = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        self.shared.touch(Path::new("/"), Ok(event));
    }

    /// What was touched, which is then forgotten.
    pub(crate) fn take(&self) -> Touched {
        std::mem::take(&mut *self.shared.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Touches folders that came a moment later: what came into them before they were watched themselves, and after they were looked
    /// at, is told by nobody.
    pub(crate) fn look_again(&self, folders: Vec<PathBuf>) {
        if folders.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(LOOKED_AGAIN_AFTER).await;
            shared.touched.lock().unwrap_or_else(PoisonError::into_inner).again.extend(folders);
            shared.changed.notify_one();
        });
    }
}
