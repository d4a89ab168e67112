use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::TryStreamExt;
use tarndb_catalog::{Error, Result, Storage};
use tokio::sync::OnceCell;

use super::index::{EqualityFile, applying};
use super::keys::leaf;
use super::{Keys, TaskEquality};
use crate::error::engine_error;
use crate::scan::ReadSchema;
use crate::scan::field_ids::{self, Absent};
use crate::scan::files::{self, FileRef, FileRows, Wanted};

/// Bytes that a value takes beside its own, roughly.
const ENTRY_BYTES: usize = 64;

/// Where a value is deleted: the partition, and since when.
type Deletion = (u32, i64);

/// The deleted values of one set of columns.
#[derive(Debug)]
struct KeySet {
    ids: Vec<i32>,
    converter: RowConverter,
    values: HashMap<Box<[u8]>, Vec<Deletion>>,
}

/// The values that the equality deletes of a scan delete.
#[derive(Debug)]
pub(in crate::scan) struct EqualityFilter {
    keys: Keys,
    sets: Vec<KeySet>,
    /// Holds the memory that the values take.
    _memory: MemoryReservation,
}

impl EqualityFilter {
    /// The key columns.
    pub(in crate::scan) fn columns(&self) -> &SchemaRef {
        &self.keys.schema
    }

    /// Which rows of a batch of the task's file are left. The key columns begin at `first`.
    pub(in crate::scan) fn keep(&self, batch: &RecordBatch, first: usize, task: &TaskEquality) -> Result<BooleanArray> {
        let mut keep = BooleanBuffer::new_set(batch.num_rows());
        for set in self.sets.iter().filter(|set| !set.values.is_empty()) {
            let rows = set.converter.convert_columns(&self.keys.values(&set.ids, batch, first));
            let rows = rows.map_err(|e| engine_error(e.into()))?;
            let left = BooleanBuffer::collect_bool(batch.num_rows(), |row| {
                let deletions = set.values.get(rows.row(row).data());
                !deletions.is_some_and(|all| all.iter().any(|(scope, sequence_number)| task.has(*scope, *sequence_number)))
            });
            keep = &keep & &left;
        }
        Ok(BooleanArray::new(keep, None))
    }
}

/// Reads the equality deletes of a scan, once.
#[derive(Debug)]
pub(in crate::scan) struct FilterLoader {
    storage: Storage,
    read: ReadSchema,
    keys: Keys,
    tasks: Vec<TaskEquality>,
    memory: Arc<dyn MemoryPool>,
    loaded: OnceCell<Arc<EqualityFilter>>,
}

impl FilterLoader {
    /// For a scan of `tasks`, with values in memory of `memory`.
    pub(in crate::scan) fn new(
        storage: Storage,
        read: ReadSchema,
        keys: Keys,
        tasks: Vec<TaskEquality>,
        memory: Arc<dyn MemoryPool>,
    ) -> Self {
        Self { storage, read, keys, tasks, memory, loaded: OnceCell::new() }
    }

    /// The values that are deleted.
    ///
    /// # Errors
    /// `DataInvalid`, naming the file; `ResourcesExhausted`.
    pub(in crate::scan) async fn filter(&self) -> Result<Arc<EqualityFilter>> {
        let loaded = self.loaded.get_or_try_init(|| self.load()).await?;
        Ok(Arc::clone(loaded))
    }

    async fn load(&self) -> Result<Arc<EqualityFilter>> {
        let reservation = MemoryConsumer::new("equality deletes").register(&self.memory);
        let mut sets: BTreeMap<Vec<i32>, KeySet> = BTreeMap::new();
        for file in applying(&self.tasks) {
            let set = match sets.get_mut(&file.ids) {
                Some(set) => set,
                None => sets.entry(file.ids.clone()).or_insert(self.key_set(&file.ids)?),
            };
            let read = self.read(file, set, &reservation).await;
            read.map_err(|e| e.with_context("file", file.path.clone()))?;
        }
        Ok(Arc::new(EqualityFilter { keys: self.keys.clone(), sets: sets.into_values().collect(), _memory: reservation }))
    }

    fn key_set(&self, ids: &[i32]) -> Result<KeySet> {
        fn leaf_type(of: &DataType) -> &DataType {
            match of {
                DataType::Struct(fields) if fields.len() == 1 => fields.first().map_or(of, |field| leaf_type(field.data_type())),
                other => other,
            }
        }
        let columns = self.keys.of(ids)?;
        let sorts = columns.fields().iter().map(|field| SortField::new(leaf_type(field.data_type()).clone())).collect();
        let converter = RowConverter::new(sorts).map_err(|e| engine_error(e.into()))?;
        Ok(KeySet { ids: ids.to_vec(), converter, values: HashMap::new() })
    }

    async fn read(&self, file: &EqualityFile, set: &mut KeySet, memory: &MemoryReservation) -> Result<()> {
        if file.ids.is_empty() {
            return Err(Error::data_invalid("an equality delete file compares no columns"));
        }
        let columns = self.keys.of(&file.ids)?;
        let of = FileRef { what: "equality delete file", path: &file.path, size: file.size, format: file.format };
        let wanted = Wanted { columns: Some(&columns), mapping: self.read.mapping.as_deref(), ..Wanted::EVERYTHING };
        let FileRows { schema, mut batches } = files::open(&self.storage, of, wanted).await?;
        if let Some(missing) = columns.fields().iter().find(|field| !field_ids::has_column(&schema, field)) {
            return Err(Error::data_invalid(format!("equality delete file lacks the column {}", missing.name())));
        }
        while let Some(batch) = batches.try_next().await? {
            let adapted = field_ids::adapt_batch(&batch, &schema, &columns, &columns, &Absent::default());
            let values: Vec<_> = adapted.map_err(engine_error)?.columns().iter().map(leaf).collect();
            let rows = set.converter.convert_columns(&values).map_err(|e| engine_error(e.into()))?;
            let mut grown = 0;
            for row in &rows {
                let deletions = set.values.entry(row.data().into()).or_default();
                if deletions.is_empty() {
                    grown += row.data().len() + ENTRY_BYTES;
                }
                // Of one partition the newest deletion has the others in it.
                match deletions.iter_mut().find(|(scope, _)| *scope == file.scope) {
                    Some((_, newest)) => *newest = file.sequence_number.max(*newest),
                    None => deletions.push((file.scope, file.sequence_number)),
                }
            }
            memory.try_grow(grown).map_err(engine_error)?;
        }
        Ok(())
    }
}
