//! Google Cloud Storage: through a push of Pub/Sub, with what it wraps or without, or as the CloudEvents of Eventarc.
//!
//! A content has a generation, and what is known beside it a metageneration; both only grow. Names are as they are.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json_borrow::{ObjectAsVec, Value};
use tarndb_core::{Error, Result};

use super::fields::Fields;
use super::{EventKind, News, ObjectEvent, Parsed, Scope};
use crate::record::{Change, ObjectId, ObjectState, Origin, Sequence};

const CLOUD_EVENTS: &str = "google.cloud.storage.object.v1.";

/// After all metagenerations of a generation: its end.
const END: u64 = u64::MAX;

pub(super) fn is(fields: &Fields<'_>) -> bool {
    let wrapped = fields.below("message").below("attributes");
    let cloud_event = fields.text("type").is_some_and(|kind| kind.starts_with(CLOUD_EVENTS));
    cloud_event || wrapped.get("bucketId").is_some() || fields.text("kind") == Some("storage#object")
}

pub(super) fn parse(event: &Value<'_>) -> Result<Parsed> {
    let fields = Fields::of(event);
    if let Some(kind) = fields.text("type").and_then(|kind| kind.strip_prefix(CLOUD_EVENTS)) {
        return parsed(kind, &fields.below("data"), Some(fields.time("time")?), false);
    }
    if fields.text("kind") == Some("storage#object") {
        // What happened is told in headers.
        return touched(&fields, None);
    }
    let message = fields.below("message");
    let attributes = message.below("attributes");
    let wrong = |e: String| Error::data_invalid(format!("the data of a message of Pub/Sub is no JSON in base64: {e}"));
    let data = message.text("data").filter(|data| !data.is_empty());
    let data = data.map(|data| BASE64_STANDARD.decode(data).map_err(|e| wrong(e.to_string()))).transpose()?;
    let object = match &data {
        None => {
            let mut object = ObjectAsVec::default();
            for (name, attribute) in [("bucket", "bucketId"), ("name", "objectId")] {
                object.insert(name, Value::Str(attributes.required(attribute)?.into()));
            }
            object.insert("generation", attributes.get("objectGeneration").cloned().unwrap_or_default());
            Value::Object(object)
        }
        Some(data) => serde_json::from_slice(data).map_err(|e| wrong(e.to_string()))?,
    };
    let time = attributes.get("eventTime").map(|_| attributes.time("eventTime")).transpose()?;
    let overwritten = attributes.some_text("overwrittenByGeneration").is_some();
    let kind = match attributes.required("eventType")? {
        "OBJECT_FINALIZE" => "finalized",
        "OBJECT_METADATA_UPDATE" => "metadataUpdated",
        "OBJECT_DELETE" => "deleted",
        "OBJECT_ARCHIVE" => "archived",
        other => other,
    };
    parsed(kind, &Fields::of(&object), time, overwritten)
}

fn touched(object: &Fields<'_>, time: Option<i64>) -> Result<Parsed> {
    event(object, time, News::Touched(None))
}

fn event(object: &Fields<'_>, time: Option<i64>, news: News) -> Result<Parsed> {
    let (bucket, id) = (object.required("bucket")?.to_string(), ObjectId::of_key(object.required("name")?));
    Ok(Parsed::Event(ObjectEvent { bucket, scope: Scope::Object, id, time, news, origin: Origin::default() }))
}

fn parsed(kind: &str, object: &Fields<'_>, time: Option<i64>, overwritten: bool) -> Result<Parsed> {
    let generation = || object.count("generation").map(|number| number.map(i64::cast_unsigned));
    let metageneration = object.count("metageneration")?.map(i64::cast_unsigned);
    let news = match (kind, generation()?, metageneration) {
        // What came in its place is told, too.
        ("deleted" | "archived", _, _) if overwritten => return Ok(Parsed::Ignored),
        // Of a version that is not the newest, nothing is kept.
        ("deleted" | "archived", Some(generation), _) => News::Changed(Sequence::of_pair(generation, END), Change::Deleted),
        ("finalized", Some(generation), Some(metageneration)) => {
            News::Changed(Sequence::of_pair(generation, metageneration), Change::Created(state(object)?))
        }
        ("metadataUpdated", Some(generation), Some(metageneration)) => {
            News::Changed(Sequence::of_pair(generation, metageneration), Change::MetadataUpdated(state(object)?))
        }
        ("deleted" | "archived", _, _) => News::Touched(Some(EventKind::Deleted)),
        ("finalized", _, _) => News::Touched(Some(EventKind::Created)),
        ("metadataUpdated", _, _) => News::Touched(Some(EventKind::Metadata)),
        _ => return Err(Error::data_invalid(format!("`{kind}` is no event of Cloud Storage that is known here"))),
    };
    event(object, time, news)
}

fn state(object: &Fields<'_>) -> Result<ObjectState> {
    // The tag that a listing shows is the hash, in other digits, where there is one.
    let hash = object.text("md5Hash").and_then(|hash| BASE64_STANDARD.decode(hash).ok());
    let hash = hash.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    Ok(ObjectState {
        size: object.count("size")?,
        last_modified: object.get("updated").map(|_| object.time("updated")).transpose()?,
        is_multipart: object.get("componentCount").is_some().then_some(true).or(hash.is_some().then_some(false)),
        e_tag: hash.or_else(|| object.some_text("etag")),
        storage_class: object.some_text("storageClass"),
        kms_key_arn: object.some_text("kmsKeyName"),
        user_metadata: Some(object.texts("metadata").unwrap_or_default()),
        ..ObjectState::default()
    })
}
