use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tarndb_core::{Error, Lakehouse, Result};

use super::Index;
use super::bucket::{Answers, found_after, is_known, versions};
use super::key_index::{self, LookedUp};
use super::observe::pause_after;
use super::status::EventCounts;
use super::writer::Writer;
use crate::bucket::{Bucket, Looked, Which};
use crate::event::{Dead, EventHook, EventKind, News, ObjectEvent, Parsed, Scope};
use crate::record::{Change, ObjectId, ObjectState, Origin, Record, Sequence};
use crate::source::Source;

/// Bytes that a key has at most, in any store: Azure counts 1,024 characters.
const LONGEST_KEY: usize = 4096;

/// What a message, or many, are for this index.
#[derive(Debug, Default)]
struct Sorted {
    /// What happened, in the order in which it came. What made an object one that the index is not about deleted it.
    changes: Vec<Record>,
    /// Of what it is only told that something happened.
    touched: Vec<ObjectEvent>,
    /// When the last of it happened, in microseconds since 1970.
    newest: Option<i64>,
    dead: Vec<Dead>,
    counts: EventCounts,
}

/// `kinds` are those that are heeded, or all; `now` is in microseconds since 1970.
fn sorted(bucket: &Bucket, kinds: Option<&[EventKind]>, parts: Vec<Parsed>, now: i64) -> Sorted {
    let is_heeded = |event: &ObjectEvent| match (kinds, event.news.kind()) {
        (Some(kinds), Some(kind)) => kinds.contains(&kind),
        _ => true,
    };
    let mut sorted = Sorted::default();
    sorted.counts.received = parts.len() as u64;
    sorted.changes.reserve(parts.len());
    for part in parts {
        match part {
            Parsed::Event(event) if event.bucket != bucket.name() && event.scope == Scope::AnyBucket => {
                sorted.counts.ignored += 1
            }
            Parsed::Event(event) if event.bucket != bucket.name() => {
                let reason = format!("the event is about the bucket `{}`, and the index about `{}`", event.bucket, bucket.name());
                sorted.dead.push(Dead::new(reason, event.id.key.as_bytes()));
            }
            Parsed::Event(event) if event.id.key.len() > LONGEST_KEY => {
                let reason =
                    format!("the key of an event has {} bytes, and no store takes more than {LONGEST_KEY}", event.id.key.len());
                sorted.dead.push(Dead::new(reason, event.id.key.as_bytes()));
            }
            Parsed::Event(event) if bucket.has(&event.id.key) && is_heeded(&event) => sorted.add(event, bucket, now),
            Parsed::Dead(dead) => sorted.dead.push(dead),
            Parsed::Event(_) | Parsed::Ignored | Parsed::Validation(_) => sorted.counts.ignored += 1,
        }
    }
    sorted.counts.dead = sorted.dead.len() as u64;
    sorted
}

impl Sorted {
    fn add(&mut self, event: ObjectEvent, bucket: &Bucket, now: i64) {
        self.newest = self.newest.max(event.time);
        match event.news {
            News::Touched(_) => self.touched.push(event),
            News::Changed(sequence, change) => {
                let (id, timestamp, origin) = (event.id, event.time.unwrap_or(now), event.origin);
                // Also of what was never in the index: what is told late of it is not taken for new then, whoever it is told.
                let change = if bucket.has_after(&change) { change } else { Change::Deleted };
                self.changes.push(Record { id, sequence, timestamp, change, origin });
            }
        }
    }

    fn len(&self) -> u64 {
        (self.changes.len() + self.touched.len()) as u64
    }

    /// The objects, with when that happened which is told; what one has to look for comes after whatever is known.
    fn ids(&self) -> impl Iterator<Item = (&ObjectId, i64)> {
        let changed = self.changes.iter().map(|record| (&record.id, record.timestamp));
        changed.chain(self.touched.iter().map(|event| (&event.id, i64::MIN)))
    }
}

