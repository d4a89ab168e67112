//! Reading tables: which files a scan needs, and how their rows become batches.
//!
//! * [`plan`]: manifest list, manifests, files, each pruned before the next is read.
//! * [`pruning`]: partition values and column bounds as statistics of DataFusion's `PruningPredicate`; [`prefix`]: what it cannot do.
//! * [`deletes`]: which delete files apply to which data file, and their positions.
//! * [`equality`]: rows deleted by their values.
//! * [`lookup`]: rows that have a value, by what data files tell of themselves.
//! * [`running_filter`]: files that are left out while the query runs.
//! * [`source`]: DataFusion's own Parquet source, wrapped so that deletes, NaN and nested columns stay right; [`open_file`]: what a file
//!   needs beside its own content, when it is opened.
//! * [`files`]: files of rows, of any format.
//! * [`read_schema`]: the columns that are read, and what stands for those that a file lacks.
//! * [`field_ids`]: columns of a file found by field id.
//! * [`name_mapping`]: ids for files that have none.
//! * [`rows`]: rows with what is known of them beside their values, for row-level changes, for compaction, and where a query asks
//!   for it: [`metadata_columns`]; [`lineage`]: their ids.

mod bounds;
mod deletes;
mod equality;
mod field_ids;
mod files;
mod lineage;
mod lookup;
mod metadata_columns;
mod name_mapping;
mod open_file;
mod partition_range;
mod plan;
mod prefix;
mod pruning;
mod read_schema;
mod rows;
mod running_filter;
mod source;
mod statistics;

pub(crate) use deletes::{DeleteLoader, single_data_file};
pub use files::footer::decode_parquet_footer;
pub(crate) use lineage::LINEAGE;
pub(crate) use metadata_columns::{MetadataColumn, MetadataColumns};
pub(crate) use plan::{PlanCounts, ScanTask, plan};
pub(crate) use pruning::Pruner;
pub(crate) use read_schema::ReadSchema;
pub(crate) use rows::{Deletes, RowScanExec, RowSchema, open_rows, open_written};
pub(crate) use source::{ScanRequest, scan_exec};

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use std::sync::Arc;

    use arrow::datatypes::SchemaRef;
    use iceberg::spec::NameMapping;
    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
    use parquet::errors::Result;
    use roaring::RoaringTreemap;

    use super::files::footer;
    use super::name_mapping;

    pub(crate) fn deletion_vector(bytes: &[u8]) -> tarndb_catalog::Result<RoaringTreemap> {
        crate::positions::decode_positions(bytes)
    }

    /// What a file's footer says, as far as it is looked at before rows are read.
    pub(crate) fn parquet_schema(file: &[u8]) -> Result<SchemaRef> {
        let footer = Arc::new(footer::of_file(file)?);
        let footer = ArrowReaderMetadata::try_new(footer, ArrowReaderOptions::new())?;
        Ok(name_mapping::apply(footer.schema(), None))
    }

    pub(crate) fn with_ids(file: &SchemaRef, mapping: &NameMapping) -> SchemaRef {
        name_mapping::apply(file, Some(mapping))
    }
}
