//! Row lineage: in tables of format version 3 a row keeps its id, and the number of the commit that changed it last, wherever
//! it is moved. Files that rows were first written to do not hold them: there they follow from the manifest entry.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use tarndb_catalog::{Error, Result};

use super::plan::ScanTask;

pub(super) const ROW_ID: &str = "_row_id";
pub(super) const LAST_UPDATED_SEQUENCE_NUMBER: &str = "_last_updated_sequence_number";

/// The columns of lineage, as files hold them.
pub(crate) static LINEAGE: LazyLock<SchemaRef> = LazyLock::new(|| {
    let column = |name: &str, id: i32| {
        let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string())]);
        Field::new(name, DataType::Int64, true).with_metadata(metadata)
    };
    Arc::new(Schema::new(vec![column(ROW_ID, 2_147_483_540), column(LAST_UPDATED_SEQUENCE_NUMBER, 2_147_483_539)]))
});

/// What a file holds of its rows' lineage: NULL for rows that were first written to it.
pub(super) struct FileLineage<'a> {
    ids: &'a Int64Array,
    sequence_numbers: &'a Int64Array,
}

impl<'a> FileLineage<'a> {
    /// From the two columns of `rows` that begin at `first`.
    pub(super) fn of(rows: &'a RecordBatch, first: usize) -> Result<Self> {
        let column = |index: usize| rows.columns().get(index).and_then(|column| column.as_primitive_opt::<Int64Type>());
        match (column(first), column(first + 1)) {
            (Some(ids), Some(sequence_numbers)) => Ok(Self { ids, sequence_numbers }),
            _ => Err(Error::internal("rows without the columns of their lineage")),
        }
    }

    /// The ids of the rows, which are at `positions` of the task's file; NULL where the file was written before rows had ids.
    pub(super) fn row_ids(&self, positions: &ArrayRef, task: &ScanTask) -> Result<ArrayRef> {
        let positions = positions.as_primitive_opt::<Int64Type>();
        let positions = positions.ok_or_else(|| Error::internal("positions that are no numbers"))?;
        let inherited = |row: usize| task.first_row_id?.checked_add(positions.value(row));
        let id = |row: usize| own(self.ids, row).or_else(|| inherited(row));
        Ok(Arc::new((0..positions.len()).map(id).collect::<Int64Array>()))
    }

    /// The numbers of the commits that changed the rows last; NULL where the rows have no ids.
    pub(super) fn sequence_numbers(&self, task: &ScanTask) -> ArrayRef {
        let inherited = task.first_row_id.map(|_| task.sequence_number);
        let number = |row: usize| own(self.sequence_numbers, row).or(inherited);
        Arc::new((0..self.sequence_numbers.len()).map(number).collect::<Int64Array>())
    }
}

fn own(of: &Int64Array, row: usize) -> Option<i64> {
    of.is_valid(row).then(|| of.value(row))
}
