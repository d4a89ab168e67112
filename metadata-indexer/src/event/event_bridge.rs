//! Amazon S3's events as EventBridge hands them on. Keys are as they are.

use serde_json_borrow::Value;
use tarndb_core::{Error, Result};

use super::fields::{Fields, e_tag, version};
use super::{EventKind, News, ObjectEvent, Parsed, Scope};
use crate::record::{Change, ObjectId, ObjectState, Origin, Sequence};

pub(super) fn parse(event: &Value<'_>) -> Result<Parsed> {
    let fields = Fields::of(event);
    let detail = fields.below("detail");
    let object = detail.below("object");
    let time = fields.time("time")?;
    let sequence = object.text("sequencer").filter(|text| !text.is_empty()).map(Sequence::of_store).transpose()?;
    let kind = fields.required("detail-type")?;
    let news = match (kind, sequence) {
        ("Object Created", Some(sequence)) => {
            let e_tag = e_tag(object.text("etag").or_else(|| object.text("eTag")));
            let is_multipart = e_tag.as_ref().map(|tag| tag.contains('-'));
            let size = object.count("size")?;
            let state = ObjectState { size, last_modified: Some(time), e_tag, is_multipart, ..ObjectState::default() };
            News::Changed(sequence, Change::Created(state))
        }
        ("Object Deleted", Some(sequence)) => match detail.text("deletion-type") {
            Some("Delete Marker Created") => {
                let marker = ObjectState { size: Some(0), last_modified: Some(time), ..ObjectState::default() };
                News::Changed(sequence, Change::MarkedDeleted(marker))
            }
            Some("Permanently Deleted") => News::Changed(sequence, Change::Deleted),
            _ => News::Touched(Some(EventKind::Deleted)),
        },
        ("Object ACL Updated" | "Object Retention Updated", _) => return Ok(Parsed::Ignored),
        ("Object Created", None) => News::Touched(Some(EventKind::Created)),
        ("Object Deleted", None) => News::Touched(Some(EventKind::Deleted)),
        (kind, _) if kind.starts_with("Object ") => News::Touched(Some(EventKind::Metadata)),
        _ => return Err(Error::data_invalid(format!("`{kind}` is no event of S3 that is known here"))),
    };
    Ok(Parsed::Event(ObjectEvent {
        bucket: detail.below("bucket").required("name")?.to_string(),
        scope: Scope::Object,
        id: ObjectId { key: object.required("key")?.to_string(), version: version(object.text("version-id")) },
        time: Some(time),
        news,
        origin: Origin {
            requester: detail.some_text("requester"),
            source_ip: detail.some_text("source-ip-address"),
            request_id: detail.some_text("request-id"),
        },
    }))
}
