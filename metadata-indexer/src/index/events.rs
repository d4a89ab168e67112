use std::collections::{HashMap, HashSet};

use tarndb_core::{Error, Lakehouse, Result};

use super::Index;
use super::bucket::found_after;
use super::key_index;
use super::observe::pause_after;
use super::status::EventCounts;
use super::writer::Writer;
use crate::bucket::{Bucket, Which};
use crate::event::{Dead, News, ObjectEvent, Parsed};
use crate::record::{Change, ObjectId, ObjectState, Record, Sequence};
use crate::source::Source;

/// Bytes that a key has at most, in any store.
const LONGEST_KEY: usize = 1024;

/// What a message, or many, are for this index.
#[derive(Debug, Default)]
struct Sorted {
    /// What is told of objects, in the order in which it came.
    events: Vec<ObjectEvent>,
    dead: Vec<Dead>,
    counts: EventCounts,
}

fn sorted(bucket: &Bucket, parts: Vec<Parsed>) -> Sorted {
    let mut sorted = Sorted::default();
    sorted.counts.received = parts.len() as u64;
    for part in parts {
        match part {
            Parsed::Event(event) if event.bucket != bucket.name() => {
                let reason = format!("the event is about the bucket `{}`, and the index about `{}`", event.bucket, bucket.name());
                sorted.dead.push(Dead::new(reason, event.id.key.as_bytes()));
            }
            Parsed::Event(event) if event.id.key.len() > LONGEST_KEY => {
                let reason =
                    format!("the key of an event has {} bytes, and no store takes more than {LONGEST_KEY}", event.id.key.len());
                sorted.dead.push(Dead::new(reason, event.id.key.as_bytes()));
            }
            Parsed::Event(event) if bucket.has(&event.id.key) => sorted.events.push(event),
            Parsed::Dead(dead) => sorted.dead.push(dead),
            Parsed::Event(_) | Parsed::Ignored | Parsed::Validation(_) => sorted.counts.ignored += 1,
        }
    }
    sorted.counts.dead = sorted.dead.len() as u64;
    sorted
}

impl Index {
    /// Brings what events tell into the tables. When this returns, it is there.
    ///
    /// # Errors
    /// `Unsupported` for an index of a folder; those of commits, after which the events have to be handed in again.
    pub(crate) async fn apply(&self, lake: &Lakehouse, parts: Vec<Parsed>) -> Result<EventCounts> {
        let Source::Bucket(bucket) = &self.source else {
            return Err(Error::unsupported("a metadata index of a folder takes no events: it watches the folder"));
        };
        let sorted = sorted(bucket, parts);
        let mut attempt = 1;
        let mut counts = loop {
            match self.apply_once(lake, bucket, &sorted).await {
                Ok(counts) => break counts,
                // Someone compacted a table, or another process applies events: what is known is read again.
                Err(e) => attempt = pause_after(lake, e, attempt).await?,
            }
        };
        counts += sorted.counts;
        let newest = sorted.events.iter().filter_map(|event| event.time).max();
        let lag = newest.map(|time| lake.storage().clock().now_ms().saturating_sub(time / 1000).max(0).cast_unsigned());
        self.counters.add(counts, lag);
        Ok(counts)
    }

    async fn apply_once(&self, lake: &Lakehouse, bucket: &Bucket, sorted: &Sorted) -> Result<EventCounts> {
        let mut guard = self.writer.lock().await;
        let mut writer = self.take_writer(lake, &mut guard).await?;
        self.touch(sorted.events.iter().map(|event| &event.id));
        writer.recall(lake, sorted.events.iter().filter_map(|event| Some((&event.id, event.time?)))).await?;
        let (mut records, mut counts) = told(&writer, lake, &sorted.events).await?;
        self.fetch(bucket, &writer, &mut records).await?;
        writer.commit(lake, &records).await?;
        let (found, refused) = self.found(&writer, lake, bucket, &sorted.events).await?;
        self.touch(found.iter().map(|record| &record.id));
        counts.applied += found.len() as u64;
        counts.dead += refused.len() as u64;
        counts.duplicates += sorted.events.len() as u64 - counts.applied - counts.duplicates - counts.dead;
        writer.commit(lake, &found).await?;
        let dead: Vec<Dead> = sorted.dead.iter().cloned().chain(refused).collect();
        writer.keep_aside(lake, &dead).await?;
        *guard = Some(writer);
        drop(guard);
        self.keep_up_unless_awaited(lake).await;
        Ok(counts)
    }

