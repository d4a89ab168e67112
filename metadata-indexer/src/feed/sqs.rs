//! Events through a queue of Amazon SQS.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tarndb_core::{Error, ErrorKind, Result};

use super::{EventSource, Events, Stop};
use crate::aws::{self, failed};
use crate::options::IndexOptions;

/// Requests for messages that are open at once: each brings ten messages at most.
const RECEIVERS: usize = 16;

/// Answers of which the messages wait for a commit at most, for each receiver.
const DELIVERING: usize = 16;

/// How long a request waits for messages, and how long messages are nobody else's, in seconds: that time begins anew while they wait for
/// a commit. A message of a process that ended comes again after it, and is known when it was committed.
const WAIT: i32 = 20;
const VISIBILITY: i32 = 60;
const RENEWED_EVERY: Duration = Duration::from_secs(20);

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Queue {
    client: Client,
    url: String,
    renewed_every: Duration,
}

impl Queue {
    pub(super) async fn open(account: Option<String>, name: &str, options: &IndexOptions) -> Result<Self> {
        let config = aws::config(options).await?;
        let client = Client::new(&config);
        let found = client.get_queue_url().queue_name(name).set_queue_owner_aws_account_id(account).send().await;
        let found = found.map_err(|e| failed("the queue of events cannot be used", e).with_context("queue", name))?;
        let url = found.queue_url().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the queue of events has no URL"))?;
        Ok(Self { client, url: url.to_string(), renewed_every: RENEWED_EVERY })
    }

    async fn receive(&self) -> Result<Vec<Message>> {
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
        let received = request.wait_time_seconds(WAIT).visibility_timeout(VISIBILITY).send().await;
        Ok(received.map_err(|e| failed("messages of the queue cannot be received", e))?.messages.unwrap_or_default())
    }

