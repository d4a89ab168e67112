//! What stores tell of their objects: many forms of JSON, brought to one.
//!
//! * [`s3`]: the notifications of S3, and of the stores that speak as it does.
//! * [`event_bridge`]: S3's events as EventBridge hands them on.
//! * [`cloud_storage`]: Google Cloud Storage, through Pub/Sub or Eventarc.
//! * [`event_grid`]: Azure's blobs.
//! * [`seaweedfs`]: SeaweedFS' filer.
//! * [`fields`]: values in JSON.
//! * [`hook`]: what users change of events.

mod cloud_storage;
mod event_bridge;
mod event_grid;
mod fields;
mod hook;
mod s3;
mod seaweedfs;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json_borrow::Value;
use tarndb_core::{Error, Result};

use crate::record::{Change, ObjectId, Origin, Sequence};
use fields::Fields;

pub(crate) use fields::form_decoded;
pub use hook::EventHook;

/// What a store tells of one object, in the one form that all stores' events are brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    pub(crate) bucket: String,
    pub(crate) scope: Scope,
    pub(crate) id: ObjectId,
    /// In microseconds since 1970; not all stores tell.
    pub(crate) time: Option<i64>,
    pub(crate) news: News,
    pub(crate) origin: Origin,
}

/// How well a sender says which object it tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// It is one of the bucket of which it was asked to tell.
    Object,
    /// It is one of any bucket: the sender tells of all, and cannot be asked to tell of one.
    AnyBucket,
    /// Where the bucket has versions, the change made one that is not named.
    UnnamedVersion,
    /// Where the bucket has versions, the change made or removed any: the sender names none, ever.
    AnyVersion,
}

impl ObjectEvent {
    pub(crate) fn is_of_unnamed_version(&self) -> bool {
        matches!(self.scope, Scope::UnnamedVersion | Scope::AnyVersion)
    }
}

/// What it is that the store tells.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large one")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// What happened, and its place in the order of what happened to the object.
    Changed(Sequence, Change),
    /// That something happened, and not what, or not in which order: one has to look. What it is about may be told.
    Touched(Option<EventKind>),
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A content that is there.
    Created,
    /// An object that is gone, or said to be.
    Deleted,
    /// What is known of an object beside its content.
    Metadata,
}

impl News {
    /// What it is about, if that is told.
    pub(crate) fn kind(&self) -> Option<EventKind> {
        match self {
            Self::Touched(kind) => *kind,
            Self::Changed(_, Change::Created(_)) => Some(EventKind::Created),
            Self::Changed(_, Change::MetadataUpdated(_)) => Some(EventKind::Metadata),
            Self::Changed(_, Change::MarkedDeleted(_) | Change::Deleted) => Some(EventKind::Deleted),
        }
    }
}

/// What one part of a message is.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large one")]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Event(ObjectEvent),
    /// It is understood, and changes nothing that is indexed.
    Ignored,
    /// It is not understood, or cannot be right.
    Dead(Dead),
    /// Event Grid asks for this code before it sends anything.
    Validation(String),
}

/// A part of a message that is kept aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) reason: String,
    /// The part, or as much of it as is kept.
    pub(crate) body: String,
}

/// Bytes of a message that are kept aside at most.
const KEPT: usize = 64 * 1024;

/// Envelopes around envelopes that are opened.
const DEEPEST: usize = 4;

impl Dead {
    pub(crate) fn new(reason: impl Into<String>, body: &[u8]) -> Self {
        let kept = body.get(..body.len().min(KEPT)).unwrap_or(body);
        Self { reason: reason.into(), body: String::from_utf8_lossy(kept).into_owned() }
    }

    fn of(value: &Value<'_>, error: &Error) -> Self {
        Self::new(error.to_string(), value.to_string().as_bytes())
    }
}

/// What most messages are: records of S3, many of them, that are understood one after the other.
#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<&'a RawValue>,
}

