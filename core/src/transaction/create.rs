use std::sync::Arc;

use iceberg::spec::TableMetadata;
use tarndb_catalog::{ErrorKind, LoadedTable, Result};

use super::{Action, Append, Attempt, WrittenFile};
use crate::table::Table;

/// Creates `staged`, a table that no catalog knows yet, together with its first rows: it appears with them or not at all.
///
/// # Errors
/// `AlreadyExists`, after which the files are gone; `CommitStateUnknown`, after which they stay; the storage's.
pub(crate) async fn create_with_rows(staged: &Table, files: Vec<WrittenFile>) -> Result<LoadedTable> {
    let env = staged.env();
    let mut append = Append::new(staged, files);
    let mut attempt =
        Attempt { env, current: Arc::clone(staged.metadata()), requirements: Vec::new(), updates: Vec::new(), files: Vec::new() };
    let error = match create(staged, &mut append, &mut attempt).await {
        Ok(created) => return Ok(created),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::CommitStateUnknown {
        return match env.catalog.load_table(staged.ident()).await {
            Ok(now) if now.metadata.uuid() == staged.metadata().uuid() => Ok(now),
            _ => Err(error),
        };
    }
    let own = append.new_files().into_iter().chain(attempt.files.into_iter().map(|file| file.location));
    for (location, error) in env.storage.delete_all(own).await {
        tracing::warn!(location, %error, "a file of a table that was not created stays behind");
    }
    Err(error)
}

async fn create(staged: &Table, append: &mut Append, attempt: &mut Attempt<'_>) -> Result<LoadedTable> {
    append.apply(attempt).await?;
    let mut builder = TableMetadata::clone(staged.metadata()).into_builder(None);
    for update in &attempt.updates {
        builder = update.clone().apply(builder)?;
    }
    staged.env().catalog.create_table(staged.ident(), builder.build()?.metadata, attempt.files.clone()).await
}