impl Index {
    /// Brings what events tell into the tables. When this returns, it is there.
    ///
    /// # Errors
    /// `Unsupported` for an index of a folder, and when this process does not have its hook; those of commits, after which the events have to be handed in again.
    pub(crate) async fn apply(&self, lake: &Lakehouse, parts: Vec<Parsed>) -> Result<EventCounts> {
        let Source::Bucket(bucket) = &self.source else {
            return Err(Error::unsupported("a metadata index of a folder takes no events: it watches the folder"));
        };
        let (kinds, now) = (self.options.event_kinds()?, lake.storage().clock().now_ms().saturating_mul(1000));
        let parts = self.changed_by_hook(without_unnamed(bucket, parts).await?)?;
        let sorted = sorted(bucket, kinds.as_deref(), parts, now);
        let mut attempt = 1;
        let mut counts = loop {
            match self.apply_once(lake, bucket, &sorted).await {
                Ok(counts) => break counts,
                // Someone compacted a table, or another process applies events: what is known is read again.
                Err(e) => attempt = pause_after(lake, e, attempt).await?,
            }
        };
        counts += sorted.counts;
        let lag = sorted.newest.map(|time| lake.storage().clock().now_ms().saturating_sub(time / 1000).max(0).cast_unsigned());
        self.counters.add(counts, lag);
        Ok(counts)
    }

    /// What changes events before they are heeded.
    ///
    /// # Errors
    /// `Unsupported` when none of that name is registered.
    pub(super) fn hook(&self) -> Result<Option<Arc<dyn EventHook>>> {
        let Some(name) = self.options.hook()? else { return Ok(None) };
        let unknown = || Error::unsupported(format!("no hook of events `{name}` is registered in this process"));
        self.own.hooks.get(name).map(Some).ok_or_else(unknown)
    }

    fn changed_by_hook(&self, mut parts: Vec<Parsed>) -> Result<Vec<Parsed>> {
        let Some(hook) = self.hook()? else { return Ok(parts) };
        for part in &mut parts {
            let Parsed::Event(event) = part else { continue };
            let key = event.key().to_string();
            let applied = catch_unwind(AssertUnwindSafe(|| hook.apply(event)));
            match applied.unwrap_or_else(|_| Err("it panicked".into())) {
                Ok(true) => {}
                Ok(false) => *part = Parsed::Ignored,
                Err(error) => *part = Parsed::Dead(Dead::new(format!("the hook: {error}"), key.as_bytes())),
            }
        }
        Ok(parts)
    }

    async fn apply_once(&self, lake: &Lakehouse, bucket: &Bucket, sorted: &Sorted) -> Result<EventCounts> {
        let mut guard = self.writer.lock().await;
        let mut writer = self.take_writer(lake, &mut guard).await?;
        self.touch(sorted.ids().map(|(id, _)| id));
        writer.recall(lake, sorted.ids()).await?;
        let (told, mut counts) = told(&writer, lake, &sorted.changes).await?;
        let fetched = self.fetched(bucket, &writer, &told).await?;
        let told = fetched.as_ref().map_or(told, |fetched| fetched.iter().collect());
        writer.commit(lake, &told).await?;
        let (found, refused) = self.found(&writer, lake, bucket, &sorted.touched).await?;
        self.touch(found.iter().map(|record| &record.id));
        counts.applied += found.len() as u64;
        counts.dead += refused.len() as u64;
        // One event may be about several versions.
        counts.duplicates += sorted.len().saturating_sub(counts.applied + counts.duplicates + counts.dead);
        writer.commit(lake, &found.iter().collect::<Vec<_>>()).await?;
        let dead: Vec<Dead> = sorted.dead.iter().cloned().chain(refused).collect();
        writer.keep_aside(lake, &dead).await?;
        *guard = Some(writer);
        drop(guard);
        self.keep_up_unless_awaited(lake).await;
        Ok(counts)
    }

