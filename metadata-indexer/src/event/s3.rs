//! Notifications of Amazon S3, and of MinIO and Ceph, which speak as it does with accents of their own.

use std::collections::BTreeMap;

use serde_json_borrow::Value;
use tarndb_core::{Error, Result};

use super::fields::{Fields, e_tag, form_decoded, version};
use super::{EventKind, News, ObjectEvent, Parsed, Scope};
use crate::record::{Change, ObjectId, ObjectState, Origin, Sequence};

/// One of the `Records` of a notification.
pub(super) fn parse(record: &Value<'_>) -> Result<Option<Parsed>> {
    let fields = Fields::of(record);
    let source = fields.text("eventSource").unwrap_or_default();
    let name = fields.required("eventName")?;
    let name = name.strip_prefix("s3:").unwrap_or(name);
    let (family, action) = name.split_once(':').unwrap_or((name, ""));
    let s3 = fields.below("s3");
    let object = s3.below("object");
    let is_ceph = source == "ceph:s3";
    // Ceph (16) does not name those of copies, of uploads in parts, and of what says that an object is deleted.
    let is_unnamed = is_ceph && object.text("versionId").is_none_or(str::is_empty);
    let sequence = || sequence(is_ceph, &object);
    let news = match (family, action) {
        // MinIO tells of tags so.
        ("ObjectCreated", "PutTagging" | "DeleteTagging" | "PutRetention" | "PutLegalHold") => {
            News::Touched(Some(EventKind::Metadata))
        }
        // Ceph tells so of uploads in parts that begin, when there is no object.
        ("ObjectCreated", "Post") if is_ceph => News::Touched(Some(EventKind::Created)),
        ("ObjectCreated", _) => match sequence()? {
            Some(sequence) => News::Changed(sequence, Change::Created(state(source, &fields, &object)?)),
            None => News::Touched(Some(EventKind::Created)),
        },
        ("ObjectRemoved", "NoOP" | "DeleteNoOP") => return Ok(Some(Parsed::Ignored)),
        ("ObjectRemoved", "DeleteAllVersions") => {
            return Err(Error::data_invalid(format!("`{name}` does not tell which versions went: reconcile the index")));
        }
        // Ceph tells it a second time under this name.
        ("LifecycleExpiration", _) if is_ceph => News::Touched(Some(EventKind::Deleted)),
        ("ObjectRemoved", "DeleteMarkerCreated") if is_unnamed => News::Touched(Some(EventKind::Deleted)),
        ("ObjectRemoved" | "LifecycleExpiration", "Delete" | "DeleteMarkerCreated") => match sequence()? {
            Some(sequence) if action == "Delete" => News::Changed(sequence, Change::Deleted),
            Some(sequence) => {
                let last_modified = Some(fields.time("eventTime")?);
                let marker = ObjectState { size: Some(0), last_modified, ..ObjectState::default() };
                News::Changed(sequence, Change::MarkedDeleted(marker))
            }
            None => News::Touched(Some(EventKind::Deleted)),
        },
        ("ObjectLifecycle", action) if action.starts_with("Expiration:Abort") => return Ok(Some(Parsed::Ignored)),
        ("ObjectTransition", "Failed") => return Ok(Some(Parsed::Ignored)),
        ("ObjectTagging" | "LifecycleTransition" | "IntelligentTiering" | "ObjectRestore" | "ObjectTransition", _) => {
            News::Touched(Some(EventKind::Metadata))
        }
        ("LifecycleDelMarkerExpiration" | "ReducedRedundancyLostObject", _) => News::Touched(Some(EventKind::Deleted)),
        ("ObjectLifecycle" | "ObjectSynced", _) => News::Touched(None),
        (
            "TestEvent" | "ObjectAcl" | "ObjectAccessed" | "ObjectAnnotation" | "ObjectRetention" | "Replication" | "Scanner"
            | "BucketCreated" | "BucketRemoved",
            _,
        ) => return Ok(Some(Parsed::Ignored)),
        _ => return Err(Error::data_invalid(format!("`{name}` is no event of S3 that is known here"))),
    };
    let key = object.required("key")?;
    let request = fields.below("responseElements");
    let scope = match action {
        "Copy" | "Post" | "CompleteMultipartUpload" | "DeleteMarkerCreated" if is_unnamed => Scope::UnnamedVersion,
        _ if is_unnamed && family == "LifecycleExpiration" => Scope::UnnamedVersion,
        // As moto tells, which tells of no order either.
        _ if !is_ceph
            && object.text("versionId").is_none()
            && matches!(news, News::Touched(Some(EventKind::Created | EventKind::Deleted))) =>
        {
            Scope::AnyVersion
        }
        _ => Scope::Object,
    };
    Ok(Some(Parsed::Event(ObjectEvent {
        bucket: s3.below("bucket").required("name")?.to_string(),
        scope,
        id: ObjectId {
            key: if is_ceph { key.to_string() } else { form_decoded(key)? },
            version: version(object.text("versionId")),
        },
        time: Some(fields.time("eventTime")?),
        news,
        origin: Origin {
            requester: fields.below("userIdentity").some_text("principalId"),
            source_ip: fields.below("requestParameters").some_text("sourceIPAddress"),
            request_id: request.some_text("x-amz-request-id"),
        },
    })))
}

