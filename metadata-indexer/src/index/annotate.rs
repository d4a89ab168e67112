use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::stream::{self, Stream};
use futures::{StreamExt, TryStreamExt};
use tarndb_core::{Error, ErrorKind, Lakehouse, Result, RowChange, WeakLakehouse};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use super::backlog::{Backlog, Tagged, Target, Waiting};
use super::conditions::is_one_of;
use super::key_index::content_hash;
use super::marks::{BATCH, batches};
use super::observe::pause_after;
use super::shard::KeyHash;
use super::{COLLECTED_FOR, FIRST_PAUSE, Index};
use super::{due, upkeep};
use crate::extract::{Content, Failure, Learner, learn};
use crate::feed::stopped;
use crate::record::{Annotated, ObjectId, Sequence, annotation_rows, flag, ids, missing, number, text};

/// Objects that are read at once.
const READ_AT_ONCE: usize = 16;

/// Objects that are committed at once, and how long they wait for others.
const COMMITTED_AT_ONCE: usize = 1000;
const COMMITTED_AFTER: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Objects that cannot be read, one after the other, before the source is asked whether it is about them.
const FAILED_IN_A_ROW: usize = 32;

/// Objects that could not be read and are remembered; of more, the tables tell.
const FAILED_AT_MOST: usize = 10_000;

/// Tables that are compared: when that ends early, they have to be compared again.
struct Unseen<'a>(Option<&'a Backlog>);

impl Unseen<'_> {
    fn seen(mut self) {
        self.0 = None;
    }
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|backlog| backlog.add_all());
    }
}

/// What is left where the others were annotated.
#[derive(Debug, Default)]
pub(super) struct NotRead {
    /// Why an object is not ours to read, of which nothing will be known.
    refused: Option<Error>,
    /// Objects that could not be read now, and why.
    failed: HashMap<ObjectId, Target>,
    failure: Option<Error>,
}

/// Objects that are tried again, for which nobody waits.
#[derive(Debug)]
struct Later {
    failed: HashMap<ObjectId, Target>,
    at: Instant,
    pause: Duration,
}

impl Later {
    fn is_due(&self) -> bool {
        !self.failed.is_empty() && Instant::now() >= self.at
    }

    /// Adds what failed, of which some may have been tried again.
    fn add(&mut self, failed: HashMap<ObjectId, Target>, tried_again: bool) {
        self.pause = match (failed.is_empty(), tried_again) {
            (false, true) => (self.pause * 2).min(LONGEST_PAUSE),
            (true, true) => FIRST_PAUSE,
            (_, false) => self.pause,
        };
        // Who waits already does not wait longer for those that come.
        if self.failed.is_empty() {
            self.at = Instant::now() + self.pause;
        }
        self.failed.extend(failed);
    }
}

/// What became of an object that was to be annotated.
struct Done {
    id: ObjectId,
    sequence: Sequence,
    /// `None` when it is gone.
    annotated: Option<Annotated>,
}

impl Index {
    /// Whether anything is learnt from contents.
    pub(super) fn annotates(&self) -> bool {
        !self.extract.is_empty()
    }

    fn set_annotation_error(&self, error: Option<&Error>) {
        self.annotation_errors().failing = error.map(Error::report);
    }

