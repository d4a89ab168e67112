//! A bucket through `object_store`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::HttpError;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Attribute, Attributes, GetOptions, GetRange, ObjectMeta, ObjectStore, RetryConfig};
use tarndb_core::{Error, Result};

use super::{Objects, Present, Which};
use crate::extract::Part;
use crate::options::{Fetch, IndexOptions};
use crate::record::{Change, ObjectId, ObjectState};

/// Objects that are handed on at once.
const LISTED_AT_ONCE: usize = 10_000;

#[derive(Debug)]
pub(super) struct Store(Arc<dyn ObjectStore>);

impl Store {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }

    /// The store of a bucket, as the environment has its credentials.
    ///
    /// # Errors
    /// `InvalidInput` when the environment or the options do not fit the store.
    pub(super) fn open(url: &str, options: &IndexOptions) -> Result<Self> {
        let wrong = |e: String| Error::invalid_input(format!("the store of `{url}` cannot be opened: {e}"));
        let parsed = url::Url::parse(url).map_err(|e| wrong(e.to_string()))?;
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        // The names of variables are those of options in capitals.
        let mut settings: BTreeMap<String, String> = environment
            .filter(|(name, _)| ["GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix)))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        if let Some(endpoint) = options.endpoint() {
            let name = if parsed.scheme() == "gs" { "google_base_url" } else { "azure_storage_endpoint" };
            settings.insert(name.to_string(), endpoint.to_string());
            settings.insert("allow_http".to_string(), endpoint.starts_with("http://").to_string());
        }
        let store: object_store::Result<Arc<dyn ObjectStore>> = match parsed.scheme() {
            "gs" => {
                let builder = GoogleCloudStorageBuilder::new().with_url(url).with_retry(retries());
                let settings = settings.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value)));
                settings
                    .fold(builder, |builder, (name, value)| builder.with_config(name, value))
                    .build()
                    .map(|store| Arc::new(store) as _)
            }
            _ => {
                let builder = MicrosoftAzureBuilder::new().with_url(url).with_retry(retries());
                let settings = settings.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value)));
                settings
                    .fold(builder, |builder, (name, value)| builder.with_config(name, value))
                    .build()
                    .map(|store| Arc::new(store) as _)
            }
        };
        store.map(Self).map_err(|e| wrong(e.to_string()))
    }
}

/// Few, for who asks does so again later, and does not hold up others meanwhile.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() }
}

/// What the answers of a store say that asks for patience. The error that has their status is not public.
const BUSY: [&str; 2] = ["status code: 429", "status code: 503"];

/// What went wrong when an object was asked for: at this object, or when the store was not reached, is busy, or does not know who asks.
fn failed_at(key: &str, error: object_store::Error) -> Error {
    let mut causes = std::iter::successors(Some(&error as &(dyn std::error::Error + 'static)), |cause| cause.source());
    let is_busy = |text: String| BUSY.iter().any(|busy| text.contains(busy));
    let is_about_all = causes.any(|cause| cause.is::<HttpError>() || is_busy(cause.to_string()));
    let error = match error {
        e @ object_store::Error::PermissionDenied { .. } => {
            return Error::unsupported(format!("the object `{key}` is not ours to look at")).with_source(e);
        }
        e @ (object_store::Error::Unauthenticated { .. } | object_store::Error::NotImplemented { .. }) => Error::from(e),
        e if is_about_all => Error::from(e),
        e => Error::data_invalid("an object cannot be read").with_source(e),
    };
    error.with_context("key", key)
}

fn e_tag(meta: &ObjectMeta) -> Option<&str> {
    meta.e_tag.as_deref().map(|tag| tag.trim_start_matches("W/").trim_matches('"'))
}

fn state(meta: &ObjectMeta, attributes: &Attributes, fetch: Option<Fetch>) -> ObjectState {
    let pairs = attributes.iter().filter_map(|(attribute, value)| match attribute {
        Attribute::Metadata(name) => Some((name.to_ascii_lowercase(), value.as_ref().to_string())),
        _ => None,
    });
    ObjectState {
        size: i64::try_from(meta.size).ok(),
        last_modified: Some(meta.last_modified.timestamp_micros()),
        e_tag: e_tag(meta).map(str::to_string),
        storage_class: attributes.get(&Attribute::StorageClass).map(|class| class.as_ref().to_string()),
        user_metadata: fetch.filter(|fetch| fetch.metadata).map(|_| pairs.collect()),
        ..ObjectState::default()
    }
}

#[async_trait]
impl Objects for Store {
    async fn list(&self, prefix: &str) -> Result<BoxStream<'_, Result<Vec<Present>>>> {
        let prefix = path(prefix.trim_end_matches('/'))?;
        let prefix = Some(&prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let object = |meta: ObjectMeta| {
            let state = state(&meta, &Attributes::default(), None);
            (ObjectId::of_key(meta.location.as_ref()), Change::Created(state))
        };
        let listed = self.0.list(prefix).map_ok(object).map_err(|e| match e {
            object_store::Error::InvalidPath { .. } => {
                Error::unsupported("the bucket has a key that cannot be listed here: one with an empty part, `.` or `..`")
                    .with_source(e)
            }
            e => Error::from(e),
        });
        Ok(listed.try_chunks(LISTED_AT_ONCE).map_err(|e| e.1).boxed())
    }

    async fn look(&self, id: &ObjectId, _which: Which, fetch: Fetch) -> Result<Option<Present>> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.0.get_opts(&path(&id.key)?, options).await {
            Ok(found) => Ok(Some((id.clone(), Change::Created(state(&found.meta, &found.attributes, Some(fetch)))))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed_at(&id.key, e)),
        }
    }

    async fn read(&self, id: &ObjectId, tag: Option<&str>, range: Range<u64>) -> Result<Option<Part>> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = match self.0.get_opts(&path(&id.key)?, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e @ (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. })) => {
                let message = format!("the content of the object `{}` is not ours to read", id.key);
                return Err(Error::unsupported(message).with_source(e));
            }
            Err(e) => return Err(Error::from(e).with_context("key", &id.key)),
        };
        if tag.is_some_and(|tag| e_tag(&found.meta) != Some(tag)) {
            return Ok(None);
        }
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(|e| Error::from(e).with_context("key", &id.key))?;
        Ok(Some(Part { bytes, size }))
    }
}

/// # Errors
/// `Unsupported` for keys that `object_store` does not take: those with empty parts.
fn path(key: &str) -> Result<Path> {
    let path = Path::parse(key).ok().filter(|path| path.as_ref() == key);
    path.ok_or_else(|| Error::unsupported(format!("objects with keys such as `{key}` are not read from this store")))
}
