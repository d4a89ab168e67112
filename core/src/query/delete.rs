use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema as ArrowSchema};
use datafusion::common::ParamValues;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::parser::Statement as EngineStatement;
use futures::TryStreamExt;
use iceberg::TableIdent;
use roaring::RoaringTreemap;
use sqlparser::ast::{Delete, FromTable, ObjectName, SetExpr, Statement as SqlStatement, TableAlias, TableFactor};
use tarndb_catalog::{Error, Result};

use super::leaving::{Older, leaving, older_deletes};
use super::parse::table_ident;
use super::relation::{FILE_COLUMN, POSITION_COLUMN, Suffix, with_suffix};
use super::table_provider::IcebergTableProvider;
use super::{deep, parse, plan, run_plan};
use crate::error::engine_error;
use crate::lakehouse::{DeleteResult, Lakehouse, QueryResult};
use crate::manifest::Count;
use crate::scan::{DeleteLoader, Pruner, ScanTask, plan as plan_scan};
use crate::table::{Table, engine_schema, properties};
use crate::transaction::{Backoff, Caller, DeleteFiles, RowDelta, Transaction, met_another_writer};
use crate::writer::write_deletes;

/// `DELETE FROM t [WHERE …]`, merge-on-read.
pub(super) async fn run(lake: &Lakehouse, statement: Delete, params: Option<ParamValues>) -> Result<QueryResult> {
    let deleted = delete(lake, &statement, params.as_ref()).await?;
    QueryResult::counts(&[("rows", deleted.rows)])
}

/// The same for a predicate alone.
pub(crate) async fn delete_where(lake: &Lakehouse, ident: &TableIdent, predicate: &str) -> Result<DeleteResult> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let sql = format!("DELETE FROM {}.{} WHERE {predicate}", quoted(&ident.namespace().join(".")), quoted(ident.name()));
    let work = async {
        match parse::parse(&sql)? {
            parse::Statement::Delete(statement) => delete(lake, &statement, None).await,
            _ => Err(Error::invalid_input(format!("`{predicate}` is not a condition"))),
        }
    };
    deep::future(parse::depth(&sql)?, work).await
}

async fn delete(lake: &Lakehouse, statement: &Delete, params: Option<&ParamValues>) -> Result<DeleteResult> {
    let (name, alias) = target(statement)?;
    let ident = table_ident(&name)?;
    let mut backoff = Backoff::new(lake.load(&ident).await?.metadata(), Caller::User)?;
    loop {
        let before = lake.load(&ident).await?;
        match delete_once(lake, statement, params, (&name, alias.as_ref()), &ident).await {
            Err(e) if met_another_writer(&e, &before).await => {
                // Run again on the new state: what is deleted is what the predicate selects there.
                tracing::debug!(table = %ident, error = %e, "a DELETE met another writer and runs again");
                backoff.pause(lake.env().storage.ids(), &e.to_string()).await?;
            }
            other => return other,
        }
    }
}

/// The table of the statement; everything but `FROM t [alias] [WHERE …]` is refused.
fn target(statement: &Delete) -> Result<(ObjectName, Option<TableAlias>)> {
    let unsupported = |what: &str| Err(Error::unsupported(format!("DELETE with {what} is not supported")));
    if statement.using.is_some() || !statement.tables.is_empty() {
        return unsupported("several tables");
    }
    if statement.returning.is_some() || statement.output.is_some() {
        return unsupported("RETURNING");
    }
    if !statement.order_by.is_empty() || statement.limit.is_some() {
        return unsupported("ORDER BY or LIMIT");
    }
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &statement.from;
    match from.as_slice() {
        [only] if only.joins.is_empty() => match &only.relation {
            TableFactor::Table { name, alias, args: None, version: None, .. } => Ok((name.clone(), alias.clone())),
            TableFactor::Table { version: Some(_), .. } => {
                Err(Error::invalid_input("an earlier version of a table cannot be changed"))
            }
            _ => unsupported("something other than a table"),
        },
        _ => unsupported("several tables"),
    }
}

async fn delete_once(
    lake: &Lakehouse,
    statement: &Delete,
    params: Option<&ParamValues>,
    (name, alias): (&ObjectName, Option<&TableAlias>),
    ident: &TableIdent,
) -> Result<DeleteResult> {
    let query = position_query(statement, name, alias)?;
    let (state, query_plan) = plan(lake, query, params.cloned()).await?;
    let provider = position_provider(&query_plan)?;
    let provider = (provider.as_ref() as &dyn std::any::Any)
        .downcast_ref::<IcebergTableProvider>()
        .ok_or_else(|| Error::internal("a DELETE reads another table than its own"))?;
    let table = provider.table().clone();
    table.check_writable()?;
    check_mode(&table)?;
    let condition = if statement.selection.is_some() { Some(condition(&query_plan, provider.columns())) } else { None };
    let whole = whole_files(lake, &table, condition.as_ref()).await?;
    provider.skip_files(whole.iter().map(|task| task.path.clone()));

    let mut found: BTreeMap<String, RoaringTreemap> = BTreeMap::new();
    if condition.is_some() {
        let mut rows = run_plan(state, query_plan).await?;
        while let Some(batch) = rows.try_next().await? {
            collect(&batch, &mut found)?;
        }
    }
    commit(lake, &table, condition, whole, found).await.map_err(|e| e.with_context("table", ident.to_string()))
}

