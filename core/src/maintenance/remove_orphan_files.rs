use std::collections::HashSet;

use futures::TryStreamExt;
use tarndb_catalog::{Error, Result};

use super::owned::check_owned;
use super::reachable;
use crate::table::Table;

/// Files younger than this may belong to a commit that is under way.
const FLOOR_MS: i64 = 3 * 24 * 60 * 60 * 1000;

/// Options of [`remove_orphan_files`].
#[derive(Debug, Clone, Default)]
pub struct RemoveOrphanFilesOptions {
    /// Files last modified before this, in milliseconds since the epoch, may go; three days ago unless given.
    pub older_than_ms: Option<i64>,
    /// Allows `older_than_ms` within the last three days. Only safe while nothing else writes to the table.
    pub force: bool,
    /// Only tells which files would go.
    pub dry_run: bool,
}

/// Deletes the files in a table's folder that nothing in the table's metadata refers to. Returns their locations.
///
/// # Errors
/// `InvalidInput` when `older_than_ms` is within three days and `force` is not set, when `gc.enabled` is false, or when
/// the table's folder holds the lake or overlaps another table's; `CommitConflict` when the table was replaced by another
/// of its name; the storage's.
pub async fn remove_orphan_files(table: &Table, options: &RemoveOrphanFilesOptions) -> Result<Vec<String>> {
    let env = table.env();
    let now_ms = env.storage.clock().now_ms();
    let floor_ms = now_ms - FLOOR_MS;
    let older_than_ms = options.older_than_ms.unwrap_or(if options.force { i64::MAX } else { floor_ms });
    if older_than_ms > floor_ms && !options.force {
        return Err(Error::invalid_input(
            "files of the last three days may belong to commits under way: give an older time, or `force`",
        ));
    }
    check_owned(table).await?;
    // The order matters: a file that a commit adds after the listing is not in it, and one that a commit added before
    // the metadata is loaded is in the metadata.
    let listed: Vec<_> = env.storage.list(table.location())?.try_collect().await?;
    let current = table.refresh().await?;
    let mut referenced = HashSet::new();
    for location in reachable::of_table(env, current.loaded()).await? {
        referenced.insert(env.storage.path(&location)?);
    }
    let mut orphans = Vec::new();
    for object in listed {
        let is_hint = object.location.ends_with("/metadata/version-hint.text");
        if !is_hint && object.last_modified_ms < older_than_ms && !referenced.contains(&env.storage.path(&object.location)?) {
            orphans.push(object.location);
        }
    }
    orphans.sort();
    if !options.dry_run {
        let failed = env.storage.delete_all(orphans.clone()).await;
        if let Some((location, error)) = failed.into_iter().next() {
            return Err(error.with_context("file", location));
        }
    }
    Ok(orphans)
}
