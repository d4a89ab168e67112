mod look_up;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt;
use tarndb_core::maintenance::RewrittenGroup;
use tarndb_core::{Error, ErrorKind, Lakehouse, Result, RowChange, Table, WrittenChange};
use tokio::task::JoinSet;

use super::backlog::Backlog;
use super::conditions::{is_one_of, timestamp};
use super::due::Due;
use super::key_index::{KeyIndex, Known, LookedUp};
use super::marks::{self, BATCH, BATCH_SINCE, COMPLETE, JOURNAL_SNAPSHOT, LAST, batches, number, property};
use super::new_file::NewFile;
use super::shard::KeyHash;
use super::upkeep;
use crate::event::Dead;
use crate::record::{
    Change, ObjectId, Record, Sequence, dead_letter_rows, ids, inventory_rows, journal_rows, records, text, time,
};
use crate::tables::{self, TableNames};

/// Keys that are looked for at once.
const MAX_KEYS: usize = 1000;

/// How long what is told late of an object that is gone is known to be late: as long as a queue keeps a message.
const GONE_FOR_DAYS: i64 = 14;

const DAY: i64 = 86_400_000_000;

/// Writes the journal and the inventory of one index. After an error it is not used any more: a new one finds out from the tables
/// what took effect.
#[derive(Debug)]
pub(super) struct Writer {
    bucket: String,
    names: TableNames,
    journal: Table,
    inventory: Table,
    keys: KeyIndex,
    /// Where changes of contents are told, where anybody looks at these.
    backlog: Option<Arc<Backlog>>,
    /// Where batches are told.
    due: Arc<Due>,
    batch: u64,
    last: Sequence,
    /// The day since 1970 on which what is gone for long was forgotten.
    forgotten: i64,
    /// Since when what is gone is known, in microseconds since 1970, where that is not as long ago as it might be.
    gone_since: i64,
    /// The day since 1970 on which the journal lost what it keeps no longer.
    shortened: Option<i64>,
}

/// A change of the inventory whose files are written.
struct Written<'a> {
    /// The newest of the changes of each object, by key, and the object as it was.
    newest: Vec<(&'a Record, Option<Known>)>,
    /// `None` where nothing changes.
    change: Option<WrittenChange>,
}

impl Written<'_> {
    async fn discard(self) {
        if let Some(change) = self.change {
            change.discard().await;
        }
    }
}

/// The objects that are there, of such changes.
fn live<'a>(newest: &[(&'a Record, Option<Known>)]) -> impl Iterator<Item = &'a Record> + Clone {
    newest.iter().map(|(record, _)| *record).filter(|record| record.change.state().is_some())
}

/// Whether the content of an object after a change is that of before, of which this is known.
fn is_same_content(record: &Record, before: Option<Known>) -> bool {
    let e_tag = record.change.state().and_then(|state| state.e_tag.as_deref());
    before.is_some_and(|known| known.has_e_tag(e_tag))
}

fn met_another() -> Error {
    Error::new(ErrorKind::CommitConflict, "another process wrote to the metadata index during upkeep")
}

fn texts<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> HashMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn today(lake: &Lakehouse) -> i64 {
    lake.storage().clock().now_ms().saturating_mul(1000).div_euclid(DAY)
}

impl Writer {
    /// Reads where every key is, and brings the inventory up to the journal.
    pub(super) async fn open(
        lake: &Lakehouse,
        names: &TableNames,
        bucket: &str,
        source: &str,
        (backlog, due): (Option<Arc<Backlog>>, Arc<Due>),
    ) -> Result<Self> {
        // In this order: an inventory that is behind its journal is brought up, or conflicts with who does so.
        let inventory = lake.table(&names.inventory).await?;
        let journal = lake.table(&names.journal).await?;
        if tables::source(&journal) != Some(source) || tables::source(&inventory) != Some(source) {
            return Err(Error::not_found("the metadata index was dropped, and another has its name"));
        }
        // It is one behind at most, unless both were changed since it was loaded.
        if batches(&journal)? > batches(&inventory)? + 1 {
            let message = "another process wrote to the metadata index while its tables were loaded";
            return Err(Error::new(ErrorKind::CommitConflict, message));
        }
        let mut keys = KeyIndex::default();
        let highest = keys.read_new_files(lake, &inventory).await?.unwrap_or(Sequence::FIRST);
        let last = property(&journal, LAST).map(Sequence::parse).transpose()?.unwrap_or(Sequence::FIRST).max(highest);
        let (batch, names, bucket, forgotten) = (batches(&journal)?, names.clone(), bucket.to_string(), today(lake));
        let mut writer = Self {
            bucket,
            names,
            journal,
            inventory,
            keys,
            backlog,
            due,
            batch,
            last,
            forgotten,
            gone_since: i64::MIN,
            shortened: None,
        };
        writer.read_gone(lake).await?;
        if batches(&writer.inventory)? != batch {
            writer.replay(lake).await?;
        }
        Ok(writer)
    }

