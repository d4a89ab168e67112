//! Row lineage: in tables of format version 3 a row keeps its id, and the number of the commit that changed it last, wherever
//! it is moved. Files that rows were first written to do not hold them: there they follow from the manifest entry.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::{Result as EngineResult, exec_datafusion_err};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::plan::ScanTask;

/// The columns `_row_id` and `_last_updated_sequence_number`, as files hold them.
pub(crate) static LINEAGE: LazyLock<SchemaRef> = LazyLock::new(|| {
    let column = |name: &str, id: i32| {
        let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string())]);
        Field::new(name, DataType::Int64, true).with_metadata(metadata)
    };
    Arc::new(Schema::new(vec![column("_row_id", 2_147_483_540), column("_last_updated_sequence_number", 2_147_483_539)]))
});

/// The rows with their lineage filled in: the last two columns but for `after` hold what the file has of it, and `positions` are
/// the rows' places in the file.
pub(super) fn fill(rows: &RecordBatch, after: usize, positions: &ArrayRef, task: &ScanTask) -> EngineResult<RecordBatch> {
    let missing = || exec_datafusion_err!("rows without the columns of their lineage");
    let first = rows.num_columns().checked_sub(after + LINEAGE.fields().len()).ok_or_else(missing)?;
    let positions = positions.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
    let column = |index: usize| rows.columns().get(index).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let (ids, numbers) = (column(first).ok_or_else(missing)?, column(first + 1).ok_or_else(missing)?);
    let own = |of: &Int64Array, row: usize| of.is_valid(row).then(|| of.value(row));
    let id = |row: usize| own(ids, row).or_else(|| task.first_row_id?.checked_add(positions.value(row)));
    let number = |row: usize| own(numbers, row).or(Some(task.sequence_number));
    let mut columns = rows.columns().to_vec();
    let filled: [ArrayRef; 2] = [
        Arc::new((0..rows.num_rows()).map(id).collect::<Int64Array>()),
        Arc::new((0..rows.num_rows()).map(number).collect::<Int64Array>()),
    ];
    columns.splice(first..first + 2, filled);
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}
