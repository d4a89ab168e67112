use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use iceberg::spec::{ManifestFile, Snapshot, TableMetadata};
use tarndb_catalog::{Error, ErrorKind, Result, Storage, inline_manifests};

use super::columns::{Inherited, ManifestColumns};
use super::entries::{self, FileEntry};
use super::list;
use crate::byte_cache::ByteCache;

/// Memory for decoded manifests, in bytes.
const BUDGET: u64 = 256 * 1024 * 1024;

/// How many manifests are read at once.
const READ_CONCURRENCY: usize = 16;

/// Manifest lists and decoded manifests by path, shared by all tables and queries of a lake.
///
/// Both kinds of file are immutable and their names are unique, so nothing here goes stale.
#[derive(Debug)]
pub(crate) struct ManifestCache {
    storage: Storage,
    items: ByteCache<String, Content>,
}

#[derive(Debug, Clone)]
enum Content {
    List(Arc<Vec<ManifestFile>>),
    Manifest(Arc<ManifestColumns>),
}

impl ManifestCache {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage, items: ByteCache::new(BUDGET) }
    }

    /// The same cache for tables of another storage.
    pub(crate) fn for_storage(&self, storage: Storage) -> Self {
        Self { storage, items: self.items.clone() }
    }

    /// What a path of metadata stands for: tables that were moved may share their old locations.
    fn key(&self, path: &str) -> String {
        format!("{} {path}", self.storage.root())
    }

    /// The manifests of a snapshot.
    pub(crate) async fn manifest_list(&self, snapshot: &Snapshot) -> Result<Arc<Vec<ManifestFile>>> {
        let path = snapshot.manifest_list();
        if let Some(Content::List(list)) = self.items.get(&self.key(path)).await {
            return Ok(list);
        }
        if let Some(manifests) = inline_manifests(path) {
            return Ok(Arc::new(self.inline_list(manifests).await?));
        }
        let bytes = self.storage.read(path).await.map_err(|e| unreadable("manifest list", path, e))?;
        let list = Arc::new(list::decode(&bytes).map_err(|e| unreadable("manifest list", path, e))?);
        self.items.put(self.key(path), Content::List(Arc::clone(&list)), 2 * bytes.len()).await;
        Ok(list)
    }

    /// The lines of a manifest list that was never written: snapshots of format version 1 may name their manifests themselves.
    async fn inline_list(&self, manifests: Vec<String>) -> Result<Vec<ManifestFile>> {
        let line = |path: String| async move {
            let bytes = self.storage.read(&path).await.map_err(|e| unreadable("manifest", &path, e))?;
            list::line_of(&path, &bytes).map_err(|e| unreadable("manifest", &path, e))
        };
        stream::iter(manifests).map(line).buffered(READ_CONCURRENCY).try_collect().await
    }

    /// One decoded manifest.
    pub(crate) async fn manifest(&self, file: &ManifestFile) -> Result<Arc<ManifestColumns>> {
        let path = &file.manifest_path;
        if let Some(Content::Manifest(columns)) = self.items.get(&self.key(path)).await {
            return Ok(columns);
        }
        let bytes = self.storage.read(path).await.map_err(|e| unreadable("manifest", path, e))?;
        let inherited = Inherited::from(file);
        // On a worker and not on one of the many threads for blocking calls: each thread has memory of its own, and fresh
        // memory costs more than the decoding.
        let decoded = tokio::spawn(async move { ManifestColumns::decode(&bytes, inherited) }).await;
        let columns = decoded
            .map_err(|e| Error::internal("decoding a manifest stopped").with_source(e))?
            .map_err(|e| unreadable("manifest", path, e))?;
        let columns = Arc::new(columns);
        self.items.put(self.key(path), Content::Manifest(Arc::clone(&columns)), columns.memory_size()).await;
        Ok(columns)
    }

    /// Gives up a manifest or a list that the newest snapshot does not have any more.
    pub(crate) async fn forget(&self, path: &str) {
        self.items.forget(&self.key(path)).await;
    }

    /// Everything that a manifest of `metadata`'s table says of its files, which only a commit that writes it anew needs;
    /// `None` for removed files.
    pub(crate) async fn entries(&self, metadata: &TableMetadata, file: &ManifestFile) -> Result<Vec<Option<FileEntry>>> {
        let path = &file.manifest_path;
        let bytes = self.storage.read(path).await.map_err(|e| unreadable("manifest", path, e))?;
        entries::decode(&bytes, file, metadata).map_err(|e| unreadable("manifest", path, e))
    }

    /// Decoded manifests in the order given, read concurrently.
    pub(crate) async fn manifests(&self, files: Vec<ManifestFile>) -> Result<Vec<(ManifestFile, Arc<ManifestColumns>)>> {
        self.stream(files).try_collect().await
    }

    /// The same, one after the other: who stops asking reads no more of them than are under way.
    pub(crate) fn stream(
        &self,
        files: Vec<ManifestFile>,
    ) -> impl Stream<Item = Result<(ManifestFile, Arc<ManifestColumns>)>> + '_ {
        let read = move |file: ManifestFile| async move {
            let columns = self.manifest(&file).await?;
            Ok::<_, Error>((file, columns))
        };
        stream::iter(files).map(read).buffered(READ_CONCURRENCY)
    }
}

/// A file that metadata names must be there and whole: what is wrong with it is wrong with the table.
fn unreadable(what: &str, path: &str, error: Error) -> Error {
    let message = match error.kind() {
        ErrorKind::NotFound => format!("{what} is missing"),
        ErrorKind::DataInvalid => format!("{what} is damaged: {error}"),
        _ => return error.with_context("file", path),
    };
    Error::data_invalid(message).with_context("file", path).with_source(error)
}
