//! A bucket with versions, tags and metadata, which answers in S3's words what an index asks: listings in small parts, HEAD and tags.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Once};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Objects that a listing tells of at once.
const PAGE: usize = 40;

pub(crate) type Pairs = BTreeMap<String, String>;

/// One version of an object.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// `None` where there are no versions.
    pub(crate) id: Option<String>,
    /// It says that the object is deleted.
    pub(crate) is_marker: bool,
    pub(crate) size: usize,
    pub(crate) e_tag: String,
    /// In seconds since 1970.
    pub(crate) modified: i64,
    pub(crate) class: &'static str,
    pub(crate) metadata: Pairs,
    pub(crate) tags: Pairs,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            id: None,
            is_marker: false,
            size: 0,
            e_tag: String::new(),
            modified: 1_772_619_072,
            class: "STANDARD",
            metadata: Pairs::new(),
            tags: Pairs::new(),
        }
    }
}

/// What is in the bucket.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    versioned: bool,
    /// By key, the oldest first.
    pub(crate) versions: BTreeMap<String, Vec<Version>>,
    /// Keys of objects of which nothing is said but in listings. Those of others have `x` for content.
    pub(crate) broken: BTreeSet<String>,
    /// Keys of objects that nobody may read.
    pub(crate) archived: BTreeSet<String>,
    /// How often it asks for patience when it is asked for an object.
    pub(crate) busy: BTreeMap<String, usize>,
    /// How often it was asked for an object.
    pub(crate) asked: BTreeMap<String, usize>,
    /// It cannot be listed.
    pub(crate) fails: bool,
    /// Versions that say that an object is deleted are told of in listings only, as by Ceph.
    pub(crate) hides_markers: bool,
}

/// A server on a free port of this machine, which ends with this.
#[derive(Debug)]
pub(crate) struct S3Server {
    objects: Arc<Mutex<Objects>>,
    /// How many parts of listings it hands out.
    pub(crate) parts: Arc<Semaphore>,
    port: u16,
    task: JoinHandle<()>,
}

/// Credentials that nobody checks.
fn set_credentials() {
    static ONCE: Once = Once::new();
    // SAFETY: before the first request of this process, and so before anybody reads these.
    #[allow(unsafe_code)]
    ONCE.call_once(|| unsafe {
        std::env::set_var("AWS_ACCESS_KEY_ID", "key");
        std::env::set_var("AWS_SECRET_ACCESS_KEY", "secret");
    });
}