    /// Reads what is gone since not long ago.
    async fn read_gone(&mut self, lake: &Lakehouse) -> Result<()> {
        let since = timestamp(self.remembered_since(lake));
        self.read_gone_where(lake, &format!("record_timestamp >= {since}"), None).await
    }

    /// Since when it is known what is gone, in microseconds since 1970.
    pub(super) fn remembered_since(&self, lake: &Lakehouse) -> i64 {
        (today(lake) - GONE_FOR_DAYS).saturating_mul(DAY).max(self.gone_since)
    }

    /// Remembers what is gone for longer than that, of objects of which something is told that happened so long ago. Where the store
    /// never told anything, nothing has to be.
    pub(super) async fn recall(&mut self, lake: &Lakehouse, told: impl Iterator<Item = (&ObjectId, i64)>) -> Result<()> {
        if !self.has_events() {
            return Ok(());
        }
        let since = self.remembered_since(lake);
        let told: Vec<&ObjectId> = told.filter(|(_, time)| *time < since).map(|(id, _)| id).collect();
        let unknown = told.iter().zip(self.look_up(told.iter().copied())).filter(|(_, found)| found.known.is_none());
        let old: HashSet<&str> = unknown.map(|(id, _)| id.key.as_str()).collect();
        let old: Vec<&str> = old.into_iter().collect();
        for some in old.chunks(MAX_KEYS) {
            let condition = format!("record_timestamp < {} AND {}", timestamp(since), is_one_of(some));
            self.read_gone_where(lake, &condition, Some(lake.storage().clock().now_ms().saturating_mul(1000))).await?;
        }
        Ok(())
    }

    /// Reads what is gone, and remembers it as if it went at a time in microseconds since 1970, or when it did.
    async fn read_gone_where(&mut self, lake: &Lakehouse, condition: &str, at: Option<i64>) -> Result<()> {
        let condition = format!("record_type = 'DELETE' AND is_delete_marker IS NULL AND {condition}");
        let columns = ["key", "version_id", "sequence_number", "record_timestamp"].map(str::to_string);
        let mut rows = lake.scan(&self.journal, Some(&columns), Some(&condition), None).await?;
        while let Some(batch) = rows.try_next().await? {
            let (ids, sequences) = (ids(&batch)?, text(&batch, "sequence_number")?);
            let mut gone: HashMap<KeyHash, (&ObjectId, Sequence, i64)> = HashMap::new();
            for (row, (id, found)) in ids.iter().zip(self.look_up(ids.iter())).enumerate() {
                let sequence = Sequence::parse(sequences.value(row))?;
                // An older one than the inventory has was followed by something; a newer one is replayed.
                let is_newest = found.newest.max(gone.get(&found.key).map(|gone| gone.1)).is_none_or(|newest| newest < sequence);
                if found.known.is_none() && is_newest {
                    let since = time(&batch, "record_timestamp", row)?;
                    gone.insert(found.key, (id, sequence, at.unwrap_or(since)));
                }
            }
            self.keys.set_gone(gone.into_values());
            self.bound_gone();
        }
        Ok(())
    }

    /// Applies the last batch of the journal, and what is of the same time, of which what the inventory has already is no change.
    async fn replay(&mut self, lake: &Lakehouse) -> Result<()> {
        let condition = number(&self.journal, BATCH_SINCE)?.map(|since| format!("record_timestamp >= {}", timestamp(since)));
        let mut all = Vec::new();
        let mut rows = lake.scan(&self.journal, None, condition.as_deref(), None).await?;
        while let Some(batch) = rows.try_next().await? {
            let found = self.news(records(&batch)?);
            // What was found by looking may come before what happened long before it.
            self.recall(lake, found.iter().map(|record| (&record.id, i64::MIN))).await?;
            all.extend(self.news(found));
        }
        self.apply(lake, &all.iter().collect::<Vec<_>>(), texts([(BATCH, self.batch.to_string())])).await
    }