    /// Asks the store for what events do not tell of objects that are new. Where the object is another by now, that stays unknown, as
    /// it does in S3 Metadata. `None` when nothing is to be asked.
    async fn fetched(&self, bucket: &Bucket, writer: &Writer, records: &[&Record]) -> Result<Option<Vec<Record>>> {
        let fetch = self.options.fetch()?;
        if !fetch.metadata && !fetch.tags {
            return Ok(None);
        }
        let newest = newest(records);
        let is_new = |record: &Record| {
            matches!(record.change, Change::Created(_))
                && newest.get(&record.id) == Some(&record.sequence)
                && writer.newest(&record.id).is_none_or(|known| known < record.sequence)
        };
        let ids = records.iter().filter(|record| is_new(record)).map(|record| record.id.clone()).collect();
        let found: HashMap<ObjectId, ObjectState> = self
            .look(bucket, ids, Which::Newest, fetch)
            .await?
            .found
            .into_iter()
            .filter_map(|(id, looked)| match looked {
                Looked::Present((_, change)) => Some((id, change.state()?.clone())),
                Looked::Gone | Looked::LeftOut(_) => None,
            })
            .collect();
        let with_found = |record: &&Record| {
            let mut record = Record::clone(record);
            if let (Change::Created(state), Some(found)) = (&mut record.change, found.get(&record.id))
                && newest.get(&record.id) == Some(&record.sequence)
                && state.e_tag.as_ref().is_none_or(|tag| found.e_tag.as_ref() == Some(tag))
            {
                let told = std::mem::take(state);
                *state = found.clone().or(&told);
                if self.options.hook()?.is_some() {
                    add_missing(&mut state.tags, told.tags);
                    add_missing(&mut state.user_metadata, told.user_metadata);
                }
            }
            Ok(record)
        };
        records.iter().map(with_found).collect::<Result<_>>().map(Some)
    }

    /// What became of objects of which events only tell that something happened; and those of which the store says nothing.
    async fn found(
        &self,
        writer: &Writer,
        lake: &Lakehouse,
        bucket: &Bucket,
        touched: &[ObjectEvent],
    ) -> Result<(Vec<Record>, Vec<Dead>)> {
        if touched.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let (unnamed, named): (Vec<&ObjectEvent>, Vec<_>) = touched.iter().partition(|event| event.is_of_unnamed_version());
        let touched: HashMap<&ObjectId, &ObjectEvent> = named.into_iter().map(|event| (&event.id, event)).collect();
        let asked = touched.keys().map(|id| (*id).clone()).collect();
        let Answers { found: mut answers, refused } = self.look(bucket, asked, Which::Newest, self.options.fetch()?).await?;
        let refused = refused.iter().map(|(id, error)| Dead::new(error.to_string(), id.key.as_bytes())).collect();
        let unnamed: HashMap<&str, &ObjectEvent> = unnamed.into_iter().map(|event| (event.id.key.as_str(), event)).collect();
        let removable = unnamed.values().filter(|event| event.scope == Scope::AnyVersion);
        let removable = removable.map(|event| event.id.key.as_str()).collect();
        let keys = unnamed.keys().map(ToString::to_string).collect();
        let versions = self.changed_versions(lake, (writer, bucket), keys, &removable).await?;
        answers.extend(versions.into_iter().map(|(id, present)| (id, present.map_or(Looked::Gone, Looked::Present))));
        let ids =
            answers.iter().filter_map(|(_, looked)| if let Looked::Present((id, _)) = looked { Some(id.clone()) } else { None });
        let ids = ids.collect();
        let states = writer.states(lake, &ids).await?;
        let hidden = behind_markers(writer, bucket, &answers).await?;
        let now = lake.storage().clock().now_ms().saturating_mul(1000);
        let (mut records, mut seen) = (Vec::new(), HashSet::new());
        for (asked, looked) in answers {
            let Some(event) = touched.get(&asked).or_else(|| unnamed.get(asked.key.as_str())) else { continue };
            let gone = match &looked {
                Looked::Gone => Some(&asked),
                Looked::LeftOut(id) => Some(id),
                Looked::Present(_) => None,
            };
            if gone.is_some_and(|id| writer.known(id).is_none() || hidden.contains(id)) {
                continue;
            }
            let (id, change) = match looked {
                Looked::Gone => (asked, Change::Deleted),
                Looked::LeftOut(id) => (id, Change::Deleted),
                Looked::Present((id, Change::Created(state))) => match states.get(&id) {
                    Some(known) if known.e_tag == state.e_tag => {
                        let state = state.or(known);
                        if state == *known {
                            continue;
                        }
                        (id, Change::MetadataUpdated(state))
                    }
                    _ => (id, Change::Created(state)),
                },
                Looked::Present((id, change)) if is_known(writer, &id, &change) => continue,
                Looked::Present(present) => present,
            };
            // The newest version of a key may be asked for with its version, and without.
            if !seen.insert(key_index::hash(&id)) {
                continue;
            }
            let sequence = found_after(writer, &id, now);
            // When it went nobody said, and it is to be remembered from now on.
            let since = match &change {
                Change::Deleted => None,
                // Nobody said which of several versions it was.
                Change::Created(state) | Change::MarkedDeleted(state) if event.is_of_unnamed_version() => state.last_modified,
                _ => event.time,
            };
            let origin = if event.is_of_unnamed_version() { Origin::default() } else { event.origin.clone() };
            let timestamp = since.unwrap_or(now);
            records.push(Record { id, sequence, timestamp, change, origin });
        }
        Ok((records, refused))
    }
}

