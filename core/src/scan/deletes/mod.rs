//! Position deletes: which delete files apply to which data files, and their positions.
//!
//! * [`loader`]: positions of delete files, and of deletion vectors.
//! * [`selection`]: positions as the rows that are left.

mod loader;
mod selection;

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{Literal, ManifestFile, PrimitiveLiteral, Struct, TableMetadata, Transform};

pub(crate) use loader::DeleteLoader;
pub(super) use selection::{Rows, access_plan, selectors};

use super::equality::{EqualityIndex, TaskEquality};
use crate::manifest::{FILE_FIELD_ID, FILE_PATH_FIELD_ID, FileContent, FileFormat, ManifestColumns};

/// The one data file that a position delete file is about, if the manifest says so: as `referenced_data_file`, or by
/// equal bounds of its path column.
pub(crate) fn single_data_file(columns: &ManifestColumns, row: usize) -> Option<&str> {
    let entry = columns.entries().get(row)?;
    if let Some(path) = &entry.referenced_data_file {
        return Some(path);
    }
    // DuckDB 1.5 gives the bounds under the id of the metadata column `_file`, and partitions that are not the data file's.
    [FILE_PATH_FIELD_ID, FILE_FIELD_ID].into_iter().find_map(|id| {
        let (lower, upper) = (columns.lower(id, row)?, columns.upper(id, row)?);
        if lower == upper { std::str::from_utf8(lower).ok() } else { None }
    })
}

/// A position delete file or a deletion vector.
#[derive(Debug)]
pub(crate) struct DeleteFile {
    path: String,
    size: u64,
    sequence_number: i64,
    format: FileFormat,
    record_count: u64,
    /// The one data file that it is about.
    referenced: Option<String>,
    /// Where in its file a deletion vector is: offset and length in bytes.
    range: Option<(u64, u64)>,
}

impl DeleteFile {
    /// Whether it is about a single data file.
    pub(crate) fn is_of_one(&self) -> bool {
        self.referenced.is_some()
    }
}

/// Finds the deletes of a data file.
#[derive(Debug, Default)]
pub(super) struct DeleteIndex {
    by_path: HashMap<String, Vec<Arc<DeleteFile>>>,
    by_partition: HashMap<(i32, Struct), Vec<Arc<DeleteFile>>>,
    /// Shared with the data files to which they apply.
    equality: Arc<EqualityIndex>,
}

impl DeleteIndex {
    pub(super) fn add(&mut self, metadata: &TableMetadata, manifest: &ManifestFile, columns: &ManifestColumns) {
        // A spec of which every field was dropped, which format version 1 keeps as void, partitions nothing.
        let spec = metadata.partition_spec_by_id(manifest.partition_spec_id);
        let is_unpartitioned = spec.is_some_and(|spec| spec.fields().iter().all(|field| field.transform == Transform::Void));
        for (row, entry) in columns.entries().iter().enumerate().filter(|(_, entry)| entry.is_live()) {
            let partition = (manifest.partition_spec_id, promoted(&entry.partition));
            match entry.content {
                FileContent::Data => continue,
                FileContent::EqualityDeletes => {
                    let file = (entry.path.clone(), entry.file_size, entry.format);
                    let partition = (!is_unpartitioned).then_some(partition);
                    let equality = Arc::make_mut(&mut self.equality);
                    equality.add(file, entry.sequence_number, partition, entry.equality_ids.clone());
                    continue;
                }
                FileContent::PositionDeletes => {}
            }
            let referenced = single_data_file(columns, row).map(str::to_string);
            let file = Arc::new(DeleteFile {
                path: entry.path.clone(),
                size: entry.file_size,
                sequence_number: entry.sequence_number,
                format: entry.format,
                record_count: entry.record_count,
                referenced: referenced.clone(),
                range: entry.content_offset.zip(entry.content_size),
            });
            match referenced {
                Some(path) => self.by_path.entry(path).or_default().push(file),
                None => self.by_partition.entry(partition).or_default().push(file),
            }
        }
    }

    /// The position delete files that can hold rows of the data file, or its deletion vectors; and the equality deletes.
    pub(super) fn of(
        &self,
        path: &str,
        spec_id: i32,
        partition: &Struct,
        sequence_number: i64,
    ) -> (Vec<Arc<DeleteFile>>, Option<TaskEquality>) {
        if self.by_path.is_empty() && self.by_partition.is_empty() && self.equality.is_empty() {
            return (Vec::new(), None);
        }
        let key = (spec_id, promoted(partition));
        let candidates = self.by_path.get(path).into_iter().chain(self.by_partition.get(&key)).flatten();
        let applies = |file: &&Arc<DeleteFile>| file.sequence_number >= sequence_number;
        let mut found: Vec<Arc<DeleteFile>> = candidates.filter(applies).cloned().collect();
        // Whoever writes a deletion vector puts the positions of older delete files into it.
        if found.iter().any(|file| file.format == FileFormat::Puffin) {
            found.retain(|file| file.format == FileFormat::Puffin);
        }
        (found, self.equality.of(key.0, key.1, sequence_number))
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
