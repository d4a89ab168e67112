//! Where the events of a bucket come from. A source of events hands messages on and waits; when what they tell is committed, it tells
//! its own source that they arrived, and not before.
//!
//! * [`sqs`]: a queue of Amazon SQS.
//! * [`webhook`]: senders over HTTP.

mod sqs;
mod webhook;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tarndb_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot, watch};

use crate::event::{self, Dead, Parsed};
use crate::options::{Feed, IndexOptions};
use crate::registry::Registry;

/// Messages that wait for a commit at most. Who sends more waits.
const WAITING: usize = 1_000;

/// A message on its way into the tables.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) parts: Vec<Parsed>,
    /// Told when the message is committed; dropped when it could not be.
    pub(crate) committed: oneshot::Sender<()>,
}

/// Where an [`EventSource`] puts its messages: those of one index.
#[derive(Debug, Clone)]
pub struct Events {
    messages: mpsc::Sender<Delivery>,
    error: Arc<Mutex<Option<String>>>,
}

/// Messages as they come.
pub(crate) type Inbox = mpsc::Receiver<Delivery>;

/// Where events of a bucket come from: a queue, a log, a socket. An index uses a user's own one when its option `events` is
/// `own://NAME`.
///
/// Messages may come more than once and in any order: what is in the tables already is no change.
#[async_trait]
pub trait EventSource: fmt::Debug + Send + Sync {
    /// Hands on messages with [`Events::commit`] until `stop` tells, and then waits for those that were handed on: what the source has
    /// to acknowledge is acknowledged when that returned `Ok`. After a failure it tells with [`Events::set_error`] and tries again, but
    /// not when `stop` told: `stop()` of the index waits for it. It must not block its thread. It runs once for each start of each index
    /// that names it, and may be dropped at any `await` when the process ends. When it returns before it is told to, or panics, the
    /// index follows nothing any more, and its status says so.
    async fn run(&self, events: Events, stop: Stop);
}

/// Tells an [`EventSource`] to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    pub(crate) fn new(stop: watch::Receiver<bool>) -> Self {
        Self(stop)
    }

    /// Waits until the source is to end.
    pub async fn told(&mut self) {
        stopped(&mut self.0).await;
    }

    /// Whether it is.
    pub fn is_told(&self) -> bool {
        // Who would tell may be gone.
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Until it is told to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Who would tell is gone.
    drop(stop.wait_for(|stop| *stop).await);
}

/// A place for messages, and what takes them out. `error` is where it is told what is wrong with their source.
pub(crate) fn inbox(error: Arc<Mutex<Option<String>>>) -> (Events, Inbox) {
    let (messages, inbox) = mpsc::channel(WAITING);
    (Events { messages, error }, inbox)
}

impl Events {
    /// Hands on a message, as JSON of any store that is known, when there is room, and waits until what it tells is in the tables. Many
    /// that wait at once are committed together. What is no JSON is kept aside in the table `dead_letters`.
    ///
    /// # Errors
    /// `Unavailable` when it could not be committed: it is to be handed on again.
    pub async fn commit(&self, message: &[u8]) -> Result<()> {
        let refused = || Error::new(ErrorKind::Unavailable, "a message of events could not be committed");
        self.send(parsed(message)).await.await.map_err(|_| refused())
    }

    /// Hands on a message when there is room. What comes back tells when it is committed.
    async fn send(&self, parts: Vec<Parsed>) -> oneshot::Receiver<()> {
        let (committed, receiver) = oneshot::channel();
        // When nobody takes messages any more, the receiver fails.
        drop(self.messages.send(Delivery { parts, committed }).await);
        receiver
    }

    /// Says how the source is, for the status of the index: `None` when it is well.
    pub fn set_error(&self, error: Option<&Error>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(Error::report);
    }
}

/// The parts of a message; what is no JSON is one that is kept aside.
fn parsed(message: &[u8]) -> Vec<Parsed> {
    event::parse(message).unwrap_or_else(|e| vec![Parsed::Dead(Dead::new(e.to_string(), message))])
}

/// The source of events that the options name; `own` are the user's.
///
/// # Errors
/// `InvalidInput` and `Unavailable` when it cannot be used; `Unsupported` when no such one is registered.
pub(crate) async fn open(options: &IndexOptions, own: &Registry<dyn EventSource>) -> Result<Option<Arc<dyn EventSource>>> {
    Ok(match options.events()? {
        None => None,
        Some(Feed::Queue { account, name }) => Some(Arc::new(sqs::Queue::open(account, &name, options).await?)),
        Some(Feed::Webhook { host, port, path }) => Some(Arc::new(webhook::Webhook::open(&host, port, &path, options).await?)),
        Some(Feed::Own(name)) => {
            let unknown = || Error::unsupported(format!("no source of events `{name}` is registered in this process"));
            Some(own.get(&name).ok_or_else(unknown)?)
        }
    })
}
