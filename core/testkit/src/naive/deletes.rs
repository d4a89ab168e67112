use std::collections::{HashMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use roaring::RoaringTreemap;
use tarndb_catalog::Storage;

use super::avro::File;
use super::columns::Columns;
use super::file_batches;

/// The deletes of a snapshot: for each file its positions by data file, or its values as lines of text.
pub(super) struct Deletes {
    positions: Vec<(File, HashMap<String, HashSet<u64>>)>,
    values: Vec<(File, HashSet<String>)>,
}

/// The values of a batch's rows in the columns of an equality delete file, and those that it deletes.
pub(super) struct Keys<'a> {
    of_rows: Vec<String>,
    deleted: &'a HashSet<String>,
}

impl Keys<'_> {
    pub(super) fn deletes(&self, row: usize) -> bool {
        self.deleted.contains(&self.of_rows[row])
    }
}

impl Deletes {
    pub(super) async fn read(storage: &Storage, columns: &Columns<'_>, files: Vec<File>) -> Self {
        let (mut positions, mut values) = (Vec::new(), Vec::new());
        for file in files {
            if file.content == 1 {
                let found = if file.is_puffin { vector(storage, &file).await } else { pairs(storage, &file.path).await };
                positions.push((file, found));
            } else {
                let mut deleted = HashSet::new();
                for batch in file_batches(storage, &file.path).await {
                    deleted.extend(texts(&columns.keys(&batch, &file, &file.equality_ids), batch.num_rows()));
                }
                values.push((file, deleted));
            }
        }
        Self { positions, values }
    }

    /// Whether the row at `position` of a data file is deleted by its position.
    pub(super) fn has_position(&self, data: &File, position: u64) -> bool {
        // Java's library, too, looks at the partition only of delete files that are about more than one data file.
        let applies = |delete: &File| {
            let same_partition = delete.spec_id == data.spec_id && delete.partition == data.partition;
            delete.sequence_number >= data.sequence_number && (delete.referenced_data_file.is_some() || same_partition)
        };
        let applying: Vec<_> =
            self.positions.iter().filter(|(file, of_files)| applies(file) && of_files.contains_key(&data.path)).collect();
        // A deletion vector has in it what older position deletes say.
        let has_vector = applying.iter().any(|(file, _)| file.is_puffin);
        let mut counted = applying.iter().filter(|(file, _)| file.is_puffin || !has_vector);
        counted.any(|(_, of_files)| of_files[&data.path].contains(&position))
    }

    /// The equality deletes that apply to a data file, with the values of the batch's rows.
    pub(super) fn keys<'a>(&'a self, columns: &Columns<'_>, batch: &RecordBatch, data: &File) -> Vec<Keys<'a>> {
        let applies = |delete: &File| {
            let same_partition = delete.spec_id == data.spec_id && delete.partition == data.partition;
            delete.sequence_number > data.sequence_number && (columns.is_unpartitioned(delete.spec_id) || same_partition)
        };
        let applying = self.values.iter().filter(|(file, _)| applies(file));
        applying
            .map(|(file, deleted)| {
                let values = columns.keys(batch, data, &file.equality_ids);
                Keys { of_rows: texts(&values, batch.num_rows()), deleted }
            })
            .collect()
    }
}

/// The values of each row as text, in which NULL is unlike everything else.
fn texts(values: &[ArrayRef], rows: usize) -> Vec<String> {
    let options = FormatOptions::new();
    let formatters: Vec<_> = values.iter().map(|array| ArrayFormatter::try_new(array.as_ref(), &options).unwrap()).collect();
    let text = |row: usize| {
        let values = formatters.iter().zip(values);
        let values = values.map(|(format, array)| if array.is_null(row) { None } else { Some(format.value(row).to_string()) });
        format!("{:?}", values.collect::<Vec<_>>())
    };
    (0..rows).map(text).collect()
}

async fn pairs(storage: &Storage, path: &str) -> HashMap<String, HashSet<u64>> {
    let mut result: HashMap<String, HashSet<u64>> = HashMap::new();
    for batch in file_batches(storage, path).await {
        let paths = cast(batch.column_by_name("file_path").unwrap(), &DataType::Utf8).unwrap();
        let positions = batch.column_by_name("pos").unwrap().as_primitive::<Int64Type>().clone();
        for row in 0..batch.num_rows() {
            let position = u64::try_from(positions.value(row)).unwrap();
            result.entry(paths.as_string::<i32>().value(row).to_string()).or_default().insert(position);
        }
    }
    result
}

async fn vector(storage: &Storage, file: &File) -> HashMap<String, HashSet<u64>> {
    let bytes = storage.read(&file.path).await.unwrap();
    let start = usize::try_from(file.content_offset.unwrap_or(0)).unwrap();
    let length = file.content_size.map_or(bytes.len(), |size| usize::try_from(size).unwrap());
    let blob = &bytes[start..start + length];
    let framed = blob[4..8] == [0xd1, 0xd3, 0x39, 0x64];
    let bitmap = RoaringTreemap::deserialize_from(if framed { &blob[8..] } else { blob }).unwrap();
    HashMap::from([(file.referenced_data_file.clone().unwrap(), bitmap.into_iter().collect())])
}
