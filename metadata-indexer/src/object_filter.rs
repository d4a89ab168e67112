use std::ops::RangeInclusive;

use crate::record::{Change, ObjectState};

/// Which objects of a source an index is about: those whose keys end in one of some suffixes, if there are any, and whose sizes lie in
/// a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectFilter {
    suffixes: Vec<String>,
    /// In bytes.
    sizes: RangeInclusive<i64>,
}

impl ObjectFilter {
    pub(crate) fn new(suffixes: Vec<String>, sizes: RangeInclusive<i64>) -> Self {
        Self { suffixes, sizes }
    }

    pub(crate) fn keeps_key(&self, key: &str) -> bool {
        self.suffixes.is_empty() || self.suffixes.iter().any(|suffix| key.ends_with(suffix.as_str()))
    }

    /// Whether the size is one of these, or not told.
    pub(crate) fn keeps(&self, state: &ObjectState) -> bool {
        state.size.is_none_or(|size| self.sizes.contains(&size))
    }

    /// Whether it is one of these objects after a change, as far as its size tells: what says that an object is deleted has none.
    pub(crate) fn keeps_after(&self, change: &Change) -> bool {
        match change {
            Change::Created(state) | Change::MetadataUpdated(state) => self.keeps(state),
            Change::MarkedDeleted(_) | Change::Deleted => true,
        }
    }
}
