//! Changes of objects, as the tables hold them.

mod annotation;
mod rows;
mod sequence;

use std::collections::BTreeMap;

pub(crate) use annotation::{Annotated, annotation_rows};
pub(crate) use rows::{dead_letter_rows, flag, ids, inventory_rows, journal_rows, missing, number, objects, records, text, time};
pub(crate) use sequence::Sequence;

/// What is known of an object without reading it: S3 Metadata's columns, of which a store may not tell all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ObjectState {
    /// In bytes.
    pub(crate) size: Option<i64>,
    /// In microseconds since 1970.
    pub(crate) last_modified: Option<i64>,
    /// Differs between two contents of the same key.
    pub(crate) e_tag: Option<String>,
    pub(crate) storage_class: Option<String>,
    pub(crate) is_multipart: Option<bool>,
    pub(crate) encryption_status: Option<String>,
    pub(crate) is_bucket_key_enabled: Option<bool>,
    pub(crate) kms_key_arn: Option<String>,
    pub(crate) checksum_algorithm: Option<String>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
    pub(crate) user_metadata: Option<BTreeMap<String, String>>,
}

impl ObjectState {
    /// This state, and what it does not tell from another one of the same content.
    pub(crate) fn or(self, other: &Self) -> Self {
        Self {
            size: self.size.or(other.size),
            last_modified: self.last_modified.or(other.last_modified),
            e_tag: self.e_tag.or_else(|| other.e_tag.clone()),
            storage_class: self.storage_class.or_else(|| other.storage_class.clone()),
            is_multipart: self.is_multipart.or(other.is_multipart),
            encryption_status: self.encryption_status.or_else(|| other.encryption_status.clone()),
            is_bucket_key_enabled: self.is_bucket_key_enabled.or(other.is_bucket_key_enabled),
            kms_key_arn: self.kms_key_arn.or_else(|| other.kms_key_arn.clone()),
            checksum_algorithm: self.checksum_algorithm.or_else(|| other.checksum_algorithm.clone()),
            tags: self.tags.or_else(|| other.tags.clone()),
            user_metadata: self.user_metadata.or_else(|| other.user_metadata.clone()),
        }
    }
}

/// What a store calls an object: in a bucket with versions, each of them is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectId {
    pub(crate) key: String,
    /// `None` for objects without versions, and for the version that S3 calls `null`.
    pub(crate) version: Option<String>,
}

impl ObjectId {
    pub(crate) fn of_key(key: impl Into<String>) -> Self {
        Self { key: key.into(), version: None }
    }
}

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there with this content, whether it was before or not.
    Created(ObjectState),
    /// Its content is the same, and what is known beside it is not.
    MetadataUpdated(ObjectState),
    /// A version that says that the object is deleted.
    MarkedDeleted(ObjectState),
    /// It is not there any more.
    Deleted,
}

impl Change {
    /// What the inventory tells of the object after it.
    pub(crate) fn state(&self) -> Option<&ObjectState> {
        match self {
            Self::Created(state) | Self::MetadataUpdated(state) | Self::MarkedDeleted(state) => Some(state),
            Self::Deleted => None,
        }
    }

    pub(crate) fn state_mut(&mut self) -> Option<&mut ObjectState> {
        match self {
            Self::Created(state) | Self::MetadataUpdated(state) | Self::MarkedDeleted(state) => Some(state),
            Self::Deleted => None,
        }
    }
}

/// Who made a change, as far as the store tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Origin {
    pub(crate) requester: Option<String>,
    pub(crate) source_ip: Option<String>,
    pub(crate) request_id: Option<String>,
}

/// A change of one object: a row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: ObjectId,
    pub(crate) sequence: Sequence,
    /// When it happened, or was noticed, in microseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) change: Change,
    pub(crate) origin: Origin,
}
