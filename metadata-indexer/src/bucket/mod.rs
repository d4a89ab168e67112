//! A bucket of an object store, or a part of one, as a source of objects.
//!
//! * [`s3`]: Amazon S3, and what speaks as it does, through its SDK.
//! * [`store`]: any other store that `object_store` knows.

mod s3;
mod store;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use tarndb_core::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;

use crate::extract::{Part, Ranges};
use crate::object_filter::ObjectFilter;
use crate::options::{Fetch, IndexOptions};
use crate::record::{Change, ObjectId};

/// An object that is there: [`Change::Created`], or [`Change::MarkedDeleted`] for a version that says that it is deleted.
pub(crate) type Present = (ObjectId, Change);

/// What a bucket says of an object that it is asked for.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large one")]
#[derive(Debug, Clone)]
pub(crate) enum Looked {
    /// It is not there.
    Gone,
    /// It is there, and none that the index is about.
    LeftOut(ObjectId),
    Present(Present),
}

/// Which object is meant where no version is named, and there are some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The newest one, as where an event has no version.
    Newest,
    /// The one without a version, as in a listing.
    Unversioned,
}

/// What a store tells when it is asked.
#[async_trait]
pub(crate) trait Objects: fmt::Debug + Send + Sync {
    /// The objects whose keys begin with `prefix`, in parts; all versions, where there are versions.
    async fn list(&self, prefix: &str) -> Result<BoxStream<'_, Result<Vec<Present>>>>;

    /// An object with what the listing does not tell of it; `None` when it is not there.
    ///
    /// # Errors
    /// `Unsupported` for one that is not ours to look at; `DataInvalid` when the store fails, which it may do at this object only.
    async fn look(&self, id: &ObjectId, which: Which, fetch: Fetch) -> Result<Option<Present>>;

    /// Some bytes of an object; `None` when it is gone, or its tag is another than `e_tag`.
    ///
    /// # Errors
    /// `Unsupported` for what is not ours to read.
    async fn read(&self, id: &ObjectId, e_tag: Option<&str>, range: Range<u64>) -> Result<Option<Part>>;

    /// Whether there are versions, or were.
    async fn has_versions(&self) -> Result<bool> {
        Ok(false)
    }

    /// What was not allowed, and is done without.
    fn denied(&self) -> Option<String> {
        None
    }

    /// Forgets what was not allowed: it may be by now.
    fn forget_denied(&self) {}
}

/// One content of an object of a bucket.
struct Object {
    objects: Arc<dyn Objects>,
    id: ObjectId,
    e_tag: Option<String>,
}

#[async_trait]
impl Ranges for Object {
    async fn read(&self, range: Range<u64>) -> Result<Option<Part>> {
        self.objects.read(&self.id, self.e_tag.as_deref(), range).await.map_err(of_store)
    }
}

/// A bucket, or the part of one whose keys begin with a prefix.
#[derive(Debug)]
pub(crate) struct Bucket {
    scheme: Scheme,
    name: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    filter: ObjectFilter,
    options: IndexOptions,
    given: Option<Arc<dyn ObjectStore>>,
    objects: OnceCell<Arc<dyn Objects>>,
    /// The last object of which the store said nothing, and why.
    refused: Mutex<Option<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    S3,
    GoogleCloudStorage,
    Azure,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::GoogleCloudStorage),
            "az" | "azure" => Some(Self::Azure),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::GoogleCloudStorage => "gs",
            Self::Azure => "az",
        }
    }
}

impl Bucket {
    /// The bucket at `url`; `None` when it is not the location of one. `given` is the store to ask, where the user brought one.
    ///
    /// # Errors
    /// `InvalidInput` when the location has no bucket.
    pub(crate) fn open(url: &str, options: &IndexOptions, given: Option<Arc<dyn ObjectStore>>) -> Result<Option<Self>> {
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
        let Some(scheme) = Scheme::parse(scheme) else { return Ok(None) };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() || name.contains(['@', '?', '#']) {
            return Err(Error::invalid_input(format!("a bucket's location is `{}://BUCKET/PREFIX`", scheme.name())));
        }
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let (name, filter, options) = (name.to_string(), options.filter()?, options.clone());
        Ok(Some(Self { scheme, name, prefix, filter, options, given, objects: OnceCell::new(), refused: Mutex::default() }))
    }

