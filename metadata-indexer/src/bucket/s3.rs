//! Amazon S3, and what speaks as it does, through its SDK: `object_store` takes no keys with empty parts, of which buckets are full
//! (`folder/`), and knows neither tags nor versions.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{ChecksumMode, EncodingType, ServerSideEncryption};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tarndb_core::{Error, ErrorKind, Result};

use super::{Objects, Present, Which};
use crate::aws::{self, failed};
use crate::event::form_decoded;
use crate::extract::Part;
use crate::options::{Fetch, IndexOptions};
use crate::record::{Change, ObjectId, ObjectState};

/// What a bucket's answer about versions has in it when there are versions, or were.
const STATUS: &[u8] = b"<Status>";

#[derive(Debug)]
pub(super) struct S3 {
    client: Client,
    bucket: String,
    /// Whether the bucket had versions when that was last asked.
    versions: Mutex<Option<bool>>,
    /// What was not allowed, and is done without.
    denied: Mutex<Option<String>>,
}

/// Where a listing is.
enum Page {
    First,
    After(Marker),
    End,
}

enum Marker {
    Token(String),
    Version { key: Option<String>, version: Option<String> },
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

fn micros(time: Option<&DateTime>) -> Option<i64> {
    time.and_then(|time| i64::try_from(time.as_nanos() / 1000).ok())
}

/// What the tag of a content and its time tell.
fn content(e_tag: Option<&str>, last_modified: Option<&DateTime>) -> ObjectState {
    let e_tag = e_tag.map(|tag| tag.trim_matches('"').to_string());
    let is_multipart = e_tag.as_ref().map(|tag| tag.contains('-'));
    ObjectState { e_tag, is_multipart, last_modified: micros(last_modified), ..ObjectState::default() }
}

impl S3 {
    pub(super) async fn open(bucket: &str, options: &IndexOptions) -> Result<Self> {
        let config = aws::config(options).await?;
        // A bucket is a name in front of the host at Amazon only.
        let by_path = config.endpoint_url().is_some();
        let config = aws_sdk_s3::config::Builder::from(&config).force_path_style(by_path).build();
        Ok(Self {
            client: Client::from_conf(config),
            bucket: bucket.to_string(),
            versions: Mutex::default(),
            denied: Mutex::default(),
        })
    }

