use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use iceberg::TableIdent;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::{
    PointerStore, PointerSwap, SwapOutcome, namespace_exists, namespace_not_empty, namespace_text, no_such_namespace,
    no_such_table, table_exists,
};
use crate::{Error, ErrorKind, Result};

/// The value of `catalog_name` in every row, PyIceberg's `SqlCatalog("default", …)`.
const CATALOG: &str = "default";

/// How long a writer waits for the database's write lock, which is held for one small transaction at a time.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// A primary code of SQLite, the low byte of an extended one.
const SQLITE_BUSY: i32 = 5;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_IOERR_SHMSIZE: i32 = SQLITE_IOERR | (19 << 8);
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_NOTADB: i32 = 26;

/// Pointers in the tables of PyIceberg's `SqlCatalog`.
#[derive(Debug)]
pub(super) struct SqlitePointers {
    pool: SqlitePool,
}

impl SqlitePointers {
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let writable = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(writable).await;
        let pool = match pool {
            // A lake on a read-only mount can still be read: WAL needs to write beside the database, `immutable` does not.
            Err(e) if path.exists() && matches!(sqlite_code(&e), Some(SQLITE_READONLY | SQLITE_CANTOPEN)) => {
                let read_only = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
                let pool = SqlitePoolOptions::new().max_connections(4).connect_with(read_only).await;
                return Ok(Self { pool: pool.map_err(|e| failure(e).with_context("catalog", path.display().to_string()))? });
            }
            other => other.map_err(|e| failure(e).with_context("catalog", path.display().to_string()))?,
        };
        let catalog = Self { pool };
        catalog.create_tables().await.map_err(|e| failure(e).with_context("catalog", path.display().to_string()))?;
        Ok(catalog)
    }

    /// Metadata files that are not below `root`.
    pub(super) async fn outside(&self, root: &str) -> Result<Vec<String>> {
        let below = format!("{root}/");
        sqlx::query_scalar(
            "SELECT metadata_location FROM iceberg_tables
             WHERE catalog_name = ? AND substr(metadata_location, 1, length(?)) <> ?",
        )
        .bind(CATALOG)
        .bind(&below)
        .bind(&below)
        .fetch_all(&self.pool)
        .await
        .map_err(failure)
    }

    async fn create_tables(&self) -> sqlx::Result<()> {
        let present: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('iceberg_tables', 'iceberg_namespace_properties')",
        )
        .fetch_one(&self.pool)
        .await?;
        if present == 2 {
            return Ok(());
        }
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS iceberg_tables (
                catalog_name VARCHAR(255) NOT NULL,
                table_namespace VARCHAR(255) NOT NULL,
                table_name VARCHAR(255) NOT NULL,
                metadata_location VARCHAR(1000),
                previous_metadata_location VARCHAR(1000),
                PRIMARY KEY (catalog_name, table_namespace, table_name))",
        )
        .execute(&self.pool)
        .await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
                catalog_name VARCHAR(255) NOT NULL,
                namespace VARCHAR(255) NOT NULL,
                property_key VARCHAR(255) NOT NULL,
                property_value VARCHAR(1000) NOT NULL,
                PRIMARY KEY (catalog_name, namespace, property_key))",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A transaction that holds the write lock from its start, so that what it reads stays true until it commits.
    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>> {
        // Who gives up after sqlx 0.8 began and before it looked whether it did leaves a connection in the pool that holds the lock for
        // ever. So nobody can: in a task of its own it ends, and what nobody waits for is rolled back.
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with("BEGIN IMMEDIATE").await });
        begun.await.map_err(|e| Error::internal("a transaction of the catalog ended early").with_source(e))?.map_err(failure)
    }
}

fn extended_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

fn sqlite_code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