/// The place in the order of changes; `None` when the store does not tell.
fn sequence(is_ceph: bool, object: &Fields<'_>) -> Result<Option<Sequence>> {
    let Some(text) = object.text("sequencer").filter(|text| !text.is_empty()) else { return Ok(None) };
    if is_ceph { seconds_and_nanos(text).map(Some) } else { Sequence::of_store(text).map(Some) }
}

/// Ceph's: the bytes of two numbers, the lowest byte first.
fn seconds_and_nanos(text: &str) -> Result<Sequence> {
    let wrong = || Error::data_invalid(format!("`{text}` is not a sequencer of Ceph, which has 16 hexadecimal digits"));
    let digits = u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16).ok_or_else(wrong)?;
    let [seconds, nanos] = [(digits >> 32) as u32, digits as u32].map(u32::swap_bytes);
    Ok(Sequence::of_time(u64::from(seconds) << 32 | u64::from(nanos)))
}

fn state(source: &str, fields: &Fields<'_>, object: &Fields<'_>) -> Result<ObjectState> {
    let e_tag = e_tag(object.text("eTag"));
    // MinIO leaves out what is zero.
    let left_out = (source == "minio:s3").then_some(0);
    Ok(ObjectState {
        size: object.count("size")?.or(left_out),
        last_modified: Some(fields.time("eventTime")?),
        is_multipart: e_tag.as_ref().map(|tag| tag.contains('-')),
        e_tag,
        tags: listed(object.get("tags")),
        user_metadata: user_metadata(object),
        ..ObjectState::default()
    })
}

/// Ceph's lists of pairs.
fn listed(pairs: Option<&Value<'_>>) -> Option<BTreeMap<String, String>> {
    let pairs = pairs?.as_array()?.iter().map(Fields::of);
    Some(pairs.filter_map(|pair| Some((pair.text("key")?.to_string(), pair.text("val")?.to_string()))).collect())
}

/// Of MinIO, an object; of Ceph, a list. What users set has the prefix of its header.
fn user_metadata(object: &Fields<'_>) -> Option<BTreeMap<String, String>> {
    let all = object.texts("userMetadata").or_else(|| listed(object.get("metadata")))?;
    let of_user = |(name, value): (String, String)| {
        let name = name.to_ascii_lowercase();
        name.strip_prefix("x-amz-meta-").map(|name| (name.to_string(), value))
    };
    Some(all.into_iter().filter_map(of_user).collect())
}
