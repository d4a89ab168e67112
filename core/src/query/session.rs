use std::sync::Arc;

use datafusion::common::config::Dialect;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{NullEquality, Result as EngineResult};
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::{SessionConfig, SessionContext};
use tarndb_catalog::Result;

use super::catalog_provider::LakeCatalogs;
use super::{coercion, functions, relation};
use crate::lakehouse::Lakehouse;
use crate::table::Environment;

/// The catalog of the lake in three-part names.
pub(super) const CATALOG: &str = "lake";
/// The namespace of names without one.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Rows in a batch: larger than DataFusion's default, which its operators over these columns gain from.
const BATCH_SIZE: usize = 16 * 1024;

/// By this URL DataFusion knows the lake's store. It is not that of the file system at large, which `read_parquet` and
/// its kin use: table metadata cannot reach outside the lake.
pub(super) fn store_url() -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse("tarndb://lake").map_err(crate::error::engine_error)
}

pub(crate) fn session_context(env: &Arc<Environment>) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_NAMESPACE)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_batch_size(BATCH_SIZE);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::Generic;
    // It filters by the bounds of one aggregate what another one needs too.
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&env.memory)).build_arc();
    let runtime = runtime.map_err(crate::error::engine_error)?;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_catalog_list(Arc::new(LakeCatalogs::new(Arc::clone(env))))
        .with_type_planner(Arc::new(coercion::IcebergTypes))
        .with_analyzer_rules(analyzer_rules())
        .build();
    let mut context = SessionContext::new_with_state(state);
    context.register_expr_planner(Arc::new(coercion::Comparison)).map_err(crate::error::engine_error)?;
    context.runtime_env().register_object_store(store_url()?.as_ref(), env.storage.object_store());
    context.register_relation_planner(Arc::new(relation::RefuseVersions)).map_err(crate::error::engine_error)?;
    functions::register(&context, env);
    Ok(context)
}

/// DataFusion's rules, after those that have to run before types are coerced.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(coercion::Coercion)];
    rules.extend(Analyzer::new().rules);
    rules
}

/// Settings for one statement: the filter that a join makes of one side for the other knows nothing of the NULLs there,
/// which decide what `NOT IN` of a subquery answers, and which are equal in `INTERSECT` and `IS NOT DISTINCT FROM`.
pub(super) fn suit(state: &mut SessionState, plan: &LogicalPlan) -> EngineResult<()> {
    let mut found = false;
    let minds_nulls = |expr: &Expr| {
        matches!(
            expr,
            Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::BinaryExpr(BinaryExpr { op: Operator::IsNotDistinctFrom | Operator::IsDistinctFrom, .. })
        )
    };
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull);
        node.apply_expressions(|expr| {
            found |= expr.exists(|expr| Ok(minds_nulls(expr)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if found {
        state.config_mut().options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
    }
    Ok(())
}

/// A state for one statement, which remembers the tables that it resolved.
pub(super) fn statement_state(lake: &Lakehouse) -> SessionState {
    let mut state = lake.session_context().state();
    let registered = state.catalog_list();
    let catalogs = match LakeCatalogs::of(registered.as_ref()) {
        Some(catalogs) => catalogs.for_statement(),
        None => LakeCatalogs::new(Arc::clone(lake.env())),
    };
    state.register_catalog_list(Arc::new(catalogs));
    state
}
