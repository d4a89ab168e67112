use std::sync::Arc;

use datafusion::common::config::Dialect;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use tarndb_catalog::Result;

use super::catalog_provider::LakeCatalogs;
use super::{functions, relation};
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
    config.options_mut().sql_parser.dialect = Dialect::Generic;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_catalog_list(Arc::new(LakeCatalogs::new(Arc::clone(env))))
        .build();
    let context = SessionContext::new_with_state(state);
    context.runtime_env().register_object_store(store_url()?.as_ref(), env.storage.object_store());
    context.register_relation_planner(Arc::new(relation::RefuseVersions)).map_err(crate::error::engine_error)?;
    functions::register(&context);
    Ok(context)
}

/// A state for one statement, which remembers the tables that it resolved.
pub(super) fn statement_state(lake: &Lakehouse) -> SessionState {
    let mut state = lake.session_context().state();
    let registered = state.catalog_list();
    let catalogs = match (registered.as_ref() as &dyn std::any::Any).downcast_ref::<LakeCatalogs>() {
        Some(catalogs) => catalogs.for_statement(),
        None => LakeCatalogs::new(Arc::clone(lake.env())),
    };
    state.register_catalog_list(Arc::new(catalogs));
    state
}