    /// Its location, in the one way to write it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}/{}", self.scheme.name(), self.name, self.prefix).trim_end_matches('/').to_string()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the index is about objects of this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && self.filter.keeps_key(key)
    }

    /// Whether it is about an object after a change, as far as its size tells.
    pub(crate) fn has_after(&self, change: &Change) -> bool {
        self.filter.keeps_after(change)
    }

    async fn objects(&self) -> Result<&Arc<dyn Objects>> {
        let open = || async {
            let objects: Arc<dyn Objects> = match (&self.given, self.scheme) {
                (Some(given), _) => Arc::new(store::Store::new(Arc::clone(given))),
                (None, Scheme::S3) => Arc::new(s3::S3::open(&self.name, &self.options).await?),
                (None, _) => Arc::new(store::Store::open(&self.url(), &self.options)?),
            };
            Ok(objects)
        };
        self.objects.get_or_try_init(open).await
    }

    /// The objects of the bucket that the index is about now, in parts.
    ///
    /// # Errors
    /// `Unavailable` when they cannot be listed; `InvalidInput` when it is not said where they are.
    pub(crate) async fn list(&self) -> Result<BoxStream<'_, Result<Vec<Present>>>> {
        let listed = self.objects().await?.list(&self.prefix).await.map_err(of_store)?;
        let kept = |mut part: Vec<Present>| {
            part.retain(|(id, change)| self.has(&id.key) && self.has_after(change));
            part
        };
        Ok(listed.map_ok(kept).map_err(of_store).boxed())
    }

    /// Whether it has versions, or had.
    ///
    /// # Errors
    /// As [`Bucket::list`].
    pub(crate) async fn has_versions(&self) -> Result<bool> {
        self.objects().await?.has_versions().await.map_err(of_store)
    }

    /// All versions of a key, with what listings tell.
    ///
    /// # Errors
    /// As [`Bucket::list`].
    pub(crate) async fn versions(&self, key: &str) -> Result<Vec<Present>> {
        let mut parts = self.objects().await?.list(key).await.map_err(of_store)?;
        let (mut versions, mut is_other) = (Vec::new(), false);
        // In the order of keys, of which this is the first.
        while !is_other && let Some(part) = parts.try_next().await.map_err(of_store)? {
            is_other = part.iter().any(|(id, _)| id.key != key);
            versions.extend(part.into_iter().filter(|(id, _)| id.key == key));
        }
        Ok(versions)
    }

    /// An object now, with what the options say.
    ///
    /// # Errors
    /// As [`Bucket::list`]; `Unsupported` for an object that is not ours to look at; `DataInvalid` when the store fails, which it may do at
    /// this object only.
    pub(crate) async fn look(&self, id: &ObjectId, which: Which, fetch: Fetch) -> Result<Looked> {
        Ok(match self.objects().await?.look(id, which, fetch).await.map_err(of_store)? {
            None => Looked::Gone,
            Some((id, change)) if !self.has_after(&change) => Looked::LeftOut(id),
            Some(present) => Looked::Present(present),
        })
    }

    /// Whether the bucket answers when it is asked for what is in it.
    pub(crate) async fn answers(&self) -> bool {
        match self.list().await {
            Ok(mut parts) => parts.next().await.is_none_or(|part| part.is_ok()),
            Err(_) => false,
        }
    }

    /// Where the content of an object is that has this tag.
    ///
    /// # Errors
    /// As [`Bucket::list`].
    pub(crate) async fn content(&self, id: ObjectId, e_tag: Option<String>) -> Result<Box<dyn Ranges>> {
        Ok(Box::new(Object { objects: Arc::clone(self.objects().await?), id, e_tag }))
    }

    /// Remembers that an object could not be looked at.
    pub(crate) fn note(&self, error: &Error) {
        tracing::warn!(bucket = self.name, error = error.report(), "an object is indexed as far as it is told of");
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.report());
    }

    /// Forgets what was remembered.
    pub(crate) fn forget_notes(&self) {
        self.objects.get().iter().for_each(|objects| objects.forget_denied());
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was not allowed, and is done without.
    pub(crate) fn denied(&self) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        refused.or_else(|| self.objects.get().and_then(|objects| objects.denied()))
    }
}

/// A bucket that is not there is no index that is not there.
fn of_store(error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    Error::new(ErrorKind::Unavailable, "the bucket cannot be read").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_of_buckets() {
        let open = |url: &str| Bucket::open(url, &IndexOptions::default(), None);
        for (text, url, key, other) in [
            ("s3://photos", "s3://photos", "a", None),
            ("s3a://photos/2026//", "s3://photos/2026", "2026/a", Some("2026a")),
            ("gs://b/x/y", "gs://b/x/y", "x/y/z", Some("x/yz")),
            ("az://container/", "az://container", "a//b", None),
        ] {
            let bucket = open(text).unwrap().unwrap();
            assert_eq!(bucket.url(), url);
            assert!(bucket.has(key) && other.is_none_or(|other| !bucket.has(other)), "{text}");
        }
        for other in ["./folder", "file:///folder", "http://x/y"] {
            assert!(open(other).unwrap().is_none());
        }
        for wrong in ["s3://", "s3:///x", "s3://key:secret@photos"] {
            assert!(open(wrong).is_err());
        }
    }
}
