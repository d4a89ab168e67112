use iceberg::TableIdent;
use tarndb_catalog::Result;

use super::scan_table::physical_predicate;
use crate::lakehouse::{Lakehouse, QueryResult};
use crate::maintenance::{RewriteDataFilesOptions, rewrite_data_files};

/// `OPTIMIZE t [WHERE …]`: `rewrite_data_files` with its defaults.
pub(super) async fn run(lake: &Lakehouse, table: &TableIdent, filter: Option<String>) -> Result<QueryResult> {
    let table = lake.load(table).await?;
    let filters = match filter {
        Some(filter) => vec![physical_predicate(lake, &table, &filter)?],
        None => Vec::new(),
    };
    let done = rewrite_data_files(&table, &RewriteDataFilesOptions::default(), &filters).await?;
    QueryResult::counts(&[
        ("rewritten_data_files_count", done.rewritten_data_files_count as u64),
        ("added_data_files_count", done.added_data_files_count as u64),
        ("rewritten_bytes_count", done.rewritten_bytes_count),
        ("failed_data_files_count", done.failed_data_files_count as u64),
        ("removed_delete_files_count", done.removed_delete_files_count as u64),
    ])
}
