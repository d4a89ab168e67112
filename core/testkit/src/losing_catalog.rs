use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use iceberg::{NamespaceIdent, TableIdent};
use tarndb_catalog::{Catalog, CommitOutcome, Error, ErrorKind, LoadedTable, NewFile, Result, Storage, TableCommit};
use uuid::Uuid;

/// What happens to the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It is carried out as asked.
    None,
    /// It takes effect, and its reply is lost.
    AfterCommit,
    /// It is lost before it takes effect, and so is its reply.
    BeforeCommit,
}

/// A catalog whose next commit ends with an unknown outcome. Clones share what is armed.
#[derive(Debug, Clone)]
pub struct LosingCatalog {
    inner: Arc<dyn Catalog>,
    next: Arc<AtomicU8>,
}

impl LosingCatalog {
    /// Wraps a catalog; `next` arms it: see [`LosingCatalog::arm`].
    pub fn new(inner: Arc<dyn Catalog>, next: Arc<AtomicU8>) -> Self {
        Self { inner, next }
    }

    /// Sets what happens to the next commit.
    pub fn arm(next: &AtomicU8, loss: Loss) {
        next.store(loss as u8, Ordering::SeqCst);
    }
}

#[async_trait]
impl Catalog for LosingCatalog {
    async fn create_namespace(&self, namespace: &NamespaceIdent, properties: HashMap<String, String>) -> Result<()> {
        self.inner.create_namespace(namespace, properties).await
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.inner.drop_namespace(namespace).await
    }

    async fn list_namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        self.inner.list_namespaces().await
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        self.inner.namespace_exists(namespace).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.inner.list_tables(namespace).await
    }

    async fn load_table(&self, ident: &TableIdent) -> Result<LoadedTable> {
        self.inner.load_table(ident).await
    }

    async fn table_exists(&self, ident: &TableIdent) -> Result<bool> {
        self.inner.table_exists(ident).await
    }

    async fn create_table(&self, ident: &TableIdent, metadata: TableMetadata, files: Vec<NewFile>) -> Result<LoadedTable> {
        self.inner.create_table(ident, metadata, files).await
    }

    async fn drop_table(&self, ident: &TableIdent, uuid: Option<Uuid>) -> Result<()> {
        self.inner.drop_table(ident, uuid).await
    }

    async fn metadata_location(&self, ident: &TableIdent) -> Result<String> {
        self.inner.metadata_location(ident).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.inner.rename_table(from, to).await
    }

    async fn commit(&self, commits: Vec<TableCommit>) -> Result<CommitOutcome> {
        let lost = || CommitOutcome::Unknown(Error::new(ErrorKind::Unavailable, "the reply was lost"));
        match self.next.swap(Loss::None as u8, Ordering::SeqCst) {
            loss if loss == Loss::AfterCommit as u8 => {
                self.inner.commit(commits).await?;
                Ok(lost())
            }
            loss if loss == Loss::BeforeCommit as u8 => Ok(lost()),
            _ => self.inner.commit(commits).await,
        }
    }

    fn storage(&self) -> &Storage {
        self.inner.storage()
    }
}
