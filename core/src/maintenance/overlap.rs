use tarndb_catalog::{Error, Result};

use crate::table::Table;

/// Refuses tables whose folder holds, or lies in, another table's: what is in it cannot be told apart.
pub(crate) async fn check_overlap(table: &Table) -> Result<()> {
    let env = table.env();
    let own = env.storage.path(table.location())?;
    for namespace in env.catalog.list_namespaces().await? {
        for ident in env.catalog.list_tables(&namespace).await? {
            if ident == *table.ident() {
                continue;
            }
            let other = env.catalog.load_table(&ident).await?;
            let path = env.storage.path(other.metadata.location())?;
            if own.prefix_matches(&path) || path.prefix_matches(&own) {
                return Err(Error::invalid_input(format!(
                    "the folder of `{}` overlaps that of `{ident}`, whose files could go with its own",
                    table.ident()
                )));
            }
        }
    }
    Ok(())
}