impl S3Server {
    pub(crate) async fn start(versioned: bool) -> Self {
        set_credentials();
        let objects = Arc::new(Mutex::new(Objects { versioned, ..Objects::default() }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let parts = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let router = Router::new().fallback(answer).with_state((Arc::clone(&objects), Arc::clone(&parts)));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { objects, parts, port, task }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Objects {
    /// Adds a version, or takes the place of what was there where there are none.
    pub(crate) fn put(&mut self, key: &str, version: Version) {
        let versions = self.versions.entry(key.to_string()).or_default();
        if !self.versioned {
            versions.clear();
        }
        versions.push(version);
    }

    /// Removes a version.
    pub(crate) fn remove(&mut self, key: &str, id: Option<&str>) {
        let Some(versions) = self.versions.get_mut(key) else { return };
        versions.retain(|version| version.id.as_deref() != id);
        if versions.is_empty() {
            self.versions.remove(key);
        }
    }

    /// A version, or the newest one.
    pub(crate) fn version(&self, key: &str, id: Option<&str>) -> Option<&Version> {
        let versions = self.versions.get(key)?;
        match id {
            Some(id) => versions.iter().find(|version| version.id.as_deref().unwrap_or("null") == id),
            None => versions.last(),
        }
    }

    fn list(&self, query: &Pairs) -> String {
        let (prefix, after) = (query.get("prefix").map_or("", String::as_str), query.get("continuation-token"));
        let is_listed = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| *key > after);
        let mut keys = self.versions.keys().filter(is_listed);
        let page: Vec<&String> = keys.by_ref().take(PAGE).collect();
        let more = keys.next().and(page.last()).map(|last| {
            format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>", escaped(last))
        });
        let contents = page.iter().filter_map(|key| Some(listed("Contents", key, self.version(key, None)?)));
        format!("<ListBucketResult>{ENCODED}{}{}</ListBucketResult>", more.unwrap_or_default(), contents.collect::<String>())
    }

    fn list_versions(&self, query: &Pairs) -> String {
        let get = |name: &str| query.get(name).map_or("", String::as_str);
        let (prefix, after) = (get("prefix"), (get("key-marker"), get("version-id-marker")));
        // The newest first.
        let all = self.versions.iter().flat_map(|(key, versions)| versions.iter().rev().map(move |version| (key, version)));
        let all: Vec<_> = all.filter(|(key, _)| key.starts_with(prefix)).collect();
        let is_last = |(key, version): &(&String, &Version)| (key.as_str(), version.id.as_deref().unwrap_or("null")) == after;
        let start = if after.0.is_empty() { 0 } else { all.iter().position(is_last).map_or(all.len(), |place| place + 1) };
        let page = &all[start..all.len().min(start + PAGE)];
        let more = page.last().filter(|_| start + PAGE < all.len()).map(|(key, version)| {
            let (key, version) = (encoded(key), version.id.as_deref().unwrap_or("null"));
            format!(
                "<IsTruncated>true</IsTruncated><NextKeyMarker>{key}</NextKeyMarker><NextVersionIdMarker>{version}</NextVersionIdMarker>"
            )
        });
        let version = |(key, version): &(&String, &Version)| {
            listed(if version.is_marker { "DeleteMarker" } else { "Version" }, key, version)
        };
        let versions: String = page.iter().map(version).collect();
        format!("<ListVersionsResult>{ENCODED}{}{versions}</ListVersionsResult>", more.unwrap_or_default())
    }

    fn tags(&self, key: &str, id: Option<&str>) -> Option<String> {
        let tags = &self.version(key, id).filter(|version| !version.is_marker)?.tags;
        let tag =
            |(key, value): (&String, &String)| format!("<Tag><Key>{}</Key><Value>{}</Value></Tag>", escaped(key), escaped(value));
        Some(format!("<Tagging><TagSet>{}</TagSet></Tagging>", tags.iter().map(tag).collect::<String>()))
    }
}

const ENCODED: &str = "<EncodingType>url</EncodingType>";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn encoded(key: &str) -> String {
    url::form_urlencoded::byte_serialize(key.as_bytes()).collect()
}

fn listed(element: &str, key: &str, version: &Version) -> String {
    let id = version.id.as_ref().map(|id| format!("<VersionId>{id}</VersionId>")).unwrap_or_default();
    let content = match version.is_marker {
        true => String::new(),
        false => format!(
            "<ETag>&quot;{}&quot;</ETag><Size>{}</Size><StorageClass>{}</StorageClass>",
            version.e_tag, version.size, version.class
        ),
    };
    let time = chrono::DateTime::from_timestamp(version.modified, 0).unwrap().format("%Y-%m-%dT%H:%M:%S.000Z");
    format!("<{element}><Key>{}</Key>{id}<LastModified>{time}</LastModified>{content}</{element}>", encoded(key))
}

fn http_date(seconds: i64) -> String {
    chrono::DateTime::from_timestamp(seconds, 0).unwrap().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn xml(text: String) -> Response<Body> {
    Response::new(Body::from(text))
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

async fn answer(State((objects, parts)): State<(Arc<Mutex<Objects>>, Arc<Semaphore>)>, request: Request<Body>) -> Response<Body> {
    let query: Pairs = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let path = request.uri().path().trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key);
    let key = percent_encoding::percent_decode_str(key).decode_utf8().unwrap().into_owned();
    let id = query.get("versionId").map(String::as_str);
    if key.is_empty() && !query.contains_key("versioning") {
        parts.acquire().await.unwrap().forget();
    }
    let mut objects = objects.lock().unwrap();
    if key.is_empty() {
        if objects.fails {
            return status(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let has = |name: &str| query.contains_key(name);
        return match (has("versioning"), has("versions"), objects.versioned) {
            (true, _, true) => xml("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>".to_string()),
            (true, _, false) => xml("<VersioningConfiguration/>".to_string()),
            (_, true, _) => xml(objects.list_versions(&query)),
            _ => xml(objects.list(&query)),
        };
    }
    *objects.asked.entry(key.clone()).or_default() += 1;
    if let Some(times) = objects.busy.get_mut(&key).filter(|times| **times > 0) {
        *times -= 1;
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    if objects.broken.contains(&key) {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    }
    if query.contains_key("tagging") {
        return objects.tags(&key, id).map_or_else(|| status(StatusCode::NOT_FOUND), xml);
    }
    let is_read = request.method() == Method::GET;
    if is_read && objects.archived.contains(&key) {
        let refused = Body::from("<Error><Code>InvalidObjectState</Code><Message>It is archived.</Message></Error>");
        return Response::builder().status(StatusCode::FORBIDDEN).body(refused).unwrap();
    }
    assert!(is_read || request.method() == Method::HEAD, "nobody asks for {}", request.uri());
    let (mut response, mut body) = (Response::builder(), Body::empty());
    let response = match objects.version(&key, id) {
        None => return status(StatusCode::NOT_FOUND),
        Some(version) if version.is_marker && objects.hides_markers => return status(StatusCode::NOT_FOUND),
        Some(version) if version.is_marker => {
            let code = if id.is_some() { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND };
            let id = version.id.as_deref().unwrap_or("null");
            let response = response.status(code).header("x-amz-delete-marker", "true").header("x-amz-version-id", id);
            if code == StatusCode::NOT_FOUND { response } else { response.header("last-modified", http_date(version.modified)) }
        }
        Some(version) => {
            if is_read {
                let range = request.headers()["range"].to_str().unwrap().trim_start_matches("bytes=").split_once('-').unwrap();
                let (start, end): (usize, usize) = (range.0.parse().unwrap(), range.1.parse::<usize>().unwrap() + 1);
                let end = end.min(version.size);
                body = Body::from("x".repeat(end - start));
                let shown = format!("bytes {start}-{}/{}", end - 1, version.size);
                response = response.status(StatusCode::PARTIAL_CONTENT).header("content-range", shown);
            } else {
                response = response.header("content-length", version.size);
            }
            let response = response.header("last-modified", http_date(version.modified));
            let response = response.header("etag", format!("\"{}\"", version.e_tag));
            let other_class = (version.class != "STANDARD").then_some(version.class);
            let response = other_class.iter().fold(response, |response, class| response.header("x-amz-storage-class", *class));
            let id = version.id.as_deref().or(objects.versioned.then_some("null"));
            let response = id.iter().fold(response, |response, id| response.header("x-amz-version-id", *id));
            let metadata = version.metadata.iter();
            metadata.fold(response, |response, (name, value)| response.header(format!("x-amz-meta-{name}"), value))
        }
    };
    response.body(body).unwrap()
}
