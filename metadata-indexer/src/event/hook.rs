use std::collections::BTreeMap;
use std::fmt;

use super::{EventKind, News, ObjectEvent};
use crate::record::ObjectState;

/// Changes events before an index takes them: renames what they are about, and adds to what they tell.
///
/// An index uses the one that its option `hook` names, on each event of its source of events, and on those that are pushed. A listing
/// does not ask it: a key that it gives is one that the bucket has, or the next listing takes the object for gone; what it does not
/// heed may be found by a listing; and what it adds to an object stays until the store is asked about the same content again, after an
/// event of its tags.
pub trait EventHook: fmt::Debug + Send + Sync {
    /// Changes an event, and says whether it is to be heeded. It runs for each event, so it should not wait for anything.
    ///
    /// # Errors
    /// What is wrong with this event, of which the key is then kept aside in the table `dead_letters` with this reason. A panic is one.
    fn apply(&self, event: &mut ObjectEvent) -> Result<bool, Box<dyn std::error::Error + Send + Sync>>;
}

impl ObjectEvent {
    /// The bucket that the event is about.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Makes it an event of another bucket. An index keeps events of other buckets than its own aside.
    pub fn set_bucket(&mut self, bucket: impl Into<String>) {
        self.bucket = bucket.into();
    }

    /// The key of the object, decoded.
    pub fn key(&self) -> &str {
        &self.id.key
    }

    /// Makes it an event about an object of another key.
    pub fn set_key(&mut self, key: impl Into<String>) {
        self.id.key = key.into();
    }

    /// The version of the object, in a bucket with versions.
    pub fn version_id(&self) -> Option<&str> {
        self.id.version.as_deref()
    }

    /// What the event is about; `None` when the store only tells that something happened.
    pub fn kind(&self) -> Option<EventKind> {
        self.news.kind()
    }

    /// When it happened, in microseconds since 1970, if the store tells.
    pub fn time_micros(&self) -> Option<i64> {
        self.time
    }

    /// The size of the object's content, in bytes, if the event tells.
    pub fn size(&self) -> Option<i64> {
        self.state()?.size
    }

    /// The object's tags, to which some may be added; `None` where the event does not tell what the object is like. What the store says
    /// when it is asked for tags goes before what has the same name here.
    pub fn tags_mut(&mut self) -> Option<&mut BTreeMap<String, String>> {
        Some(self.state_mut()?.tags.get_or_insert_default())
    }

    /// As [`ObjectEvent::tags_mut`], of the metadata that users give to objects.
    pub fn user_metadata_mut(&mut self) -> Option<&mut BTreeMap<String, String>> {
        Some(self.state_mut()?.user_metadata.get_or_insert_default())
    }

    fn state(&self) -> Option<&ObjectState> {
        match &self.news {
            News::Changed(_, change) => change.state(),
            News::Touched(_) => None,
        }
    }

    fn state_mut(&mut self) -> Option<&mut ObjectState> {
        match &mut self.news {
            News::Changed(_, change) => change.state_mut(),
            News::Touched(_) => None,
        }
    }
}
