use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;

use super::DeleteFile;
use crate::error::engine_error;
use crate::manifest::{FILE_PATH_FIELD_ID, FileFormat, POS_FIELD_ID};
use crate::positions::{Part, PositionsByFile, decode_positions, memory_size};
use crate::scan::files::{self, FileRef, FileRows, Wanted};
use crate::scan::plan::ScanTask;
use crate::table::{Environment, Table};

/// Delete files of one data file that are read at a time.
const READ_CONCURRENCY: usize = 4;

/// The longest deletion vector that is read.
const MAX_VECTOR_BYTES: u64 = 1 << 31;

/// Reads delete files, each once for all data files of a scan.
#[derive(Debug)]
pub(crate) struct DeleteLoader {
    env: Arc<Environment>,
    memory: MemoryReservation,
    loaded: Mutex<HashMap<Part, Arc<OnceCell<Arc<PositionsByFile>>>>>,
}

impl DeleteLoader {
    /// For files of `table`. Keeps what it read in memory of `memory`.
    pub(crate) fn new(table: &Table, memory: &Arc<dyn MemoryPool>) -> Self {
        let memory = MemoryConsumer::new("position deletes").register(memory);
        Self { env: Arc::clone(table.env()), memory, loaded: Mutex::default() }
    }

    /// The deleted positions of the task's data file.
    ///
    /// # Errors
    /// `DataInvalid`, naming the file; `ResourcesExhausted`.
    pub(crate) async fn positions(&self, task: &ScanTask) -> Result<Arc<RoaringTreemap>> {
        let load = |file: Arc<DeleteFile>| async move { self.loaded(&file).await };
        let all = stream::iter(task.deletes.clone()).map(load).buffered(READ_CONCURRENCY);
        let of_task = |so_far: Option<Arc<RoaringTreemap>>, all: Arc<PositionsByFile>| async move {
            Ok(match (so_far, all.get(&task.path)) {
                (Some(mut so_far), Some(positions)) => {
                    *Arc::make_mut(&mut so_far) |= positions.as_ref();
                    Some(so_far)
                }
                (so_far, positions) => so_far.or_else(|| positions.cloned()),
            })
        };
        Ok(all.try_fold(None, of_task).await?.unwrap_or_default())
    }

    async fn loaded(&self, file: &DeleteFile) -> Result<Arc<PositionsByFile>> {
        let cell = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            // Several deletion vectors lie in one file.
            Arc::clone(loaded.entry((file.path.clone(), file.range)).or_default())
        };
        cell.get_or_try_init(|| self.load(file)).await.cloned()
    }

    async fn load(&self, file: &DeleteFile) -> Result<Arc<PositionsByFile>> {
        let positions = self.known_or_read(file).await.and_then(|positions| {
            self.memory.try_grow(memory_size(&positions)).map_err(engine_error)?;
            Ok(positions)
        });
        positions.map_err(|e| {
            match e.kind() {
                ErrorKind::NotFound => Error::data_invalid("position delete file is missing").with_source(e),
                _ => e,
            }
            .with_context("file", file.path.clone())
        })
    }

    async fn known_or_read(&self, file: &DeleteFile) -> Result<Arc<PositionsByFile>> {
        let part = (file.path.clone(), file.range);
        if let Some(known) = self.env.positions.get(&part).await {
            return Ok(known);
        }
        let positions = Arc::new(self.read(file).await?);
        self.env.positions.put(part, Arc::clone(&positions)).await;
        Ok(positions)
    }

    /// For what is held as it is in its file while it becomes positions.
    fn reserve(&self, bytes: u64) -> Result<MemoryReservation> {
        let reservation = self.memory.new_empty();
        reservation.try_grow(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(engine_error)?;
        Ok(reservation)
    }

    async fn read(&self, file: &DeleteFile) -> Result<PositionsByFile> {
        match (file.format, &file.referenced) {
            (FileFormat::Puffin, Some(referenced)) => {
                let positions = self.read_vector(file).await?;
                Ok(HashMap::from([(referenced.clone(), Arc::new(positions))]))
            }
            (FileFormat::Puffin, None) => Err(Error::data_invalid("a deletion vector does not say of which data file it is")),
            _ => self.read_rows(file).await,
        }
    }

    /// One deletion vector, which is a part of its file.
    async fn read_vector(&self, file: &DeleteFile) -> Result<RoaringTreemap> {
        let (offset, length) = file.range.unwrap_or((0, file.size));
        let end = offset.checked_add(length).filter(|_| length > 0 && length <= MAX_VECTOR_BYTES);
        let end =
            end.ok_or_else(|| Error::data_invalid(format!("a deletion vector of {length} bytes at {offset} is not possible")))?;
        let _held = self.reserve(length)?;
        let bytes = self.env.storage.object_store().get_range(&self.env.storage.path(&file.path)?, offset..end).await?;
        let positions = decode_positions(&bytes)?;
        if positions.len() != file.record_count {
            let (found, said) = (positions.len(), file.record_count);
            return Err(Error::data_invalid(format!("a deletion vector has {found} positions, and the manifest says {said}")));
        }
        Ok(positions)
    }

    async fn read_rows(&self, file: &DeleteFile) -> Result<PositionsByFile> {
        let _held = (file.format == FileFormat::Avro).then(|| self.reserve(file.size)).transpose()?;
        let of = FileRef { what: "position delete file", path: &file.path, size: file.size, format: file.format };
        if let Some(referenced) = &file.referenced {
            // Every row has the same path, so that it need not be read; columns without ids are found by name below.
            let wanted = Wanted { columns: Some(&POSITIONS), ..Wanted::EVERYTHING };
            let FileRows { schema, mut batches } = files::open(&self.env.storage, of, wanted).await?;
            if !schema.fields().is_empty() {
                let mut positions = RoaringTreemap::new();
                while let Some(batch) = batches.try_next().await? {
                    collect(positions_of(&batch, &schema)?.values(), &mut positions)?;
                }
                return Ok(HashMap::from([(referenced.clone(), Arc::new(positions))]));
            }
        }
        let FileRows { schema, mut batches } = files::open(&self.env.storage, of, Wanted::EVERYTHING).await?;
        let mut result: HashMap<String, RoaringTreemap> = HashMap::new();
        while let Some(batch) = batches.try_next().await? {
            collect_by_file(&batch, &schema, &mut result)?;
        }
        Ok(result.into_iter().map(|(path, positions)| (path, Arc::new(positions))).collect())
    }
}

