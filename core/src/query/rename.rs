use iceberg::TableIdent;
use tarndb_catalog::{ErrorKind, Result};

use super::create_table::check_name;
use crate::lakehouse::{Lakehouse, QueryResult};

pub(super) async fn run(lake: &Lakehouse, from: &TableIdent, to: &TableIdent, if_exists: bool) -> Result<QueryResult> {
    check_name(to)?;
    let catalog = &lake.env().catalog;
    match catalog.rename_table(from, to).await {
        Err(e) if if_exists && e.kind() == ErrorKind::NotFound && !catalog.table_exists(from).await? => {}
        renamed => renamed?,
    }
    Ok(QueryResult::empty())
}
