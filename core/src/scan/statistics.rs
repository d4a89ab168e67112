//! What the optimizer is told of files and tables. `Exact` is believed blindly by the engine, so it is said only of what
//! is exact: see design.md, section 5.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};

use super::bounds::{self, End};
use super::plan::ScanTask;
use crate::manifest::Count;
use crate::table::Table;

/// Above this many files their own statistics would take more memory than they are worth; totals are always given.
const MAX_FILES_WITH_STATISTICS: usize = 10_000;

fn exact_if<T: std::fmt::Debug + Clone + PartialEq + Eq + PartialOrd>(exact: bool, value: T) -> Precision<T> {
    if exact { Precision::Exact(value) } else { Precision::Inexact(value) }
}

/// Types whose bounds are neither truncated nor without some of the values.
fn has_exact_bounds(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Decimal128(..)
    )
}

/// Whether tarndb wrote the file, so that its bounds are known to be those of all its rows.
fn is_own(table: &Table, snapshot_id: i64) -> bool {
    table
        .metadata()
        .snapshot_by_id(snapshot_id)
        .is_some_and(|snapshot| snapshot.summary().additional_properties.get("engine-name").is_some_and(|name| name == "tarndb"))
}

/// Statistics of one file for the columns `needed` (indexes in `schema`); the others are unknown.
fn of_file(table: &Table, schema: &SchemaRef, needed: &[bool], task: &ScanTask) -> Statistics {
    let no_deletes = task.is_whole();
    let own = is_own(table, task.snapshot_id);
    let columns = schema.fields().iter().zip(needed).map(|(field, needed)| {
        let mut statistics = ColumnStatistics::new_unknown();
        let Some(id) = table.schema().field_id_by_name(field.name()).filter(|_| *needed) else {
            return statistics;
        };
        if let Some(nulls) = task.columns.count(Count::Nulls, id, task.row).and_then(|n| usize::try_from(n).ok()) {
            statistics.null_count = exact_if(no_deletes && own, nulls);
        }
        let bound = |end: End, bytes: Option<&[u8]>| -> Precision<ScalarValue> {
            let value = bytes.and_then(|bytes| bounds::scalar(field.data_type(), end, bytes));
            let exact = no_deletes && own && has_exact_bounds(field.data_type());
            value.map_or(Precision::Absent, |value| exact_if(exact, value))
        };
        statistics.min_value = bound(End::Lower, task.columns.lower(id, task.row));
        statistics.max_value = bound(End::Upper, task.columns.upper(id, task.row));
        statistics
    });
    Statistics {
        // Position deletes may name a row twice, so with them the number of rows is not known exactly.
        num_rows: exact_if(no_deletes, usize::try_from(task.record_count).unwrap_or(usize::MAX)),
        total_byte_size: Precision::Absent,
        column_statistics: columns.collect(),
    }
}

/// Statistics of each file (none when there are very many), and of all together.
pub(super) fn of_scan(
    table: &Table,
    schema: &SchemaRef,
    needed: &[bool],
    tasks: &[ScanTask],
) -> (Vec<Option<Statistics>>, Statistics) {
    let per_file: Vec<Statistics> = tasks.iter().map(|task| of_file(table, schema, needed, task)).collect();
    let total = if per_file.is_empty() {
        Statistics { num_rows: Precision::Exact(0), ..Statistics::new_unknown(schema) }
    } else {
        Statistics::try_merge_iter(per_file.iter(), schema).unwrap_or_else(|_| Statistics::new_unknown(schema))
    };
    let keep = per_file.len() <= MAX_FILES_WITH_STATISTICS;
    let per_file = per_file.into_iter().map(|statistics| keep.then(|| with_countable_ranges(statistics)));
    (per_file.collect(), with_countable_ranges(total))
}

/// The optimizer counts the values between the bounds in 64 bits, and fails where they are all that there are.
fn with_countable_ranges(mut statistics: Statistics) -> Statistics {
    for column in &mut statistics.column_statistics {
        let number = |bound: &Precision<ScalarValue>| match bound.get_value()?.cast_to(&DataType::Int64).ok()? {
            ScalarValue::Int64(number) => number,
            _ => None,
        };
        if let (Some(min), Some(max)) = (number(&column.min_value), number(&column.max_value))
            && max.checked_sub(min).is_none()
        {
            (column.min_value, column.max_value) = (Precision::Absent, Precision::Absent);
        }
    }
    statistics
}
