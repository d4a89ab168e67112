use futures::TryStreamExt;
use iceberg::{NamespaceIdent, TableIdent};
use tarndb_catalog::{ErrorKind, Result};

use crate::lakehouse::{Lakehouse, QueryResult};
use crate::maintenance::{check_owned, overlap, overlapping};

pub(super) async fn run(lake: &Lakehouse, table: &TableIdent, if_exists: bool, purge: bool) -> Result<QueryResult> {
    match drop_table(lake, table, purge).await {
        Err(e) if !(if_exists && e.kind() == ErrorKind::NotFound) => Err(e),
        _ => Ok(QueryResult::empty()),
    }
}

/// Removes a table's name; with `purge` its folder too, which no other table is ever given.
pub(crate) async fn drop_table(lake: &Lakehouse, ident: &TableIdent, purge: bool) -> Result<()> {
    let env = lake.env();
    if !purge {
        return env.catalog.drop_table(ident, None).await;
    }
    let table = lake.load(ident).await?;
    check_owned(&table).await?;
    env.catalog.drop_table(ident, Some(table.metadata().uuid())).await?;
    // Someone may have named the folder meanwhile: only what nobody names any more goes.
    if let Some(other) = overlapping(&table).await? {
        return Err(overlap(ident, &other));
    }
    let files: Vec<_> = env.storage.list(table.location())?.map_ok(|object| object.location).try_collect().await?;
    for (location, error) in env.storage.delete_all(files).await {
        tracing::warn!(location, %error, "a file of a dropped table stays behind");
    }
    Ok(())
}

pub(super) async fn drop_namespace(
    lake: &Lakehouse,
    name: &NamespaceIdent,
    if_exists: bool,
    cascade: bool,
) -> Result<QueryResult> {
    let catalog = &lake.env().catalog;
    if cascade && catalog.namespace_exists(name).await? {
        for table in catalog.list_tables(name).await? {
            catalog.drop_table(&table, None).await?;
        }
    }
    match catalog.drop_namespace(name).await {
        Err(e) if !(if_exists && e.kind() == ErrorKind::NotFound) => Err(e),
        _ => Ok(QueryResult::empty()),
    }
}
