//! Reading tables: which files a scan needs, and how their rows become batches.
//!
//! * [`plan`]: manifest list, manifests, files, each pruned before the next is read.
//! * [`pruning`]: partition values and column bounds as statistics of DataFusion's `PruningPredicate`.
//! * [`deletes`]: which delete files apply to which data file, and their positions.
//! * [`equality`]: rows deleted by their values.
//! * [`source`]: DataFusion's own Parquet source, wrapped so that deletes, NaN and nested columns stay right.
//! * [`read_schema`]: the columns that are read, and what stands for those that a file lacks.
//! * [`field_ids`]: columns of a file found by field id.
//! * [`name_mapping`]: ids for files that have none.
//! * [`positions`]: rows with their file and position, for row-level changes; [`lineage`]: with their ids, for compaction.

mod bounds;
mod checked_reader;
mod deletes;
mod equality;
mod field_ids;
mod lineage;
mod name_mapping;
mod parquet_file;
mod partition_range;
mod plan;
mod positions;
mod pruning;
mod read_schema;
mod source;
mod statistics;

pub(crate) use deletes::{DeleteLoader, encode_deletion_vector, single_data_file};
pub(crate) use lineage::LINEAGE;
pub(crate) use plan::{PlanCounts, ScanTask, plan};
pub(crate) use positions::{Deletes, Extra, FILE_COLUMN, POSITION_COLUMN, PositionScanExec, open_rows};
pub(crate) use pruning::Pruner;
pub(crate) use read_schema::ReadSchema;
pub(crate) use source::{ScanRequest, scan_exec};
