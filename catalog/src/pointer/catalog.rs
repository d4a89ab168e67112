use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::future::try_join_all;
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use iceberg::{NamespaceIdent, TableIdent};
use uuid::Uuid;

use super::{PointerStore, PointerSwap, SwapOutcome, namespace_text, no_such_table};
use crate::catalog::table_replaced;
use crate::metadata_file::{self, ParsedMetadata};
use crate::{Catalog, CommitOutcome, Error, ErrorKind, LoadedTable, NewFile, Result, Storage, TableCommit};

/// Tables whose parsed metadata is kept. A metadata file never changes, so its location is the whole key.
const CACHED_TABLES: usize = 256;

/// The table property by which metadata files that fall out of the log of `write.metadata.previous-versions-max` entries are
/// deleted after the commit.
const DELETE_AFTER_COMMIT_ENABLED: &str = "write.metadata.delete-after-commit.enabled";

#[derive(Debug)]
pub(super) struct PointerCatalog<P> {
    pointers: P,
    storage: Storage,
    parsed: Mutex<HashMap<TableIdent, (String, ParsedMetadata)>>,
}

impl<P: PointerStore> PointerCatalog<P> {
    pub(super) fn new(pointers: P, storage: Storage) -> Self {
        Self { pointers, storage, parsed: Mutex::default() }
    }

    async fn load(&self, ident: &TableIdent) -> Result<LoadedTable> {
        loop {
            let metadata_location = self.pointers.get(ident).await?.ok_or_else(|| no_such_table(ident))?;
            match self.load_at(ident, &metadata_location).await {
                // The file may have been one of the old ones that go, if others committed meanwhile.
                Err(_) if self.pointers.get(ident).await?.is_none_or(|now| now != metadata_location) => {}
                loaded => return loaded,
            }
        }
    }

    async fn load_at(&self, ident: &TableIdent, metadata_location: &str) -> Result<LoadedTable> {
        let cached = self
            .parsed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(ident)
            .filter(|(location, _)| location == metadata_location)
            .map(|(_, parsed)| parsed.clone());
        let parsed = match cached {
            Some(parsed) => parsed,
            None => {
                self.storage.allow(table_root(metadata_location));
                let read = metadata_file::read(&self.storage, metadata_location);
                // What the file says of its location is no reason to leave the lake.
                let parsed = read.await.map_err(|e| e.with_context("table", ident.to_string()))?;
                self.remember(ident, metadata_location, &parsed);
                parsed
            }
        };
        Ok(loaded(ident, metadata_location, parsed))
    }

    fn remember(&self, ident: &TableIdent, location: &str, parsed_now: &ParsedMetadata) {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if parsed.len() >= CACHED_TABLES && !parsed.contains_key(ident) {
            parsed.clear();
        }
        parsed.insert(ident.clone(), (location.to_string(), parsed_now.clone()));
    }

    async fn write(&self, files: &[NewFile]) -> Result<()> {
        let mut writes = Vec::with_capacity(files.len());
        for file in files {
            writes.push(self.storage.write(&file.location, file.content.clone()));
        }
        try_join_all(writes).await?;
        Ok(())
    }

    /// Removes a metadata file that no pointer will ever name, or name again. Failing to do so only leaves an orphan.
    async fn discard(&self, location: &str) {
        if let Err(error) = self.storage.delete(location).await {
            tracing::debug!(location, %error, "a metadata file that nobody names stays behind");
        }
    }
}

fn loaded(ident: &TableIdent, metadata_location: &str, parsed: ParsedMetadata) -> LoadedTable {
    let ParsedMetadata { metadata, unsupported_types } = parsed;
    LoadedTable { ident: ident.clone(), metadata_location: metadata_location.to_string(), metadata, unsupported_types }
}

/// Metadata that was made here, of types that are known.
fn own(metadata: TableMetadata) -> ParsedMetadata {
    ParsedMetadata { metadata: Arc::new(metadata), unsupported_types: Arc::default() }
}

/// The folder above `metadata/`, which the catalog vouches for by naming a metadata file in it.
pub fn table_root(metadata_location: &str) -> &str {
    let folder = metadata_location.rsplit_once('/').map_or("", |(folder, _)| folder);
    folder.strip_suffix("/metadata").unwrap_or(folder)
}

/// The new metadata, and older metadata files that may go because the table asks for it.
fn apply(base: &LoadedTable, commit: &TableCommit) -> Result<(TableMetadata, Vec<String>)> {
    let mut builder =
        TableMetadataBuilder::new_from_metadata(TableMetadata::clone(&base.metadata), Some(base.metadata_location.clone()));
    for update in &commit.updates {
        builder = update.clone().apply(builder)?;
    }
    let built = builder.build()?;
    if built.metadata.properties().get(DELETE_AFTER_COMMIT_ENABLED).is_none_or(|enabled| !enabled.eq_ignore_ascii_case("true")) {
        return Ok((built.metadata, Vec::new()));
    }
    // The log is only text: what it names is deleted where it can be nothing but metadata of this table.
    let folder = format!("{}/metadata/", table_root(&base.metadata_location));
    let is_own = |location: &String| location.starts_with(&folder) && location.ends_with(".metadata.json");
    let old = built.expired_metadata_logs.into_iter().map(|entry| entry.metadata_file).filter(is_own).collect();
    Ok((built.metadata, old))
}

#[async_trait]
impl<P: PointerStore> Catalog for PointerCatalog<P> {
    async fn create_namespace(&self, namespace: &NamespaceIdent, properties: HashMap<String, String>) -> Result<()> {
        let text = namespace_text(namespace)?;
        self.pointers.create_namespace(&text, properties.into_iter().collect()).await
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.pointers.drop_namespace(&namespace_text(namespace)?).await
    }

