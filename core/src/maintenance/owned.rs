use iceberg::TableIdent;
use tarndb_catalog::{Error, ErrorKind, Result, table_root};

use crate::table::{Environment, Table, properties};

/// Refuses to delete by folder what may not be the table's alone: tables whose `gc.enabled` is false, whose folder is or
/// holds the lake itself, or holds or lies in another table's.
///
/// # Errors
/// `InvalidInput`, naming the reason; `CommitConflict` or `NotFound` when the table was renamed meanwhile; `DataInvalid` when the
/// folder lies outside the lake.
pub(crate) async fn check_owned(table: &Table) -> Result<()> {
    let (env, ident) = (table.env(), table.ident());
    if !properties::get_or(table.metadata(), properties::GC_ENABLED, true)? {
        return Err(Error::invalid_input(format!("files of `{ident}` must not be removed: its property `gc.enabled` is false")));
    }
    let own = env.storage.path(table.location())?;
    if env.storage.path(env.storage.root())?.prefix_matches(&own) {
        return Err(Error::invalid_input(format!("the folder of `{ident}` holds the whole lake, so nothing in it is removed")));
    }
    if let Some(other) = overlapping(table).await? {
        // The other may be this very table, under a name that it was given meanwhile.
        match table.refresh().await {
            Err(gone) if matches!(gone.kind(), ErrorKind::CommitConflict | ErrorKind::NotFound) => return Err(gone),
            _ => return Err(overlap(ident, &other)),
        }
    }
    Ok(())
}

/// The error of removing what may be another table's too.
pub(crate) fn overlap(ident: &TableIdent, other: &TableIdent) -> Error {
    Error::invalid_input(format!("the folder of `{ident}` overlaps that of `{other}`, whose files could go with its own"))
}

/// A table whose folder is, holds or lies in this one's.
pub(crate) async fn overlapping(table: &Table) -> Result<Option<TableIdent>> {
    let (env, ident) = (table.env(), table.ident());
    let own = env.storage.path(table.location())?;
    for namespace in env.catalog.list_namespaces().await? {
        for other in env.catalog.list_tables(&namespace).await? {
            if other == *ident {
                continue;
            }
            for folder in folders(env, &other).await {
                let Ok(path) = env.storage.path(&folder) else { continue };
                if own.prefix_matches(&path) || path.prefix_matches(&own) {
                    return Ok(Some(other));
                }
            }
        }
    }
    Ok(None)
}

/// Where a table's files are: by its metadata, and, also when that cannot be read, by where the metadata is.
async fn folders(env: &Environment, ident: &TableIdent) -> Vec<String> {
    let mut folders = Vec::new();
    if let Ok(location) = env.catalog.metadata_location(ident).await {
        folders.push(table_root(&location).to_string());
    }
    match env.catalog.load_table(ident).await {
        Ok(table) => folders.push(table.metadata.location().to_string()),
        Err(error) => {
            tracing::debug!(table = %ident, %error, "a table that cannot be loaded is known by its metadata file alone")
        }
    }
    folders
}
