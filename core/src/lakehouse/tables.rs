//! Verbs on tables, for bindings: the same as the SQL statements.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::physical_expr::PhysicalExpr;
use futures::FutureExt;
use futures::stream::{self, Stream, StreamExt};
use iceberg::TableIdent;
use tarndb_catalog::{Error, ErrorKind, Result};

use super::{Lakehouse, QueryResult};
use crate::query::{self, NewTable, RowChange, WrittenChange};
use crate::table::Table;
use crate::transaction::{Append, Caller, Transaction, WrittenFile};
use crate::writer::{Matching, conform, write_rows};

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendResult {
    /// Rows added.
    pub rows: u64,
    /// Data files added.
    pub files: u64,
    /// The snapshot that has them; `None` when there were none.
    pub snapshot_id: Option<i64>,
}

/// What a delete did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteResult {
    /// Rows deleted.
    pub rows: u64,
    /// Data files that went as a whole.
    pub removed_data_files: u64,
    /// Position delete files added.
    pub added_delete_files: u64,
}

impl Lakehouse {
    /// Creates an empty table with the columns of an Arrow schema.
    ///
    /// `partition_by` holds transforms such as `day(ts)` and `bucket(16, id)`, `properties` Iceberg table properties.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for the namespace; `Unsupported` for types without an Iceberg counterpart.
    pub async fn create_table(
        &self,
        name: &str,
        schema: &SchemaRef,
        partition_by: &[String],
        properties: Vec<(String, String)>,
    ) -> Result<Table> {
        self.check_open()?;
        let ident = query::parse_table_name(name)?;
        let new = NewTable::from_arrow(schema, partition_by, properties)?;
        query::create_table(self, &ident, new).await
    }

    /// Creates a table with the columns of an Arrow schema and rows in that schema: it appears with all of them, or not at
    /// all. Returns how many there were. See [`Lakehouse::create_table`].
    ///
    /// # Errors
    /// As [`Lakehouse::create_table`], and those of the stream.
    pub async fn create_table_from(
        &self,
        name: &str,
        schema: &SchemaRef,
        rows: impl Stream<Item = Result<RecordBatch>> + Send,
        partition_by: &[String],
        properties: Vec<(String, String)>,
    ) -> Result<u64> {
        self.check_open()?;
        let ident = query::parse_table_name(name)?;
        let new = NewTable::from_arrow(schema, partition_by, properties)?;
        let memory = Arc::clone(&self.session_context().runtime_env().memory_pool);
        query::create_table_from(self, &ident, new, rows, &memory).boxed().await
    }

