//! Azure's blobs through Event Grid, in its own form and as CloudEvents.

use serde_json_borrow::Value;
use tarndb_core::{Error, Result};

use super::fields::{Fields, e_tag, percent_decoded};
use super::{EventKind, News, ObjectEvent, Parsed, Scope};
use crate::record::{Change, ObjectId, ObjectState, Origin, Sequence};

const STORAGE: &str = "Microsoft.Storage.";
const GRID: &str = "Microsoft.EventGrid.";

fn kind<'a>(fields: &Fields<'a>) -> Option<&'a str> {
    fields.text("eventType").or_else(|| fields.text("type"))
}

pub(super) fn is(fields: &Fields<'_>) -> bool {
    kind(fields).is_some_and(|kind| kind.starts_with(STORAGE) || kind.starts_with(GRID))
}

pub(super) fn parse(event: &Value<'_>) -> Result<Vec<Parsed>> {
    let fields = Fields::of(event);
    let data = fields.below("data");
    let kind = kind(&fields).unwrap_or_default();
    match kind {
        "Microsoft.EventGrid.SubscriptionValidationEvent" => {
            return Ok(vec![Parsed::Validation(data.required("validationCode")?.to_string())]);
        }
        "Microsoft.EventGrid.SubscriptionDeletedEvent" => return Ok(vec![Parsed::Ignored]),
        _ => {}
    }
    let time = if fields.get("eventTime").is_some() { fields.time("eventTime")? } else { fields.time("time")? };
    let subject = fields.required("subject")?;
    let event = |(bucket, key): (String, String), news: News| {
        let origin = Origin { request_id: data.some_text("requestId"), ..Origin::default() };
        Parsed::Event(ObjectEvent { bucket, scope: Scope::Object, id: ObjectId::of_key(key), time: Some(time), news, origin })
    };
    let sequence = data.text("sequencer").and_then(sequence);
    let news = match (kind.strip_prefix(STORAGE).unwrap_or(kind), sequence) {
        ("BlobCreated", Some(sequence)) => News::Changed(sequence, Change::Created(state(&data, time)?)),
        ("BlobDeleted", Some(sequence)) => News::Changed(sequence, Change::Deleted),
        ("BlobRenamed", _) => {
            let touched = |url: &str| Ok(event(place_of_url(data.required(url)?)?, News::Touched(None)));
            return ["sourceUrl", "destinationUrl"].into_iter().map(touched).collect();
        }
        ("BlobCreated", None) => News::Touched(Some(EventKind::Created)),
        ("BlobDeleted", None) => News::Touched(Some(EventKind::Deleted)),
        ("BlobTierChanged" | "BlobPropertiesUpdated", _) => News::Touched(Some(EventKind::Metadata)),
        (folder @ ("DirectoryRenamed" | "DirectoryDeleted"), _) => {
            return Err(Error::data_invalid(format!("`{folder}` does not tell what was in it: reconcile the index")));
        }
        ("DirectoryCreated" | "AsyncOperationInitiated" | "BlobInventoryPolicyCompleted" | "LifecyclePolicyCompleted", _) => {
            return Ok(vec![Parsed::Ignored]);
        }
        _ => return Err(Error::data_invalid(format!("`{kind}` is no event of blobs that is known here"))),
    };
    let place = match place_of_subject(subject) {
        Some(place) => place,
        None => place_of_url(data.required("url")?)?,
    };
    Ok(vec![event(place, news)])
}

/// A number of hexadecimal digits, of which shorter ones lack zeros in front; `None` for what is none.
fn sequence(text: &str) -> Option<Sequence> {
    let digits = text.trim_start_matches('0');
    let number = if digits.is_empty() { Ok(0) } else { u128::from_str_radix(digits, 16) };
    number.ok().filter(|_| !digits.starts_with('+')).map(|number| Sequence::of_pair((number >> 64) as u64, number as u64))
}

/// Container and blob, as they are; `None` where a character was lost.
fn place_of_subject(subject: &str) -> Option<(String, String)> {
    let rest = subject.strip_prefix("/blobServices/default/containers/")?;
    let (container, key) = rest.split_once("/blobs/")?;
    let whole = !container.is_empty() && !key.is_empty() && !key.contains(char::REPLACEMENT_CHARACTER);
    whole.then(|| (container.to_string(), key.to_string()))
}

fn place_of_url(url: &str) -> Result<(String, String)> {
    let wrong = || Error::data_invalid(format!("`{url}` is not the location of a blob"));
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).ok_or_else(wrong)?.1;
    let (container, key) =
        path.split_once('/').filter(|(container, key)| !container.is_empty() && !key.is_empty()).ok_or_else(wrong)?;
    Ok((container.to_string(), percent_decoded(key)?))
}

fn state(data: &Fields<'_>, time: i64) -> Result<ObjectState> {
    Ok(ObjectState {
        size: data.count("contentLength")?,
        last_modified: Some(time),
        e_tag: e_tag(data.text("eTag")),
        storage_class: data.some_text("accessTier").filter(|tier| tier != "Default"),
        ..ObjectState::default()
    })
}