/// The parts of a message, in their order. What is wrong with one of them does not touch the others.
///
/// # Errors
/// `InvalidInput` for what is no JSON.
pub(crate) fn parse(body: &[u8]) -> Result<Vec<Parsed>> {
    let mut parsed = Vec::new();
    add_message(body, DEEPEST, &mut parsed)?;
    Ok(parsed)
}

/// Adds the parts of a message, which may be an envelope around others.
fn add_message(body: &[u8], depth: usize, parsed: &mut Vec<Parsed>) -> Result<()> {
    if depth == 0 {
        parsed.push(Parsed::Dead(Dead::new("an event lies in too many envelopes", body)));
        return Ok(());
    }
    // serde takes a list for an object, too.
    let is_list = body.trim_ascii_start().starts_with(b"[");
    if is_list && let Ok(messages) = serde_json::from_slice::<Vec<&RawValue>>(body) {
        for message in messages {
            let body = message.get().as_bytes();
            if let Err(error) = add_message(body, depth - 1, parsed) {
                parsed.push(Parsed::Dead(Dead::new(error.to_string(), body)));
            }
        }
    } else if !is_list && let Ok(notification) = serde_json::from_slice::<Notification<'_>>(body) {
        parsed.reserve_exact(notification.records.len());
        for record in notification.records {
            match value(record.get().as_bytes()) {
                Ok(event) => add(&event, s3::parse, parsed),
                Err(error) => parsed.push(Parsed::Dead(Dead::new(error.to_string(), record.get().as_bytes()))),
            }
        }
    } else {
        add_event(&value(body)?, depth, parsed);
    }
    Ok(())
}

fn value(json: &[u8]) -> Result<Value<'_>> {
    serde_json::from_slice(json).map_err(|e| Error::invalid_input(format!("an event is not JSON: {e}")))
}

/// Adds what a parser makes of an event.
fn add<'a, Parts>(event: &'a Value<'a>, parse: fn(&'a Value<'a>) -> Result<Parts>, parsed: &mut Vec<Parsed>)
where
    Parts: IntoIterator<Item = Parsed>,
{
    match parse(event) {
        Ok(parts) => parsed.extend(parts),
        Err(error) => parsed.push(Parsed::Dead(Dead::of(event, &error))),
    }
}

/// Adds one event of a store that tells of one at a time.
fn add_event(value: &Value<'_>, depth: usize, parsed: &mut Vec<Parsed>) {
    let fields = Fields::of(value);
    if fields.text("Event") == Some("s3:TestEvent") {
        parsed.push(Parsed::Ignored);
    } else if fields.get("TopicArn").is_some() && fields.get("Type").is_some() {
        let added =
            notified(&fields).and_then(|message| add_message(message.as_bytes(), depth - 1, parsed).map_err(of_notification));
        if let Err(error) = added {
            parsed.push(Parsed::Dead(Dead::of(value, &error)));
        }
    } else if fields.text("source") == Some("aws.s3") {
        add(value, |event| event_bridge::parse(event).map(Some), parsed);
    } else if cloud_storage::is(&fields) {
        add(value, |event| cloud_storage::parse(event).map(Some), parsed);
    } else if event_grid::is(&fields) {
        add(value, event_grid::parse, parsed);
    } else if seaweedfs::is(&fields) {
        add(value, seaweedfs::parse, parsed);
    } else {
        let error = Error::data_invalid("this is the event of no store that is known here");
        parsed.push(Parsed::Dead(Dead::of(value, &error)));
    }
}

fn of_notification(error: Error) -> Error {
    Error::data_invalid(format!("in a notification of SNS, {error}"))
}

