use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tarndb_catalog::{Error, Result, Storage};
use tokio::sync::OnceCell;

use super::index::{EqualityFile, applying};
use super::key_set::KeySet;
use super::keys::leaf;
use super::{Keys, TaskEquality};
use crate::error::engine_error;
use crate::scan::ReadSchema;
use crate::scan::field_ids::{self, Absent};
use crate::scan::files::{self, FileRef, FileRows, Wanted};

/// Delete files that are opened at a time: where many are small, waiting for one after the other is what takes the time.
const OPEN_CONCURRENCY: usize = 8;

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
        for set in &self.sets {
            let values = self.keys.values(&set.ids, batch, first);
            keep = &keep & &set.left(&values, task)?;
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
        let open = |file: EqualityFile| async move {
            let values = self.open(&file).await.map_err(|e| e.with_context("file", file.path.clone()))?;
            Ok::<_, Error>((file, values))
        };
        let files: Vec<EqualityFile> = applying(&self.tasks).into_iter().cloned().collect();
        let mut files = stream::iter(files).map(open).buffered(OPEN_CONCURRENCY);
        while let Some((file, mut values)) = files.try_next().await? {
            let set = match sets.get_mut(&file.ids) {
                Some(set) => set,
                None => sets.entry(file.ids.clone()).or_insert(KeySet::new(&file.ids, &self.keys.of(&file.ids)?)?),
            };
            while let Some(values) = values.try_next().await.map_err(|e| e.with_context("file", file.path.clone()))? {
                set.add(&file, &values, &reservation)?;
            }
        }
        Ok(Arc::new(EqualityFilter { keys: self.keys.clone(), sets: sets.into_values().collect(), _memory: reservation }))
    }

    /// The values of a delete file, the first of which are read already.
    async fn open(&self, file: &EqualityFile) -> Result<impl Stream<Item = Result<Vec<ArrayRef>>> + Unpin + use<>> {
        if file.ids.is_empty() {
            return Err(Error::data_invalid("an equality delete file compares no columns"));
        }
        let columns = self.keys.of(&file.ids)?;
        let of = FileRef { what: "equality delete file", path: &file.path, size: file.size, format: file.format };
        let wanted = Wanted { columns: Some(&columns), mapping: self.read.mapping.as_deref(), ..Wanted::EVERYTHING };
        let FileRows { schema, batches } = files::open(&self.storage, of, wanted).await?;
        if let Some(missing) = columns.fields().iter().find(|field| !field_ids::has_column(&schema, field)) {
            return Err(Error::data_invalid(format!("equality delete file lacks the column {}", missing.name())));
        }
        let values = batches.map(move |batch| {
            let adapted = field_ids::adapt_batch(&batch?, &schema, &columns, &columns, &Absent::default());
            Ok(adapted.map_err(engine_error)?.columns().iter().map(leaf).collect())
        });
        let mut values = Box::pin(values.peekable());
        values.as_mut().peek().await;
        Ok(values)
    }
}