/// `SELECT file, position FROM t [alias] [WHERE …]`.
fn position_query(statement: &Delete, name: &ObjectName, alias: Option<&TableAlias>) -> Result<EngineStatement> {
    let mut query = parse::parse_query(&format!("SELECT {FILE_COLUMN}, {POSITION_COLUMN} FROM t"))?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::internal("the query of a DELETE selects nothing"));
    };
    let (encoded, original) = with_suffix(name, &Suffix::Positions)?;
    select.selection.clone_from(&statement.selection);
    for from in &mut select.from {
        if let TableFactor::Table { name, alias: query_alias, .. } = &mut from.relation {
            *name = encoded.clone();
            let own = TableAlias { explicit: true, name: original.clone(), columns: Vec::new(), at: None };
            *query_alias = Some(alias.cloned().unwrap_or(own));
        }
    }
    Ok(EngineStatement::Statement(Box::new(SqlStatement::Query(query))))
}

fn position_provider(plan: &LogicalPlan) -> Result<Arc<dyn datafusion::catalog::TableProvider>> {
    let mut found = None;
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.projected_schema.has_column_with_unqualified_name(POSITION_COLUMN)
        {
            found = Some(source_as_provider(&scan.source)?);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(engine_error)?;
    found.ok_or_else(|| Error::internal("a DELETE does not read its table"))
}

/// The condition of the statement, if it is over the table's columns alone.
#[derive(Debug, Clone)]
enum Condition {
    OverColumns(Expr),
    /// It has a subquery, or asks for more than the columns.
    Other,
}

fn condition(plan: &LogicalPlan, columns: &ArrowSchema) -> Condition {
    let mut found = Condition::Other;
    let walked = plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            let over_columns = !filter.predicate.exists(|expr| {
                Ok(match expr {
                    Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::OuterReferenceColumn(..) => true,
                    Expr::Column(column) => columns.field_with_name(column.name()).is_err(),
                    _ => false,
                })
            })?;
            if over_columns {
                found =
                    Condition::OverColumns(datafusion::logical_expr::expr_rewriter::unnormalize_col(filter.predicate.clone()));
            }
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if walked.is_err() { Condition::Other } else { found }
}

/// Merge-on-read is what tarndb does; a table that asks for copy-on-write is not given something else in silence.
fn check_mode(table: &Table) -> Result<()> {
    match table.metadata().properties().get(properties::DELETE_MODE).map(String::as_str) {
        None | Some("merge-on-read") => Ok(()),
        Some(mode) => Err(Error::unsupported(format!(
            "table property `{}` is `{mode}`, which is not supported yet: set it to merge-on-read",
            properties::DELETE_MODE
        ))),
    }
}

/// Files of which metadata alone shows that every row matches.
async fn whole_files(lake: &Lakehouse, table: &Table, condition: Option<&Condition>) -> Result<Vec<ScanTask>> {
    let schema = engine_schema(table.schema())?;
    let pruner = |filters: &[_]| Pruner::new(Arc::clone(table.schema()), Arc::clone(&schema), filters);
    let Some(condition) = condition else {
        return Ok(plan_scan(table, &pruner(&[])?, None).await?.0);
    };
    let Condition::OverColumns(expr) = condition else {
        return Ok(Vec::new());
    };
    let Some(columns) = columns_of_total_condition(table, expr) else {
        return Ok(Vec::new());
    };
    let columns_schema = Arc::new(datafusion::common::DFSchema::try_from(Arc::clone(&schema)).map_err(engine_error)?);
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(&columns_schema)).build());
    let context = lake.session_context();
    let coerced = simplifier.coerce(Expr::Not(Box::new(expr.clone())), &columns_schema).map_err(engine_error)?;
    let negated = simplifier.simplify(coerced).map_err(engine_error)?;
    let negated = context.create_physical_expr(negated, &columns_schema).map_err(engine_error)?;
    let matching = context.create_physical_expr(expr.clone(), &columns_schema).map_err(engine_error)?;
    let (all, _) = plan_scan(table, &pruner(&[matching])?, None).await?;
    let (rest, _) = plan_scan(table, &pruner(&[negated])?, None).await?;
    let rest: HashSet<String> = rest.into_iter().map(|task| task.path).collect();
    let no_nulls = |task: &ScanTask| columns.iter().all(|id| task.columns.count(Count::Nulls, *id, task.row) == Some(0));
    // How many rows equality deletes have left is known only by reading them.
    let known = |task: &ScanTask| task.has_known_rows() && !rest.contains(&task.path) && no_nulls(task);
    Ok(all.into_iter().filter(known).collect())
}