fn failure(error: sqlx::Error) -> Error {
    let (kind, message) = match sqlite_code(&error) {
        Some(SQLITE_BUSY) => (ErrorKind::Unavailable, "the catalog is busy: other writers held it for a minute"),
        Some(SQLITE_READONLY) => (ErrorKind::Unavailable, "the catalog is read-only"),
        Some(SQLITE_CANTOPEN) => (ErrorKind::Unavailable, "the catalog cannot be opened"),
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => (ErrorKind::DataInvalid, "the catalog database is damaged"),
        // Extending the files of the write-ahead log fails so.
        Some(SQLITE_IOERR) if extended_code(&error) == Some(SQLITE_IOERR_SHMSIZE) => {
            (ErrorKind::ResourcesExhausted, "no space left for the catalog")
        }
        Some(SQLITE_FULL) => (ErrorKind::ResourcesExhausted, "no space left for the catalog"),
        _ => (ErrorKind::Unavailable, "the catalog failed"),
    };
    Error::new(kind, message).with_source(error)
}

/// Ends a transaction. When SQLite refuses for a reason after which it has rolled back for certain, nothing took
/// effect; any other failure leaves the outcome unknown.
async fn commit(tx: sqlx::Transaction<'static, sqlx::Sqlite>) -> Result<()> {
    tx.commit().await.map_err(|e| match sqlite_code(&e) {
        Some(SQLITE_BUSY | SQLITE_READONLY) => failure(e),
        _ => Error::new(ErrorKind::CommitStateUnknown, "the catalog failed while it committed").with_source(e),
    })
}

async fn has_namespace(tx: &mut sqlx::SqliteConnection, namespace: &str) -> Result<bool> {
    let found: i64 = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM iceberg_namespace_properties WHERE catalog_name = ?1 AND namespace = ?2)
             OR EXISTS (SELECT 1 FROM iceberg_tables WHERE catalog_name = ?1 AND table_namespace = ?2)",
    )
    .bind(CATALOG)
    .bind(namespace)
    .fetch_one(tx)
    .await
    .map_err(failure)?;
    Ok(found != 0)
}

async fn pointer(tx: &mut sqlx::SqliteConnection, ident: &TableIdent) -> Result<Option<String>> {
    let found: Option<Option<String>> = sqlx::query_scalar(
        "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
    )
    .bind(CATALOG)
    .bind(namespace_text(ident.namespace())?)
    .bind(ident.name())
    .fetch_optional(tx)
    .await
    .map_err(failure)?;
    match found {
        None => Ok(None),
        Some(Some(location)) => Ok(Some(location)),
        Some(None) => Err(Error::data_invalid(format!("the catalog has no metadata location for table `{ident}`"))),
    }
}

#[async_trait]
impl PointerStore for SqlitePointers {
    async fn create_namespace(&self, namespace: &str, properties: Vec<(String, String)>) -> Result<()> {
        let mut tx = self.begin().await?;
        if has_namespace(&mut tx, namespace).await? {
            return Err(namespace_exists(namespace));
        }
        // PyIceberg marks a namespace without properties in this way.
        let marker = ("exists".to_string(), "true".to_string());
        let rows = if properties.is_empty() { vec![marker] } else { properties };
        for (key, value) in rows {
            sqlx::query("INSERT INTO iceberg_namespace_properties VALUES (?, ?, ?, ?)")
                .bind(CATALOG)
                .bind(namespace)
                .bind(key)
                .bind(value)
                .execute(&mut *tx)
                .await
                .map_err(failure)?;
        }
        commit(tx).await
    }

    async fn drop_namespace(&self, namespace: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        if !has_namespace(&mut tx, namespace).await? {
            return Err(no_such_namespace(namespace));
        }
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ?")
                .bind(CATALOG)
                .bind(namespace)
                .fetch_one(&mut *tx)
                .await
                .map_err(failure)?;
        if tables > 0 {
            return Err(namespace_not_empty(namespace, usize::try_from(tables).unwrap_or(usize::MAX)));
        }
        sqlx::query("DELETE FROM iceberg_namespace_properties WHERE catalog_name = ? AND namespace = ?")
            .bind(CATALOG)
            .bind(namespace)
            .execute(&mut *tx)
            .await
            .map_err(failure)?;
        commit(tx).await
    }