    async fn list_namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        let mut names = self.pointers.list_namespaces().await?;
        names.sort();
        names.into_iter().map(|name| Ok(NamespaceIdent::from_strs(name.split('.'))?)).collect()
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        self.pointers.namespace_exists(&namespace_text(namespace)?).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let mut names = self.pointers.list(&namespace_text(namespace)?).await?;
        names.sort();
        Ok(names.into_iter().map(|name| TableIdent::new(namespace.clone(), name)).collect())
    }

    async fn load_table(&self, ident: &TableIdent) -> Result<LoadedTable> {
        self.load(ident).await
    }

    async fn table_exists(&self, ident: &TableIdent) -> Result<bool> {
        Ok(self.pointers.get(ident).await?.is_some())
    }

    async fn create_table(&self, ident: &TableIdent, metadata: TableMetadata, files: Vec<NewFile>) -> Result<LoadedTable> {
        if self.pointers.get(ident).await?.is_some() {
            return Err(super::table_exists(ident));
        }
        let metadata_location = metadata_file::next_location(&metadata, None, self.storage.ids().uuid());
        let content = metadata_file::serialize(&metadata)?.into();
        let mut files = files;
        files.push(NewFile { location: metadata_location.clone(), content });
        self.write(&files).await?;
        if let Err(error) = self.pointers.insert(ident, &metadata_location).await {
            if error.kind() != ErrorKind::CommitStateUnknown {
                self.discard(&metadata_location).await;
            }
            return Err(error);
        }
        let parsed = own(metadata);
        self.remember(ident, &metadata_location, &parsed);
        Ok(loaded(ident, &metadata_location, parsed))
    }

    async fn drop_table(&self, ident: &TableIdent, uuid: Option<Uuid>) -> Result<()> {
        let Some(uuid) = uuid else {
            return if self.pointers.remove(ident, None).await? { Ok(()) } else { Err(no_such_table(ident)) };
        };
        loop {
            let current = self.load(ident).await?;
            if current.metadata.uuid() != uuid {
                return Err(table_replaced(ident));
            }
            // Otherwise someone committed, dropped or replaced it meanwhile: look again.
            if self.pointers.remove(ident, Some(&current.metadata_location)).await? {
                return Ok(());
            }
        }
    }

    async fn metadata_location(&self, ident: &TableIdent) -> Result<String> {
        self.pointers.get(ident).await?.ok_or_else(|| no_such_table(ident))
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.pointers.rename(from, to).await
    }

    async fn commit(&self, commits: Vec<TableCommit>) -> Result<CommitOutcome> {
        let mut files = Vec::new();
        let mut swaps = Vec::new();
        let mut results = Vec::new();
        let mut obsolete = Vec::new();
        for commit in &commits {
            if swaps.iter().any(|swap: &PointerSwap| swap.ident == commit.ident) {
                return Err(Error::invalid_input(format!("table `{}` is named twice in one commit", commit.ident)));
            }
            let base = self.load(&commit.ident).await?;
            if let Some(of) = base.unsupported_types.values().next() {
                // Written again, the column would have lost its type.
                let message = format!("table `{}` has a column of the type {of}, and cannot be changed", commit.ident);
                return Err(Error::unsupported(message));
            }
            if commit.base_metadata_location.as_ref().is_some_and(|expected| *expected != base.metadata_location) {
                let reason = "another writer committed first".to_string();
                return Ok(CommitOutcome::Conflict { ident: commit.ident.clone(), reason });
            }
            for requirement in &commit.requirements {
                if let Err(error) = requirement.check(Some(&base.metadata)) {
                    return Ok(CommitOutcome::Conflict { ident: commit.ident.clone(), reason: error.to_string() });
                }
            }
            let (metadata, old) = apply(&base, commit)?;
            obsolete.extend(old);
            let location = metadata_file::next_location(&metadata, Some(&base.metadata_location), self.storage.ids().uuid());
            files.extend(commit.files.iter().cloned());
            files.push(NewFile { location: location.clone(), content: metadata_file::serialize(&metadata)?.into() });
            swaps.push(PointerSwap { ident: commit.ident.clone(), expected: base.metadata_location, new: location.clone() });
            results.push(loaded(&commit.ident, &location, own(metadata)));
        }
        let written = self.write(&files).await;
        let outcome = match written {
            Ok(()) => self.pointers.swap(&swaps).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(SwapOutcome::Swapped) => {
                for table in &results {
                    let LoadedTable { ident, metadata_location, metadata, unsupported_types } = table.clone();
                    self.remember(&ident, &metadata_location, &ParsedMetadata { metadata, unsupported_types });
                }
                for (location, error) in self.storage.delete_all(obsolete).await {
                    tracing::debug!(location, %error, "an old metadata file stays behind");
                }
                Ok(CommitOutcome::Committed(results))
            }
            Ok(SwapOutcome::Unknown(error)) => Ok(CommitOutcome::Unknown(error)),
            Ok(SwapOutcome::Moved(ident)) => {
                for swap in &swaps {
                    self.discard(&swap.new).await;
                }
                let reason = "another writer committed first".to_string();
                Ok(CommitOutcome::Conflict { ident, reason })
            }
            Err(error) => {
                for swap in &swaps {
                    self.discard(&swap.new).await;
                }
                Err(error)
            }
        }
    }

    fn storage(&self) -> &Storage {
        &self.storage
    }
}
