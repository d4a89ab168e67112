//! What the tables have, as far as the key index does not know it.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use tarndb_core::{Lakehouse, Result};

use super::super::conditions::{is_one_of, timestamp};
use super::super::key_index;
use super::super::shard::KeyHash;
use super::{MAX_KEYS, Writer};
use crate::folder::is_below;
use crate::record::{ObjectId, ObjectState, Record, Sequence, ids, objects, text};

/// Folders that are looked for by a condition each, so many at once.
const MAX_FOLDERS: usize = 512;
const MAX_CONDITIONS: usize = 16;

impl Writer {
    /// Which of these changes the journal has already: changes of the same object with the same sequence number.
    pub(in crate::index) async fn journaled(
        &self,
        lake: &Lakehouse,
        changes: &[&Record],
    ) -> Result<HashSet<(KeyHash, Sequence)>> {
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

    /// The objects of the inventory that are not among `seen`.
    pub(in crate::index) async fn others(&self, lake: &Lakehouse, seen: &HashSet<KeyHash>) -> Result<Vec<ObjectId>> {
        if self.keys.all_in(seen) {
            return Ok(Vec::new());
        }
        self.objects_where(lake, None, |id| !seen.contains(&key_index::hash(id))).await
    }

    /// The objects of the inventory that lie below one of the folders with these keys.
    pub(in crate::index) async fn objects_below(&self, lake: &Lakehouse, folders: &HashSet<String>) -> Result<Vec<ObjectId>> {
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

    /// The objects of the inventory with these keys.
    pub(in crate::index) async fn objects_of(&self, lake: &Lakehouse, keys: &HashSet<&str>) -> Result<Vec<ObjectId>> {
        let keys: Vec<&str> = keys.iter().copied().collect();
        let mut objects = Vec::new();
        for some in keys.chunks(MAX_KEYS) {
            objects.extend(self.objects_where(lake, Some(&is_one_of(some)), |_| true).await?);
        }
        Ok(objects)
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
    pub(in crate::index) async fn states(
        &self,
        lake: &Lakehouse,
        ids: &HashSet<ObjectId>,
    ) -> Result<HashMap<ObjectId, ObjectState>> {
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
