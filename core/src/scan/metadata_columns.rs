//! Metadata columns: what the Iceberg specification tells of a row beside its values, under reserved names and field ids.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef};
use datafusion::common::ScalarValue;
use iceberg::spec::TableMetadataRef;
use tarndb_catalog::{Error, Result};

use super::lineage::{self, FileLineage};
use super::plan::ScanTask;
use crate::error::engine_error;
use crate::table::{PartitionColumn, Table};

/// A metadata column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MetadataColumn {
    /// The location of the row's file, as the table's metadata has it.
    File,
    /// The row's position in its file, from 0, deleted rows counted.
    Position,
    /// The partition spec of the file.
    SpecId,
    /// The partition of the file, as a struct of the partition fields of all specs.
    Partition,
    /// The row's id, in tables of format version 3.
    RowId,
    /// The number of the commit that changed the row last, in tables of format version 3.
    LastUpdatedSequenceNumber,
}

impl MetadataColumn {
    pub(crate) const ALL: [Self; 6] =
        [Self::File, Self::Position, Self::SpecId, Self::Partition, Self::RowId, Self::LastUpdatedSequenceNumber];

    /// The name that the specification reserves, or that Java's library has for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::File => "_file",
            Self::Position => "_pos",
            Self::SpecId => "_spec_id",
            Self::Partition => "_partition",
            Self::RowId => lineage::ROW_ID,
            Self::LastUpdatedSequenceNumber => lineage::LAST_UPDATED_SEQUENCE_NUMBER,
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// Whether all rows of a file have the same.
    fn is_of_file(self) -> bool {
        matches!(self, Self::File | Self::SpecId | Self::Partition)
    }
}

/// Metadata columns of one table, which follow its own in the rows of a scan.
#[derive(Debug, Clone)]
pub(crate) struct MetadataColumns {
    columns: Vec<(MetadataColumn, FieldRef)>,
    metadata: TableMetadataRef,
    partition: Option<Arc<PartitionColumn>>,
}

impl MetadataColumns {
    /// None.
    pub(crate) fn none(table: &Table) -> Self {
        Self { columns: Vec::new(), metadata: Arc::clone(table.metadata()), partition: None }
    }

    /// These, each under the name that is given with it. A table that was never partitioned has no partition column.
    ///
    /// # Errors
    /// `DataInvalid` when a partition spec of the table has no schema.
    pub(crate) fn named<'a>(table: &Table, columns: impl IntoIterator<Item = (MetadataColumn, &'a str)>) -> Result<Self> {
        let mut of_table = Self::none(table);
        for (column, name) in columns {
            if column == MetadataColumn::Partition {
                of_table.partition = PartitionColumn::of(table.metadata())?.map(Arc::new);
            }
            let field = match column {
                MetadataColumn::File => Field::new(name, DataType::Utf8, false),
                MetadataColumn::Position => Field::new(name, DataType::Int64, false),
                MetadataColumn::SpecId => Field::new(name, DataType::Int32, false),
                MetadataColumn::Partition => match &of_table.partition {
                    Some(partition) => Field::new(name, DataType::Struct(partition.fields.clone()), false),
                    None => continue,
                },
                MetadataColumn::RowId | MetadataColumn::LastUpdatedSequenceNumber => Field::new(name, DataType::Int64, true),
            };
            of_table.columns.push((column, Arc::new(field)));
        }
        Ok(of_table)
    }

    /// All that are asked for and that the table has, but for those that have the name of one of its own columns.
    ///
    /// # Errors
    /// As [`MetadataColumns::named`].
    pub(crate) fn all(table: &Table, is_asked: impl Fn(MetadataColumn) -> bool) -> Result<Self> {
        let own = table.schema().as_struct();
        let free = |column: &MetadataColumn| own.fields().iter().all(|field| field.name != column.name());
        let asked = MetadataColumn::ALL.into_iter().filter(|column| is_asked(*column)).filter(free);
        Self::named(table, asked.map(|column| (column, column.name())))
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &FieldRef> {
        self.columns.iter().map(|(_, field)| field)
    }

    pub(crate) fn columns(&self) -> impl Iterator<Item = MetadataColumn> {
        self.columns.iter().map(|(column, _)| *column)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Both, of one table.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.columns.extend(more.columns);
        self.partition = self.partition.or(more.partition);
        self
    }

    /// Those at these places.
    pub(super) fn project(&self, indexes: impl Iterator<Item = usize>) -> Self {
        let columns = indexes.filter_map(|index| self.columns.get(index).cloned()).collect();
        Self { columns, metadata: Arc::clone(&self.metadata), partition: self.partition.clone() }
    }

    pub(super) fn has_lineage(&self) -> bool {
        self.columns().any(|column| matches!(column, MetadataColumn::RowId | MetadataColumn::LastUpdatedSequenceNumber))
    }

    /// The columns and these after them.
    pub(crate) fn after(&self, columns: &SchemaRef) -> SchemaRef {
        Arc::new(ArrowSchema::new(columns.fields().iter().chain(self.fields()).cloned().collect::<Vec<_>>()))
    }

    /// The values for rows of the task's file at `positions`, of which the file itself has what `own` holds.
    pub(super) fn arrays(&self, task: &ScanTask, positions: &ArrayRef, own: Option<&FileLineage<'_>>) -> Result<Vec<ArrayRef>> {
        let missing = || Error::internal("rows without the columns of their lineage");
        let array = |column: MetadataColumn| match column {
            MetadataColumn::Position => Ok(Arc::clone(positions)),
            MetadataColumn::RowId => own.ok_or_else(missing)?.row_ids(positions, task),
            MetadataColumn::LastUpdatedSequenceNumber => Ok(own.ok_or_else(missing)?.sequence_numbers(task)),
            MetadataColumn::File | MetadataColumn::SpecId | MetadataColumn::Partition => {
                let one = self.of_files(column, std::slice::from_ref(task))?;
                let value = ScalarValue::try_from_array(&one, 0).and_then(|value| value.to_array_of_size(positions.len()));
                value.map_err(engine_error)
            }
        };
        self.columns().map(array).collect()
    }

    fn of_files(&self, column: MetadataColumn, tasks: &[ScanTask]) -> Result<ArrayRef> {
        Ok(match (column, &self.partition) {
            (MetadataColumn::File, _) => Arc::new(StringArray::from_iter_values(tasks.iter().map(|task| &task.path))),
            (MetadataColumn::SpecId, _) => Arc::new(Int32Array::from_iter_values(tasks.iter().map(|task| task.spec_id))),
            (MetadataColumn::Partition, Some(partition)) => {
                partition.array(&self.metadata, tasks.iter().map(|task| (task.spec_id, &task.partition)))?
            }
            _ => return Err(Error::internal(format!("`{}` is not the same for all rows of a file", column.name()))),
        })
    }

    /// Those that are the same for all rows of a file, a row for each task.
    ///
    /// # Errors
    /// `DataInvalid` when a partition is not one of its spec.
    pub(crate) fn of_tasks(&self, tasks: &[ScanTask]) -> Result<RecordBatch> {
        let of_file = self.columns.iter().filter(|(column, _)| column.is_of_file());
        let fields: Vec<FieldRef> = of_file.clone().map(|(_, field)| Arc::clone(field)).collect();
        let arrays = of_file.map(|(column, _)| self.of_files(*column, tasks)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(tasks.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(ArrowSchema::new(fields)), arrays, &options);
        batch.map_err(|e| engine_error(e.into()))
    }
}