/// Objects that are said to be gone, and are there: behind a version that says that they are deleted, which Ceph shows in listings only.
async fn behind_markers(writer: &Writer, bucket: &Bucket, answers: &[(ObjectId, Looked)]) -> Result<HashSet<ObjectId>> {
    let gone = answers.iter().filter(|(id, looked)| matches!(looked, Looked::Gone) && id.version.is_none());
    let gone: Vec<String> = gone.filter(|(id, _)| writer.known(id).is_some()).map(|(id, _)| id.key.clone()).collect();
    if gone.is_empty() || !bucket.has_versions().await? {
        return Ok(HashSet::new());
    }
    Ok(versions(bucket, gone).await?.into_iter().map(|(id, _)| id).collect())
}

/// Where the bucket has versions, those are asked for that are not named; where it has none, an event is about the object.
async fn without_unnamed(bucket: &Bucket, mut parts: Vec<Parsed>) -> Result<Vec<Parsed>> {
    let is_unnamed = |part: &Parsed| matches!(part, Parsed::Event(event) if event.is_of_unnamed_version());
    if !parts.iter().any(is_unnamed) {
        return Ok(parts);
    }
    let has_versions = bucket.has_versions().await?;
    for part in &mut parts {
        match part {
            Parsed::Event(event) if event.is_of_unnamed_version() && has_versions => {
                event.news = News::Touched(event.news.kind())
            }
            Parsed::Event(event) if event.is_of_unnamed_version() => event.scope = Scope::Object,
            _ => {}
        }
    }
    Ok(parts)
}

/// Adds what has no value yet.
fn add_missing(pairs: &mut Option<BTreeMap<String, String>>, told: Option<BTreeMap<String, String>>) {
    for (name, value) in told.into_iter().flatten() {
        pairs.get_or_insert_default().entry(name).or_insert(value);
    }
}

/// The newest of the changes of each object.
fn newest<'a>(records: &[&'a Record]) -> HashMap<&'a ObjectId, Sequence> {
    let mut newest = HashMap::new();
    for record in records {
        let sequence = newest.entry(&record.id).or_insert(record.sequence);
        *sequence = record.sequence.max(*sequence);
    }
    newest
}

/// Those of the changes that are not known yet, and how many of them are known or late.
async fn told<'a>(writer: &Writer, lake: &Lakehouse, changes: &'a [Record]) -> Result<(Vec<&'a Record>, EventCounts)> {
    let (mut counts, mut seen) = (EventCounts::default(), HashSet::with_capacity(changes.len()));
    let (mut records, mut unsure) = (Vec::with_capacity(changes.len()), Vec::new());
    let remembered_since = writer.remembered_since(lake);
    for (record, LookedUp { key, newest, .. }) in changes.iter().zip(writer.look_up(changes.iter().map(|record| &record.id))) {
        if newest == Some(record.sequence) || !seen.insert((key, record.sequence)) {
            counts.duplicates += 1;
            continue;
        }
        // What is older than what is known, or than what is remembered, may be in the journal already.
        let is_unsure = newest > Some(record.sequence) || record.timestamp < remembered_since;
        if is_unsure { unsure.push(record) } else { records.push(record) }
    }
    let journaled = writer.journaled(lake, &unsure).await?;
    let before = unsure.len();
    unsure.retain(|record| !journaled.contains(&(key_index::hash(&record.id), record.sequence)));
    counts.duplicates += (before - unsure.len()) as u64;
    counts.late = unsure.iter().filter(|record| writer.newest(&record.id) > Some(record.sequence)).count() as u64;
    records.extend(unsure);
    counts.applied = records.len() as u64;
    Ok((records, counts))
}
