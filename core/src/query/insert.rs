use std::sync::Arc;

use datafusion::common::ParamValues;
use datafusion::logical_expr::{DmlStatement, LogicalPlan, WriteOp};
use datafusion::sql::parser::Statement as EngineStatement;
use futures::StreamExt;
use sqlparser::ast::{Insert, Statement as SqlStatement, TableObject};
use tarndb_catalog::{Error, Result};

use super::parse::table_ident;
use super::{plan, run_plan};
use crate::lakehouse::{Lakehouse, QueryResult, append_rows};
use crate::writer::Matching;

/// `INSERT INTO t [(columns)] VALUES … | SELECT …`. Columns that are not named become NULL.
pub(super) async fn run(lake: &Lakehouse, statement: Box<Insert>, params: Option<ParamValues>) -> Result<QueryResult> {
    let TableObject::TableName(name) = &statement.table else {
        return Err(Error::unsupported("INSERT into something other than a table is not supported"));
    };
    let ident = table_ident(name)?;
    let statement = EngineStatement::Statement(Box::new(SqlStatement::Insert(*statement)));
    let (state, plan) = plan(lake, statement, params).await?;
    let LogicalPlan::Dml(DmlStatement { op: WriteOp::Insert(_), input, .. }) = plan else {
        return Err(Error::internal("an INSERT was planned as something else"));
    };
    let table = lake.load(&ident).await?;
    let memory = Arc::clone(&state.runtime_env().memory_pool);
    let rows = run_plan(state, input.as_ref().clone()).await?;
    let appended = append_rows(&table, rows.boxed(), Matching::ByPosition, &memory).await?;
    QueryResult::counts(&[("rows", appended.rows)])
}