    async fn page(&self, prefix: &str, token: Option<String>) -> Result<(Vec<Present>, Page)> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).encoding_type(EncodingType::Url);
        let page = request.set_continuation_token(token).send().await.map_err(|e| failed("the bucket cannot be listed", e))?;
        let encoded = page.encoding_type().is_some();
        let mut objects = Vec::new();
        for object in page.contents() {
            let Some(key) = object.key() else { continue };
            let listed = ObjectState {
                size: object.size(),
                storage_class: object.storage_class().map(|class| class.as_str().to_string()),
                checksum_algorithm: object.checksum_algorithm().first().map(|algorithm| algorithm.as_str().to_string()),
                ..content(object.e_tag(), object.last_modified())
            };
            objects.push((ObjectId::of_key(decoded(key, encoded)?), Change::Created(listed)));
        }
        let next = page.next_continuation_token().filter(|_| page.is_truncated().unwrap_or(false));
        Ok((objects, next.map_or(Page::End, |token| Page::After(Marker::Token(token.to_string())))))
    }

    async fn page_of_versions(&self, prefix: &str, key: Option<String>, version: Option<String>) -> Result<(Vec<Present>, Page)> {
        let request = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix).encoding_type(EncodingType::Url);
        let request = request.set_key_marker(key).set_version_id_marker(version);
        let page = request.send().await.map_err(|e| failed("the versions in the bucket cannot be listed", e))?;
        let encoded = page.encoding_type().is_some();
        let id = |key: &str, version: Option<&str>| -> Result<ObjectId> {
            let version = version.filter(|version| *version != "null").map(str::to_string);
            Ok(ObjectId { key: decoded(key, encoded)?, version })
        };
        let mut objects = Vec::new();
        for object in page.versions() {
            let Some(key) = object.key() else { continue };
            let listed = ObjectState {
                size: object.size(),
                storage_class: object.storage_class().map(|class| class.as_str().to_string()),
                checksum_algorithm: object.checksum_algorithm().first().map(|algorithm| algorithm.as_str().to_string()),
                ..content(object.e_tag(), object.last_modified())
            };
            objects.push((id(key, object.version_id())?, Change::Created(listed)));
        }
        for marker in page.delete_markers() {
            let Some(key) = marker.key() else { continue };
            let last_modified = micros(marker.last_modified());
            let state = ObjectState { size: Some(0), last_modified, ..ObjectState::default() };
            objects.push((id(key, marker.version_id())?, Change::MarkedDeleted(state)));
        }
        if !page.is_truncated().unwrap_or(false) {
            return Ok((objects, Page::End));
        }
        let key = page.next_key_marker().map(|key| decoded(key, encoded)).transpose()?;
        let version = page.next_version_id_marker().map(str::to_string);
        if key.is_none() {
            return Err(Error::new(ErrorKind::Unavailable, "the versions in the bucket cannot be listed: a part has no end"));
        }
        Ok((objects, Page::After(Marker::Version { key, version })))
    }

    fn state(found: &HeadObjectOutput, fetch: Fetch) -> ObjectState {
        let encryption = found.server_side_encryption().map(|algorithm| match algorithm {
            ServerSideEncryption::Aes256 => "SSE-S3",
            ServerSideEncryption::AwsKms => "SSE-KMS",
            ServerSideEncryption::AwsKmsDsse => "DSSE-KMS",
            other => other.as_str(),
        });
        let checksum = [
            ("CRC64NVME", found.checksum_crc64_nvme()),
            ("CRC32", found.checksum_crc32()),
            ("CRC32C", found.checksum_crc32_c()),
            ("SHA1", found.checksum_sha1()),
            ("SHA256", found.checksum_sha256()),
        ];
        let metadata = found.metadata().cloned().unwrap_or_default();
        ObjectState {
            size: found.content_length(),
            // What is not said is the standard class.
            storage_class: Some(found.storage_class().map_or("STANDARD", |class| class.as_str()).to_string()),
            encryption_status: encryption.or(found.sse_customer_algorithm().map(|_| "SSE-C")).map(str::to_string),
            is_bucket_key_enabled: found.bucket_key_enabled(),
            kms_key_arn: found.ssekms_key_id().map(str::to_string),
            checksum_algorithm: checksum.iter().find(|(_, sum)| sum.is_some()).map(|(name, _)| (*name).to_string()),
            user_metadata: fetch.metadata.then(|| metadata.into_iter().collect()),
            ..content(found.e_tag(), found.last_modified())
        }
    }

    /// Whether the bucket has versions, as far as that was asked.
    async fn lists_versions(&self) -> Result<bool> {
        let known = *self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => Ok(known),
            None => self.has_versions().await,
        }
    }

    /// The version of an object of a listing, as S3 calls it.
    async fn version(&self, id: &ObjectId) -> Result<Option<String>> {
        match &id.version {
            Some(version) => Ok(Some(version.clone())),
            None => Ok(self.lists_versions().await?.then(|| "null".to_string())),
        }
    }

    /// Remembers what was not allowed.
    fn deny(&self, what: &str, error: &Error) {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.replace(error.to_string()).is_none() {
            tracing::warn!(bucket = self.bucket, error = error.report(), "{what}");
        }
    }

    /// An object as a listing tells of it, which begins with it.
    async fn look_by_listing(&self, id: &ObjectId, unversioned: bool) -> Result<Option<Present>> {
        let (listed, rest) = if unversioned || id.version.is_some() {
            self.page_of_versions(&id.key, None, None).await?
        } else {
            self.page(&id.key, None).await?
        };
        let found = listed.into_iter().find(|(found, _)| found == id);
        match (found, rest) {
            (None, Page::After(Marker::Version { key, .. })) if key.as_ref() == Some(&id.key) => {
                Err(Error::unsupported("an object has too many versions to find one").with_context("key", &id.key))
            }
            (found, _) => Ok(found),
        }
    }

    /// The tags of an object; `None` where it is not allowed to read them, or nobody has them.
    async fn add_tags(&self, key: &str, version: Option<String>, state: &mut ObjectState) -> Result<()> {
        let request = self.client.get_object_tagging().bucket(&self.bucket).key(key).set_version_id(version);
        match request.send().await {
            Ok(found) => {
                let tags = found.tag_set().iter().map(|tag| (tag.key().to_string(), tag.value().to_string()));
                state.tags = Some(tags.collect());
            }
            // It went since.
            Err(error) if status(&error) == Some(404) => {}
            Err(error) if matches!(status(&error), Some(403 | 405 | 501)) => {
                self.deny("tags are left out", &failed("tags of objects cannot be read", error));
            }
            Err(error) => return Err(failed_at(key, "tags of an object cannot be read", error)),
        }
        Ok(())
    }
}

