use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::record::{Change, ObjectId, Record, Sequence};

/// Objects that wait before all of them count as waiting.
const WAITING_AT_MOST: usize = 100_000;

/// What is to become of the annotation of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// That of the change by which it is so.
    pub(super) sequence: Sequence,
    /// The content that is to be looked at; `None` when the object is gone.
    pub(super) content: Option<Tagged>,
}

/// A content of an object, as far as it is known without looking at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tagged {
    pub(super) e_tag: Option<String>,
    pub(super) is_empty: bool,
}

/// What waits.
#[derive(Debug)]
pub(super) enum Waiting {
    Some(HashMap<ObjectId, Target>),
    /// More than there is room for: the tables tell.
    All,
}

/// Objects of which the inventory is ahead of the annotations.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: Mutex<Option<Waiting>>,
    grew: Notify,
}

impl Backlog {
    /// Adds objects as they are after these changes, each with whether the content is that of before.
    pub(super) fn add<'a>(&self, changes: impl Iterator<Item = (&'a Record, bool)>) {
        let targets = changes.filter_map(|(record, is_same)| {
            let content = match &record.change {
                Change::MetadataUpdated(_) if is_same => return None,
                Change::Created(state) | Change::MetadataUpdated(state) => {
                    Some(Tagged { e_tag: state.e_tag.clone(), is_empty: state.size == Some(0) })
                }
                Change::MarkedDeleted(_) | Change::Deleted => None,
            };
            Some((record.id.clone(), Target { sequence: record.sequence, content }))
        });
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Waiting::Some(known) = waiting.get_or_insert_with(|| Waiting::Some(HashMap::new())) {
            known.extend(targets);
            if known.len() > WAITING_AT_MOST {
                *waiting = Some(Waiting::All);
            }
        }
        self.grew.notify_one();
    }

    /// Puts back objects of which nothing was learnt, unless something is known since.
    pub(super) fn put_back(&self, targets: impl IntoIterator<Item = (ObjectId, Target)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Waiting::Some(known) = waiting.get_or_insert_with(|| Waiting::Some(HashMap::new())) {
            for (id, target) in targets {
                known.entry(id).or_insert(target);
            }
        }
        self.grew.notify_one();
    }

    /// Says that the tables have to be compared.
    pub(super) fn add_all(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(Waiting::All);
        self.grew.notify_one();
    }

    /// What waits, which does not wait any more.
    pub(super) fn take(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until something does.
    pub(super) async fn grew(&self) {
        self.grew.notified().await;
    }
}