    /// Keeps the annotations up to the inventory, until it is told to stop.
    pub(super) async fn annotate_as_it_comes(self: Arc<Self>, lake: WeakLakehouse, mut stop: watch::Receiver<bool>) {
        let mut pause = FIRST_PAUSE;
        let mut later = Later { failed: HashMap::new(), at: Instant::now(), pause: FIRST_PAUSE };
        self.backlog.add_all();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = self.backlog.grew() => tokio::time::sleep(COLLECTED_FOR).await,
                () = tokio::time::sleep_until(later.at), if !later.failed.is_empty() => {}
            }
            let tries_again = later.is_due();
            if tries_again {
                if later.failed.len() <= FAILED_AT_MOST {
                    self.backlog.put_back(later.failed.drain());
                } else {
                    later.failed.clear();
                    self.backlog.add_all();
                }
            }
            let Some(open) = lake.upgrade() else { return };
            let annotated = match self.backlog.take() {
                None => continue,
                Some(Waiting::All) => self.annotate_all(&open, &stop).await,
                Some(Waiting::Some(targets)) => {
                    let _one = self.annotating.lock().await;
                    self.annotate(&open, stream::iter(targets.into_iter().map(Ok)), &stop).await
                }
            };
            match annotated {
                Ok(left) => {
                    pause = FIRST_PAUSE;
                    if let Some(error) = &left.failure {
                        tracing::warn!(index = self.name, error = error.report(), "objects cannot be annotated now");
                    }
                    later.add(left.failed, tries_again);
                    if left.failure.is_some() || later.failed.is_empty() {
                        self.set_annotation_error(left.failure.as_ref());
                    }
                    if left.refused.is_some() {
                        self.annotation_errors().note_refused(left.refused.as_ref());
                    }
                }
                Err(error) if self.is_end(&lake, &error).await => return,
                Err(error) => {
                    tracing::warn!(index = self.name, error = error.report(), "objects cannot be annotated now");
                    self.set_annotation_error(Some(&error));
                    drop(open);
                    tokio::select! {
                        () = stopped(&mut stop) => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    later.failed.clear();
                    self.backlog.add_all();
                }
            }
        }
    }

    /// Annotates what is not, and leaves what cannot be read to who does so in the background: the status tells of it.
    ///
    /// # Errors
    /// As [`Index::annotate_all`].
    pub(super) async fn annotate_now(&self, lake: &Lakehouse) -> Result<()> {
        // What was not ours to read may be by now.
        self.annotation_errors().forget_not_ours();
        let (_goes_on, stop) = watch::channel(false);
        let left = self.annotate_all(lake, &stop).await?;
        self.backlog.put_back(left.failed);
        Ok(())
    }

    /// Annotates every object of the inventory whose content was not looked at, and removes the annotations of contents that are not
    /// there any more.
    ///
    /// # Errors
    /// `Unsupported` when this process does not have all extractors; those of commits, and of reading when it is not about some objects.
    pub(super) async fn annotate_all(&self, lake: &Lakehouse, stop: &watch::Receiver<bool>) -> Result<NotRead> {
        const CONTENT: [&str; 4] = ["key", "version_id", "sequence_number", "e_tag"];
        const OBJECT: [&str; 6] = ["key", "version_id", "sequence_number", "e_tag", "size", "is_delete_marker"];
        let _one = self.annotating.lock().await;
        self.own.extractors.named(&self.extract)?;
        // What comes from now on may be seen twice, but not missed; and when this ends early, nothing was seen.
        self.backlog.take();
        let unseen = Unseen(Some(&self.backlog));
        let annotations = lake.table(&self.names.annotations).await?;
        let inventory = lake.table(&self.names.inventory).await?;
        let mut known = HashSet::new();
        let mut rows = lake.scan(&annotations, Some(&CONTENT.map(str::to_string)), None, None).await?;
        while let Some(batch) = rows.try_next().await? {
            known.extend(contents(&batch)?.into_iter().map(|(_, hash, _)| hash));
        }
        let rows = lake.scan(&inventory, Some(&OBJECT.map(str::to_string)), None, None).await?;
        let not_ours = self.annotation_errors().take_not_ours();
        let mut is_not_ours = |content: KeyHash| {
            let is_not = not_ours.contains(&content);
            if is_not {
                self.annotation_errors().add_not_ours(content);
            }
            is_not
        };
        let targets = rows.map(|batch| new_contents(&batch?, &mut known, &mut is_not_ours));
        let targets = targets.map_ok(|new| stream::iter(new.into_iter().map(Ok)));
        let left = self.annotate(lake, targets.try_flatten(), stop).await?;
        if *stop.borrow() {
            return Ok(left);
        }
        if !known.is_empty() {
            let annotations = lake.table(&self.names.annotations).await?;
            let rows = lake.scan(&annotations, Some(&CONTENT.map(str::to_string)), None, None).await?;
            let gone = rows.map(|batch| gone_contents(&batch?, &known)).map_ok(|gone| stream::iter(gone.into_iter().map(Ok)));
            self.annotate(lake, gone.try_flatten(), stop).await?;
        }
        self.set_annotation_error(left.failure.as_ref());
        self.annotation_errors().note_refused(left.refused.as_ref());
        unseen.seen();
        Ok(left)
    }

    /// Looks at contents, and commits what is learnt as it comes: one at a time. An object that cannot be read does not hold up the others.
    async fn annotate(
        &self,
        lake: &Lakehouse,
        targets: impl Stream<Item = Result<(ObjectId, Target)>> + Send,
        stop: &watch::Receiver<bool>,
    ) -> Result<NotRead> {
        let learners: Arc<[Learner]> = self.own.extractors.named(&self.extract)?.into();
        let looked_at = targets.map(|target| {
            let learners = Arc::clone(&learners);
            async move {
                let (id, target) = target?;
                let looked = self.look_into(id.clone(), target.clone(), learners).await;
                Ok::<_, Error>(looked.map_err(|error| (error, (id, target))))
            }
        });
        let mut looked_at = std::pin::pin!(looked_at.buffer_unordered(READ_AT_ONCE));
        let (mut done, mut left, mut stop) = (Vec::new(), NotRead::default(), stop.clone());
        let mut in_a_row = 0_usize;
        let answers = OnceCell::new();
        let mut due = Instant::now() + COMMITTED_AFTER;
        let ended = loop {
            tokio::select! {
                () = stopped(&mut stop) => break Ok(()),
                () = tokio::time::sleep_until(due), if !done.is_empty() => {}
                next = looked_at.next() => match next {
                    None => break Ok(()),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(Ok(one))) => {
                        in_a_row = 0;
                        done.extend(one);
                    }
                    Some(Ok(Err((error, (id, target))))) if error.kind() == ErrorKind::Unsupported => {
                        // Or it is none of this content, but of all.
                        if !*answers.get_or_init(|| self.source.answers()).await {
                            break Err(error);
                        }
                        let e_tag = target.content.as_ref().and_then(|content| content.e_tag.as_deref());
                        self.annotation_errors().add_not_ours(content_hash(&id, e_tag));
                        tracing::warn!(index = self.name, error = error.report(), "an object is not annotated");
                        left.refused = Some(error);
                    }
                    Some(Ok(Err((error, (id, target))))) => {
                        in_a_row += 1;
                        if left.failed.len() >= FAILED_AT_MOST
                            || in_a_row.is_multiple_of(FAILED_IN_A_ROW) && !self.source.answers().await
                        {
                            break Err(error);
                        }
                        left.failed.insert(id, target);
                        left.failure = Some(error);
                    }
                },
            }
            if done.len() >= COMMITTED_AT_ONCE || Instant::now() >= due {
                self.keep(lake, &std::mem::take(&mut done)).await?;
                due = Instant::now() + COMMITTED_AFTER;
            }
        };
        self.keep(lake, &done).await?;
        ended.map(|()| left)
    }

    /// Looks at a content; `None` when it is another by now, of which another change tells.
    async fn look_into(&self, id: ObjectId, target: Target, learners: Arc<[Learner]>) -> Result<Option<Done>> {
        let sequence = target.sequence;
        let Some(Tagged { e_tag, is_empty }) = target.content else { return Ok(Some(Done { id, sequence, annotated: None })) };
        let ranges = self.source.content(id.clone(), e_tag.clone()).await?;
        let Some(content) = Content::open(id.clone(), is_empty, ranges).await? else { return Ok(None) };
        let learnt = tokio::task::spawn_blocking(move || learn(&learners, &content)).await;
        match learnt.map_err(|e| Error::internal("looking at a content ended early").with_source(e))? {
            Ok(annotation) => Ok(Some(Done { id, sequence, annotated: Some(Annotated { e_tag, annotation }) })),
            Err(Failure::Changed) => Ok(None),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    async fn keep(&self, lake: &Lakehouse, done: &[Done]) -> Result<()> {
        let mut attempt = 1;
        while !done.is_empty() {
            match self.keep_once(lake, done).await {
                Ok(()) => break,
                // Someone compacted the table, or another process annotates.
                Err(e) => attempt = pause_after(lake, e, attempt).await?,
            }
        }
        Ok(())
    }

    /// Whether the inventory has the contents that were looked at. What is gone meanwhile was told of before there was an annotation to
    /// remove.
    async fn still_there(&self, lake: &Lakehouse, done: &[Done]) -> Result<Vec<bool>> {
        let mut guard = self.writer.lock().await;
        let writer = self.take_writer(lake, &mut guard).await?;
        let is_there = |done: &Done| {
            let e_tag = done.annotated.as_ref().and_then(|annotated| annotated.e_tag.as_deref());
            writer.known(&done.id).is_some_and(|known| known.has_e_tag(e_tag))
        };
        let there = done.iter().map(is_there).collect();
        *guard = Some(writer);
        Ok(there)
    }

    /// Puts annotations in the place of those that are there, unless these are of later contents.
    async fn keep_once(&self, lake: &Lakehouse, done: &[Done]) -> Result<()> {
        const COLUMNS: [&str; 5] = ["key", "version_id", "sequence_number", "_file", "_pos"];
        let table = lake.table(&self.names.annotations).await?;
        let wanted: HashMap<&ObjectId, Sequence> = done.iter().map(|done| (&done.id, done.sequence)).collect();
        let keys: Vec<&str> = done.iter().map(|done| done.id.key.as_str()).collect();
        let (mut deleted, mut late): (BTreeMap<String, _>, _) = (BTreeMap::new(), HashSet::new());
        let mut rows = lake.scan(&table, Some(&COLUMNS.map(str::to_string)), Some(&is_one_of(&keys)), None).await?;
        while let Some(batch) = rows.try_next().await? {
            let (sequences, files) = (text(&batch, "sequence_number")?, text(&batch, "_file")?);
            let positions = batch.column_by_name("_pos").and_then(|column| column.as_primitive_opt::<Int64Type>());
            let positions = positions.ok_or_else(|| missing("_pos"))?;
            for (row, id) in ids(&batch)?.into_iter().enumerate() {
                let Some(sequence) = wanted.get(&id) else { continue };
                if Sequence::parse(sequences.value(row))? > *sequence {
                    late.insert(id);
                    continue;
                }
                let places: &mut roaring::RoaringTreemap = deleted.entry(files.value(row).to_string()).or_default();
                places.insert(positions.value(row).cast_unsigned());
            }
        }
        let there = self.still_there(lake, done).await?;
        let added = done.iter().zip(there).filter(|(done, is_there)| *is_there && !late.contains(&done.id));
        let added = added.filter_map(|(done, _)| Some((&done.id, done.sequence, done.annotated.as_ref()?)));
        let now = lake.storage().clock().now_ms().saturating_mul(1000);
        let added = annotation_rows(&self.source.bucket(), now, added)?;
        if added.num_rows() == 0 && deleted.is_empty() {
            return Ok(());
        }
        let batch = batches(&table)? + 1;
        let properties = HashMap::from([(BATCH.to_string(), batch.to_string())]);
        let added = if added.num_rows() > 0 { vec![added] } else { Vec::new() };
        lake.change_rows(&table, RowChange { added, deleted, properties, ..RowChange::default() }).await?;
        if batch.is_multiple_of(due::EVERY)
            && let Err(error) = upkeep::keep_up(lake, &self.names.annotations, true, false).await
        {
            tracing::warn!(index = self.name, error = error.report(), "upkeep of annotations failed");
        }
        Ok(())
    }
}

/// The objects of rows, hashes of which contents they are about, and their sequence numbers.
fn contents(batch: &RecordBatch) -> Result<Vec<(ObjectId, KeyHash, Sequence)>> {
    let (sequences, e_tags) = (text(batch, "sequence_number")?, text(batch, "e_tag")?);
    let content = |(row, id): (usize, ObjectId)| {
        let hash = content_hash(&id, e_tags.is_valid(row).then(|| e_tags.value(row)));
        Ok((id, hash, Sequence::parse(sequences.value(row))?))
    };
    ids(batch)?.into_iter().enumerate().map(content).collect()
}

/// Those objects of the inventory whose content is not among `known`, and ours to read. Of `known` remains what none of them has.
fn new_contents(
    batch: &RecordBatch,
    known: &mut HashSet<KeyHash>,
    is_not_ours: &mut impl FnMut(KeyHash) -> bool,
) -> Result<Vec<(ObjectId, Target)>> {
    let e_tags = text(batch, "e_tag")?;
    let mut new = Vec::new();
    for (row, (id, hash, sequence)) in contents(batch)?.into_iter().enumerate() {
        if flag(batch, "is_delete_marker", row)? == Some(true) || known.remove(&hash) || is_not_ours(hash) {
            continue;
        }
        let e_tag = e_tags.is_valid(row).then(|| e_tags.value(row).to_string());
        let content = Tagged { e_tag, is_empty: number(batch, "size", row)? == Some(0) };
        new.push((id, Target { sequence, content: Some(content) }));
    }
    Ok(new)
}

/// Those annotations whose content is among `gone`.
fn gone_contents(batch: &RecordBatch, gone: &HashSet<KeyHash>) -> Result<Vec<(ObjectId, Target)>> {
    let contents = contents(batch)?.into_iter().filter(|(_, hash, _)| gone.contains(hash));
    Ok(contents.map(|(id, _, sequence)| (id, Target { sequence, content: None })).collect())
}