    /// Hands messages on until they are committed, and deletes them.
    async fn deliver(&self, messages: Vec<Message>, events: &Events, stop: &Stop) {
        let receipts: Vec<String> = messages.iter().filter_map(|message| message.receipt_handle.clone()).collect();
        let delivered = messages.into_iter().map(|message| async move {
            let body = message.body().unwrap_or_default().as_bytes();
            commit(body, events, stop.clone()).await.then_some(message.receipt_handle).flatten()
        });
        let delivered = join_all(delivered);
        tokio::pin!(delivered);
        let delivered = loop {
            tokio::select! {
                delivered = &mut delivered => break delivered,
                () = tokio::time::sleep(self.renewed_every) => self.renew(&receipts).await,
            }
        };
        let committed: Vec<String> = delivered.into_iter().flatten().collect();
        let entry = |(number, receipt): (usize, String)| {
            DeleteMessageBatchRequestEntry::builder().id(number.to_string()).receipt_handle(receipt).build().ok()
        };
        let entries: Vec<_> = committed.into_iter().enumerate().filter_map(entry).collect();
        if entries.is_empty() {
            return;
        }
        // Those that stay come again, and are known then.
        let deleted = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries)).send().await;
        if let Err(error) = deleted {
            events.set_error(Some(&failed("messages of the queue cannot be deleted", error)));
        }
    }

    /// Lets nobody else have these messages for a while longer.
    async fn renew(&self, receipts: &[String]) {
        let entry = |(number, receipt): (usize, &String)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(number.to_string()).receipt_handle(receipt);
            entry.visibility_timeout(VISIBILITY).build().ok()
        };
        let entries: Vec<_> = receipts.iter().enumerate().filter_map(entry).collect();
        let request = self.client.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries));
        if let Err(error) = request.send().await {
            // They come a second time then, and are known.
            let error = failed("messages of the queue cannot be kept for longer", error);
            tracing::warn!(queue = self.url, error = error.report(), "messages of a queue will come twice");
        }
    }

    async fn receive_until(&self, events: &Events, mut stop: Stop) {
        let ends = stop.clone();
        let mut delivering = FuturesUnordered::new();
        // What comes before the next request, after a failure.
        let mut pause = Duration::ZERO;
        loop {
            let before = std::mem::take(&mut pause);
            let received = async move {
                tokio::time::sleep(before).await;
                self.receive().await
            };
            tokio::pin!(received);
            while delivering.len() >= DELIVERING {
                delivering.next().await;
            }
            let received = loop {
                tokio::select! {
                    () = stop.told() => break None,
                    Some(()) = delivering.next(), if !delivering.is_empty() => {}
                    received = &mut received => break Some(received),
                }
            };
            match received {
                None => break,
                Some(Ok(messages)) => {
                    events.set_error(None);
                    if !messages.is_empty() {
                        delivering.push(self.deliver(messages, events, &ends));
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(queue = self.url, error = error.report(), "a queue of events cannot be read now");
                    events.set_error(Some(&error));
                    pause = (before * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                }
            }
        }
        while delivering.next().await.is_some() {}
    }
}

/// Hands a message on until it is committed, and says whether it is: one that came back to its queue too often would be put aside by it.
async fn commit(body: &[u8], events: &Events, mut stop: Stop) -> bool {
    while events.commit(body).await.is_err() {
        tokio::select! {
            () = stop.told() => return false,
            () = tokio::time::sleep(FIRST_PAUSE) => {}
        }
    }
    true
}

#[async_trait]
impl EventSource for Queue {
    async fn run(&self, events: Events, stop: Stop) {
        join_all((0..RECEIVERS).map(|_| self.receive_until(&events, stop.clone()))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
    use axum::Router;
    use axum::http::HeaderMap;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;

    /// What a queue was asked to do, with what.
    type Asked = mpsc::UnboundedReceiver<(String, Value)>;

    /// A queue that does as it is told.
    async fn queue() -> (Queue, Asked) {
        let (sender, asked) = mpsc::unbounded_channel();
        let answer = async move |headers: HeaderMap, body: String| {
            let action = headers["x-amz-target"].to_str().unwrap().trim_start_matches("AmazonSQS.").to_string();
            sender.send((action, serde_json::from_str(&body).unwrap())).unwrap();
            json!({ "Successful": [], "Failed": [] }).to_string()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let config = aws_sdk_sqs::Config::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("x"));
        let config = config.credentials_provider(Credentials::new("key", "secret", None, None, "test")).endpoint_url(&url);
        let config = config.http_client(aws_smithy_http_client::Builder::new().build_http()).build();
        (Queue { client: Client::from_conf(config), url, renewed_every: Duration::from_millis(20) }, asked)
    }

    fn receipts(asked: &Value) -> Vec<&str> {
        asked["Entries"].as_array().unwrap().iter().map(|entry| entry["ReceiptHandle"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn messages_are_nobody_elses_until_they_are_committed() {
        let (queue, mut asked) = queue().await;
        let (stops, stop) = tokio::sync::watch::channel(false);
        let stop = Stop::new(stop);
        let (events, mut inbox) = crate::feed::inbox(Arc::default());
        let messages = ["a", "b"].map(|name| Message::builder().body("{}").receipt_handle(name).build()).to_vec();
        let commits = async {
            let deliveries = [inbox.recv().await.unwrap(), inbox.recv().await.unwrap()];
            for _ in 0..3 {
                let (action, asked) = asked.recv().await.unwrap();
                assert_eq!((action.as_str(), receipts(&asked)), ("ChangeMessageVisibilityBatch", vec!["a", "b"]));
                assert!(asked["Entries"].as_array().unwrap().iter().all(|entry| entry["VisibilityTimeout"] == VISIBILITY));
            }
            let [committed, failed] = deliveries;
            committed.committed.send(()).unwrap();
            // It is handed on again, and then nobody waits for it any more.
            drop(failed);
            drop(inbox.recv().await.unwrap());
            drop(inbox.recv().await.unwrap());
            stops.send_replace(true);
        };
        tokio::join!(queue.deliver(messages, &events, &stop), commits);
        let deleted = loop {
            let (action, asked) = asked.recv().await.unwrap();
            if action == "DeleteMessageBatch" {
                break asked;
            }
        };
        assert_eq!(receipts(&deleted), ["a"], "what was not committed comes again");
    }
}
