use std::sync::Arc;

use datafusion::common::{DFSchema, ParamValues, Result as EngineResult};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{DmlStatement, LogicalPlan, Projection, Values, WriteOp};
use datafusion::sql::parser::Statement as EngineStatement;
use futures::StreamExt;
use sqlparser::ast::{Expr, Ident, Insert, SelectItem, SetExpr, Statement as SqlStatement, TableObject};
use tarndb_catalog::{Error, Result};

use super::table_provider::IcebergTableProvider;
use super::{plan, run_plan};
use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult, append_rows};
use crate::writer::Matching;

/// `INSERT INTO t [(columns)] VALUES … | SELECT …`. Columns that are not named become NULL.
pub(super) async fn run(lake: &Lakehouse, mut statement: Box<Insert>, params: Option<ParamValues>) -> Result<QueryResult> {
    let TableObject::TableName(name) = statement.table.clone() else {
        return Err(Error::unsupported("INSERT into something other than a table is not supported"));
    };
    if let Some(source) = &mut statement.source {
        name_columns(&mut source.body);
    }
    let statement = EngineStatement::Statement(Box::new(SqlStatement::Insert(*statement)));
    let (state, plan) = plan(lake, statement, params).await?;
    let LogicalPlan::Dml(DmlStatement { op: WriteOp::Insert(_), input, target, .. }) = plan else {
        return Err(Error::internal("an INSERT was planned as something else"));
    };
    // The table for which the columns were put in order, not the one of that name now.
    let provider = source_as_provider(&target).map_err(engine_error)?;
    let table = (provider.as_ref() as &dyn std::any::Any)
        .downcast_ref::<IcebergTableProvider>()
        .ok_or_else(|| Error::unsupported(format!("INSERT into `{name}` is not supported: it is not a table of the lake")))?
        .table();
    let input = with_nullable_values(input.as_ref().clone()).map_err(engine_error)?;
    let memory = Arc::clone(&state.runtime_env().memory_pool);
    let rows = run_plan(state, input).await?;
    let appended = append_rows(table, rows.boxed(), Matching::ByPosition, &memory).await?;
    QueryResult::counts(&[("rows", appended.rows)])
}

/// Columns are assigned in order, so that their names do not matter; but DataFusion wants them to differ, which those of
/// `SELECT NULL, NULL` do not.
fn name_columns(source: &mut SetExpr) {
    let SetExpr::Select(select) = source else { return };
    for (index, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(Expr::Value(value)) = item {
            let (expr, alias) = (Expr::Value(value.clone()), Ident::new(format!("column{}", index + 1)));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

/// DataFusion gives the rows of `VALUES` the table's own NOT NULL, and then fails on a NULL with the name of a column that
/// the user never wrote. The writer checks the same and names the table's column.
fn with_nullable_values(plan: LogicalPlan) -> EngineResult<LogicalPlan> {
    let LogicalPlan::Projection(projection) = &plan else { return Ok(plan) };
    let LogicalPlan::Values(values) = projection.input.as_ref() else { return Ok(plan) };
    let fields = values.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(DFSchema::from_unqualified_fields(fields, values.schema.metadata().clone())?);
    let values = LogicalPlan::Values(Values { schema, values: values.values.clone() });
    Ok(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(values))?))
}
