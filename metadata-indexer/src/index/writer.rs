use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt;
use tarndb_core::maintenance::RewrittenGroup;
use tarndb_core::{Error, ErrorKind, Lakehouse, Result, RowChange, Table};

use super::backlog::Backlog;
use super::conditions::{is_one_of, timestamp};
use super::due::Due;
use super::key_index::{self, KeyIndex, Known};
use super::marks::{self, BATCH, BATCH_SINCE, COMPLETE, JOURNAL_SNAPSHOT, LAST, batches, number, property};
use super::new_file::NewFile;
use super::shard::KeyHash;
use super::upkeep;
use crate::event::Dead;
use crate::folder::is_below;
use crate::record::{
    Change, ObjectId, ObjectState, Record, Sequence, dead_letter_rows, ids, inventory_rows, journal_rows, objects, records, text,
    time,
};
use crate::tables::{self, TableNames};

/// Folders that are looked for by a condition each, so many at once.
const MAX_FOLDERS: usize = 512;
const MAX_CONDITIONS: usize = 16;

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
        let old: HashSet<&str> =
            told.filter(|(id, time)| *time < since && self.keys.get(id).is_none()).map(|(id, _)| id.key.as_str()).collect();
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
            let sequences = text(&batch, "sequence_number")?;
            for (row, id) in ids(&batch)?.into_iter().enumerate() {
                let sequence = Sequence::parse(sequences.value(row))?;
                // An older one than the inventory has was followed by something; a newer one is replayed.
                if self.keys.get(&id).is_none() && self.keys.newest(&id).is_none_or(|newest| newest < sequence) {
                    let since = time(&batch, "record_timestamp", row)?;
                    self.keys.set_gone(&id, sequence, at.unwrap_or(since));
                }
            }
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
            let found = records(&batch)?;
            self.recall(lake, found.iter().map(|record| (&record.id, record.timestamp))).await?;
            all.extend(found.into_iter().filter(|record| self.is_newer(record)));
        }
        self.apply(lake, &all.iter().collect::<Vec<_>>(), texts([(BATCH, self.batch.to_string())])).await
    }

    /// Whether nobody else wrote to the tables since.
    pub(super) async fn is_current(&self, lake: &Lakehouse) -> Result<bool> {
        let same = |now: Table, then: &Table| now.metadata_location() == then.metadata_location();
        let journal = same(lake.table(&self.names.journal).await?, &self.journal);
        Ok(journal && same(lake.table(&self.names.inventory).await?, &self.inventory))
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

    /// Adds changes to the journal, then to the inventory.
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
        self.journal = lake.change_rows(&self.journal, RowChange { added, properties, summary, ..RowChange::default() }).await?;
        self.batch += 1;
        self.last = last;
        self.apply(lake, records, texts([(BATCH, batch)])).await?;
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

    /// Whether a change came after what is known of its object.
    fn is_newer(&self, record: &Record) -> bool {
        self.keys.newest(&record.id).is_none_or(|newest| newest < record.sequence)
    }

    /// Makes the inventory what it is after `records`, of which those that are older than what it has are none of its business.
    async fn apply(&mut self, lake: &Lakehouse, records: &[&Record], properties: HashMap<String, String>) -> Result<()> {
        let mut newest: HashMap<KeyHash, &Record> = HashMap::with_capacity(records.len());
        for record in records.iter().copied() {
            match newest.entry(key_index::hash(&record.id)) {
                _ if !self.is_newer(record) => {}
                Entry::Occupied(other) if other.get().sequence >= record.sequence => {}
                Entry::Occupied(mut other) => drop(other.insert(record)),
                Entry::Vacant(place) => drop(place.insert(record)),
            }
        }
        let mut newest: Vec<&Record> = newest.into_values().collect();
        newest.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut deleted = BTreeMap::new();
        for known in newest.iter().filter_map(|record| self.keys.get(&record.id)) {
            self.keys.collect_place(known, &mut deleted);
        }
        let live = newest.iter().copied().filter(|record| record.change.state().is_some());
        let added = inventory_rows(&self.bucket, live)?;
        let added = if added.num_rows() > 0 { vec![added] } else { Vec::new() };
        if !(added.is_empty() && deleted.is_empty() && properties.is_empty()) {
            let journal = self.journal.snapshot().map(|snapshot| (JOURNAL_SNAPSHOT, snapshot.snapshot_id().to_string()));
            let batch = [(BATCH, self.batch.to_string())];
            let summary = texts(batch.into_iter().chain(journal));
            self.inventory = lake.change_rows(&self.inventory, RowChange { added, deleted, properties, summary }).await?;
        }
        if let Some(backlog) = &self.backlog {
            let is_same = |record: &Record| {
                let e_tag = record.change.state().and_then(|state| state.e_tag.as_deref());
                self.keys.get(&record.id).is_some_and(|known| known.has_e_tag(e_tag))
            };
            backlog.add(newest.iter().copied(), is_same);
        }
        for record in newest.iter().filter(|record| record.change == Change::Deleted) {
            self.keys.set_gone(&record.id, record.sequence, record.timestamp);
        }
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

    /// Which of these changes the journal has already: changes of the same object with the same sequence number.
    pub(super) async fn journaled(&self, lake: &Lakehouse, changes: &[&Record]) -> Result<HashSet<(KeyHash, Sequence)>> {
        let columns = ["key", "version_id", "sequence_number"].map(str::to_string);
        let wanted: HashSet<(KeyHash, Sequence)> =
            changes.iter().map(|record| (key_index::hash(&record.id), record.sequence)).collect();
        let mut found = HashSet::new();
        // Those of a time lie together, and few keys are few files and pages, however long ago it was.
        let mut changes = changes.to_vec();
        changes.sort_unstable_by_key(|record| record.timestamp);
        for some in changes.chunks(MAX_KEYS) {
            let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
            let (first, last) = (timestamp(first.timestamp), timestamp(last.timestamp));
            let keys: HashSet<&str> = some.iter().map(|record| record.id.key.as_str()).collect();
            let keys = is_one_of(&keys.into_iter().collect::<Vec<_>>());
            let condition = format!("record_timestamp >= {first} AND record_timestamp <= {last} AND {keys}");
            let mut rows = lake.scan(&self.journal, Some(&columns), Some(&condition), None).await?;
            while let Some(batch) = rows.try_next().await? {
                let sequences = text(&batch, "sequence_number")?;
                for (row, id) in ids(&batch)?.iter().enumerate() {
                    let change = (key_index::hash(id), Sequence::parse(sequences.value(row))?);
                    if wanted.contains(&change) {
                        found.insert(change);
                    }
                }
            }
        }
        Ok(found)
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

    /// The objects of the inventory that are not among `seen`.
    pub(super) async fn others(&self, lake: &Lakehouse, seen: &HashSet<KeyHash>) -> Result<Vec<ObjectId>> {
        if self.keys.all_in(seen) {
            return Ok(Vec::new());
        }
        self.objects_where(lake, None, |id| !seen.contains(&key_index::hash(id))).await
    }

    /// The objects of the inventory that lie below one of the folders with these keys.
    pub(super) async fn objects_below(&self, lake: &Lakehouse, folders: &HashSet<String>) -> Result<Vec<ObjectId>> {
        let is_wanted = |id: &ObjectId| is_below(&id.key, folders);
        // Few are found by the bounds of files, row groups and pages; what would have to be quoted, without.
        if folders.len() > MAX_FOLDERS || folders.iter().any(|folder| folder.contains(['\'', '\\'])) {
            return self.objects_where(lake, None, is_wanted).await;
        }
        let conditions: Vec<String> = folders.iter().map(|folder| format!("starts_with(key, '{folder}/')")).collect();
        let mut found = HashSet::new();
        for some in conditions.chunks(MAX_CONDITIONS) {
            found.extend(self.objects_where(lake, Some(&some.join(" OR ")), is_wanted).await?);
        }
        Ok(found.into_iter().collect())
    }

    async fn objects_where(
        &self,
        lake: &Lakehouse,
        condition: Option<&str>,
        keep: impl Fn(&ObjectId) -> bool,
    ) -> Result<Vec<ObjectId>> {
        let columns = ["key", "version_id"].map(str::to_string);
        let mut rows = lake.scan(&self.inventory, Some(&columns), condition, None).await?;
        let mut objects = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            objects.extend(ids(&batch)?.into_iter().filter(|id| keep(id)));
        }
        Ok(objects)
    }

    /// What the inventory has of these objects.
    pub(super) async fn states(&self, lake: &Lakehouse, ids: &HashSet<ObjectId>) -> Result<HashMap<ObjectId, ObjectState>> {
        let known: Vec<&ObjectId> = ids.iter().filter(|id| self.keys.get(id).is_some()).collect();
        let mut states = HashMap::new();
        for some in known.chunks(MAX_KEYS) {
            let keys: Vec<&str> = some.iter().map(|id| id.key.as_str()).collect();
            let mut rows = lake.scan(&self.inventory, None, Some(&is_one_of(&keys)), None).await?;
            while let Some(batch) = rows.try_next().await? {
                states.extend(objects(&batch)?.into_iter().filter(|(id, _)| ids.contains(id)));
            }
        }
        Ok(states)
    }
}