/// The field ids of a condition that is true or false, never NULL, wherever its columns are not NULL. `None` for
/// conditions of which that is not known.
fn columns_of_total_condition(table: &Table, condition: &Expr) -> Option<HashSet<i32>> {
    let mut ids = HashSet::new();
    let mut total = true;
    condition
        .apply(|expr| {
            match expr {
                Expr::Column(column) => match table.schema().field_id_by_name(&column.name) {
                    Some(id) => total &= ids.insert(id) || ids.contains(&id),
                    None => total = false,
                },
                Expr::Literal(value, _) => total &= !value.is_null(),
                Expr::BinaryExpr(binary) => {
                    total &= matches!(
                        binary.op,
                        Operator::Eq
                            | Operator::NotEq
                            | Operator::Lt
                            | Operator::LtEq
                            | Operator::Gt
                            | Operator::GtEq
                            | Operator::And
                            | Operator::Or
                    );
                }
                Expr::Not(_) | Expr::Between(_) | Expr::InList(_) => {}
                _ => total = false,
            }
            Ok(if total { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })
        .ok()?;
    total.then_some(ids)
}

fn collect(batch: &RecordBatch, found: &mut BTreeMap<String, RoaringTreemap>) -> Result<()> {
    let missing = || Error::internal("the query of a DELETE gave no positions");
    let files = batch.column_by_name(FILE_COLUMN).and_then(|column| column.as_string_opt::<i32>()).ok_or_else(missing)?;
    let positions =
        batch.column_by_name(POSITION_COLUMN).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(missing)?;
    let mut row = 0;
    while row < files.len() {
        let file = files.value(row);
        let bitmap = match found.get_mut(file) {
            Some(bitmap) => bitmap,
            None => found.entry(file.to_string()).or_default(),
        };
        while row < files.len() && files.value(row) == file {
            bitmap.insert(u64::try_from(positions.value(row)).map_err(|_| missing())?);
            row += 1;
        }
    }
    Ok(())
}

async fn commit(
    lake: &Lakehouse,
    table: &Table,
    condition: Option<Condition>,
    whole: Vec<ScanTask>,
    found: BTreeMap<String, RoaringTreemap>,
) -> Result<DeleteResult> {
    let loader = DeleteLoader::new(table, &lake.session_context().runtime_env().memory_pool);
    let mut rows: u64 = found.values().map(RoaringTreemap::len).sum();
    let mut removed: HashSet<String> = HashSet::new();
    for task in whole {
        rows += task.record_count.saturating_sub(loader.positions(&task).await?.len());
        removed.insert(task.path);
    }
    let leaving = leaving(table, &loader, found, older_deletes(table, Older::Stay)).await?;
    removed.extend(leaving.files);
    let deleted = leaving.rows;
    let result = DeleteResult { rows, removed_data_files: removed.len() as u64, added_delete_files: deleted.len() as u64 };
    if removed.is_empty() && deleted.is_empty() {
        return Ok(result);
    }
    let transaction = Transaction::new(table, Caller::User);
    if condition.is_none() {
        transaction.with(DeleteFiles::new(table, removed)).commit().await?;
        return Ok(result);
    }
    let referenced: HashSet<String> = deleted.keys().cloned().collect();
    let mut action = RowDelta::new(table, write_deletes(table, deleted).await?, referenced, removed);
    if isolation_is_serializable(table)? {
        action = action.with_serializable(conflict_filter(lake, table, condition.as_ref())?);
    }
    transaction.with(action).commit().await?;
    Ok(result)
}

fn isolation_is_serializable(table: &Table) -> Result<bool> {
    const KEY: &str = "write.delete.isolation-level";
    match table.metadata().properties().get(KEY).map(String::as_str) {
        None | Some("serializable") => Ok(true),
        Some("snapshot") => Ok(false),
        Some(other) => {
            Err(Error::invalid_input(format!("table property `{KEY}` has the value `{other}`: use serializable or snapshot")))
        }
    }
}

/// Whether a file that someone else added can hold rows that the statement would have deleted.
fn conflict_filter(lake: &Lakehouse, table: &Table, condition: Option<&Condition>) -> Result<crate::transaction::ConflictFilter> {
    let Some(Condition::OverColumns(expr)) = condition else {
        return Ok(Box::new(|_, _, _| true));
    };
    let schema = engine_schema(table.schema())?;
    let columns = datafusion::common::DFSchema::try_from(Arc::clone(&schema)).map_err(engine_error)?;
    let filters =
        split_conjunction(expr).into_iter().map(|part| lake.session_context().create_physical_expr(part.clone(), &columns));
    let filters = filters.collect::<std::result::Result<Vec<_>, _>>().map_err(engine_error)?;
    let pruner = Pruner::new(Arc::clone(table.schema()), schema, &filters)?;
    let metadata = Arc::clone(table.metadata());
    Ok(Box::new(move |columns, row, _| {
        // Bounds alone: a file in doubt conflicts.
        pruner.keep_files(&metadata, -1, columns, &[row]).first() != Some(&false)
    }))
}
