//! Events that are sent to this process over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use hmac::{Hmac, Mac};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tarndb_core::{Error, ErrorKind, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{EventSource, Events, Stop};
use crate::event::{self, Parsed};
use crate::options::{IndexOptions, SecretPlace};

/// Bytes that a message has at most: a notification of S3 has less.
const LONGEST: usize = 64 * 1024;

/// How long a sender may take to say what it wants, and to send it; and, when this ends, to take the answer.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_AT_END: Duration = Duration::from_secs(5);

/// Connections at once; others wait.
const CONNECTIONS: usize = 512;

/// Messages that wait for a commit at once. Who sends another is told to come again, for which there are connections left.
const WAITING: usize = 400;

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Headers with `sha256=` and the HMAC of the body in hexadecimal digits.
const SIGNATURES: [&str; 2] = ["x-tarndb-signature", "x-hub-signature-256"];

/// Names of the secret in a query.
const TOKENS: [&str; 2] = ["token", "code"];

pub(super) struct Webhook {
    path: String,
    secret: Secret,
    listener: Mutex<Option<TcpListener>>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What senders must know.
#[derive(Clone)]
struct Secret(Arc<[u8]>);

#[derive(Clone)]
struct Receiver {
    path: Arc<str>,
    secret: Secret,
    events: Events,
    /// For messages that wait.
    room: Arc<Semaphore>,
}

fn unusable(what: String) -> Error {
    Error::invalid_input(what)
}

impl Secret {
    fn read(place: &SecretPlace) -> Result<Self> {
        let secret = match place {
            SecretPlace::Environment(name) => std::env::var(name).map_err(|_| {
                unusable(format!("the environment has no variable `{name}`, where the secret of the webhook should be"))
            })?,
            SecretPlace::File(path) => std::fs::read_to_string(path).map_err(|e| {
                unusable(format!("the file `{path}`, where the secret of the webhook should be, is not read: {e}"))
            })?,
        };
        let secret = secret.trim();
        if secret.is_empty() {
            return Err(unusable("the secret of the webhook is empty".to_string()));
        }
        Ok(Self(Arc::from(secret.as_bytes())))
    }

    fn is(&self, text: &str) -> bool {
        self.0.ct_eq(text.as_bytes()).into()
    }

    /// Whether the request has the secret: as a token of a header or of the query.
    fn is_known_to(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = header(header::AUTHORIZATION.as_str()).map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
        let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let in_query = query.filter(|(name, _)| TOKENS.contains(&name.as_ref())).any(|(_, value)| self.is(&value));
        bearer.is_some_and(|token| self.is(token)) || header("x-api-key").is_some_and(|key| self.is(key)) || in_query
    }

    /// Whether who sent this body signed it.
    fn signed(&self, signature: &str, body: &[u8]) -> bool {
        let Some(digits) = signature.strip_prefix("sha256=") else { return false };
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let Some(signature) = digits.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>() else { return false };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return false };
        mac.update(body);
        mac.verify_slice(&signature).is_ok()
    }
}

impl Webhook {
    /// Listens from now on; what is sent before [`EventSource::run`] waits.
    pub(super) async fn open(host: &str, port: u16, path: &str, options: &IndexOptions) -> Result<Self> {
        let place = options.secret()?.ok_or_else(|| {
            unusable("a webhook needs the option `secret`, which says where the secret is that senders must know".to_string())
        })?;
        let secret = Secret::read(&place)?;
        let cannot = |e: std::io::Error| {
            Error::new(ErrorKind::Unavailable, format!("events cannot be listened for at `{host}:{port}`")).with_source(e)
        };
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(cannot)?.collect();
        if !options.allow_remote()? && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(unusable(format!(
                "`{host}` is reached by other machines: events are listened for there with the option `allow_remote = 'true'` only"
            )));
        }
        let listener = TcpListener::bind(addresses.as_slice()).await.map_err(cannot)?;
        Ok(Self { path: path.to_string(), secret, listener: Mutex::new(Some(listener)) })
    }
}

