use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use futures::TryStreamExt;
use iceberg::spec::{Literal, ManifestFile, PrimitiveLiteral, Struct};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::ParquetObjectReader;
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, ErrorKind, Result, Storage};
use tokio::sync::OnceCell;

use super::plan::ScanTask;
use crate::manifest::{FileContent, FileFormat, ManifestColumns};

/// Field ids of position delete files, reserved by the specification.
pub(crate) const FILE_PATH_FIELD_ID: i32 = 2_147_483_546;
pub(crate) const POS_FIELD_ID: i32 = 2_147_483_545;

/// The one data file that a position delete file is about, if the manifest says so: as `referenced_data_file`, or by
/// equal bounds of its path column.
pub(crate) fn single_data_file(columns: &ManifestColumns, row: usize) -> Option<&str> {
    let entry = columns.entries().get(row)?;
    if let Some(path) = &entry.referenced_data_file {
        return Some(path);
    }
    let lower = columns.lower(FILE_PATH_FIELD_ID, row)?;
    let upper = columns.upper(FILE_PATH_FIELD_ID, row)?;
    if lower == upper { std::str::from_utf8(lower).ok() } else { None }
}

/// A delete file that applies to some of a scan's data files.
#[derive(Debug)]
pub(crate) struct DeleteFile {
    path: String,
    size: u64,
    sequence_number: i64,
    content: FileContent,
    format: FileFormat,
}

/// Finds the delete files of a data file.
#[derive(Debug, Default)]
pub(super) struct DeleteIndex {
    by_path: HashMap<String, Vec<Arc<DeleteFile>>>,
    by_partition: HashMap<(i32, Struct), Vec<Arc<DeleteFile>>>,
    /// Equality deletes of an unpartitioned spec apply to the whole table.
    global: Vec<Arc<DeleteFile>>,
}

impl DeleteIndex {
    pub(super) fn add(&mut self, manifest: &ManifestFile, columns: &ManifestColumns) {
        for (row, entry) in columns.entries().iter().enumerate() {
            if !entry.is_live() || entry.content == FileContent::Data {
                continue;
            }
            let file = Arc::new(DeleteFile {
                path: entry.path.clone(),
                size: entry.file_size,
                sequence_number: entry.sequence_number,
                content: entry.content,
                format: entry.format,
            });
            let is_position = entry.content == FileContent::PositionDeletes;
            if let Some(path) = single_data_file(columns, row).filter(|_| is_position) {
                self.by_path.entry(path.to_string()).or_default().push(file);
            } else if !is_position && entry.partition.fields().is_empty() {
                self.global.push(file);
            } else {
                let key = (manifest.partition_spec_id, promoted(&entry.partition));
                self.by_partition.entry(key).or_default().push(file);
            }
        }
    }

    /// The position delete files that can hold rows of the data file.
    ///
    /// # Errors
    /// `Unsupported` when equality deletes or deletion vectors apply: to leave them out would bring deleted rows back.
    pub(super) fn of(&self, path: &str, spec_id: i32, partition: &Struct, sequence_number: i64) -> Result<Vec<Arc<DeleteFile>>> {
        if self.by_path.is_empty() && self.by_partition.is_empty() && self.global.is_empty() {
            return Ok(Vec::new());
        }
        let by_partition = self.by_partition.get(&(spec_id, promoted(partition)));
        let candidates = self.by_path.get(path).into_iter().chain(by_partition).flatten().chain(&self.global);
        let mut found = Vec::new();
        for file in candidates {
            let applies = match file.content {
                FileContent::PositionDeletes => file.sequence_number >= sequence_number,
                _ => file.sequence_number > sequence_number,
            };
            if !applies {
                continue;
            }
            let what = match (file.content, file.format) {
                (FileContent::PositionDeletes, FileFormat::Parquet) => {
                    found.push(Arc::clone(file));
                    continue;
                }
                (FileContent::PositionDeletes, FileFormat::Puffin) => "a deletion vector",
                (FileContent::EqualityDeletes, _) => "an equality delete file",
                _ => "a delete file that is not Parquet",
            };
            return Err(Error::unsupported(format!("{what} applies to this table, which cannot be read yet"))
                .with_context("file", file.path.clone()));
        }
        Ok(found)
    }
}

