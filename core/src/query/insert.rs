use std::sync::Arc;

use datafusion::common::{DFSchema, ParamValues, Result as EngineResult};
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DmlStatement, LogicalPlan, Projection, Values, WriteOp};
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::planner::object_name_to_table_reference;
use futures::StreamExt;
use sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Ident, Insert, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr,
    Statement as SqlStatement, TableFactor, TableObject,
};
use tarndb_catalog::{Error, Result};

use super::parse::{normalize, parse_query, table_ident};
use super::table_provider::IcebergTableProvider;
use super::uuid::is_uuid_field;
use super::{plan_in, run_plan, session};
use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult, append_rows};
use crate::writer::Matching;

/// `INSERT INTO t [(columns)] VALUES … | SELECT …`. Columns that are not named become NULL.
pub(super) async fn run(lake: &Lakehouse, mut statement: Box<Insert>, params: Option<ParamValues>) -> Result<QueryResult> {
    let TableObject::TableName(name) = statement.table.clone() else {
        return Err(Error::unsupported("INSERT into something other than a table is not supported"));
    };
    // Refuses what is not the name of a table, such as an earlier version of one.
    table_ident(&name)?;
    let state = session::statement_state(lake);
    let uuids = uuid_columns(&state, &name, &statement.columns).await?;
    if let Some(source) = &mut statement.source {
        name_columns(&mut source.body);
        if uuids.contains(&true) {
            cast_to_uuid(source, &uuids)?;
        }
    }
    let statement = EngineStatement::Statement(Box::new(SqlStatement::Insert(*statement)));
    let plan = plan_in(&state, statement, params).await?;
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

/// For each column that the statement gives, whether it holds UUIDs.
async fn uuid_columns(state: &SessionState, table: &ObjectName, columns: &[ObjectName]) -> Result<Vec<bool>> {
    let reference = object_name_to_table_reference(table.clone(), true).map_err(engine_error)?;
    let schema = state.schema_for_ref(reference.clone()).map_err(engine_error)?;
    let Some(table) = schema.table(reference.table()).await.map_err(engine_error)? else {
        // Planning tells what is missing.
        return Ok(Vec::new());
    };
    let schema = table.schema();
    if columns.is_empty() {
        return Ok(schema.fields().iter().map(|field| is_uuid_field(field)).collect());
    }
    let of_name = |column: &ObjectName| {
        let name = column.0.last().and_then(ObjectNamePart::as_ident).map(normalize);
        name.is_some_and(|name| schema.field_with_name(&name).is_ok_and(is_uuid_field))
    };
    Ok(columns.iter().map(of_name).collect())
}

/// DataFusion assigns text to every type but UUIDs, so it is told to cast.
fn cast_to_uuid(source: &mut Box<Query>, uuids: &[bool]) -> Result<()> {
    if let SetExpr::Values(values) = source.body.as_mut() {
        for row in &mut values.rows {
            for (expr, _) in row.content.iter_mut().zip(uuids).filter(|(_, is_uuid)| **is_uuid) {
                let inner = Box::new(expr.clone());
                *expr = Expr::Cast { kind: CastKind::Cast, expr: inner, data_type: SqlType::Uuid, array: false, format: None };
            }
        }
        return Ok(());
    }
    let names: Vec<String> = (1..=uuids.len()).map(|column| format!("column{column}")).collect();
    let columns =
        names.iter().zip(uuids).map(|(name, is_uuid)| if *is_uuid { format!("CAST({name} AS UUID)") } else { name.clone() });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let mut query = parse_query(&format!("SELECT {columns} FROM (SELECT 1) AS source ({})", names.join(", ")))?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        for from in &mut select.from {
            if let TableFactor::Derived { subquery, .. } = &mut from.relation {
                std::mem::swap(subquery, source);
            }
        }
    }
    *source = query;
    Ok(())
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