    /// Removes a table from the catalog; with `purge`, deletes its folder too.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn drop_table(&self, name: &str, purge: bool) -> Result<()> {
        self.check_open()?;
        query::drop_table(self, &query::parse_table_name(name)?, purge).await
    }

    /// Adds rows to a table in one commit. Columns are matched by name; those that are missing become their default, or NULL.
    ///
    /// # Errors
    /// `InvalidInput` when the rows do not fit; `CommitStateUnknown`; those of the stream and the storage. The table is
    /// unchanged after every error but `CommitStateUnknown`.
    pub async fn append(&self, name: &str, rows: impl Stream<Item = Result<RecordBatch>> + Send) -> Result<AppendResult> {
        let memory = Arc::clone(&self.session_context().runtime_env().memory_pool);
        append_rows(&self.table(name).await?, rows, Matching::ByName, &memory).boxed().await
    }

    /// Adds batches that are there already: see [`Lakehouse::append`].
    ///
    /// # Errors
    /// As [`Lakehouse::append`].
    pub async fn append_batches(&self, name: &str, batches: Vec<RecordBatch>) -> Result<AppendResult> {
        self.append(name, stream::iter(batches.into_iter().map(Ok))).await
    }

    /// Deletes the rows for which the SQL expression `predicate` is true.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong predicate; `CommitConflict`, `CommitStateUnknown`.
    pub async fn delete(&self, name: &str, predicate: &str) -> Result<DeleteResult> {
        query::delete_where(self, &query::parse_table_name(name)?, predicate).boxed().await
    }

    /// Reads a table: some columns, or all; rows for which `predicate` is true, or all; at most `limit`.
    ///
    /// # Errors
    /// `InvalidInput` for unknown columns and wrong predicates.
    pub async fn scan(
        &self,
        table: &Table,
        columns: Option<&[String]>,
        predicate: Option<&str>,
        limit: Option<usize>,
    ) -> Result<QueryResult> {
        query::scan_table(self, table, columns, predicate, limit, HashSet::new()).boxed().await
    }

    /// Reads columns of a table, metadata columns such as `_file` and `_pos` among them, but for the rows of some data files. Who
    /// follows a table reads so what is new in it.
    ///
    /// # Errors
    /// As [`Lakehouse::scan`].
    pub async fn scan_other_files(&self, table: &Table, columns: &[String], skip: HashSet<String>) -> Result<QueryResult> {
        query::scan_table(self, table, Some(columns), None, None, skip).boxed().await
    }

    /// Commits rows that come into a table and rows that leave it, together. `table` is the state in which their positions are;
    /// returns the state after the commit.
    ///
    /// # Errors
    /// `CommitConflict` when anyone added rows to the table since, compacted it, or deleted other rows of the same files: look at the
    /// table again then; `CommitStateUnknown`; `InvalidInput` when rows do not fit, or the summary
    /// has a name that the specification has.
    pub async fn change_rows(&self, table: &Table, change: RowChange) -> Result<Table> {
        self.write_change(table, change).await?.commit(HashMap::new()).boxed().await
    }

    /// Writes the files of such a change, which becomes part of the table when it is committed: for those who have something else to
    /// wait for before that.
    ///
    /// # Errors
    /// `InvalidInput` as [`Lakehouse::change_rows`]; `ResourcesExhausted`; the storage's. What was written is deleted again.
    pub async fn write_change(&self, table: &Table, change: RowChange) -> Result<WrittenChange> {
        self.check_open()?;
        query::write_change(self, table, change).boxed().await
    }

    /// A table of someone else, which no catalog needs to know, at the version that is current now: by the path of its folder,
    /// or of one of its metadata files. When the folder was moved, its files are found where it is now. It can be read, with
    /// [`Lakehouse::scan`], and not changed.
    ///
    /// # Errors
    /// `NotFound` when there is no table; `DataInvalid` when its metadata cannot be read; `Unsupported` for format versions
    /// after 3 and for other stores than the local file system.
    pub async fn read_iceberg(&self, path: &str) -> Result<Table> {
        self.check_open()?;
        Table::at_path(self.env(), path).await
    }

    /// A SQL condition over a table's columns, for [`crate::maintenance::rewrite_data_files`].
    ///
    /// # Errors
    /// `InvalidInput` when it is not one.
    pub fn predicate(&self, table: &Table, condition: &str) -> Result<Arc<dyn PhysicalExpr>> {
        query::physical_predicate(self, table, condition)
    }

    /// The table of this name, or `None` when there is no such table.
    ///
    /// # Errors
    /// All but `NotFound`.
    pub async fn find_table(&self, ident: &TableIdent) -> Result<Option<Table>> {
        match self.load(ident).await {
            Ok(table) => Ok(Some(table)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Writes rows as files of a table, in its current schema.
pub(crate) async fn write_batches(
    table: &Table,
    rows: impl Stream<Item = Result<RecordBatch>> + Send,
    matching: Matching,
    memory: &Arc<dyn MemoryPool>,
) -> Result<Vec<WrittenFile>> {
    let schema = crate::table::arrow_schema(table.metadata().current_schema())?;
    let defaults = table.write_defaults()?;
    let target = Arc::clone(&schema);
    let conformed = rows.map(move |batch| conform(&batch?, &target, matching, &defaults));
    write_rows(table, &schema, conformed, memory).await.map_err(|e: Error| e.with_context("table", table.ident().to_string()))
}

/// Writes rows and commits them.
pub(crate) async fn append_rows(
    table: &Table,
    rows: impl Stream<Item = Result<RecordBatch>> + Send,
    matching: Matching,
    memory: &Arc<dyn MemoryPool>,
) -> Result<AppendResult> {
    table.check_writable()?;
    let files = write_batches(table, rows, matching, memory).await?;
    if files.is_empty() {
        return Ok(AppendResult { rows: 0, files: 0, snapshot_id: None });
    }
    let rows = files.iter().map(|written| written.file.record_count()).sum();
    let count = files.len() as u64;
    let committed = Transaction::new(table, Caller::User).with(Append::new(table, files)).commit().await?;
    tracing::debug!(table = %table.ident(), rows, attempts = committed.attempts, "appended");
    Ok(AppendResult { rows, files: count, snapshot_id: committed.table.metadata.current_snapshot_id() })
}
