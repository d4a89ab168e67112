//! SeaweedFS' filer through its webhook. It tells neither time nor order, and calls each overwriting a renaming: so it is only taken
//! for which objects were touched. It tells of all buckets, and of what it keeps beside them.

use serde_json_borrow::Value;
use tarndb_core::{Error, Result};

use super::fields::Fields;
use super::{News, ObjectEvent, Parsed, Scope};
use crate::record::{ObjectId, Origin};

const BUCKETS: &str = "/buckets/";

/// Between the key of an object and the name of a version, which is a file of its own.
const VERSION: &str = ".versions/v_";

pub(super) fn is(fields: &Fields<'_>) -> bool {
    let message = fields.below("message");
    let has = |name: &str| message.get(name).is_some();
    fields.text("key").is_some_and(|key| key.starts_with('/'))
        && (has("old_entry") || has("new_entry") || has("new_parent_path") || has("signatures"))
}

pub(super) fn parse(event: &Value<'_>) -> Result<Vec<Parsed>> {
    let fields = Fields::of(event);
    let message = fields.below("message");
    let (old, new) = (message.below("old_entry"), message.below("new_entry"));
    let is_folder = |entry: &Fields<'_>| entry.get("is_directory").and_then(Value::as_bool).unwrap_or(false);
    if is_folder(&old) || is_folder(&new) {
        return Ok(vec![Parsed::Ignored]);
    }
    let key = fields.required("key")?.to_string();
    let moved = match (message.text("new_parent_path"), new.text("name")) {
        (Some(parent), Some(name)) => Some(format!("{}/{name}", parent.trim_end_matches('/'))).filter(|moved| *moved != key),
        _ => None,
    };
    let object = |path: String| match path.split_once(VERSION) {
        Some((object, version)) if !version.contains('/') => object.to_string(),
        _ => path,
    };
    [Some(key), moved].into_iter().flatten().map(|path| touched(&object(path))).collect()
}

fn touched(path: &str) -> Result<Parsed> {
    let Some(rest) = path.strip_prefix(BUCKETS) else { return Ok(Parsed::Ignored) };
    let (bucket, key) = rest.split_once('/').ok_or_else(|| Error::data_invalid(format!("`{path}` is no object of a bucket")))?;
    if key.starts_with(".uploads/") || key.is_empty() {
        return Ok(Parsed::Ignored);
    }
    let (bucket, id) = (bucket.to_string(), ObjectId::of_key(key));
    Ok(Parsed::Event(ObjectEvent {
        bucket,
        scope: Scope::AnyBucket,
        id,
        time: None,
        news: News::Touched(None),
        origin: Origin::default(),
    }))
}
