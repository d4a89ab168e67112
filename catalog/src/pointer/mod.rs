//! Catalogs that keep one pointer per table to its current metadata file and move it by compare-and-swap.
//!
//! What is the same for all of them (checking requirements, applying updates, writing metadata files) is in
//! [`catalog`]; a [`PointerStore`] adds where the pointers live.

mod catalog;
mod memory;
mod moved;
mod sqlite;

use std::fmt::Debug;

use async_trait::async_trait;
use iceberg::{NamespaceIdent, TableIdent};

use crate::{Catalog, Error, Result, Storage};

pub use catalog::table_root;

/// A table's move from one metadata file to the next.
#[derive(Debug, Clone)]
struct PointerSwap {
    ident: TableIdent,
    expected: String,
    new: String,
}

/// What became of a swap.
#[derive(Debug)]
enum SwapOutcome {
    Swapped,
    /// The pointer of this table was not the expected one; nothing moved.
    Moved(TableIdent),
    Unknown(Error),
}

/// Where pointers live.
#[async_trait]
trait PointerStore: Debug + Send + Sync {
    async fn create_namespace(&self, namespace: &str, properties: Vec<(String, String)>) -> Result<()>;
    /// Fails with `InvalidInput` while it holds tables.
    async fn drop_namespace(&self, namespace: &str) -> Result<()>;
    async fn list_namespaces(&self) -> Result<Vec<String>>;
    async fn namespace_exists(&self, namespace: &str) -> Result<bool>;
    async fn list(&self, namespace: &str) -> Result<Vec<String>>;
    async fn get(&self, ident: &TableIdent) -> Result<Option<String>>;
    async fn insert(&self, ident: &TableIdent, location: &str) -> Result<()>;
    /// Removes a pointer; with `expected`, only this one. Whether it was there.
    async fn remove(&self, ident: &TableIdent, expected: Option<&str>) -> Result<bool>;
    async fn rename(&self, from: &TableIdent, to: &TableIdent) -> Result<()>;
    /// Moves all pointers or none.
    async fn swap(&self, swaps: &[PointerSwap]) -> Result<SwapOutcome>;
}

/// A catalog in memory, gone with its process. Its data is where `storage` says.
pub fn memory_catalog(storage: Storage) -> impl Catalog {
    catalog::PointerCatalog::new(memory::MemoryPointers::default(), storage)
}

/// Opens, and creates when missing, a catalog in the SQLite database file `path`.
///
/// The tables are those of PyIceberg's `SqlCatalog` with `catalog_name = 'default'`, so that
/// `SqlCatalog("default", uri="sqlite:///…")` opens the same lake. WAL, `synchronous=FULL`.
///
/// # Errors
/// `Unavailable` when the file cannot be opened, `DataInvalid` when it is not a database, `InvalidInput` when the lake's
/// folder was moved or copied since its tables were made.
pub async fn sqlite_catalog(path: &std::path::Path, storage: Storage) -> Result<impl Catalog + use<>> {
    let pointers = sqlite::SqlitePointers::open(path).await?;
    if let Some(folder) = storage.local_folder() {
        moved::check(&folder, &pointers.outside(storage.root()).await?)?;
    }
    Ok(catalog::PointerCatalog::new(pointers, storage))
}

/// The text by which SQL catalogs store a namespace: its levels joined with dots.
fn namespace_text(namespace: &NamespaceIdent) -> Result<String> {
    if let Some(level) = namespace.iter().find(|level| level.is_empty() || level.contains('.')) {
        return Err(Error::invalid_input(format!("`{level}` cannot be a namespace: empty or with a dot")));
    }
    Ok(namespace.join("."))
}

fn no_such_table(ident: &TableIdent) -> Error {
    Error::not_found(format!("table `{ident}` does not exist"))
}

fn table_exists(ident: &TableIdent) -> Error {
    Error::new(crate::ErrorKind::AlreadyExists, format!("table `{ident}` exists already"))
}

fn no_such_namespace(namespace: &str) -> Error {
    Error::not_found(format!("namespace `{namespace}` does not exist"))
}

fn namespace_exists(namespace: &str) -> Error {
    Error::new(crate::ErrorKind::AlreadyExists, format!("namespace `{namespace}` exists already"))
}

fn namespace_not_empty(namespace: &str, tables: usize) -> Error {
    Error::invalid_input(format!("namespace `{namespace}` holds {tables} table(s): drop them first, or use CASCADE"))
}
