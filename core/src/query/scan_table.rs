use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::{DFSchema, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::DataFrame;
use tarndb_catalog::Result;

use super::coercion::coerce;
use super::table_provider::IcebergTableProvider;
use super::{deep, parse, session};
use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult};
use crate::scan::MetadataColumns;
use crate::table::{Table, engine_schema};

/// Reads one state of a table, but for the rows of the data files `skip`.
pub(crate) async fn scan_table(
    lake: &Lakehouse,
    table: &Table,
    columns: Option<&[String]>,
    predicate: Option<&str>,
    limit: Option<usize>,
    skip: HashSet<String>,
) -> Result<QueryResult> {
    let scan = async {
        let in_columns = |name: &str| columns.is_some_and(|columns| columns.iter().any(|column| column == name));
        let in_predicate = |name: &str| predicate.is_some_and(|predicate| predicate.to_lowercase().contains(name));
        let metadata = MetadataColumns::all(table, |column| in_columns(column.name()) || in_predicate(column.name()))?;
        let provider = IcebergTableProvider::try_new(table.clone())?.with_metadata_columns(metadata);
        provider.skip_files(skip);
        let own = Arc::clone(provider.columns());
        let names: Vec<&str> = match columns {
            Some(columns) => columns.iter().map(String::as_str).collect(),
            None => own.fields().iter().map(|field| field.name().as_str()).collect(),
        };
        let provider = provider_as_source(Arc::new(provider));
        let name = TableReference::bare(table.ident().name());
        let scan = LogicalPlanBuilder::scan(name, provider, None).and_then(LogicalPlanBuilder::build).map_err(engine_error)?;
        let mut frame = DataFrame::new(session::statement_state(lake), scan);
        if let Some(predicate) = predicate {
            let expr = frame.parse_sql_expr(&parse::expression(predicate)?).map_err(engine_error)?;
            frame = frame.filter(expr).map_err(engine_error)?;
        }
        frame = frame.select_columns(&names).map_err(engine_error)?;
        if limit.is_some() {
            frame = frame.limit(0, limit).map_err(engine_error)?;
        }
        Ok(QueryResult::from_engine(frame.execute_stream().await.map_err(engine_error)?))
    };
    deep::future(predicate.map_or(Ok(0), parse::depth)?, scan).await
}

/// A SQL condition over a table's columns.
pub(crate) fn physical_predicate(lake: &Lakehouse, table: &Table, predicate: &str) -> Result<Arc<dyn PhysicalExpr>> {
    deep::call(parse::depth(predicate)?, || {
        let schema = DFSchema::try_from(engine_schema(table.schema())?).map_err(engine_error)?;
        let context = lake.session_context();
        let expr = context.parse_sql_expr(&parse::expression(predicate)?, &schema).map_err(engine_error)?;
        let expr = coerce(expr, &schema).map_err(engine_error)?.data;
        context.create_physical_expr(expr, &schema).map_err(engine_error)
    })
}