    /// Those of the changes that come after what is known.
    fn news(&self, changes: Vec<Record>) -> Vec<Record> {
        let known = self.look_up(changes.iter().map(|record| &record.id));
        let news = changes.into_iter().zip(known).filter(|(record, known)| known.is_before(record.sequence));
        news.map(|(record, _)| record).collect()
    }

    /// Whether nobody else wrote to the tables since.
    pub(super) async fn is_current(&self, lake: &Lakehouse) -> Result<bool> {
        let same = |now: Table, then: &Table| now.metadata_location() == then.metadata_location();
        let journal = same(lake.table(&self.names.journal).await?, &self.journal);
        Ok(journal && same(lake.table(&self.names.inventory).await?, &self.inventory))
    }

    /// What is known of objects, in their order.
    pub(super) fn look_up<'a>(&self, ids: impl Iterator<Item = &'a ObjectId>) -> Vec<LookedUp> {
        self.keys.look_up(ids)
    }

    /// The object as the inventory has it.
    pub(super) fn known(&self, id: &ObjectId) -> Option<Known> {
        self.keys.get(id)
    }

    /// The newest change that is known of an object, whether it is there or gone.
    pub(super) fn newest(&self, id: &ObjectId) -> Option<Sequence> {
        self.keys.newest(id)
    }

    /// A sequence number after all before, of the time `now` in nanoseconds if it is after them.
    pub(super) fn next_sequence(&mut self, now: u64) -> Sequence {
        self.last = Sequence::of_time(now.max(self.last.time().saturating_add(1)));
        self.last
    }

    /// Whether the store ever told of anything.
    pub(super) fn has_events(&self) -> bool {
        self.last.is_of_store()
    }

    /// As [`marks::is_complete`].
    pub(super) fn is_complete(&self) -> bool {
        marks::is_complete(&self.inventory)
    }

    /// Says that they are.
    pub(super) async fn complete(&mut self, lake: &Lakehouse) -> Result<()> {
        self.apply(lake, &[], texts([(COMPLETE, "true".to_string())])).await?;
        // What a listing found is to be looked for by key.
        self.due.add_all();
        Ok(())
    }

    /// Records what was found by looking. Of objects that were there before the index, while not all of them are in the inventory,
    /// the journal does not tell.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(super) async fn record(&mut self, lake: &Lakehouse, records: &[Record]) -> Result<()> {
        match (records.is_empty(), self.is_complete()) {
            (true, _) => Ok(()),
            (false, true) => self.commit(lake, &records.iter().collect::<Vec<_>>()).await,
            (false, false) => {
                self.apply(lake, &records.iter().collect::<Vec<_>>(), HashMap::new()).await?;
                self.due.add_listed();
                Ok(())
            }
        }
    }

    /// Adds changes to the journal, then to the inventory, whose files are written meanwhile.
    ///
    /// # Errors
    /// `CommitConflict` when someone else wrote to one of the tables.
    pub(super) async fn commit(&mut self, lake: &Lakehouse, records: &[&Record]) -> Result<()> {
        let Some(since) = records.iter().map(|record| record.timestamp).min() else { return Ok(()) };
        let last = records.iter().map(|record| record.sequence).max().unwrap_or(self.last).max(self.last);
        let batch = (self.batch + 1).to_string();
        let properties = texts([(BATCH, batch.clone()), (BATCH_SINCE, since.to_string()), (LAST, last.text())]);
        let summary = texts([(BATCH, batch.clone())]);
        let added = vec![journal_rows(&self.bucket, records.iter().copied())?];
        let change = RowChange { added, properties, summary, ..RowChange::default() };
        // In a task of its own, which ends with this: both take as long.
        let mut journaling = JoinSet::new();
        let (for_journal, journal) = (lake.clone(), self.journal.clone());
        journaling.spawn(async move { for_journal.change_rows(&journal, change).await });
        let written = self.write_to_inventory(lake, records, texts([(BATCH, batch)])).await;
        let stopped = |source| Error::internal("writing to a journal stopped").with_source(source);
        let journaled = match journaling.join_next().await {
            Some(ended) => ended.map_err(stopped).flatten(),
            None => Err(Error::internal("nothing was written to a journal")),
        };
        match (journaled, written) {
            (Ok(journal), Ok(written)) => {
                self.journal = journal;
                self.batch += 1;
                self.last = last;
                self.commit_to_inventory(lake, written).await?;
            }
            // What became of the journal is what the caller has to know, whatever became of the rest.
            (Err(error), written) => {
                if let Ok(written) = written {
                    written.discard().await;
                }
                return Err(error);
            }
            (Ok(_), Err(error)) => return Err(error),
        }
        self.due.add(self.batch);
        if let Err(error) = self.shorten(lake).await {
            // The changes are there. What was done before it failed makes this writer old, which is found out.
            tracing::warn!(table = %self.journal.ident(), error = error.report(), "a journal could not be shortened");
        }
        Ok(())
    }

    /// Forgets what the journal keeps no longer, once a day.
    async fn shorten(&mut self, lake: &Lakehouse) -> Result<()> {
        let today = today(lake);
        if self.shortened.replace(today) == Some(today) {
            return Ok(());
        }
        let Some(days) = tables::options(&self.journal)?.journal_retention_days()? else { return Ok(()) };
        let before = timestamp((today - i64::from(days)).saturating_mul(DAY));
        lake.delete(&self.names.journal, &format!("record_timestamp < {before}")).await?;
        self.journal = self.unchanged_journal(lake).await?;
        if tables::dead_letters(lake, &self.names).await?.is_some() {
            lake.delete(&self.names.dead_letters, &format!("received_at < {before}")).await?;
        }
        Ok(())
    }

    /// The journal by now, after a commit by this process. Where its rows are is nothing that is known here.
    async fn unchanged_journal(&self, lake: &Lakehouse) -> Result<Table> {
        let journal = lake.table(&self.names.journal).await?;
        if batches(&journal)? == self.batch { Ok(journal) } else { Err(met_another()) }
    }

    /// Puts new files of the journal in the place of old ones.
    pub(super) async fn replace_in_journal(&mut self, lake: &Lakehouse, group: RewrittenGroup) -> Result<()> {
        group.commit().await?;
        self.journal = self.unchanged_journal(lake).await?;
        Ok(())
    }

    /// Puts new files of the inventory in the place of old ones, but for rows that changed since these were read.
    pub(super) async fn replace_in_inventory(&mut self, group: RewrittenGroup, new: Vec<NewFile>) -> Result<()> {
        let old = self.keys.numbers_of(group.replaced());
        if old.is_empty() {
            // Nothing that is known is in these files any more.
            group.discard().await;
            return Ok(());
        }
        // Before the commit, in one pass: if that fails, this writer is not used any more.
        let changed = self.keys.move_to(&old, new)?;
        self.inventory = group.commit_with_deletes(&self.inventory, changed).await?;
        Ok(())
    }

    /// Expires snapshots of both tables, and forgets files of which nothing is left.
    pub(super) async fn expire(&mut self, lake: &Lakehouse) -> Result<()> {
        self.keys.forget_empty_files();
        for table in [&self.journal, &self.inventory] {
            upkeep::expire(lake, table, self.due.needed_since()).await?;
        }
        self.journal = self.unchanged_journal(lake).await?;
        let inventory = lake.table(&self.names.inventory).await?;
        // Places of rows are known of this snapshot, and of no other, even if it has the same rows.
        let snapshot = |table: &Table| table.snapshot().map(|snapshot| snapshot.snapshot_id());
        if snapshot(&inventory) != snapshot(&self.inventory) {
            return Err(met_another());
        }
        self.inventory = inventory;
        Ok(())
    }

    /// Makes the inventory what it is after `records`, of which those that are older than what it has are none of its business.
    async fn apply(&mut self, lake: &Lakehouse, records: &[&Record], properties: HashMap<String, String>) -> Result<()> {
        let written = self.write_to_inventory(lake, records, properties).await?;
        self.commit_to_inventory(lake, written).await
    }

    /// Writes the files by which the inventory becomes that.
    async fn write_to_inventory<'a>(
        &self,
        lake: &Lakehouse,
        records: &[&'a Record],
        properties: HashMap<String, String>,
    ) -> Result<Written<'a>> {
        let mut newest: HashMap<KeyHash, (&Record, Option<Known>)> = HashMap::with_capacity(records.len());
        for (record, found) in records.iter().copied().zip(self.look_up(records.iter().map(|record| &record.id))) {
            match newest.entry(found.key) {
                _ if !found.is_before(record.sequence) => {}
                Entry::Occupied(other) if other.get().0.sequence >= record.sequence => {}
                Entry::Occupied(mut other) => drop(other.insert((record, found.known))),
                Entry::Vacant(place) => drop(place.insert((record, found.known))),
            }
        }
        let deleted = self.keys.places(newest.values().filter_map(|(_, known)| *known));
        let mut newest: Vec<(&Record, Option<Known>)> = newest.into_values().collect();
        newest.sort_unstable_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        let added = inventory_rows(&self.bucket, live(&newest))?;
        let added = if added.num_rows() > 0 { vec![added] } else { Vec::new() };
        let is_change = !(added.is_empty() && deleted.is_empty() && properties.is_empty());
        let change = RowChange { added, deleted, properties, ..RowChange::default() };
        let change = if is_change { Some(lake.write_change(&self.inventory, change).await?) } else { None };
        Ok(Written { newest, change })
    }

    /// Makes the inventory that, after the journal tells of it.
    async fn commit_to_inventory(&mut self, lake: &Lakehouse, Written { newest, change }: Written<'_>) -> Result<()> {
        if let Some(change) = change {
            let journal = self.journal.snapshot().map(|snapshot| (JOURNAL_SNAPSHOT, snapshot.snapshot_id().to_string()));
            let batch = [(BATCH, self.batch.to_string())];
            self.inventory = change.commit(texts(batch.into_iter().chain(journal))).await?;
        }
        if let Some(backlog) = &self.backlog {
            backlog.add(newest.iter().map(|(record, known)| (*record, is_same_content(record, *known))));
        }
        let gone = newest.iter().map(|(record, _)| record).filter(|record| record.change == Change::Deleted);
        self.keys.set_gone(gone.map(|record| (&record.id, record.sequence, record.timestamp)));
        self.keys.read_new_files(lake, &self.inventory).await?;
        self.forget_gone(lake);
        Ok(())
    }

    fn forget_gone(&mut self, lake: &Lakehouse) {
        let today = today(lake);
        if today > self.forgotten {
            self.forgotten = today;
            self.keys.forget_gone_before((today - GONE_FOR_DAYS).saturating_mul(DAY));
        }
        self.bound_gone();
    }

    fn bound_gone(&mut self) {
        if let Some(since) = self.keys.bound_gone() {
            self.gone_since = self.gone_since.max(since);
        }
    }

    /// Keeps aside what was not understood.
    pub(super) async fn keep_aside(&self, lake: &Lakehouse, dead: &[Dead]) -> Result<()> {
        if dead.is_empty() {
            return Ok(());
        }
        let rows = dead_letter_rows(lake.storage().clock().now_ms().saturating_mul(1000), dead)?;
        let source = tables::source(&self.journal).unwrap_or_default();
        tables::create_dead_letters(lake, &self.names, source).await?;
        lake.append_batches(&self.names.dead_letters, vec![rows]).await?;
        // They are there, whether it is known that there are many or not.
        if let Ok(Some(table)) = tables::dead_letters(lake, &self.names).await {
            self.due.add(table.metadata().last_sequence_number().unsigned_abs());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Index;
    use super::*;
    use crate::record::{ObjectState, Origin};
    use crate::{MetadataIndexer, MetadataIndexes};

    fn created(key: &str, number: u64) -> Record {
        let state = ObjectState { size: Some(1), e_tag: Some(format!("{number}")), ..ObjectState::default() };
        Record {
            id: ObjectId::of_key(key),
            sequence: Sequence::of_time(number),
            timestamp: 1_800_000_000_000_000,
            change: Change::Created(state),
            origin: Origin::default(),
        }
    }

    /// A lake with an index that nobody follows, of `folder`.
    async fn indexed(folder: &std::path::Path) -> (Lakehouse, Arc<Index>) {
        let indexer = Arc::new(MetadataIndexer::default());
        let lake = Lakehouse::builder("memory://").with_extension(Arc::clone(&indexer) as _).build().await.unwrap();
        lake.create_metadata_index("docs", folder.to_str().unwrap()).await.unwrap();
        let index = indexer.index(&lake, "docs").await.unwrap();
        index.stop().await;
        (lake, index)
    }

    async fn rows(lake: &Lakehouse, sql: &str) -> usize {
        lake.sql(sql).await.unwrap().collect().await.unwrap().iter().map(|batch| batch.num_rows()).sum()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_stays_of_a_batch_that_the_journal_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, index) = indexed(folder.path()).await;
        let files = async || -> BTreeSet<String> {
            let data = format!("{}/data", lake.table("docs.inventory").await.unwrap().metadata().location());
            lake.storage().list(&data).unwrap().map_ok(|file| file.location).try_collect().await.unwrap()
        };
        let far = u64::MAX / 4;
        let first = [created("a", far), created("b", far + 1)];
        index.write_alone(&lake, async |writer| writer.record(&lake, &first).await).await.unwrap();
        let before = files().await;
        assert!(!before.is_empty());
        let second = [created("a", far + 2), created("c", far + 3)];
        let refused = index.write_alone(&lake, async |writer| {
            rows(&lake, "INSERT INTO docs.journal SELECT * FROM docs.journal WHERE key = 'b'").await;
            writer.record(&lake, &second).await
        });
        assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::CommitConflict);
        assert_eq!(files().await, before);
        // Who looks again has it.
        index.write_alone(&lake, async |writer| writer.record(&lake, &second).await).await.unwrap();
        assert_eq!(rows(&lake, "SELECT * FROM docs.inventory").await, 3);
        assert_eq!(rows(&lake, "SELECT * FROM docs.journal WHERE key IN ('a', 'c')").await, 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_went_stays_gone_when_the_last_batch_is_applied_again() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, index) = indexed(folder.path()).await;
        let far = u64::MAX / 4;
        // It was found by looking, and it is told late that it went, long ago.
        let found = [created("a", far)];
        index.write_alone(&lake, async |writer| writer.record(&lake, &found).await).await.unwrap();
        let gone = [Record { change: Change::Deleted, timestamp: 0, ..created("a", far + 1) }];
        index.write_alone(&lake, async |writer| writer.record(&lake, &gone).await).await.unwrap();
        // What the inventory does not have yet happened at the same time as that was found.
        let open = async || Writer::open(&lake, &index.names, "", &index.source.url(), (None, Arc::default())).await.unwrap();
        let (before, last) = (open().await, [created("b", far + 2)]);
        let batch = (before.batch + 1).to_string();
        let properties = texts([(BATCH, batch), (BATCH_SINCE, last[0].timestamp.to_string()), (LAST, last[0].sequence.text())]);
        let change = RowChange { added: vec![journal_rows("", last.iter()).unwrap()], properties, ..RowChange::default() };
        lake.change_rows(&before.journal, change).await.unwrap();
        let again = open().await;
        assert_eq!(again.batch, before.batch + 1);
        assert!(again.known(&ObjectId::of_key("a")).is_none());
        for (condition, there) in [("key = 'a'", 0), ("key = 'b'", 1)] {
            assert_eq!(rows(&lake, &format!("SELECT * FROM docs.inventory WHERE {condition}")).await, there, "{condition}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_an_object_that_went_often_the_last_time_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, index) = indexed(folder.path()).await;
        let far = u64::MAX / 4;
        // In one batch, in both orders.
        let gone = |key: &str, number: u64| Record { change: Change::Deleted, ..created(key, far + number) };
        let changes = [gone("up", 1), gone("up", 2), gone("up", 3), gone("down", 6), gone("down", 5), gone("down", 4)];
        index.write_alone(&lake, async |writer| writer.record(&lake, &changes).await).await.unwrap();
        // By who reads it from the journal.
        let again = Writer::open(&lake, &index.names, "", &index.source.url(), (None, Arc::default())).await.unwrap();
        for (key, last) in [("up", 3), ("down", 6)] {
            assert_eq!(again.newest(&ObjectId::of_key(key)), Some(Sequence::of_time(far + last)));
            assert!(again.known(&ObjectId::of_key(key)).is_none());
        }
    }
}