/// A partition in the widest types: manifests from before and after a promotion write one value in two types.
fn promoted(partition: &Struct) -> Struct {
    let wide = |value: &PrimitiveLiteral| match value {
        PrimitiveLiteral::Int(n) => PrimitiveLiteral::Long(i64::from(*n)),
        PrimitiveLiteral::Float(f) => PrimitiveLiteral::Double(f64::from(f.into_inner()).into()),
        other => other.clone(),
    };
    let fields = partition.fields().iter().map(|value| match value {
        Some(Literal::Primitive(value)) => Some(Literal::Primitive(wide(value))),
        other => other.clone(),
    });
    Struct::from_iter(fields)
}

type PositionsByFile = HashMap<String, Arc<RoaringTreemap>>;

/// Reads delete files, each once for all data files of a scan.
#[derive(Debug)]
pub(crate) struct DeleteLoader {
    storage: Storage,
    loaded: Mutex<HashMap<String, Arc<OnceCell<Arc<PositionsByFile>>>>>,
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
                Arc::clone(loaded.entry(file.path.clone()).or_default())
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
        let damaged = |e| Error::data_invalid("position delete file cannot be read").with_source(e);
        let path = self.storage.path(&file.path)?;
        let reader = ParquetObjectReader::new(self.storage.object_store(), path).with_file_size(file.size);
        let mut batches = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(damaged)?.build().map_err(damaged)?;
        let mut result: HashMap<String, RoaringTreemap> = HashMap::new();
        while let Some(batch) = batches.try_next().await.map_err(damaged)? {
            collect_positions(&batch, &mut result)?;
        }
        Ok(result.into_iter().map(|(path, positions)| (path, Arc::new(positions))).collect())
    }
}

fn collect_positions(batch: &RecordBatch, result: &mut HashMap<String, RoaringTreemap>) -> Result<()> {
    let column = |id: i32, name: &str, data_type: &DataType| {
        let schema = batch.schema();
        let index = super::field_ids::index_of(schema.fields(), id).or_else(|| schema.index_of(name).ok());
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

/// For each row group, which of its rows are left.
pub(super) fn access_plan(footer: &ParquetMetaData, deleted: &RoaringTreemap) -> ParquetAccessPlan {
    let mut base = 0_u64;
    let groups = footer.row_groups().iter().map(|group| {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let selectors = selectors(deleted, base, rows);
        base += rows;
        match selectors.as_slice() {
            [] => RowGroupAccess::Skip,
            [only] if only.skip => RowGroupAccess::Skip,
            [_] => RowGroupAccess::Scan,
            _ => RowGroupAccess::Selection(RowSelection::from(selectors)),
        }
    });
    ParquetAccessPlan::new(groups.collect())
}

/// Runs of rows to read and to skip that cover the rows `base..base + rows` exactly.
pub(super) fn selectors(deleted: &RoaringTreemap, base: u64, rows: u64) -> Vec<RowSelector> {
    let end = base + rows;
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut push = |from: u64, to: u64, skip: bool| {
        let Ok(count) = usize::try_from(to - from) else { return };
        match selectors.last_mut() {
            _ if count == 0 => {}
            Some(last) if last.skip == skip => last.row_count += count,
            _ => selectors.push(if skip { RowSelector::skip(count) } else { RowSelector::select(count) }),
        }
    };
    let mut next = base;
    let mut positions = deleted.iter();
    positions.advance_to(base);
    for position in positions.take_while(|position| *position < end) {
        push(next, position, false);
        push(position, position + 1, true);
        next = position + 1;
    }
    push(next, end, false);
    selectors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_cover_a_row_group_exactly() {
        let deleted: RoaringTreemap = [3, 4, 9, 10, 25].into_iter().collect();
        let runs = selectors(&deleted, 0, 10);
        assert_eq!(runs, vec![RowSelector::select(3), RowSelector::skip(2), RowSelector::select(4), RowSelector::skip(1)]);
        assert_eq!(selectors(&deleted, 10, 10), vec![RowSelector::skip(1), RowSelector::select(9)]);
        assert_eq!(selectors(&deleted, 30, 5), vec![RowSelector::select(5)]);
        assert!(selectors(&deleted, 30, 0).is_empty());
    }
}
