use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result as EngineResult};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use tarndb_catalog::Result;

use super::session::store_url;
use crate::error::to_engine_error;
use crate::scan::{
    FILE_COLUMN, POSITION_COLUMN, PlanCounts, PositionScanExec, Pruner, ReadSchema, ScanRequest, ScanTask, plan, scan_exec,
};
use crate::table::{Table, engine_schema, engine_schema_with_ids};

/// One version of a table, for DataFusion.
#[derive(Debug)]
pub(super) struct IcebergTableProvider {
    table: Table,
    schema: SchemaRef,
    /// What an INSERT gives columns that it leaves out, by name.
    defaults: HashMap<String, Expr>,
}

impl IcebergTableProvider {
    pub(super) fn try_new(table: Table) -> Result<Self> {
        let schema = engine_schema(table.schema())?;
        let defaults = table.write_defaults()?.into_iter().map(|(name, value)| (name, Expr::Literal(value, None)));
        Ok(Self { table, schema, defaults: defaults.collect() })
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

/// The files of `table` that can hold rows for which `filters` over its `schema` hold; as many as have `rows` rows, if that
/// is given.
async fn planned(
    session: &dyn Session,
    table: &Table,
    schema: &SchemaRef,
    filters: &[Expr],
    rows: Option<u64>,
) -> EngineResult<(Vec<ScanTask>, PlanCounts)> {
    let columns = DFSchema::try_from(Arc::clone(schema))?;
    let physical: EngineResult<Vec<Arc<dyn PhysicalExpr>>> =
        filters.iter().map(|filter| session.create_physical_expr(filter.clone(), &columns)).collect();
    let pruner = Pruner::new(Arc::clone(table.schema()), Arc::clone(schema), &physical?).map_err(to_engine_error)?;
    plan(table, &pruner, rows).await.map_err(to_engine_error)
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
        self.table.check_columns(projection.map(Vec::as_slice)).map_err(to_engine_error)?;
        let rows = limit.filter(|_| filters.is_empty()).map(|limit| limit as u64);
        let (tasks, counts) = planned(session, &self.table, &self.schema, filters, rows).await?;
        let request = ScanRequest {
            table: &self.table,
            schema: Arc::clone(&self.schema),
            projection,
            limit,
            store_url: store_url().map_err(to_engine_error)?,
        };
        scan_exec(session, request, tasks, counts).map_err(to_engine_error)
    }
}

/// The rows of a table with their file and position, for row-level changes.
#[derive(Debug)]
pub(super) struct PositionTableProvider {
    table: Table,
    schema: SchemaRef,
    with_positions: SchemaRef,
    /// Files that need not be read, which is known only after the statement was planned.
    skip: Mutex<HashSet<String>>,
}

impl PositionTableProvider {
    pub(super) fn try_new(table: Table) -> Result<Self> {
        let schema = engine_schema(table.schema())?;
        let mut fields: Vec<FieldRef> = schema.fields().to_vec();
        fields.push(Arc::new(Field::new(FILE_COLUMN, DataType::Utf8, false)));
        fields.push(Arc::new(Field::new(POSITION_COLUMN, DataType::Int64, false)));
        Ok(Self { table, schema, with_positions: Arc::new(ArrowSchema::new(fields)), skip: Mutex::default() })
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Leaves these files out of scans planned from now on.
    pub(super) fn skip_files(&self, files: impl IntoIterator<Item = String>) {
        self.skip.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
    }
}

#[async_trait]
impl TableProvider for PositionTableProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.with_positions)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> EngineResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let (mut tasks, _) = planned(session, &self.table, &self.schema, filters, None).await?;
        {
            let skip = self.skip.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.retain(|task| !skip.contains(&task.path));
        }
        let partitions = session.config().target_partitions();
        let with_ids = engine_schema_with_ids(self.table.schema()).map_err(to_engine_error)?;
        let read = ReadSchema::new(&self.table, with_ids, Arc::clone(&self.schema)).map_err(to_engine_error)?;
        let scan = PositionScanExec::try_new(&self.table, &read, projection, tasks, partitions).map_err(to_engine_error)?;
        Ok(Arc::new(scan))
    }
}
