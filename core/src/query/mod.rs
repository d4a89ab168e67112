//! SQL: tarndb's statements, parsed here, and DataFusion's for the rest.
//!
//! * [`parse`]: text to [`parse::Statement`], on sqlparser's tokens.
//! * [`deep`]: stack for statements that need much of it.
//! * [`session`]: the DataFusion session of a lake.
//! * [`catalog_provider`], [`table_provider`]: the lake's tables as DataFusion sees them.
//! * [`relation`]: time travel.
//! * [`metadata_columns`]: `_file`, `_pos` and their kin, which `*` leaves out.
//! * `create_table`, `insert`, `delete`, …: one file for each statement.

mod alter_table;
mod blocking;
mod catalog_provider;
mod change_rows;
mod coercion;
mod create_table;
mod deep;
mod delete;
mod drop;
mod functions;
mod insert;
mod leaving;
mod metadata_columns;
mod parse;
mod relation;
mod rename;
mod rewrite;
mod scan_table;
mod session;
mod show;
mod table_provider;
mod uuid;
mod vacuum;

use datafusion::common::ParamValues;
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{LogicalPlan, Statement as EnginePlanStatement};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::parser::Statement as EngineStatement;
use tarndb_catalog::{Error, Result};

pub(crate) use change_rows::write_change;
pub use change_rows::{RowChange, WrittenChange};
pub(crate) use create_table::{NewTable, create_table, create_table_from};
pub(crate) use delete::delete_where;
pub(crate) use drop::drop_table;
pub use parse::{Tokens, ends_statement, split_statements};
pub(crate) use parse::{parse_namespace, parse_table_name};
pub(crate) use scan_table::{physical_predicate, scan_table};
pub(crate) use session::session_context;

use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult};
use parse::Statement;

/// Runs one statement, with values for its placeholders.
pub(crate) async fn execute(lake: &Lakehouse, sql: &str, params: Option<ParamValues>) -> Result<QueryResult> {
    deep::future(parse::depth(sql)?, run_statement(lake, sql, params)).await
}

async fn run_statement(lake: &Lakehouse, sql: &str, params: Option<ParamValues>) -> Result<QueryResult> {
    let statement = parse::parse(sql)?;
    if params.is_some() && !matches!(statement, Statement::Engine(_) | Statement::Insert(_) | Statement::Delete(_)) {
        return Err(Error::unsupported("parameters are supported in queries, INSERT and DELETE only"));
    }
    match statement {
        Statement::CreateNamespace { name, if_not_exists } => create_table::create_namespace(lake, &name, if_not_exists).await,
        Statement::DropNamespace { name, if_exists, cascade } => drop::drop_namespace(lake, &name, if_exists, cascade).await,
        Statement::CreateTable(statement) => create_table::run(lake, *statement).await,
        Statement::DropTable { table, if_exists, purge } => drop::run(lake, &table, if_exists, purge).await,
        Statement::RenameTable { from, to, if_exists } => rename::run(lake, &from, &to, if_exists).await,
        Statement::AlterTable(statement) => alter_table::run(lake, statement).await,
        Statement::Delete(statement) => delete::run(lake, *statement, params).await,
        Statement::Insert(statement) => insert::run(lake, statement, params).await,
        Statement::Optimize { table, filter } => rewrite::run(lake, &table, filter).await,
        Statement::Vacuum { table, retain_ms, dry_run } => vacuum::run(lake, &table, retain_ms, dry_run).await,
        Statement::ShowNamespaces => show::namespaces(lake).await,
        Statement::ShowTables { namespace } => show::tables(lake, namespace.as_ref()).await,
        Statement::Describe { table } => show::describe(lake, &table).await,
        Statement::Engine(statement) => {
            let (state, plan) = plan(lake, statement, params).await?;
            match plan {
                LogicalPlan::Statement(statement) if names_catalog(&statement) => Err(Error::unsupported(
                    "settings of `datafusion.catalog` are not supported: names without a namespace mean `default`",
                )),
                // SET and its kin change the session itself, not this statement's copy of it.
                LogicalPlan::Statement(_) => run_in(lake.session_context(), plan).await,
                // `SELECT … INTO t` would make a table of this session alone.
                LogicalPlan::Ddl(statement) => Err(Error::unsupported(format!("{} is not supported yet", statement.name()))),
                plan => run_plan(state, plan).await,
            }
        }
    }
}

/// DataFusion's own names for tables must stay those of the statements that tarndb runs itself.
fn names_catalog(statement: &EnginePlanStatement) -> bool {
    let variable = match statement {
        EnginePlanStatement::SetVariable(set) => &set.variable,
        EnginePlanStatement::ResetVariable(reset) => &reset.variable,
        _ => return false,
    };
    variable.to_lowercase().starts_with("datafusion.catalog")
}

/// The logical plan of a statement of DataFusion's. Each table is resolved once, so that the statement sees one snapshot
/// of it however often it names it.
async fn plan(lake: &Lakehouse, statement: EngineStatement, params: Option<ParamValues>) -> Result<(SessionState, LogicalPlan)> {
    let mut state = session::statement_state(lake);
    let plan = plan_in(&state, statement, params).await?;
    session::suit(&mut state, &plan).map_err(engine_error)?;
    Ok((state, plan))
}

async fn plan_in(state: &SessionState, mut statement: EngineStatement, params: Option<ParamValues>) -> Result<LogicalPlan> {
    let with_metadata_columns = metadata_columns::are_named(&mut statement).then(|| statement.clone());
    let mut planned = state.statement_to_plan(statement).await;
    // Only a name that means nothing else means a metadata column.
    if let (Err(_), Some(mut statement)) = (&planned, with_metadata_columns)
        && metadata_columns::expose(state, &mut statement).await?
    {
        planned = state.statement_to_plan(statement).await;
    }
    let plan = planned.map_err(|e| catalog_provider::planning_error(state.catalog_list().as_ref(), e))?;
    let plan = match params {
        Some(params) => {
            check_used(&params, &plan)?;
            plan.with_param_values(params).map_err(engine_error)?
        }
        None => plan,
    };
    // Again in the analyzer, but what tarndb itself reads off a plan has to be in shape before.
    coercion::Coercion.analyze(plan, state.config_options()).map_err(engine_error)
}

/// A value that the statement does not use is a mistake of who gave it.
fn check_used(params: &ParamValues, plan: &LogicalPlan) -> Result<()> {
    let used = plan.get_parameter_names().map_err(engine_error)?;
    let given: Vec<String> = match params {
        ParamValues::List(values) => (1..=values.len()).map(|number| format!("${number}")).collect(),
        ParamValues::Map(values) => values.keys().map(|name| format!("${name}")).collect(),
    };
    match given.iter().find(|name| !used.contains(*name)) {
        Some(name) => Err(Error::invalid_input(format!("the statement does not use the parameter `{name}`"))),
        None => Ok(()),
    }
}

async fn run_plan(state: SessionState, plan: LogicalPlan) -> Result<QueryResult> {
    run_in(&SessionContext::new_with_state(state), plan).await
}

async fn run_in(context: &SessionContext, plan: LogicalPlan) -> Result<QueryResult> {
    let frame = context.execute_logical_plan(plan).await.map_err(engine_error)?;
    let rows = frame.execute_stream().await.map_err(engine_error)?;
    Ok(QueryResult::from_engine(rows))
}