/// The positions alone, as files have them.
static POSITIONS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), POS_FIELD_ID.to_string())]);
    Arc::new(Schema::new(vec![Field::new("pos", DataType::Int64, false).with_metadata(metadata)]))
});

fn column(batch: &RecordBatch, schema: &Schema, (id, name): (i32, &str), data_type: &DataType) -> Result<ArrayRef> {
    let index = crate::scan::field_ids::index_of(schema.fields(), id).or_else(|| schema.index_of(name).ok());
    let array = index.map(|index| batch.column(index));
    let array = array.ok_or_else(|| Error::data_invalid(format!("position delete file has no column `{name}`")))?;
    let array =
        cast(array, data_type).map_err(|e| Error::data_invalid(format!("column `{name}` has a wrong type")).with_source(e))?;
    if array.null_count() > 0 {
        return Err(Error::data_invalid(format!("column `{name}` of a position delete file has NULLs")));
    }
    Ok(array)
}

fn positions_of(batch: &RecordBatch, schema: &Schema) -> Result<Int64Array> {
    Ok(column(batch, schema, (POS_FIELD_ID, "pos"), &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn collect(positions: &[i64], into: &mut RoaringTreemap) -> Result<()> {
    if positions.iter().any(|position| *position < 0) {
        return Err(Error::data_invalid("a deleted position is negative"));
    }
    let positions = positions.iter().map(|position| position.unsigned_abs());
    // They are sorted, nearly always, which is much faster.
    if into.append(positions.clone()).is_err() {
        into.extend(positions);
    }
    Ok(())
}

fn collect_by_file(batch: &RecordBatch, schema: &Schema, result: &mut HashMap<String, RoaringTreemap>) -> Result<()> {
    let paths = column(batch, schema, (FILE_PATH_FIELD_ID, "file_path"), &DataType::Utf8)?;
    let (paths, positions) = (paths.as_string::<i32>(), positions_of(batch, schema)?);
    // Rows are sorted by file, so that one look-up serves a whole run.
    let mut start = 0;
    while start < paths.len() {
        let path = paths.value(start);
        let end = (start..paths.len()).find(|row| paths.value(*row) != path).unwrap_or(paths.len());
        collect(positions.values().get(start..end).unwrap_or_default(), result.entry(path.to_string()).or_default())?;
        start = end;
    }
    Ok(())
}