    async fn list_namespaces(&self) -> Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = ?1
             UNION SELECT table_namespace FROM iceberg_tables WHERE catalog_name = ?1 ORDER BY 1",
        )
        .bind(CATALOG)
        .fetch_all(&self.pool)
        .await
        .map_err(failure)
    }

    async fn namespace_exists(&self, namespace: &str) -> Result<bool> {
        let mut connection = self.pool.acquire().await.map_err(failure)?;
        has_namespace(&mut connection, namespace).await
    }

    async fn list(&self, namespace: &str) -> Result<Vec<String>> {
        let mut connection = self.pool.acquire().await.map_err(failure)?;
        if !has_namespace(&mut connection, namespace).await? {
            return Err(no_such_namespace(namespace));
        }
        sqlx::query_scalar("SELECT table_name FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ? ORDER BY 1")
            .bind(CATALOG)
            .bind(namespace)
            .fetch_all(&mut *connection)
            .await
            .map_err(failure)
    }

    async fn get(&self, ident: &TableIdent) -> Result<Option<String>> {
        let mut connection = self.pool.acquire().await.map_err(failure)?;
        pointer(&mut connection, ident).await
    }

    async fn insert(&self, ident: &TableIdent, location: &str) -> Result<()> {
        let namespace = namespace_text(ident.namespace())?;
        let mut tx = self.begin().await?;
        if !has_namespace(&mut tx, &namespace).await? {
            return Err(no_such_namespace(&namespace));
        }
        if pointer(&mut tx, ident).await?.is_some() {
            return Err(table_exists(ident));
        }
        sqlx::query(
            "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location)
             VALUES (?, ?, ?, ?, NULL)",
        )
        .bind(CATALOG)
        .bind(namespace)
        .bind(ident.name())
        .bind(location)
        .execute(&mut *tx)
        .await
        .map_err(failure)?;
        commit(tx).await
    }

    async fn remove(&self, ident: &TableIdent, expected: Option<&str>) -> Result<bool> {
        let mut tx = self.begin().await?;
        let removed = sqlx::query(
            "DELETE FROM iceberg_tables WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3
             AND (?4 IS NULL OR metadata_location = ?4)",
        )
        .bind(CATALOG)
        .bind(namespace_text(ident.namespace())?)
        .bind(ident.name())
        .bind(expected)
        .execute(&mut *tx)
        .await
        .map_err(failure)?;
        commit(tx).await?;
        Ok(removed.rows_affected() > 0)
    }

    async fn rename(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        let target = namespace_text(to.namespace())?;
        let mut tx = self.begin().await?;
        if !has_namespace(&mut tx, &target).await? {
            return Err(no_such_namespace(&target));
        }
        if pointer(&mut tx, to).await?.is_some() {
            return Err(table_exists(to));
        }
        let renamed = sqlx::query(
            "UPDATE iceberg_tables SET table_namespace = ?, table_name = ?
             WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
        )
        .bind(target)
        .bind(to.name())
        .bind(CATALOG)
        .bind(namespace_text(from.namespace())?)
        .bind(from.name())
        .execute(&mut *tx)
        .await
        .map_err(failure)?;
        if renamed.rows_affected() == 0 {
            return Err(no_such_table(from));
        }
        commit(tx).await
    }

    async fn swap(&self, swaps: &[PointerSwap]) -> Result<SwapOutcome> {
        let mut tx = self.begin().await?;
        for swap in swaps {
            let moved = sqlx::query(
                "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ?
                 WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? AND metadata_location = ?",
            )
            .bind(&swap.new)
            .bind(&swap.expected)
            .bind(CATALOG)
            .bind(namespace_text(swap.ident.namespace())?)
            .bind(swap.ident.name())
            .bind(&swap.expected)
            .execute(&mut *tx)
            .await
            .map_err(failure)?;
            if moved.rows_affected() == 0 {
                return Ok(SwapOutcome::Moved(swap.ident.clone()));
            }
        }
        match commit(tx).await {
            Ok(()) => Ok(SwapOutcome::Swapped),
            Err(e) if e.kind() == ErrorKind::CommitStateUnknown => Ok(SwapOutcome::Unknown(e)),
            Err(e) => Err(e),
        }
    }
}
