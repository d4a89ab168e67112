use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use tarndb_core::{Error, ErrorKind, Lakehouse, Result};
use tokio::sync::OnceCell;

use super::Index;
use super::key_index;
use super::observe::{Looked, pause_after};
use super::shard::KeyHash;
use super::status::Synced;
use super::writer::Writer;
use crate::bucket::{self, Bucket, Present, Which};
use crate::options::Fetch;
use crate::record::{Change, ObjectId, ObjectState, Origin, Record, Sequence};

/// Requests about single objects that are open at once.
const LOOKED_AT_ONCE: usize = 64;

/// Objects of the first listing that are recorded at once, where it tells all that is asked: a commit costs as much as many. When no
/// more come for this long, fewer are.
const RECORDED_AT_ONCE: usize = 10_000;
const RECORDED_AFTER: Duration = Duration::from_millis(200);

/// Objects that are not listed any more and are asked for while nobody else writes.
const ASKED_FOR: usize = 1000;

/// Objects that events may touch during a listing before all of them count as touched.
const TOUCHED_AT_MOST: usize = 1_000_000;

/// The objects that events told of since a listing began. The listing may have seen them before or after that.
#[derive(Debug)]
pub(super) enum Touched {
    Some(HashSet<KeyHash>),
    All,
}

/// While a listing is under way.
struct TouchedSince<'a>(&'a Index);

impl<'a> TouchedSince<'a> {
    fn now(index: &'a Index) -> Self {
        *index.touched() = Some(Touched::Some(HashSet::new()));
        Self(index)
    }
}

impl Drop for TouchedSince<'_> {
    fn drop(&mut self) {
        *self.0.touched() = None;
    }
}

/// An object of which a listing told, or did not any more.
type Listed = (ObjectId, Option<Present>);

/// What a store says of objects, each with what was asked for.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) found: Vec<(ObjectId, bucket::Looked)>,
    /// Those of which it says nothing, and why: they are not ours to read, cannot be named, or cannot be read for long.
    pub(super) refused: Vec<(ObjectId, Error)>,
}

/// Objects that are remembered at most because the store said nothing of them.
const UNREAD_AT_MOST: usize = 100_000;

/// How long a store that asks for patience is given, while nobody else writes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause before an object is looked at once more, at which the store failed however often its client asked.
const PAUSE: Duration = Duration::from_millis(500);

/// Whether an object has the content that it is known to have.
pub(super) fn is_known(writer: &Writer, id: &ObjectId, change: &Change) -> bool {
    let e_tag = change.state().and_then(|state| state.e_tag.as_deref());
    writer.known(id).is_some_and(|known| known.has_e_tag(e_tag))
}

/// Whether it is as it is known to be, as far as a listing tells.
fn is_as_listed(writer: &Writer, id: &ObjectId, change: &Change) -> bool {
    match change {
        Change::Created(state) => writer.known(id).is_some_and(|known| known.is_as_listed(state)),
        _ => is_known(writer, id, change),
    }
}

/// A sequence number for what was found by looking at a time in microseconds since 1970: after what is known, and before what the store
/// will tell.
pub(super) fn found_after(writer: &Writer, id: &ObjectId, now: i64) -> Sequence {
    let seconds = u32::try_from(now / 1_000_000).unwrap_or(u32::MAX);
    match writer.newest(id) {
        Some(newest) => newest.found_at(seconds),
        // What was there before the index comes before everything.
        None if !writer.is_complete() => Sequence::FIRST,
        None => Sequence::FIRST.found_at(seconds),
    }
}