/// What went wrong when an object was asked for: at this object, or when the store asks for patience, or cannot be reached.
fn failed_at<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(
    key: &str,
    what: &str,
    error: SdkError<E, HttpResponse>,
) -> Error {
    let is_own = status(&error) == Some(500);
    let error = failed(what, error);
    let error = if is_own { Error::data_invalid(error.to_string()).with_source(error) } else { error };
    error.with_context("key", key)
}

/// The version that says that an object is deleted, when it is the newest one: told in headers.
fn marker<E>(key: &str, error: &SdkError<E, HttpResponse>) -> Option<Present> {
    let headers = error.raw_response()?.headers();
    headers.get("x-amz-delete-marker").filter(|value| *value == "true")?;
    let version = headers.get("x-amz-version-id").filter(|version| *version != "null").map(str::to_string);
    Some((ObjectId { key: key.to_string(), version }, Change::MarkedDeleted(marker_state(error))))
}

/// What is known of a version that says that an object is deleted: since when, where headers tell.
fn marker_state<E>(error: &SdkError<E, HttpResponse>) -> ObjectState {
    let time = error.raw_response().and_then(|response| response.headers().get("last-modified"));
    let time = time.and_then(|time| DateTime::from_str(time, DateTimeFormat::HttpDate).ok());
    ObjectState { size: Some(0), last_modified: micros(time.as_ref()), ..ObjectState::default() }
}

fn decoded(key: &str, encoded: bool) -> Result<String> {
    if encoded { form_decoded(key) } else { Ok(key.to_string()) }
}

#[async_trait]
impl Objects for S3 {
    async fn has_versions(&self) -> Result<bool> {
        let versions = match self.client.get_bucket_versioning().bucket(&self.bucket).send().await {
            Ok(versioning) => versioning.status().is_some(),
            Err(error) if matches!(status(&error), Some(405 | 501)) => false,
            // Not all call the root of their answer as S3 does.
            Err(error) if status(&error) == Some(200) => {
                let body = error.raw_response().and_then(|response| response.body().bytes()).unwrap_or_default();
                body.windows(STATUS.len()).any(|window| window == STATUS)
            }
            Err(error) => return Err(failed("whether the bucket has versions cannot be read", error)),
        };
        *self.versions.lock().unwrap_or_else(PoisonError::into_inner) = Some(versions);
        Ok(versions)
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'_, Result<Vec<Present>>>> {
        let versions = self.has_versions().await?;
        let prefix = prefix.to_string();
        let pages = stream::try_unfold(Page::First, move |page| {
            let prefix = prefix.clone();
            async move {
                let (objects, next) = match page {
                    Page::End => return Ok(None),
                    Page::First if versions => self.page_of_versions(&prefix, None, None).await?,
                    Page::First => self.page(&prefix, None).await?,
                    Page::After(Marker::Token(token)) => self.page(&prefix, Some(token)).await?,
                    Page::After(Marker::Version { key, version }) => self.page_of_versions(&prefix, key, version).await?,
                };
                Ok(Some((objects, next)))
            }
        });
        Ok(pages.boxed())
    }

