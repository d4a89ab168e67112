use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use iceberg::spec::{ManifestFile, Snapshot, TableMetadata};
use tarndb_catalog::{Error, ErrorKind, Result, Storage, inline_manifests};

use super::columns::{Inherited, ManifestColumns};
use super::entries::{self, FileEntry};
use super::list;

/// Memory for decoded manifests, unless configured.
const DEFAULT_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// How many manifests are read at once.
const READ_CONCURRENCY: usize = 16;

/// Manifest lists and decoded manifests by path, shared by all tables and queries of a lake.
///
/// Both kinds of file are immutable and their names are unique, so nothing here goes stale.
#[derive(Debug)]
pub(crate) struct ManifestCache {
    storage: Storage,
    budget_bytes: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    items: HashMap<String, Item>,
    used_bytes: usize,
    tick: u64,
}

#[derive(Debug)]
struct Item {
    content: Content,
    bytes: usize,
    last_use: u64,
}

#[derive(Debug, Clone)]
enum Content {
    List(Arc<Vec<ManifestFile>>),
    Manifest(Arc<ManifestColumns>),
}

impl ManifestCache {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage, budget_bytes: DEFAULT_BUDGET_BYTES, state: Arc::default() }
    }

    /// The same cache for tables of another storage.
    pub(crate) fn for_storage(&self, storage: Storage) -> Self {
        Self { storage, budget_bytes: self.budget_bytes, state: Arc::clone(&self.state) }
    }

    /// What a path of metadata stands for: tables that were moved may share their old locations.
    fn key(&self, path: &str) -> String {
        format!("{} {path}", self.storage.root())
    }

    fn get(&self, path: &str) -> Option<Content> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tick += 1;
        let tick = state.tick;
        let item = state.items.get_mut(&self.key(path))?;
        item.last_use = tick;
        Some(item.content.clone())
    }

    fn put(&self, path: &str, content: Content, bytes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tick += 1;
        let last_use = state.tick;
        if let Some(old) = state.items.insert(self.key(path), Item { content, bytes, last_use }) {
            state.used_bytes -= old.bytes;
        }
        state.used_bytes += bytes;
        if state.used_bytes <= self.budget_bytes {
            return;
        }
        // Make room for some time, so that a full cache does not sort at every insert.
        let mut by_age: Vec<(u64, String)> = state.items.iter().map(|(k, item)| (item.last_use, k.clone())).collect();
        by_age.sort_unstable();
        for (_, key) in by_age {
            if state.used_bytes <= self.budget_bytes / 10 * 9 {
                break;
            }
            if let Some(old) = state.items.remove(&key) {
                state.used_bytes -= old.bytes;
            }
        }
    }

    /// The manifests of a snapshot.
    pub(crate) async fn manifest_list(&self, snapshot: &Snapshot) -> Result<Arc<Vec<ManifestFile>>> {
        let path = snapshot.manifest_list();
        if let Some(Content::List(list)) = self.get(path) {
            return Ok(list);
        }
        if let Some(manifests) = inline_manifests(path) {
            return Ok(Arc::new(self.inline_list(manifests).await?));
        }
        let bytes = self.storage.read(path).await.map_err(|e| unreadable("manifest list", path, e))?;
        let list = Arc::new(list::decode(&bytes).map_err(|e| unreadable("manifest list", path, e))?);
        self.put(path, Content::List(Arc::clone(&list)), 2 * bytes.len());
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
        if let Some(Content::Manifest(columns)) = self.get(path) {
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
        self.put(path, Content::Manifest(Arc::clone(&columns)), columns.memory_size());
        Ok(columns)
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
