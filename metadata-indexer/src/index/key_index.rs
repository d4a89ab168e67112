use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tarndb_core::{Lakehouse, Result, Table};
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::record::{Sequence, missing, text};

/// Where the rows of the inventory are, by the hashes of their keys: what a new change of an object needs to know of it.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    keys: HashMap<u128, Known>,
    /// The data files of the inventory that were read, and their numbers.
    files: Vec<String>,
    numbers: HashMap<String, u32>,
}

/// What is known of an object that is in the inventory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) sequence: Sequence,
    e_tag: u64,
    file: u32,
    position: u32,
}

/// That by which a key is known.
pub(super) fn hash(key: &str) -> u128 {
    XxHash3_128::oneshot(key.as_bytes())
}

impl Known {
    pub(super) fn has_e_tag(self, e_tag: &str) -> bool {
        self.e_tag == XxHash3_64::oneshot(e_tag.as_bytes())
    }
}

impl KeyIndex {
    pub(super) fn get(&self, key: &str) -> Option<Known> {
        self.keys.get(&hash(key)).copied()
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.keys.remove(&hash(key));
    }

    /// Adds the place of a row to `places`.
    pub(super) fn collect_place(&self, known: Known, places: &mut BTreeMap<String, RoaringTreemap>) {
        if let Some(file) = self.files.get(known.file as usize) {
            places.entry(file.clone()).or_default().insert(known.position.into());
        }
    }

    /// Reads the data files of the inventory that were not read yet; the highest sequence number in them.
    pub(super) async fn read_new_files(&mut self, lake: &Lakehouse, inventory: &Table) -> Result<Option<Sequence>> {
        const COLUMNS: [&str; 5] = ["key", "sequence_number", "e_tag", "_file", "_pos"];
        let read = self.numbers.keys().cloned().collect();
        let mut rows = lake.scan_other_files(inventory, &COLUMNS.map(str::to_string), read).await?;
        let mut highest = None;
        while let Some(batch) = rows.try_next().await? {
            let (keys, sequences, e_tags) = (text(&batch, "key")?, text(&batch, "sequence_number")?, text(&batch, "e_tag")?);
            let files = text(&batch, "_file")?;
            let positions = batch.column_by_name("_pos").and_then(|column| column.as_primitive_opt::<Int64Type>());
            let positions = positions.ok_or_else(|| missing("_pos"))?;
            for row in 0..batch.num_rows() {
                let file = match self.numbers.get(files.value(row)) {
                    Some(number) => *number,
                    None => {
                        let number = u32::try_from(self.files.len()).map_err(|_| missing("_file"))?;
                        self.files.push(files.value(row).to_string());
                        self.numbers.insert(files.value(row).to_string(), number);
                        number
                    }
                };
                let sequence = Sequence::parse(sequences.value(row))?;
                let position = u32::try_from(positions.value(row)).map_err(|_| missing("_pos"))?;
                let e_tag = XxHash3_64::oneshot(e_tags.value(row).as_bytes());
                self.keys.insert(hash(keys.value(row)), Known { sequence, e_tag, file, position });
                highest = highest.max(Some(sequence));
            }
        }
        Ok(highest)
    }

    /// Whether all keys are among those of which the hashes are in `seen`.
    pub(super) fn all_in(&self, seen: &HashSet<u128>) -> bool {
        self.keys.keys().all(|key| seen.contains(key))
    }
}