    /// Asks the store for what events do not tell of objects that are new. Where the object is another by now, that stays unknown, as
    /// it does in S3 Metadata.
    async fn fetch(&self, bucket: &Bucket, writer: &Writer, records: &mut [Record]) -> Result<()> {
        let fetch = self.options.fetch()?;
        if !fetch.metadata && !fetch.tags {
            return Ok(());
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
            .filter_map(|(id, present)| Some((id, present?.1.state()?.clone())))
            .collect();
        for record in records {
            if let (Change::Created(state), Some(found)) = (&mut record.change, found.get(&record.id))
                && newest.get(&record.id) == Some(&record.sequence)
                && state.e_tag.as_ref().is_none_or(|tag| found.e_tag.as_ref() == Some(tag))
            {
                let told = std::mem::take(state);
                *state = found.clone().or(&told);
            }
        }
        Ok(())
    }

    /// What became of objects of which events only tell that something happened; and those of which the store says nothing.
    async fn found(
        &self,
        writer: &Writer,
        lake: &Lakehouse,
        bucket: &Bucket,
        events: &[ObjectEvent],
    ) -> Result<(Vec<Record>, Vec<Dead>)> {
        let touched = events.iter().filter(|event| event.news == News::Touched);
        let touched: HashMap<&ObjectId, &ObjectEvent> = touched.map(|event| (&event.id, event)).collect();
        if touched.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let asked = touched.keys().map(|id| (*id).clone()).collect();
        let answers = self.look(bucket, asked, Which::Newest, self.options.fetch()?).await?;
        let refused = answers.refused.iter().map(|(id, error)| Dead::new(error.to_string(), id.key.as_bytes())).collect();
        let answers = answers.found;
        let ids = answers.iter().map(|(asked, present)| present.as_ref().map_or(asked, |(id, _)| id).clone()).collect();
        let states = writer.states(lake, &ids).await?;
        let now = lake.storage().clock().now_ms().saturating_mul(1000);
        let mut records = Vec::new();
        for (asked, present) in answers {
            let Some(event) = touched.get(&asked) else { continue };
            let (id, change) = match present {
                None if writer.known(&asked).is_none() => continue,
                None => (asked, Change::Deleted),
                Some((id, Change::Created(state))) => match states.get(&id) {
                    Some(known) if known.e_tag == state.e_tag => {
                        let state = state.or(known);
                        if state == *known {
                            continue;
                        }
                        (id, Change::MetadataUpdated(state))
                    }
                    _ => (id, Change::Created(state)),
                },
                Some((id, _)) if writer.known(&id).is_some() => continue,
                Some(present) => present,
            };
            let sequence = found_after(writer, &id, now);
            // When it went nobody said, and it is to be remembered from now on.
            let since = if change == Change::Deleted { None } else { event.time };
            let (timestamp, origin) = (since.unwrap_or(now), event.origin.clone());
            records.push(Record { id, sequence, timestamp, change, origin });
        }
        Ok((records, refused))
    }
}

/// The newest of the changes of each object.
fn newest(records: &[Record]) -> HashMap<ObjectId, Sequence> {
    let mut newest = HashMap::new();
    for record in records {
        let sequence = newest.entry(record.id.clone()).or_insert(record.sequence);
        *sequence = record.sequence.max(*sequence);
    }
    newest
}

/// What events tell that is not known yet, and how many of them are known or late.
async fn told(writer: &Writer, lake: &Lakehouse, events: &[ObjectEvent]) -> Result<(Vec<Record>, EventCounts)> {
    let now = lake.storage().clock().now_ms().saturating_mul(1000);
    let (mut counts, mut seen) = (EventCounts::default(), HashSet::new());
    let (mut records, mut unsure) = (Vec::new(), Vec::new());
    let remembered_since = writer.remembered_since(lake);
    for event in events {
        let News::Changed(sequence, change) = &event.news else { continue };
        let newest = writer.newest(&event.id);
        if newest == Some(*sequence) || !seen.insert((&event.id, *sequence)) {
            counts.duplicates += 1;
            continue;
        }
        let record = Record {
            id: event.id.clone(),
            sequence: *sequence,
            timestamp: event.time.unwrap_or(now),
            change: change.clone(),
            origin: event.origin.clone(),
        };
        // What is older than what is known, or than what is remembered, may be in the journal already.
        if newest > Some(*sequence) || record.timestamp < remembered_since { unsure.push(record) } else { records.push(record) }
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
