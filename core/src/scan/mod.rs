//! Reading tables: which files a scan needs, and how their rows become batches.
//!
//! * [`plan`]: manifest list, manifests, files, each pruned before the next is read.
//! * [`pruning`]: partition values and column bounds as statistics of DataFusion's `PruningPredicate`.
//! * [`deletes`]: which delete files apply to which data file, and their positions.
//! * [`source`]: DataFusion's own Parquet source, wrapped so that deletes, NaN and nested columns stay right.
//! * [`field_ids`]: columns of a file found by field id.
//! * [`name_mapping`]: ids for files that have none.
//! * [`positions`]: rows with their file and position, for row-level changes.

mod bounds;
mod deletes;
mod field_ids;
mod name_mapping;
mod partition_range;
mod plan;
mod positions;
mod pruning;
mod source;
mod statistics;

pub(crate) use deletes::{DeleteLoader, FILE_PATH_FIELD_ID, POS_FIELD_ID, single_data_file};
pub(crate) use name_mapping::of_table as name_mapping;
pub(crate) use plan::{PlanCounts, ScanTask, plan};
pub(crate) use positions::{FILE_COLUMN, POSITION_COLUMN, PositionScanExec, ReadSchema, open_rows};
pub(crate) use pruning::Pruner;
pub(crate) use source::{ScanRequest, scan_exec};
