use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tarndb_core::{Error, ErrorKind, Lakehouse, Result, WeakLakehouse};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{COLLECTED_FOR, FIRST_PAUSE, Index, IndexState};
use crate::feed::{self, Delivery, EventSource, Events, Inbox, Stop, stopped};
use crate::options::Feed;

/// Messages that are committed at once.
const AT_ONCE: usize = 5_000;

/// The longest pause after failures: meanwhile, who sends waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Index {
    /// What events tell from now on is taken, and what was there before is listed: but where a queue kept what happened since the index
    /// was complete. Who follows is the first of `tasks`, also when the listing fails.
    pub(super) async fn start_bucket(
        self: &Arc<Self>,
        lake: &Lakehouse,
        stopping: watch::Receiver<bool>,
        tasks: &mut Vec<JoinHandle<()>>,
    ) -> Result<()> {
        let feed = feed::open(&self.options, &self.own.sources).await?;
        self.hook()?;
        let is_kept = matches!(self.options.events()?, Some(Feed::Queue { .. }));
        tasks.insert(0, tokio::spawn(Arc::clone(self).follow_bucket(lake.downgrade(), feed, stopping)));
        if is_kept && self.is_complete(lake).await? {
            // What is in the journal only may be all that ever comes.
            self.write_alone(lake, async |_| Ok(())).await?;
        } else {
            self.bring_up(lake).await?;
        }
        // Who follows may have ended meanwhile, and said why.
        if !tasks.first().is_some_and(JoinHandle::is_finished) {
            self.set_state(IndexState::Active, None);
        }
        Ok(())
    }

    async fn follow_bucket(
        self: Arc<Self>,
        lake: WeakLakehouse,
        feed: Option<Arc<dyn EventSource>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let (events, inbox) = feed::inbox(Arc::clone(&self.feed_error));
        let (ends, ended) = watch::channel(false);
        let source = {
            let mut stop = stop.clone();
            async move {
                let ran = match feed {
                    Some(feed) => AssertUnwindSafe(feed.run(events, Stop::new(stop.clone()))).catch_unwind().await,
                    None => {
                        hold(events, &mut stop).await;
                        Ok(())
                    }
                };
                ends.send_replace(true);
                match ran {
                    Ok(()) if Stop::new(stop).is_told() => Ok(()),
                    Ok(()) => Err(Error::new(ErrorKind::Unavailable, "the source of events ended: start the index again")),
                    Err(_) => Err(Error::internal("the source of events panicked: start the index again")),
                }
            }
        };
        // The source of events ends when it is told to stop, and then the messages do.
        let messages = self.take_messages(&lake, inbox, ended);
        let all = async { tokio::try_join!(source, messages, self.list_now_and_then(&lake, &mut stop)) };
        let ended = AssertUnwindSafe(all).catch_unwind().await;
        match ended.unwrap_or_else(|_| Err(Error::internal("following panicked: start the index again"))) {
            Ok(_) => self.set_state(IndexState::Stopped, None),
            Err(error) => {
                tracing::info!(index = self.name, error = error.report(), "a metadata index ends");
                self.set_state(IndexState::Stopped, Some(&error));
            }
        }
    }

    /// Commits messages as they come.
    ///
    /// # Errors
    /// Those that say that there is no index any more.
    async fn take_messages(&self, lake: &WeakLakehouse, mut inbox: Inbox, mut ended: watch::Receiver<bool>) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut deliveries = Vec::new();
            let received = tokio::select! {
                received = inbox.recv_many(&mut deliveries, AT_ONCE) => received,
                // Whoever may still have a place to put messages.
                () = stopped(&mut ended), if !inbox.is_closed() => {
                    inbox.close();
                    continue;
                }
            };
            if received == 0 {
                return Ok(());
            }
            self.counters.waits();
            let more = tokio::time::sleep(COLLECTED_FOR);
            tokio::pin!(more);
            while deliveries.len() < AT_ONCE {
                let room = AT_ONCE - deliveries.len();
                tokio::select! {
                    () = &mut more => break,
                    received = inbox.recv_many(&mut deliveries, room) => if received == 0 { break },
                }
            }
            let weak = lake;
            let Some(lake) = lake.upgrade() else { return Ok(()) };
            match self.take(&lake, deliveries).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    self.counters.has_waited();
                }
                Err(error) if self.is_end(weak, &error).await => return Err(error),
                Err(error) => {
                    tracing::warn!(index = self.name, error = error.report(), "events cannot be committed now");
                    self.set_state(IndexState::Failed, Some(&error));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn take(&self, lake: &Lakehouse, deliveries: Vec<Delivery>) -> Result<()> {
        let (parts, committed): (Vec<_>, Vec<_>) =
            deliveries.into_iter().map(|delivery| (delivery.parts, delivery.committed)).unzip();
        self.apply(lake, parts.into_iter().flatten().collect()).await?;
        for committed in committed {
            // Who sent it may have given up.
            let _ = committed.send(());
        }
        self.has_recovered();
        Ok(())
    }

    fn has_recovered(&self) {
        let mut state = self.state();
        if state.0 == IndexState::Failed {
            *state = (IndexState::Active, None);
        }
    }

    /// Lists the bucket as often as the options say.
    ///
    /// # Errors
    /// Those that say that there is no index any more.
    async fn list_now_and_then(&self, lake: &WeakLakehouse, stop: &mut watch::Receiver<bool>) -> Result<()> {
        let Some(every) = self.options.reconcile_every()? else {
            stopped(stop).await;
            return Ok(());
        };
        loop {
            let list = async {
                tokio::time::sleep(every).await;
                match lake.upgrade() {
                    Some(lake) => self.bring_up(&lake).await.map(|_| ()),
                    None => Ok(()),
                }
            };
            let listed = tokio::select! {
                () = stopped(stop) => return Ok(()),
                listed = list => listed,
            };
            match listed {
                Ok(()) => self.has_recovered(),
                Err(error) if self.is_end(lake, &error).await => return Err(error),
                Err(error) => {
                    tracing::warn!(index = self.name, error = error.report(), "a bucket cannot be listed now");
                    self.set_listing_error(Some(&error));
                }
            }
        }
    }
}

/// Keeps a place for messages that nobody sends.
async fn hold(events: Events, stop: &mut watch::Receiver<bool>) {
    stopped(stop).await;
    drop(events);
}
