use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use iceberg::{NamespaceIdent, TableIdent};

use uuid::Uuid;

use crate::{CommitOutcome, Error, ErrorKind, Result, Storage, TableCommit};

/// A table as its catalog knows it at one moment.
#[derive(Debug, Clone)]
pub struct LoadedTable {
    /// Name of the table.
    pub ident: TableIdent,
    /// Location of the metadata file that is current.
    pub metadata_location: String,
    /// The content of that file.
    pub metadata: Arc<TableMetadata>,
    /// Columns, by field id, of types that are not supported yet, with the type as the metadata file has it. In `metadata`
    /// they are of the type `binary`.
    pub unsupported_types: Arc<BTreeMap<i32, String>>,
}

/// Names tables and makes commits atomic.
///
/// Every implementation passes one conformance suite (`catalog/tests/integration/suite.rs`). Methods that change
/// something either take effect wholly or not at all; each is durable when it returns.
#[async_trait]
pub trait Catalog: Debug + Send + Sync {
    /// Creates a namespace. Errors: `AlreadyExists`.
    async fn create_namespace(&self, namespace: &NamespaceIdent, properties: HashMap<String, String>) -> Result<()>;

    /// Removes a namespace. Errors: `NotFound`; `InvalidInput` while it holds tables.
    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()>;

    /// All namespaces, sorted by name.
    async fn list_namespaces(&self) -> Result<Vec<NamespaceIdent>>;

    /// Whether the namespace exists.
    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool>;

    /// The tables of a namespace, sorted by name. Errors: `NotFound`.
    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>>;

    /// The current state of a table. Errors: `NotFound`; `DataInvalid` when its metadata cannot be read.
    async fn load_table(&self, ident: &TableIdent) -> Result<LoadedTable>;

    /// Whether the table exists. Reads no metadata file.
    async fn table_exists(&self, ident: &TableIdent) -> Result<bool>;

    /// Creates a table from metadata that names its location. `files` become durable before the table appears.
    /// Errors: `AlreadyExists`; `NotFound` for the namespace; `CommitStateUnknown`.
    async fn create_table(&self, ident: &TableIdent, metadata: TableMetadata, files: Vec<crate::NewFile>) -> Result<LoadedTable>;

    /// Removes the table's name; its files stay. With `uuid`, only while the name stands for the table with this uuid.
    /// Errors: `NotFound`; `CommitConflict` when the name stands for another table, which keeps it.
    async fn drop_table(&self, ident: &TableIdent, uuid: Option<Uuid>) -> Result<()>;

    /// The location of the table's metadata file, which is not read. Errors: `NotFound`.
    async fn metadata_location(&self, ident: &TableIdent) -> Result<String>;

    /// Renames a table, also into another namespace. Errors: `NotFound`, `AlreadyExists`.
    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()>;

    /// Commits changes of one or several tables, all or none. `Err` means that nothing took effect, except
    /// [`CommitOutcome::Unknown`], which says that this could not be learnt.
    async fn commit(&self, commits: Vec<TableCommit>) -> Result<CommitOutcome>;

    /// The storage of the lake.
    fn storage(&self) -> &Storage;
}

/// The error of an operation on a table whose name stands for another table by now.
pub fn table_replaced(ident: &TableIdent) -> Error {
    let message = format!("the table `{ident}` was dropped or renamed, and another was created under its name");
    Error::new(ErrorKind::CommitConflict, message)
}