impl Index {
    fn touched(&self) -> MutexGuard<'_, Option<Touched>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that events told of objects.
    pub(super) fn touch<'a>(&self, ids: impl Iterator<Item = &'a ObjectId>) {
        let mut touched = self.touched();
        let Some(Touched::Some(hashes)) = touched.as_mut() else { return };
        hashes.extend(ids.map(key_index::hash));
        if hashes.len() > TOUCHED_AT_MOST {
            *touched = Some(Touched::All);
        }
    }

    fn is_touched(&self, id: &ObjectId) -> bool {
        match &*self.touched() {
            Some(Touched::Some(hashes)) => hashes.contains(&key_index::hash(id)),
            Some(Touched::All) => true,
            None => false,
        }
    }

    fn unread(&self) -> MutexGuard<'_, HashSet<KeyHash>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the store for objects. One of which it says nothing for long, while it answers otherwise, does not hold up the others.
    ///
    /// # Errors
    /// Those that the next attempt may not have: the store cannot be reached, or asks for patience.
    pub(super) async fn look(&self, bucket: &Bucket, mut ids: Vec<ObjectId>, which: Which, fetch: Fetch) -> Result<Answers> {
        let mut answers = Answers::default();
        let (asked, give_up) = (ids.len(), Instant::now() + PATIENCE);
        loop {
            let Some(error) = self.look_once(bucket, &mut ids, (which, fetch), &mut answers).await else { return Ok(answers) };
            // A store that asks for patience answers some: these are not asked for again.
            if ids.len() == asked || Instant::now() >= give_up {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks for objects until one has no answer now, and says why. Those without an answer are left.
    async fn look_once(
        &self,
        bucket: &Bucket,
        ids: &mut Vec<ObjectId>,
        (which, fetch): (Which, Fetch),
        answers: &mut Answers,
    ) -> Option<Error> {
        let has_failed = AtomicBool::new(false);
        let (mut failure, mut left) = (None, std::mem::take(ids).into_iter());
        // Whether it is about the objects that they have no answer: of all, the store would have none.
        let answers_otherwise = OnceCell::new();
        let is_own = || async { *answers_otherwise.get_or_init(|| bucket.answers()).await };
        let next = std::iter::from_fn(|| if has_failed.load(Ordering::Relaxed) { None } else { left.next() });
        let asked = stream::iter(next).map(|id| async move { (look_at(bucket, &id, which, fetch).await, id) });
        let mut asked = asked.buffer_unordered(LOOKED_AT_ONCE);
        while let Some((answer, id)) = asked.next().await {
            match answer {
                Ok(looked) => {
                    self.unread().remove(&key_index::hash(&id));
                    answers.found.push((id, looked));
                }
                Err(error) if error.kind() == ErrorKind::Unsupported && is_own().await => {
                    bucket.note(&error);
                    answers.refused.push((id, error));
                }
                Err(error) if error.kind() == ErrorKind::DataInvalid && is_own().await => {
                    bucket.note(&error);
                    let mut unread = self.unread();
                    if unread.len() < UNREAD_AT_MOST {
                        unread.insert(key_index::hash(&id));
                    }
                    answers.refused.push((id, error));
                }
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    failure = Some(error);
                    ids.push(id);
                }
            }
        }
        drop(asked);
        ids.extend(left);
        failure
    }

    /// Lists the bucket, and records what makes the inventory true again.
    pub(super) async fn look_at_bucket(&self, lake: &Lakehouse, bucket: &Bucket) -> Result<Looked> {
        let _one = self.listing.lock().await;
        let _touched = TouchedSince::now(self);
        let listing = self.counters.listing();
        let mut looked = Looked::default();
        let mut seen = HashSet::new();
        bucket.forget_notes();
        let fetch = self.options.fetch()?;
        let is_asked = fetch.metadata || fetch.tags || self.is_complete(lake).await?;
        let at_once = if is_asked { 1 } else { RECORDED_AT_ONCE };
        let mut parts = bucket.list().await?;
        let (mut found, mut ended) = (Vec::new(), None);
        while ended.is_none() {
            let next = tokio::select! {
                next = parts.next() => Some(next),
                () = tokio::time::sleep(RECORDED_AFTER), if !found.is_empty() => None,
            };
            let is_late = next.is_none();
            match next {
                None => {}
                Some(Some(Ok(part))) => {
                    listing.add(part.len());
                    seen.extend(part.iter().map(|(id, _)| key_index::hash(id)));
                    found.extend(part.into_iter().map(|(id, change)| (id.clone(), Some((id, change)))));
                }
                Some(Some(Err(error))) => ended = Some(Err(error)),
                Some(None) => ended = Some(Ok(())),
            }
            if found.len() >= at_once || (is_late || ended.is_some()) && !found.is_empty() {
                looked.add(self.record_listed(lake, bucket, std::mem::take(&mut found)).await?);
            }
        }
        ended.unwrap_or(Ok(()))?;
        let gone = {
            let mut guard = self.writer.lock().await;
            let writer = self.take_writer(lake, &mut guard).await?;
            let others = writer.others(lake, &seen).await?;
            *guard = Some(writer);
            others
        };
        for gone in gone.chunks(ASKED_FOR) {
            looked.add(self.record_listed(lake, bucket, gone.iter().map(|id| (id.clone(), None)).collect()).await?);
        }
        self.set_listing_error(None);
        Ok(looked)
    }

    async fn record_listed(&self, lake: &Lakehouse, bucket: &Bucket, listed: Vec<Listed>) -> Result<Looked> {
        let mut attempt = 1;
        loop {
            match self.record_listed_once(lake, bucket, listed.clone()).await {
                Ok(synced) => return Ok(Looked { synced, ..Looked::default() }),
                Err(e) => attempt = pause_after(lake, e, attempt).await?,
            }
        }
    }

    async fn record_listed_once(&self, lake: &Lakehouse, bucket: &Bucket, listed: Vec<Listed>) -> Result<Synced> {
        let fetch = self.options.fetch()?;
        let mut guard = self.writer.lock().await;
        let mut writer = self.take_writer(lake, &mut guard).await?;
        // What is not as it is known, and of that, what has to be asked for once more.
        let (mut found, mut unsure) = (Vec::new(), Vec::new());
        for (id, present) in listed {
            let as_known = match &present {
                Some((id, change)) => is_as_listed(&writer, id, change) && !self.unread().contains(&key_index::hash(id)),
                None => writer.known(&id).is_none(),
            };
            let to_fetch = matches!(&present, Some((_, Change::Created(_)))) && (fetch.metadata || fetch.tags);
            // What is gone by a listing may have come since, and be in the inventory by another process; and the other way.
            let is_old = present.is_none() || (writer.has_events() && writer.is_complete());
            match as_known {
                true => {}
                false if is_old || to_fetch || self.is_touched(&id) => unsure.push((id, present)),
                false => found.push((id, present)),
            }
        }
        found.extend(self.ask_again(&writer, bucket, unsure, fetch).await?);
        writer.recall(lake, found.iter().map(|(id, _)| (id, i64::MIN))).await?;
        // Of the same content, something else may be known: a class, or metadata that a copy onto itself gave it.
        let same = found.iter().filter_map(|(_, present)| present.as_ref());
        let same = same.filter(|(id, change)| is_known(&writer, id, change)).map(|(id, _)| id.clone()).collect();
        let states = writer.states(lake, &same).await?;
        let now = lake.storage().clock().now_ms().saturating_mul(1000);
        let (mut records, mut synced) = (Vec::new(), Synced::default());
        for (id, present) in found {
            let Some(change) = changed(&writer, &states, &id, present) else { continue };
            synced.count(&change, writer.known(&id).is_some());
            let sequence = found_after(&writer, &id, now);
            records.push(Record { id, sequence, timestamp: now, change, origin: Origin::default() });
        }
        writer.record(lake, &records).await?;
        *guard = Some(writer);
        drop(guard);
        self.keep_up_unless_awaited(lake).await;
        Ok(synced)
    }

    /// The versions of these keys that are not as they are known. Which are gone is asked of the keys in `removable` only.
    pub(super) async fn changed_versions(
        &self,
        lake: &Lakehouse,
        (writer, bucket): (&Writer, &Bucket),
        keys: Vec<String>,
        removable: &HashSet<&str>,
    ) -> Result<Vec<Listed>> {
        let listed = versions(bucket, keys).await?;
        let seen: HashSet<KeyHash> = listed.iter().map(|(id, _)| key_index::hash(id)).collect();
        let known = writer.objects_of(lake, removable).await?;
        let gone = known.into_iter().filter(|id| !seen.contains(&key_index::hash(id))).map(|id| (id, None));
        let new = listed.into_iter().filter(|(id, change)| !is_as_listed(writer, id, change));
        let changed = new.map(|present| (present.0.clone(), Some(present))).chain(gone).collect();
        let mut found = self.ask_again(writer, bucket, changed, self.options.fetch()?).await?;
        for (_, present) in &mut found {
            *present = present.take().filter(|(_, change)| bucket.has_after(change));
        }
        Ok(found)
    }

    /// What the store says when it is asked for each of these.
    async fn ask_again(&self, writer: &Writer, bucket: &Bucket, unsure: Vec<Listed>, fetch: Fetch) -> Result<Vec<Listed>> {
        let asked = unsure.iter().map(|(id, _)| id.clone()).collect();
        let listed: HashMap<ObjectId, Option<Present>> = unsure.into_iter().collect();
        let answers = self.look(bucket, asked, Which::Unversioned, fetch).await?;
        let (mut found, mut hidden) = (Vec::new(), HashSet::new());
        for (id, looked) in answers.found {
            // What only a listing tells is kept.
            let told = listed.get(&id).and_then(Option::as_ref);
            match looked {
                bucket::Looked::Gone if told.is_some_and(is_marker) || is_known_marker(writer, &id) => drop(hidden.insert(id)),
                bucket::Looked::Gone => found.push((id, None)),
                bucket::Looked::LeftOut(id) => found.push((id, None)),
                bucket::Looked::Present(present) => found.push((id, Some(merged(present, told)))),
            }
        }
        // Ceph tells of versions that say that an object is deleted in listings only.
        let keys: HashSet<String> = hidden.iter().map(|id| id.key.clone()).collect();
        let mut shown: HashMap<ObjectId, Change> = versions(bucket, keys.into_iter().collect()).await?.into_iter().collect();
        found.extend(hidden.into_iter().map(|id| {
            let present = shown.remove(&id).map(|change| (id.clone(), change));
            (id, present)
        }));
        for (id, _) in answers.refused {
            // It is there, for it was listed; what was not listed may be there, and what events told of may be another by now.
            if !self.is_touched(&id)
                && let Some(Some(told)) = listed.get(&id)
            {
                found.push((id, Some(told.clone())));
            }
        }
        Ok(found)
    }
}

/// What became of an object that is there, or not; `None` when it is as it is known. `states` are those of the same content.
fn changed(writer: &Writer, states: &HashMap<ObjectId, ObjectState>, id: &ObjectId, present: Option<Present>) -> Option<Change> {
    match present {
        Some((id, change)) if is_known(writer, &id, &change) => {
            let (Change::Created(state), known) = (change, states.get(&id)?) else { return None };
            let state = state.or(known);
            (state != *known).then_some(Change::MetadataUpdated(state))
        }
        Some((_, change)) => Some(change),
        None => writer.known(id).map(|_| Change::Deleted),
    }
}

/// Asks for one object, and once more when that fails.
async fn look_at(bucket: &Bucket, id: &ObjectId, which: Which, fetch: Fetch) -> Result<bucket::Looked> {
    match bucket.look(id, which, fetch).await {
        Err(error) if error.kind() == ErrorKind::DataInvalid => {}
        answer => return answer,
    }
    tokio::time::sleep(PAUSE).await;
    bucket.look(id, which, fetch).await
}

/// Whether it is known to say that an object is deleted: that has no tag.
fn is_known_marker(writer: &Writer, id: &ObjectId) -> bool {
    writer.known(id).is_some_and(|known| known.has_e_tag(None))
}

/// All versions of these keys.
pub(super) async fn versions(bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Present>> {
    let listed = stream::iter(keys).map(|key| async move { bucket.versions(&key).await }).buffer_unordered(LOOKED_AT_ONCE);
    Ok(listed.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

fn is_marker((_, change): &Present) -> bool {
    matches!(change, Change::MarkedDeleted(_))
}

/// What asking for an object told, and what the listing told of the same content.
fn merged((id, mut change): Present, listed: Option<&Present>) -> Present {
    let is_same_kind = listed.is_some_and(|(_, told)| std::mem::discriminant(told) == std::mem::discriminant(&change));
    if let (Some(state), Some(told)) = (change.state_mut(), listed.and_then(|(_, told)| told.state()))
        && is_same_kind
        && state.e_tag == told.e_tag
    {
        *state = std::mem::take(state).or(told);
    }
    (id, change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_listing_tells_is_kept() {
        let state = |last_modified| ObjectState { size: Some(0), last_modified, ..ObjectState::default() };
        let present = |change| (ObjectId::of_key("a"), change);
        let listed = present(Change::MarkedDeleted(state(Some(7))));
        let marker = merged(present(Change::MarkedDeleted(state(None))), Some(&listed));
        assert_eq!(marker, listed);
        // Something else took its place meanwhile.
        let created = present(Change::Created(state(None)));
        assert_eq!(merged(created.clone(), Some(&listed)), created);
    }
}
