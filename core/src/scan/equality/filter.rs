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
            keep = &keep & &set.left(&values, batch.num_rows(), task)?;
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
        let open = |file: &EqualityFile| stream::once(self.open(file.clone())).try_flatten().boxed();
        let files: Vec<_> = applying(&self.tasks).into_iter().map(open).collect();
        let mut values = stream::iter(files).flatten_unordered(OPEN_CONCURRENCY);
        while let Some((file, values)) = values.try_next().await? {
            let set = match sets.get_mut(&file.ids) {
                Some(set) => set,
                None => sets.entry(file.ids.clone()).or_insert(KeySet::new(&file.ids, &self.keys.of(&file.ids)?)?),
            };
            set.add(&file, &values, &reservation)?;
        }
        Ok(Arc::new(EqualityFilter { keys: self.keys.clone(), sets: sets.into_values().collect(), _memory: reservation }))
    }

    /// The values of a delete file.
    async fn open(&self, file: EqualityFile) -> Result<impl Stream<Item = Result<(Arc<EqualityFile>, Vec<ArrayRef>)>> + use<>> {
        let wrong = |what: String| Error::data_invalid(what).with_context("file", file.path.clone());
        if file.ids.is_empty() {
            return Err(wrong("an equality delete file compares no columns".to_string()));
        }
        let columns = self.keys.of(&file.ids)?;
        let of = FileRef { what: "equality delete file", path: &file.path, size: file.size, format: file.format };
        let wanted = Wanted { columns: Some(&columns), mapping: self.read.mapping.as_deref(), ..Wanted::EVERYTHING };
        let FileRows { schema, batches } = files::open(&self.storage, of, wanted).await?;
        if let Some(missing) = columns.fields().iter().find(|field| !field_ids::has_column(&schema, field)) {
            return Err(wrong(format!("equality delete file lacks the column {}", missing.name())));
        }
        let file = Arc::new(file);
        Ok(batches.map(move |batch| {
            let adapted = field_ids::adapt_batch(&batch?, &schema, &columns, &columns, &Absent::default());
            let adapted = adapted.map_err(|e| engine_error(e).with_context("file", file.path.clone()))?;
            Ok((Arc::clone(&file), adapted.columns().iter().map(leaf).collect()))
        }))
    }
}