/// What Amazon SNS wraps.
fn notified<'a>(fields: &Fields<'a>) -> Result<&'a str> {
    match fields.text("Type") {
        Some("Notification") => fields.required("Message"),
        Some("SubscriptionConfirmation") => {
            Err(Error::data_invalid("a subscription of SNS is to be confirmed: open its SubscribeURL once"))
        }
        other => Err(Error::data_invalid(format!("a message of SNS is of the type `{}`", other.unwrap_or_default()))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    macro_rules! sample {
        ($name:literal) => {
            parse(include_bytes!(concat!("../../tests/samples/", $name, ".json"))).unwrap()
        };
    }

    /// What is told, in a line: key, version, sequence number, what happened.
    fn told(parts: &[Parsed]) -> Vec<String> {
        let line = |part: &Parsed| match part {
            Parsed::Ignored => "ignored".to_string(),
            Parsed::Dead(dead) => format!("dead: {}", dead.reason),
            Parsed::Validation(code) => format!("validation: {code}"),
            Parsed::Event(event) => {
                assert_eq!(event.bucket, "photos");
                let version = event.id.version.as_deref().unwrap_or("-");
                match &event.news {
                    News::Touched(kind) => format!("{} {version} touched {kind:?}", event.id.key),
                    News::Changed(sequence, change) => {
                        let size = change.state().and_then(|state| state.size);
                        let kind = match change {
                            Change::Created(_) => "created",
                            Change::MetadataUpdated(_) => "updated",
                            Change::MarkedDeleted(_) => "marked",
                            Change::Deleted => "deleted",
                        };
                        format!("{} {version} {} {kind} {size:?}", event.id.key, sequence.text())
                    }
                }
            }
        };
        parts.iter().map(line).collect()
    }

    fn event(part: &Parsed) -> &ObjectEvent {
        let Parsed::Event(event) = part else { panic!("{part:?} is no event") };
        event
    }

    fn state(part: &Parsed) -> &crate::record::ObjectState {
        let News::Changed(_, change) = &event(part).news else { panic!("{part:?} tells no change") };
        change.state().unwrap()
    }

    #[test]
    fn notifications_of_s3() {
        let parts = sample!("s3");
        assert_eq!(
            told(&parts),
            [
                "2026/réd flower+x.jpg 096fKKXTRTtl3on89fVO.nfljtsv6qko 0065E59E40A1B2C3D4 created Some(52431)",
                "big.bin - 0065E59E70000000 created Some(52428800)",
                "big.bin - 0065E5A05000000001 deleted None",
                "old.txt m1 0065E5A05000000002 marked Some(0)",
                "tagged.txt - touched Some(Metadata)",
                "ignored",
                "dead: `ObjectTeleported:Put` is no event of S3 that is known here",
            ]
        );
        let first = event(&parts[0]);
        assert_eq!(first.time, Some(1_772_619_072_345_000));
        let text = |text: &str| Some(text.to_string());
        let origin =
            Origin { requester: text("AWS:AIDAEXAMPLE1"), source_ip: text("203.0.113.9"), request_id: text("C3D13FE58DE4C810") };
        assert_eq!(first.origin, origin);
        assert_eq!(state(&parts[0]).e_tag, text("d41d8cd98f00b204e9800998ecf8427e"));
        assert_eq!((state(&parts[0]).is_multipart, state(&parts[1]).is_multipart), (Some(false), Some(true)));
        assert_eq!(told(&sample!("s3_test")), ["ignored"]);
        assert_eq!(told(&sample!("sns")), ["a - 0100000000000000 created Some(7)"]);
    }

    #[test]
    fn events_of_event_bridge() {
        assert_eq!(
            told(&sample!("event_bridge")),
            [
                "2026/réd flower+x%20.jpg IYV3p45BT0ac8hjHg1houSdS1a.Mro8e 617F08299329D189 created Some(52431)",
                "a 1QW9g1Z99LUNbvaaYVpW9xDlOLU.qxgF 617F0837B476E463 marked Some(0)",
                "b - 617F0837B476E464 deleted None",
                "c - touched Some(Metadata)",
            ]
        );
    }

    #[test]
    fn notifications_of_minio() {
        let parts = sample!("minio");
        assert_eq!(
            told(&parts),
            [
                "2026/réd flower+x.jpg - 17B9C1F0A1B2C3D4 created Some(52431)",
                "empty - 17B9C1F0A1B2C3D5 created Some(0)",
                "empty - touched Some(Metadata)",
                "2026/réd flower+x.jpg - 17B9C27000000001 deleted None",
                "ignored",
            ]
        );
        assert_eq!(state(&parts[0]).user_metadata, Some([("colour".to_string(), "red".to_string())].into()));
    }

    #[test]
    fn notifications_of_ceph() {
        let parts = sample!("ceph");
        assert_eq!(
            told(&parts),
            [
                // 2019-11-22 13:47:35 in seconds, and nanoseconds.
                "2026/réd flower+x%20.jpg - 5DD7E6F708D142C7 created Some(52431)",
                "2026/réd flower+x%20.jpg - 5DD7E6F800000000 deleted None",
                "begun - touched Some(Created)",
            ]
        );
        assert_eq!(state(&parts[0]).tags, Some([("project".to_string(), "a".to_string())].into()));
        assert_eq!(state(&parts[0]).user_metadata, Some([("colour".to_string(), "red".to_string())].into()));
    }

    #[test]
    fn events_of_seaweedfs() {
        assert_eq!(
            told(&sample!("seaweedfs")),
            [
                "2026/réd flower+x.jpg - touched None",
                "a - touched None",
                "a - touched None",
                "c/b - touched None",
                "ignored",
                "ignored",
                "ignored",
                "k - touched None",
            ]
        );
    }

    /// What was sent by moto 5 to its SQS, by itself and through EventBridge, and by SeaweedFS 4.48 and Ceph 16.2 to a webhook.
    #[test]
    fn recorded_events() {
        let key = "img/ü a+b.txt";
        let moto = told(&sample!("recorded/moto"));
        assert_eq!(
            moto[..3],
            ["ignored".to_string(), format!("{key} - touched Some(Created)"), format!("{key} - touched Some(Metadata)")]
        );
        assert_eq!(moto[7], "copy - touched Some(Deleted)");
        let bridged = told(&sample!("recorded/moto_event_bridge"));
        let (created, gone) = (format!("{key} - 617F08299329D189 created Some(3)"), format!("{key} - touched Some(Deleted)"));
        assert_eq!(bridged, [created, format!("{key} - touched Some(Metadata)"), gone]);
        let parts = sample!("recorded/seaweedfs");
        assert!(parts.iter().all(|part| matches!(part, Parsed::Ignored) || event(part).scope == Scope::AnyBucket), "{parts:?}");
        let mut parts = parts;
        parts.retain(|part| !matches!(part, Parsed::Event(event) if event.bucket == ".system"));
        let seaweedfs: Vec<String> = told(&parts).into_iter().filter(|told| told != "ignored").collect();
        let touched = [key, key, "copy", "parts", "copy", "copy"].map(|key| format!("{key} - touched None"));
        assert_eq!(seaweedfs, touched);
        let parts = sample!("recorded/ceph");
        let ceph = told(&parts);
        let lines = [
            // Before the bucket had versions.
            "KEY - 6B0D8D621A55556A created Some(10)",
            "KEY - 6B0D8D621AAB1770 created Some(11)",
            "copy.jpg - 6B0D8D621B04A18D created Some(11)",
            "large - 6B0D8D6223A243E6 created Some(5242880)",
            "copy.jpg - 6B0D8D62269A7393 deleted None",
            "large - 6B0D8D6226EEE801 deleted None",
            // And after.
            "KEY j3NCxk5mL62HOA6ZVu5kJvhObpC0zCS 6B0D8D622D762490 created Some(10)",
            "KEY zBppAM-iY5R5phDkeEVqX6bBcUxFP84 6B0D8D622DD6CE34 created Some(11)",
            "copy.jpg - 6B0D8D622E403A6E created Some(11)",
            "large - 6B0D8D6236CF7B63 created Some(5242880)",
            "copy.jpg - touched Some(Deleted)",
            "copy.jpg VN8j-x-UpsTuvk2harmgvQvauGIw.Wp 6B0D8D63014F77D3 deleted None",
        ];
        assert_eq!(ceph, lines.map(|line| line.replace("KEY", key)));
        let is_unnamed = |place: &usize| event(&parts[*place]).is_of_unnamed_version();
        assert_eq!((0..parts.len()).filter(is_unnamed).collect::<Vec<_>>(), [2, 3, 8, 9, 10]);
        assert_eq!(state(&parts[0]).tags.as_ref().map(BTreeMap::len), Some(2));
        assert_eq!(state(&parts[0]).user_metadata, Some([("owner".to_string(), "ann".to_string())].into()));
        assert_eq!(state(&parts[1]).user_metadata, Some(BTreeMap::new()));
    }

    #[test]
    fn events_of_cloud_storage() {
        let parts = sample!("cloud_storage");
        assert_eq!(
            told(&parts),
            [
                "2026/réd flower+x.jpg - 00064C300A21164E0000000000000001 created Some(52431)",
                "ignored",
                "2026/réd flower+x.jpg - 00064C300A21164EFFFFFFFFFFFFFFFF deleted None",
                "a - 00000000000000050000000000000002 updated Some(1)",
                "b - touched None",
            ]
        );
        let state = state(&parts[0]);
        assert_eq!(state.e_tag.as_deref(), Some("37b51d194a7513e45b56f6524f2d51f2"));
        assert_eq!(state.storage_class.as_deref(), Some("STANDARD"));
    }

    #[test]
    fn events_of_event_grid() {
        let parts = sample!("event_grid");
        assert_eq!(
            told(&parts),
            [
                "2026/red flower%20.jpg - 00000000000004420000000000028963 created Some(52431)",
                "2026/red flower%20.jpg - 00000000000004420000000000028964 deleted None",
                "old.txt - touched None",
                "new .txt - touched None",
                "dead: `DirectoryDeleted` does not tell what was in it: reconcile the index",
            ]
        );
        assert_eq!(state(&parts[0]).e_tag.as_deref(), Some("0x8D4BCC2E4835CD0"));
        assert_eq!(told(&sample!("event_grid_validation")), ["validation: 512d38b6-c7b8-40c8-89fe-f46f9e9622b6"]);
    }

    #[test]
    fn what_is_wrong_is_told_and_kept() {
        for text in ["", "{", "\u{feff}{}", "{\"a\":1}x"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        let s3 = |object: &str| {
            let head = r#""eventSource":"aws:s3","eventTime":"2026-03-04T10:11:12Z","eventName":"ObjectCreated:Put""#;
            format!(r#"{{"Records":[{{{head},"s3":{{"bucket":{{"name":"photos"}},"object":{object}}}}}]}}"#)
        };
        for (text, reason) in [
            ("[]".to_string(), None),
            ("{}".to_string(), Some("no store")),
            ("3".to_string(), Some("no store")),
            ("[[[[[[]]]]]]".to_string(), Some("too many envelopes")),
            (r#"{"Records":[3]}"#.to_string(), Some("eventName")),
            (s3(r#"{"size":1,"sequencer":"1"}"#), Some("`key`")),
            (s3(r#"{"key":"%FF","size":1,"sequencer":"1"}"#), Some("UTF-8")),
            (s3(r#"{"key":"a","size":-1,"sequencer":"1"}"#), Some("`size`")),
            (s3(r#"{"key":"a","size":1e30,"sequencer":"1"}"#), Some("`size`")),
            (s3(r#"{"key":"a","size":1,"sequencer":"xyz"}"#), Some("sequence number")),
            (s3(r#"{"key":"a","size":1,"sequencer":"1"}"#).replace("2026-03-04T", "x"), Some("no time")),
            (s3(r#"{"key":"a","size":1,"sequencer":"1"}"#).replace("2026-03-04T", "0001-01-01T"), Some("anything happened")),
            (s3(r#"{"key":"a","size":1,"sequencer":"1"}"#).replace("2026-03-04T", "9999-01-01T"), Some("anything happened")),
            (r#"{"Type":"Notification","TopicArn":"x","Message":"hello"}"#.to_string(), Some("SNS")),
            (r#"{"Type":"SubscriptionConfirmation","TopicArn":"x","Message":"x"}"#.to_string(), Some("SubscribeURL")),
            (
                r#"{"message":{"attributes":{"bucketId":"b","eventType":"OBJECT_FINALIZE"},"data":"%"}}"#.to_string(),
                Some("base64"),
            ),
            (
                r#"[{"eventType":"Microsoft.Storage.X","subject":"a","eventTime":"2026-03-04T10:11:12Z"}]"#.to_string(),
                Some("no event of blobs"),
            ),
        ] {
            let told = told(&parse(text.as_bytes()).unwrap());
            match reason {
                None => assert!(told.is_empty()),
                Some(reason) => {
                    assert!(told.len() == 1 && told[0].starts_with("dead: ") && told[0].contains(reason), "{text}: {told:?}");
                }
            }
        }
    }

    #[test]
    fn a_record_that_is_not_understood_leaves_the_others() {
        let record = |key: &str| {
            let head = r#""eventSource":"aws:s3","eventTime":"2026-03-04T10:11:12Z","eventName":"ObjectRemoved:Delete""#;
            let object = format!(r#"{{"key":"{key}","sequencer":"01"}}"#);
            format!(r#"{{{head},"s3":{{"bucket":{{"name":"\u0070hotos"}},"object":{object}}}}}"#)
        };
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        let records = [record("r\\u00e9d"), deep, "7".to_string(), record("b")].join(",");
        let told = told(&parse(format!(r#"{{"Records":[{records}],"more":null}}"#).as_bytes()).unwrap());
        assert_eq!([&told[0], &told[3]], ["réd - 0100000000000000 deleted None", "b - 0100000000000000 deleted None"]);
        assert!(told[1].starts_with("dead: ") && told[2].starts_with("dead: ") && told.len() == 4, "{told:?}");
    }

    /// What `fuzz/` runs for as long as one likes, on the samples, for a moment.
    #[test]
    fn changed_samples_are_events_or_errors() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};

        let samples: [&[u8]; 12] = [
            include_bytes!("../../tests/samples/s3.json"),
            include_bytes!("../../tests/samples/event_bridge.json"),
            include_bytes!("../../tests/samples/ceph.json"),
            include_bytes!("../../tests/samples/seaweedfs.json"),
            include_bytes!("../../tests/samples/cloud_storage.json"),
            include_bytes!("../../tests/samples/event_grid.json"),
            include_bytes!("../../tests/samples/minio.json"),
            include_bytes!("../../tests/samples/sns.json"),
            include_bytes!("../../tests/samples/recorded/moto.json"),
            include_bytes!("../../tests/samples/recorded/moto_event_bridge.json"),
            include_bytes!("../../tests/samples/recorded/seaweedfs.json"),
            include_bytes!("../../tests/samples/recorded/ceph.json"),
        ];
        let mut random = StdRng::seed_from_u64(4);
        let (mut parsed, mut refused) = (0, 0);
        for turn in 0..3000 {
            let mut bytes = samples[turn % samples.len()].to_vec();
            for _ in 0..random.random_range(1..8) {
                let (from, to) = (random.random_range(0..bytes.len()), random.random_range(0..bytes.len()));
                match random.random_range(0..4) {
                    0 => bytes[from] = bytes[to],
                    1 => bytes[from] = b"0\"9,:{}[]-+%e\\"[random.random_range(0..14)],
                    2 => drop(bytes.drain(from..bytes.len().min(from + 9))),
                    _ => bytes.insert(from, bytes[to]),
                }
            }
            match parse(&bytes) {
                Ok(parts) => parsed += parts.len(),
                Err(_) => refused += 1,
            }
        }
        assert!(parsed > 500 && refused > 500, "{parsed} parts, {refused} refused");
    }
}
