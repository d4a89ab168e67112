use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, ErrorKind, Result, Storage};
use tokio::sync::OnceCell;

use super::{DeleteFile, deletion_vector};
use crate::manifest::{FILE_PATH_FIELD_ID, FileFormat, POS_FIELD_ID};
use crate::scan::files::{self, FileRef, FileRows, Wanted};
use crate::scan::plan::ScanTask;

type PositionsByFile = HashMap<String, Arc<RoaringTreemap>>;

/// A delete file, or the part of one that a deletion vector is.
type Part = (String, Option<(u64, u64)>);

/// The longest deletion vector that is read.
const MAX_VECTOR_BYTES: u64 = 1 << 31;

/// Reads delete files, each once for all data files of a scan.
#[derive(Debug)]
pub(crate) struct DeleteLoader {
    storage: Storage,
    loaded: Mutex<HashMap<Part, Arc<OnceCell<Arc<PositionsByFile>>>>>,
}

impl DeleteLoader {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage, loaded: Mutex::default() }
    }

    /// The deleted positions of the task's data file.
    pub(crate) async fn positions(&self, task: &ScanTask) -> Result<Arc<RoaringTreemap>> {
        let mut result: Option<Arc<RoaringTreemap>> = None;
        for file in &task.deletes {
            let cell = {
                let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
                // Several deletion vectors lie in one file.
                Arc::clone(loaded.entry((file.path.clone(), file.range)).or_default())
            };
            let all = cell.get_or_try_init(|| self.load(file)).await?;
            if let Some(positions) = all.get(&task.path) {
                result = Some(match result {
                    None => Arc::clone(positions),
                    Some(so_far) => Arc::new(so_far.as_ref() | positions.as_ref()),
                });
            }
        }
        Ok(result.unwrap_or_default())
    }

    async fn load(&self, file: &DeleteFile) -> Result<Arc<PositionsByFile>> {
        let read = self.read(file).await;
        read.map(Arc::new).map_err(|e| {
            match e.kind() {
                ErrorKind::NotFound => Error::data_invalid("position delete file is missing").with_source(e),
                _ => e,
            }
            .with_context("file", file.path.clone())
        })
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
        let bytes = self.storage.object_store().get_range(&self.storage.path(&file.path)?, offset..end).await?;
        let positions = deletion_vector::decode(&bytes)?;
        if positions.len() != file.record_count {
            let (found, said) = (positions.len(), file.record_count);
            return Err(Error::data_invalid(format!("a deletion vector has {found} positions, and the manifest says {said}")));
        }
        Ok(positions)
    }

    async fn read_rows(&self, file: &DeleteFile) -> Result<PositionsByFile> {
        let of = FileRef { what: "position delete file", path: &file.path, size: file.size, format: file.format };
        let FileRows { schema, mut batches } = files::open(&self.storage, of, Wanted::EVERYTHING).await?;
        let mut result: HashMap<String, RoaringTreemap> = HashMap::new();
        while let Some(batch) = batches.try_next().await? {
            collect_positions(&batch, &schema, &mut result)?;
        }
        Ok(result.into_iter().map(|(path, positions)| (path, Arc::new(positions))).collect())
    }
}

fn collect_positions(batch: &RecordBatch, schema: &Schema, result: &mut HashMap<String, RoaringTreemap>) -> Result<()> {
    let column = |id: i32, name: &str, data_type: &DataType| {
        let index = crate::scan::field_ids::index_of(schema.fields(), id).or_else(|| schema.index_of(name).ok());
        let array = index.map(|index| batch.column(index));
        let array = array.ok_or_else(|| Error::data_invalid(format!("position delete file has no column `{name}`")))?;
        let array = cast(array, data_type)
            .map_err(|e| Error::data_invalid(format!("column `{name}` has a wrong type")).with_source(e))?;
        if array.null_count() > 0 {
            return Err(Error::data_invalid(format!("column `{name}` of a position delete file has NULLs")));
        }
        Ok(array)
    };
    let paths = column(FILE_PATH_FIELD_ID, "file_path", &DataType::Utf8)?;
    let positions = column(POS_FIELD_ID, "pos", &DataType::Int64)?;
    let (paths, positions) = (paths.as_string::<i32>(), positions.as_primitive::<Int64Type>());
    // Rows are sorted by file, so that one look-up serves a whole run.
    let mut row = 0;
    while row < paths.len() {
        let path = paths.value(row);
        let bitmap = result.entry(path.to_string()).or_default();
        while row < paths.len() && paths.value(row) == path {
            let position = u64::try_from(positions.value(row));
            bitmap.insert(position.map_err(|_| Error::data_invalid("a deleted position is negative"))?);
            row += 1;
        }
    }
    Ok(())
}
