use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use tarndb_catalog::Result;

use super::session;
use super::table_provider::IcebergTableProvider;
use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult};
use crate::table::{Table, engine_schema};

/// Reads one state of a table.
pub(crate) async fn scan_table(
    lake: &Lakehouse,
    table: &Table,
    columns: Option<&[String]>,
    predicate: Option<&str>,
    limit: Option<usize>,
) -> Result<QueryResult> {
    let context = SessionContext::new_with_state(session::statement_state(lake));
    let provider = Arc::new(IcebergTableProvider::try_new(table.clone())?);
    let mut frame = context.read_table(provider).map_err(engine_error)?;
    if let Some(predicate) = predicate {
        let expr = frame.parse_sql_expr(predicate).map_err(engine_error)?;
        frame = frame.filter(expr).map_err(engine_error)?;
    }
    if let Some(columns) = columns {
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        frame = frame.select_columns(&names).map_err(engine_error)?;
    }
    if limit.is_some() {
        frame = frame.limit(0, limit).map_err(engine_error)?;
    }
    Ok(QueryResult::from_engine(frame.execute_stream().await.map_err(engine_error)?))
}

/// A SQL condition over a table's columns.
pub(crate) fn physical_predicate(lake: &Lakehouse, table: &Table, predicate: &str) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(engine_schema(table.schema())?).map_err(engine_error)?;
    let context = lake.session_context();
    let expr = context.parse_sql_expr(predicate, &schema).map_err(engine_error)?;
    context.create_physical_expr(expr, &schema).map_err(engine_error)
}
