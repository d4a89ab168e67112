use std::sync::Arc;
use std::time::Duration;

use tarndb_core::{Error, Lakehouse, Result, WeakLakehouse};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::observe::Looked;
use super::{COLLECTED_FOR, EventCounts, FIRST_PAUSE, Index, IndexState};
use crate::feed::stopped;
use crate::folder::Folder;
use crate::folder::watch::Watch;

/// How often all of the source is looked at although nothing was missed.
const LISTED_EVERY: Duration = Duration::from_secs(10 * 60);

const LONGEST_PAUSE: Duration = Duration::from_secs(60);

async fn watch(folder: &Folder) -> Result<Watch> {
    let folder = folder.clone();
    let watch = tokio::task::spawn_blocking(move || {
        folder.check()?;
        Watch::start(&folder)
    });
    watch.await.map_err(|e| Error::internal("watching a folder ended early").with_source(e))?
}

impl Index {
    /// As [`Index::start_bucket`], of a folder.
    pub(super) async fn start_folder(
        self: &Arc<Self>,
        lake: &Lakehouse,
        folder: &Folder,
        stopping: tokio::sync::watch::Receiver<bool>,
        tasks: &mut Vec<JoinHandle<()>>,
    ) -> Result<()> {
        // Before the listing, so that nothing happens between them.
        let watch = watch(folder).await;
        let unreadable = self.bring_up(lake).await?.unreadable;
        match &watch {
            Ok(_) => self.set_state(IndexState::Active, unreadable.as_ref()),
            Err(error) => self.set_state(IndexState::Failed, Some(error)),
        }
        let follow = Arc::clone(self).follow_folder(folder.clone(), lake.downgrade(), watch.ok(), stopping);
        tasks.insert(0, tokio::spawn(follow));
        Ok(())
    }

    /// Without a watch, the source is listed now and then, until it can be watched.
    async fn follow_folder(
        self: Arc<Self>,
        folder: Folder,
        lake: WeakLakehouse,
        mut watch: Option<Watch>,
        mut stop: tokio::sync::watch::Receiver<bool>,
    ) {
        let mut next_listing = Instant::now() + LISTED_EVERY;
        let mut pause = FIRST_PAUSE;
        let mut stopping = false;
        while !stopping {
            let touched = async {
                match &watch {
                    Some(watch) => {
                        tokio::select! {
                            () = watch.changed() => self.counters.waits(),
                            () = tokio::time::sleep_until(next_listing) => {}
                        }
                        tokio::time::sleep(COLLECTED_FOR).await;
                    }
                    None => tokio::time::sleep(pause).await,
                }
            };
            tokio::select! {
                () = stopped(&mut stop) => stopping = true,
                () = touched => {}
            }
            let Some(open) = lake.upgrade() else { return };
            match self.look_at_what_was_touched(&open, &folder, &mut watch, &mut next_listing).await {
                Ok(looked) => {
                    pause = FIRST_PAUSE;
                    let lag = self.counters.has_waited();
                    self.counters.add(EventCounts::default(), lag);
                    self.set_state(IndexState::Active, looked.unreadable.as_ref());
                }
                // It was dropped, or the lake closed.
                Err(error) if self.is_end(&lake, &error).await => {
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
    async fn look_at_what_was_touched(
        &self,
        lake: &Lakehouse,
        folder: &Folder,
        watching: &mut Option<Watch>,
        next_listing: &mut Instant,
    ) -> Result<Looked> {
        if let Some(watch) = watching
            && Instant::now() < *next_listing
        {
            let touched = watch.take();
            if touched.all && !touched.unwatched {
                // To watch many folders anew would be told of in more events than there is room for, of which this may come.
                return self.bring_up(lake).await;
            }
            if !touched.unwatched {
                let mut looked = self.observe_touched(lake, folder, touched).await?;
                watch.look_again(std::mem::take(&mut looked.folders));
                return Ok(looked);
            }
        }
        *watching = None;
        let watched = watch(folder).await;
        *next_listing = Instant::now() + LISTED_EVERY;
        let looked = self.bring_up(lake).await?;
        *watching = Some(watched?);
        Ok(looked)
    }
}

#[cfg(test)]
mod tests {
    use tarndb_core::Lakehouse;

    use super::*;
    use crate::index::Synced;
    use crate::source::Source;
    use crate::{MetadataIndexer, MetadataIndexes};

    /// When the system dropped events, all of the folder is looked at.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_system_did_not_tell_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("gone"), "1").unwrap();
        let indexer = Arc::new(MetadataIndexer::default());
        let lake = Lakehouse::builder("memory://").with_extension(Arc::clone(&indexer) as _).build().await.unwrap();
        lake.create_metadata_index("docs", scratch.path().to_str().unwrap()).await.unwrap();
        let index = indexer.index(&lake, "docs").await.unwrap();
        index.stop().await;
        // Nobody watches.
        std::fs::write(scratch.path().join("new"), "1").unwrap();
        std::fs::remove_file(scratch.path().join("gone")).unwrap();
        let Source::Folder(folder) = &index.source else { panic!("{:?} is no folder", index.source) };
        let mut watching = Some(watch(folder).await.unwrap());
        let mut next_listing = Instant::now() + LISTED_EVERY;
        let nothing = index.look_at_what_was_touched(&lake, folder, &mut watching, &mut next_listing).await.unwrap();
        assert_eq!(nothing.synced, Synced::default());
        watching.as_ref().unwrap().overflow();
        let all = index.look_at_what_was_touched(&lake, folder, &mut watching, &mut next_listing).await.unwrap();
        assert_eq!(all.synced, Synced { created: 1, overwritten: 0, deleted: 1 });
    }
}