#[async_trait]
impl EventSource for Webhook {
    async fn run(&self, events: Events, mut stop: Stop) {
        let Some(listener) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (path, secret) = (Arc::from(self.path.as_str()), self.secret.clone());
        let receiver = Receiver { path, secret, events: events.clone(), room: Arc::new(Semaphore::new(WAITING)) };
        let router = Router::new().fallback(receive).with_state(receiver);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let room = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, room)
            };
            let (stream, room) = tokio::select! {
                () = stop.told() => break,
                (accepted, room) = accepted => match accepted {
                    Ok((stream, _)) => (stream, room),
                    // Too many files are open, or the sender is gone.
                    Err(error) => {
                        tracing::warn!(%error, "a sender of events could not be listened to");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            while connections.try_join_next().is_some() {}
            let (router, stop) = (router.clone(), stop.clone());
            connections.spawn(async move {
                serve(stream, router, stop).await;
                drop(room);
            });
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

/// Serves one connection, until it ends, takes too long to say what it wants, or is told to stop and has had time to take its answer.
async fn serve(stream: TcpStream, router: Router, mut stop: Stop) {
    let mut server = http1::Builder::new();
    // One answer, which fits into what the system keeps for who does not read it.
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.told() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(PATIENCE_AT_END, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a sender of events ended its connection early");
    }
}

fn answer(status: StatusCode, text: &str) -> Response<Body> {
    (status, text.to_string()).into_response()
}

async fn receive(State(receiver): State<Receiver>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if head.uri.path() != &*receiver.path {
        return answer(StatusCode::NOT_FOUND, "there is nothing here\n");
    }
    let signature = SIGNATURES.iter().find_map(|name| head.headers.get(*name)).and_then(|value| value.to_str().ok());
    let has_token = receiver.secret.is_known_to(&head.headers, &head.uri);
    if !has_token && (signature.is_none() || head.method != Method::POST) {
        return answer(StatusCode::UNAUTHORIZED, "a token or a signature is needed\n");
    }
    match head.method {
        Method::POST => {}
        // MinIO asks whether anyone is there.
        Method::HEAD => return StatusCode::OK.into_response(),
        Method::OPTIONS => return allow(&head.headers),
        _ => return answer(StatusCode::METHOD_NOT_ALLOWED, "events are sent with POST\n"),
    }
    let body = match tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, LONGEST - 1)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return answer(StatusCode::PAYLOAD_TOO_LARGE, "a message has less than 64 KiB\n"),
        Err(_) => return answer(StatusCode::REQUEST_TIMEOUT, "the message did not come\n"),
    };
    if !has_token && !signature.is_some_and(|signature| receiver.secret.signed(signature, &body)) {
        return answer(StatusCode::UNAUTHORIZED, "the signature is not right\n");
    }
    take(&receiver, &body).await
}

/// The question of CloudEvents whether events may be sent.
fn allow(headers: &HeaderMap) -> Response<Body> {
    let origin = headers.get("webhook-request-origin").and_then(|value| value.to_str().ok()).unwrap_or("*");
    let headers = [("webhook-allowed-origin", origin), ("webhook-allowed-rate", "*"), ("allow", "POST")];
    (StatusCode::OK, headers).into_response()
}

async fn take(receiver: &Receiver, body: &Bytes) -> Response<Body> {
    let parts = match event::parse(body) {
        Ok(parts) => parts,
        Err(error) => return answer(StatusCode::BAD_REQUEST, &format!("{error}\n")),
    };
    if let [Parsed::Validation(code)] = parts.as_slice() {
        let answer = serde_json::json!({ "validationResponse": code }).to_string();
        return (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], answer).into_response();
    }
    let Ok(_room) = receiver.room.try_acquire() else { return come_again("too many events wait") };
    match receiver.events.send(parts).await.await {
        Ok(()) => answer(StatusCode::OK, "committed\n"),
        Err(_) => come_again("the event could not be committed"),
    }
}

fn come_again(why: &str) -> Response<Body> {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], format!("{why}: send it again later\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_2104() {
        let secret = Secret(Arc::from(b"Jefe".as_slice()));
        let body = b"what do ya want for nothing?";
        // RFC 4231, test case 2.
        let right = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert!(secret.signed(right, body));
        for wrong in ["", "sha256=", "sha1=00", &right[..right.len() - 2], &right.replace('5', "6"), "sha256=zz", "sha256=+1"] {
            assert!(!secret.signed(wrong, body), "{wrong}");
        }
        assert!(!secret.signed(right, b"something else"));
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_to_come_again() {
        let (events, mut inbox) = crate::feed::inbox(Arc::default());
        let (path, secret, room) = (Arc::from("/"), Secret(Arc::from(b"s".as_slice())), Arc::new(Semaphore::new(2)));
        let receiver = Receiver { path, secret, events, room };
        let send = || {
            let receiver = receiver.clone();
            async move { take(&receiver, &Bytes::from_static(b"{}")).await.status() }
        };
        let waiting = [tokio::spawn(send()), tokio::spawn(send())];
        let deliveries = [inbox.recv().await.unwrap(), inbox.recv().await.unwrap()];
        assert_eq!(send().await, StatusCode::SERVICE_UNAVAILABLE);
        let [committed, failed] = deliveries;
        committed.committed.send(()).unwrap();
        drop(failed);
        let mut answers = Vec::new();
        for waits in waiting {
            answers.push(waits.await.unwrap());
        }
        answers.sort_unstable();
        assert_eq!(answers, [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
        let again = tokio::spawn(send());
        inbox.recv().await.unwrap().committed.send(()).unwrap();
        assert_eq!(again.await.unwrap(), StatusCode::OK);
        // Nobody takes them any more.
        drop(inbox);
        assert_eq!(send().await, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn the_secret_is_in_a_header_or_the_query() {
        let secret = Secret(Arc::from(b"s3cret".as_slice()));
        let known = |name: &'static str, value: &'static str, uri: &'static str| {
            let headers: HeaderMap = [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect();
            secret.is_known_to(&headers, &Uri::from_static(uri))
        };
        assert!(known("authorization", "Bearer s3cret", "/"));
        assert!(known("authorization", "s3cret", "/"));
        assert!(known("x-api-key", "s3cret", "/"));
        assert!(known("accept", "x", "/?a=b&code=s3cret") && known("accept", "x", "/?token=s3cre%74"));
        assert!(!known("authorization", "Bearer s3cret2", "/?token=s3cre") && !known("x", "s3cret", "/s3cret?x=s3cret"));
    }
}
