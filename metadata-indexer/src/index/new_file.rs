use arrow::array::RecordBatch;
use futures::TryStreamExt;
use tarndb_core::Result;
use tarndb_core::maintenance::RewrittenGroup;

use super::key_index::{self, KeyIndex};
use super::shard::KeyHash;
use crate::record::{ids, missing};

/// The rows of a data file that the key index does not know yet.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) location: String,
    /// Their keys and positions, in the order in which the key index has them: in any other, each of millions would be looked for
    /// somewhere else in memory, while batches wait.
    pub(super) rows: Vec<(KeyHash, u32)>,
}

impl NewFile {
    /// The files of a group.
    ///
    /// # Errors
    /// `DataInvalid` for more rows than the key index can know; those of reading.
    pub(super) async fn of_group(group: &RewrittenGroup) -> Result<Vec<Self>> {
        let mut batches = group.rows(&["key", "version_id"])?;
        let mut files: Vec<Self> = Vec::new();
        while let Some((location, batch)) = batches.try_next().await? {
            if files.last().is_none_or(|file| file.location != location) {
                files.push(Self { location, rows: Vec::new() });
            }
            if let Some(file) = files.last_mut() {
                file.add(&batch)?;
            }
        }
        for file in &mut files {
            file.rows.sort_unstable_by_key(|(key, _)| KeyIndex::order(key));
        }
        Ok(files)
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let (rows, ids) = (&mut self.rows, ids(batch)?);
        // There are millions: not as many again, but an eighth.
        if rows.len() + ids.len() > rows.capacity() {
            rows.reserve_exact(ids.len().max(rows.len() / 8));
        }
        let first = rows.len();
        for (row, id) in ids.iter().enumerate() {
            let position = u32::try_from(first + row).map_err(|_| missing("_pos"))?;
            rows.push((key_index::hash(id), position));
        }
        Ok(())
    }
}
