use iceberg::TableIdent;
use tarndb_catalog::Result;

use super::create_table::check_name;
use crate::lakehouse::{Lakehouse, QueryResult};

pub(super) async fn run(lake: &Lakehouse, from: &TableIdent, to: &TableIdent) -> Result<QueryResult> {
    check_name(to)?;
    lake.env().catalog.rename_table(from, to).await?;
    Ok(QueryResult::empty())
}