    async fn look(&self, id: &ObjectId, which: Which, fetch: Fetch) -> Result<Option<Present>> {
        let unversioned = which == Which::Unversioned && self.lists_versions().await?;
        let version = if which == Which::Unversioned { self.version(id).await? } else { id.version.clone() };
        let request = self.client.head_object().bucket(&self.bucket).key(&id.key).set_version_id(version.clone());
        let found = match request.clone().checksum_mode(ChecksumMode::Enabled).send().await {
            // To tell checksums, S3 needs the key of an object that is encrypted.
            Err(error) if status(&error) == Some(403) => request.send().await,
            other => other,
        };
        match found {
            Ok(found) => {
                // That of an object from before there were versions is `null`.
                let version = found.version_id().map(str::to_string).or(version);
                let mut state = Self::state(&found, fetch);
                if fetch.tags {
                    self.add_tags(&id.key, version.clone(), &mut state).await?;
                }
                let id = ObjectId { key: id.key.clone(), version: version.filter(|version| *version != "null") };
                Ok(Some((id, Change::Created(state))))
            }
            Err(error) if status(&error) == Some(404) => {
                let Some((id, mut change)) = marker(&id.key, &error) else { return Ok(None) };
                // Since when, S3 tells who asks for this version.
                if let (Change::MarkedDeleted(state), Some(version)) = (&mut change, &id.version)
                    && let Err(error) =
                        self.client.head_object().bucket(&self.bucket).key(&id.key).version_id(version).send().await
                    && status(&error) == Some(405)
                {
                    *state = marker_state(&error);
                }
                Ok(Some((id, change)))
            }
            // So S3 answers when the version says that the object is deleted.
            Err(error) if status(&error) == Some(405) && (id.version.is_some() || unversioned) => {
                Ok(Some((id.clone(), Change::MarkedDeleted(marker_state(&error)))))
            }
            // Not this object: encrypted with a key of its owner's, not ours to read. A listing tells whether it is there; when that is
            // refused too, it is not about this object.
            Err(error) if matches!(status(&error), Some(400 | 403 | 405)) => {
                self.deny("objects are indexed as far as listings tell", &failed("an object cannot be read", error));
                self.look_by_listing(id, unversioned).await
            }
            Err(error) => Err(failed_at(&id.key, "an object cannot be read", error)),
        }
    }

    async fn read(&self, id: &ObjectId, tag: Option<&str>, range: Range<u64>) -> Result<Option<Part>> {
        let request = self.client.get_object().bucket(&self.bucket).key(&id.key).set_version_id(self.version(id).await?);
        let request = request.range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let found = match request.set_if_match(tag.map(|tag| format!("\"{tag}\""))).send().await {
            Ok(found) => found,
            // Gone, or another by now.
            Err(error) if matches!(status(&error), Some(404 | 412)) => return Ok(None),
            // Nothing is there, which is what its size did not tell.
            Err(error) if status(&error) == Some(416) => return Ok(Some(Part { bytes: Bytes::new(), size: 0 })),
            // Archived, encrypted with a key of its owner's, or not ours to read. Other refusals are about who asks.
            Err(error)
                if error.code().is_some_and(|code| {
                    ["AccessDenied", "InvalidObjectState", "InvalidRequest"].contains(&code) || code.starts_with("KMS.")
                }) =>
            {
                let message = format!("the content of the object `{}` is not ours to read", id.key);
                return Err(Error::unsupported(message).with_source(failed("an object cannot be read", error)));
            }
            Err(error) => return Err(failed("an object cannot be read", error).with_context("key", &id.key)),
        };
        // Not every store knows the condition.
        if tag.is_some_and(|tag| found.e_tag().is_some_and(|found| found.trim_matches('"') != tag)) {
            return Ok(None);
        }
        let size = found.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        let size = size.ok_or_else(|| Error::unsupported("the store does not hand out parts of objects"))?;
        let broken = |e| {
            let error = Error::new(ErrorKind::Unavailable, "an object cannot be read to the end").with_context("key", &id.key);
            error.with_source(e)
        };
        let bytes = found.body.collect().await.map_err(broken)?.into_bytes();
        Ok(Some(Part { bytes, size }))
    }

    fn denied(&self) -> Option<String> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget_denied(&self) {
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
