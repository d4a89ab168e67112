use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result as EngineResult, internal_datafusion_err};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use tarndb_catalog::Result;

use super::session::store_url;
use crate::error::to_engine_error;
use crate::manifest::FileFormat;
use crate::scan::{
    MetadataColumns, PlanCounts, Pruner, ReadSchema, RowScanExec, RowSchema, ScanRequest, ScanTask, plan, scan_exec,
};
use crate::table::{Table, engine_schema, engine_schema_with_ids};

/// One version of a table, for DataFusion.
#[derive(Debug)]
pub(super) struct IcebergTableProvider {
    table: Table,
    /// The table's own columns.
    columns: SchemaRef,
    metadata: MetadataColumns,
    /// Both.
    schema: SchemaRef,
    /// What an INSERT gives columns that it leaves out, by name.
    defaults: HashMap<String, Expr>,
    /// Files that need not be read, which may be known only after the statement was planned.
    skip: Mutex<HashSet<String>>,
}

impl IcebergTableProvider {
    pub(super) fn try_new(table: Table) -> Result<Self> {
        let schema = engine_schema(table.schema())?;
        let defaults = table.write_defaults()?.into_iter().map(|(name, value)| (name, Expr::Literal(value, None)));
        let metadata = MetadataColumns::none(&table);
        let columns = Arc::clone(&schema);
        Ok(Self { table, columns, metadata, schema, defaults: defaults.collect(), skip: Mutex::default() })
    }

    /// With metadata columns after those of the table.
    pub(super) fn with_metadata_columns(self, metadata: MetadataColumns) -> Self {
        let metadata = self.metadata.and(metadata);
        Self { schema: metadata.after(&self.columns), metadata, ..self }
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// The table's own columns.
    pub(super) fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Leaves these files out of scans planned from now on.
    pub(super) fn skip_files(&self, files: impl IntoIterator<Item = String>) {
        self.skip.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
    }

    /// The files that can hold rows for which `filters` hold; as many as have `rows` rows, if that is given.
    async fn planned(
        &self,
        session: &dyn Session,
        filters: &[Expr],
        rows: Option<u64>,
    ) -> EngineResult<(Vec<ScanTask>, PlanCounts)> {
        let physical = physical_filters(session, filters, &self.columns)?;
        let pruner = Pruner::new(Arc::clone(self.table.schema()), Arc::clone(&self.columns), &physical);
        let planned = plan(&self.table, &pruner.map_err(to_engine_error)?, rows).await;
        let (mut tasks, mut counts) = planned.map_err(to_engine_error)?;
        let before = tasks.len();
        if !self.metadata.is_empty() && !tasks.is_empty() {
            let of_tasks = self.metadata.of_tasks(&tasks).map_err(to_engine_error)?;
            let mut keep = vec![true; tasks.len()];
            for filter in physical_filters(session, filters, &of_tasks.schema())? {
                // A filter that cannot be evaluated here fails where rows are filtered, if one reaches it.
                let Ok(holds) = filter.evaluate(&of_tasks).and_then(|holds| holds.into_array(tasks.len())) else { continue };
                for (keep, holds) in keep.iter_mut().zip(holds.as_boolean_opt().into_iter().flatten()) {
                    *keep &= holds == Some(true);
                }
            }
            let mut keep = keep.into_iter();
            tasks.retain(|_| keep.next() == Some(true));
        }
        let skip = self.skip.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !skip.contains(&task.path));
        counts.files_pruned += before - tasks.len();
        Ok((tasks, counts))
    }
}

/// Those of the filters that are over columns of `schema` alone.
fn physical_filters(session: &dyn Session, filters: &[Expr], schema: &SchemaRef) -> EngineResult<Vec<Arc<dyn PhysicalExpr>>> {
    let columns = DFSchema::try_from(Arc::clone(schema))?;
    let over = |filter: &&Expr| filter.column_refs().iter().all(|column| schema.field_with_name(column.name()).is_ok());
    filters.iter().filter(over).map(|filter| session.create_physical_expr(filter.clone(), &columns)).collect()
}

#[async_trait]
impl TableProvider for IcebergTableProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> EngineResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let width = self.columns.fields().len();
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let own = projection.unwrap_or(&all).iter().copied().filter(|index| *index < width).collect::<Vec<_>>();
        self.table.check_columns(Some(&own)).map_err(to_engine_error)?;
        let rows = limit.filter(|_| filters.is_empty()).map(|limit| limit as u64);
        let (tasks, counts) = self.planned(session, filters, rows).await?;
        let with_metadata = projection.unwrap_or(&all).iter().any(|index| *index >= width);
        // DataFusion's source knows nothing of metadata columns, and reads Parquet.
        let (tasks, others): (Vec<ScanTask>, Vec<ScanTask>) =
            tasks.into_iter().partition(|task| !with_metadata && task.format == FileFormat::Parquet);
        let mut scans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if with_metadata || !others.is_empty() {
            let with_ids = engine_schema_with_ids(self.table.schema()).map_err(to_engine_error)?;
            let read = ReadSchema::new(&self.table, with_ids, Arc::clone(&self.columns)).map_err(to_engine_error)?;
            let schema = RowSchema { read, metadata: self.metadata.clone() };
            let scan = RowScanExec::try_new(&self.table, &schema, projection, others, session);
            scans.push(Arc::new(scan.map_err(to_engine_error)?));
        }
        if !tasks.is_empty() || scans.is_empty() {
            let request = ScanRequest {
                table: &self.table,
                schema: Arc::clone(&self.columns),
                projection: Some(&own),
                limit,
                store_url: store_url().map_err(to_engine_error)?,
            };
            scans.push(scan_exec(session, request, tasks, counts).map_err(to_engine_error)?);
        }
        if scans.len() == 1 { scans.pop().ok_or_else(|| internal_datafusion_err!("no scan")) } else { UnionExec::try_new(scans) }
    }
}
