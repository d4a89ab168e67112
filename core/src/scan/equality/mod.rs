//! Equality deletes: files of values, which delete the rows of older data files that have them.
//!
//! * [`index`]: which delete files apply to which data files: those of the same partition, or of all, that are newer.
//! * [`keys`]: the columns that are compared, found by field id even when the table has dropped them since.
//! * [`key_set`]: the values of one set of columns, looked up for every row. NULL is equal to NULL.
//! * [`filter`]: those of all sets, read once for a scan.
//! * [`exec`]: the operator above the scan of the data files.

mod exec;
mod filter;
mod index;
mod key_set;
mod keys;

pub(super) use exec::{EqualityDeleteExec, TASK_COLUMN};
pub(super) use filter::{EqualityFilter, FilterLoader};
pub(super) use index::{EqualityIndex, TaskEquality};
pub(super) use keys::Keys;
