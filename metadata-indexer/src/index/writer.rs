use std::collections::{BTreeMap, HashMap, HashSet};

use futures::TryStreamExt;
use tarndb_core::{Error, Lakehouse, Result, RowChange, Table};

use super::key_index::{self, KeyIndex, Known};
use crate::folder::is_below;
use crate::record::{RECORD_COLUMNS, Record, Sequence, inventory_rows, journal_rows, records, text};
use crate::tables::{self, TableNames};

/// Property of both tables, set with their rows: how many batches of changes the journal has, and how many of them the inventory has.
/// No commit spans the two, and by this the inventory is brought up when the process ended between them. Summaries of snapshots
/// would expire.
const BATCH: &str = "tarndb.metadata-index.batch";

/// Property of the inventory: every object that was there when the index was created is in it.
const COMPLETE: &str = "tarndb.metadata-index.complete";

/// Folders that are looked for by a condition each.
const MAX_CONDITIONS: usize = 16;

/// Writes the journal and the inventory of one index. After an error it is not used any more: a new one finds out from the tables
/// what took effect.
#[derive(Debug)]
pub(super) struct Writer {
    bucket: String,
    journal: Table,
    inventory: Table,
    keys: KeyIndex,
    batch: u64,
    last: Sequence,
}

fn batches(table: &Table) -> Result<u64> {
    let Some(text) = table.metadata().properties().get(BATCH) else { return Ok(0) };
    text.parse().map_err(|_| {
        let message = format!("table property `{BATCH}` has the value `{text}`, which is no number");
        Error::data_invalid(message).with_context("table", table.ident().to_string())
    })
}

fn batch_property(batch: u64) -> HashMap<String, String> {
    HashMap::from([(BATCH.to_string(), batch.to_string())])
}

impl Writer {
    /// Reads where every key is, and brings the inventory up to the journal.
    pub(super) async fn open(lake: &Lakehouse, names: &TableNames, bucket: &str) -> Result<Self> {
        // In this order: an inventory that is behind its journal is brought up, or conflicts with who does so.
        let inventory = lake.table(&names.inventory).await?;
        let journal = lake.table(&names.journal).await?;
        if tables::source(&journal) != Some(bucket) || tables::source(&inventory) != Some(bucket) {
            return Err(Error::not_found("the metadata index was dropped, and another has its name"));
        }
        let mut keys = KeyIndex::default();
        let highest = keys.read_new_files(lake, &inventory).await?;
        let batch = batches(&journal)?;
        let mut writer =
            Self { bucket: bucket.to_string(), journal, inventory, keys, batch, last: highest.unwrap_or(Sequence::of_time(0)) };
        writer.last = writer.last.max(writer.last_in_journal(lake).await?);
        if batches(&writer.inventory)? != batch {
            writer.replay(lake).await?;
        }
        Ok(writer)
    }

    async fn last_in_journal(&self, lake: &Lakehouse) -> Result<Sequence> {
        let mut rows = lake.scan(&self.journal, Some(&["sequence_number".to_string()]), None, None).await?;
        let mut last = Sequence::of_time(0);
        while let Some(batch) = rows.try_next().await? {
            for sequence in text(&batch, "sequence_number")?.iter().flatten() {
                last = last.max(Sequence::parse(sequence)?);
            }
        }
        Ok(last)
    }

    /// Applies the whole journal, of which what the inventory has already is no change.
    async fn replay(&mut self, lake: &Lakehouse) -> Result<()> {
        let columns = RECORD_COLUMNS.map(str::to_string);
        let mut newest: HashMap<String, Record> = HashMap::new();
        let mut rows = lake.scan(&self.journal, Some(&columns), None, None).await?;
        while let Some(batch) = rows.try_next().await? {
            for record in records(&batch)? {
                // An object that is not in the inventory is not missed by what deleted it.
                let is_applied = match self.keys.get(&record.key) {
                    Some(known) => known.sequence >= record.sequence,
                    None => false,
                };
                if !is_applied && newest.get(&record.key).is_none_or(|other| other.sequence < record.sequence) {
                    newest.insert(record.key.clone(), record);
                }
            }
        }
        self.apply(lake, newest.into_values().collect(), batch_property(self.batch)).await
    }

    /// Whether nobody else wrote to the tables since.
    pub(super) async fn is_current(&self, lake: &Lakehouse, names: &TableNames) -> Result<bool> {
        let same = |now: Table, then: &Table| now.metadata_location() == then.metadata_location();
        Ok(same(lake.table(&names.journal).await?, &self.journal) && same(lake.table(&names.inventory).await?, &self.inventory))
    }

