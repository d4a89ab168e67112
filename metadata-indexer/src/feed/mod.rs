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
use tarndb_core::{Error, Result};
use tokio::sync::{mpsc, oneshot, watch};

use crate::event::Parsed;
use crate::options::{Feed, IndexOptions};

/// Messages that wait for a commit at most. Who sends more waits, or is told to come again.
const WAITING: usize = 1_000;

/// A message on its way into the tables.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) parts: Vec<Parsed>,
    /// Told when the message is committed; dropped when it could not be.
    pub(crate) committed: oneshot::Sender<()>,
}

/// Where sources of events put their messages.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    messages: mpsc::Sender<Delivery>,
    error: Arc<Mutex<Option<String>>>,
}

/// Messages as they come.
pub(crate) type Inbox = mpsc::Receiver<Delivery>;

/// Something that sends events.
#[async_trait]
pub(crate) trait EventSource: fmt::Debug + Send + Sync {
    /// Hands on messages until `stop` says so, and then waits for those that were handed on. After a failure it tries again, and tells.
    async fn run(&self, events: Events, stop: watch::Receiver<bool>);
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
    /// Hands on a message when there is room. What comes back tells when it is committed.
    async fn send(&self, parts: Vec<Parsed>) -> oneshot::Receiver<()> {
        let (committed, receiver) = oneshot::channel();
        // When nobody takes messages any more, the receiver fails.
        drop(self.messages.send(Delivery { parts, committed }).await);
        receiver
    }

    /// Hands on a message; `None` when there is no room.
    fn try_send(&self, parts: Vec<Parsed>) -> Option<oneshot::Receiver<()>> {
        let (committed, receiver) = oneshot::channel();
        self.messages.try_send(Delivery { parts, committed }).ok().map(|()| receiver)
    }

    /// Says how the source is: `None` when it is well.
    fn set_error(&self, error: Option<&Error>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(Error::report);
    }
}

/// The source of events that the options name.
///
/// # Errors
/// `InvalidInput` and `Unavailable` when it cannot be used.
pub(crate) async fn open(options: &IndexOptions) -> Result<Option<Box<dyn EventSource>>> {
    Ok(match options.events()? {
        None => None,
        Some(Feed::Queue { account, name }) => Some(Box::new(sqs::Queue::open(account, &name, options).await?)),
        Some(Feed::Webhook { host, port, path }) => Some(Box::new(webhook::Webhook::open(&host, port, &path, options).await?)),
    })
}