    pub(super) fn known(&self, key: &str) -> Option<Known> {
        self.keys.get(key)
    }

    /// A sequence number after all before, of the time `now` in nanoseconds if it is after them.
    pub(super) fn next_sequence(&mut self, now: u64) -> Sequence {
        self.last = Sequence::of_time(now.max(self.last.time().saturating_add(1)));
        self.last
    }

    /// Whether all objects that were there at the start are in the inventory.
    pub(super) fn is_complete(&self) -> bool {
        self.inventory.metadata().properties().contains_key(COMPLETE)
    }

    /// Says that they are.
    pub(super) async fn complete(&mut self, lake: &Lakehouse) -> Result<()> {
        self.apply(lake, Vec::new(), HashMap::from([(COMPLETE.to_string(), "true".to_string())])).await
    }

    /// Records changes. Of objects that were there before the index, while not all of them are in the inventory, the journal does not
    /// tell.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(super) async fn record(&mut self, lake: &Lakehouse, records: Vec<Record>) -> Result<()> {
        match (records.is_empty(), self.is_complete()) {
            (true, _) => Ok(()),
            (false, true) => self.commit(lake, records).await,
            (false, false) => self.apply(lake, records, HashMap::new()).await,
        }
    }

    /// Adds changes to the journal, then to the inventory. Of each key there is one at most.
    ///
    /// # Errors
    /// `CommitConflict` when someone else wrote to one of the tables.
    async fn commit(&mut self, lake: &Lakehouse, records: Vec<Record>) -> Result<()> {
        let properties = batch_property(self.batch + 1);
        let added = vec![journal_rows(&self.bucket, &records)?];
        let change = RowChange { added, properties: properties.clone(), ..RowChange::default() };
        self.journal = lake.change_rows(&self.journal, change).await?;
        self.batch += 1;
        self.apply(lake, records, properties).await
    }

    /// Makes the inventory what it is after `records`.
    async fn apply(&mut self, lake: &Lakehouse, mut records: Vec<Record>, properties: HashMap<String, String>) -> Result<()> {
        records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut deleted = BTreeMap::new();
        for known in records.iter().filter_map(|record| self.keys.get(&record.key)) {
            self.keys.collect_place(known, &mut deleted);
        }
        let added = inventory_rows(&self.bucket, records.iter().filter(|record| record.state.is_some()))?;
        let added = if added.num_rows() > 0 { vec![added] } else { Vec::new() };
        self.inventory = lake.change_rows(&self.inventory, RowChange { added, deleted, properties }).await?;
        for record in &records {
            self.keys.remove(&record.key);
        }
        self.keys.read_new_files(lake, &self.inventory).await?;
        Ok(())
    }

    /// The keys of the inventory that are not among `seen`, which are hashes of [`key_index::hash`].
    pub(super) async fn others(&self, lake: &Lakehouse, seen: &HashSet<u128>) -> Result<Vec<String>> {
        if self.keys.all_in(seen) {
            return Ok(Vec::new());
        }
        self.keys_where(lake, None, |key| !seen.contains(&key_index::hash(key))).await
    }

    /// The keys of the inventory that lie below one of the folders with these keys.
    pub(super) async fn keys_below(&self, lake: &Lakehouse, folders: &HashSet<String>) -> Result<Vec<String>> {
        let condition = match folders.len() {
            0 => return Ok(Vec::new()),
            // Few are found by the bounds of files, row groups and pages; what would have to be quoted, without.
            1..=MAX_CONDITIONS if folders.iter().all(|folder| !folder.contains(['\'', '\\'])) => {
                let conditions: Vec<String> = folders.iter().map(|folder| format!("starts_with(key, '{folder}/')")).collect();
                Some(conditions.join(" OR "))
            }
            _ => None,
        };
        self.keys_where(lake, condition.as_deref(), |key| is_below(key, folders)).await
    }

    async fn keys_where(&self, lake: &Lakehouse, condition: Option<&str>, keep: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut rows = lake.scan(&self.inventory, Some(&["key".to_string()]), condition, None).await?;
        let mut keys = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            keys.extend(text(&batch, "key")?.iter().flatten().filter(|key| keep(key)).map(str::to_string));
        }
        Ok(keys)
    }
}
