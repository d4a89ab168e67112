//! A lake: the entry point of every user.

mod builder;
mod result;
mod tables;

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use datafusion::common::ParamValues;
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use iceberg::{NamespaceIdent, TableIdent};
use tarndb_catalog::{Error, Result, Storage};

pub use builder::{CatalogLayer, LakehouseBuilder, connect};
pub use result::QueryResult;
pub use tables::{AppendResult, DeleteResult};
pub(crate) use tables::{append_rows, write_batches};

use crate::extension::Extension;
use crate::query;
use crate::table::{Environment, Table};

/// An open lake. Clones share everything; the lake stays open until the last is dropped.
#[derive(Clone)]
pub struct Lakehouse(Arc<Inner>);

/// A lake that this does not keep open: what works in the background has it.
#[derive(Clone)]
pub struct WeakLakehouse(Weak<Inner>);

impl WeakLakehouse {
    /// The lake, unless it was dropped.
    pub fn upgrade(&self) -> Option<Lakehouse> {
        self.0.upgrade().map(Lakehouse)
    }
}

impl fmt::Debug for WeakLakehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakLakehouse").finish_non_exhaustive()
    }
}

struct Inner {
    env: Arc<Environment>,
    context: SessionContext,
    extensions: Vec<Arc<dyn Extension>>,
    /// The process that opened the lake.
    process_id: u32,
    closed: AtomicBool,
}

impl fmt::Debug for Lakehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lakehouse").field("location", &self.location()).finish_non_exhaustive()
    }
}

impl Lakehouse {
    /// Begins to configure a lake at `url`: see [`connect`].
    pub fn builder(url: impl Into<String>) -> LakehouseBuilder {
        LakehouseBuilder::new(url)
    }

    fn new(env: Environment, extensions: Vec<Arc<dyn Extension>>) -> Result<Self> {
        let env = Arc::new(env);
        let context = query::session_context(&env)?;
        Ok(Self(Arc::new(Inner { env, context, extensions, process_id: std::process::id(), closed: AtomicBool::new(false) })))
    }

    /// The lake for someone who does not keep it open.
    pub fn downgrade(&self) -> WeakLakehouse {
        WeakLakehouse(Arc::downgrade(&self.0))
    }

    /// Runs one SQL statement: DataFusion's SQL and tarndb's statements on top of it.
    ///
    /// A statement sees the last commit of anyone when it starts, and one snapshot of each table throughout. Statements
    /// that change something have done so when this returns; queries run while their rows are fetched.
    ///
    /// # Errors
    /// `InvalidInput` for wrong SQL, `NotFound` for unknown tables, `Unsupported` for statements that are not offered, and
    /// those of the statement.
    pub async fn sql(&self, statement: &str) -> Result<QueryResult> {
        self.run(statement, None).await
    }

    /// Runs one SQL statement with values for its placeholders, `$1`, `$2`, … or `$name`.
    ///
    /// # Errors
    /// As [`Lakehouse::sql`]; `Unsupported` for statements other than queries, `INSERT` and `DELETE`.
    pub async fn sql_with_params(&self, statement: &str, params: impl Into<ParamValues>) -> Result<QueryResult> {
        self.run(statement, Some(params.into())).await
    }

    async fn run(&self, statement: &str, params: Option<ParamValues>) -> Result<QueryResult> {
        self.check_open()?;
        for extension in &self.0.extensions {
            if let Some(result) = extension.execute(self, statement).await? {
                return Ok(result);
            }
        }
        let done = AssertUnwindSafe(query::execute(self, statement, params).boxed()).catch_unwind().await;
        done.unwrap_or_else(|panic| Err(result::panicked(panic)))
    }

    /// The DataFusion session: users register functions of their own here. Its own `sql()` knows the lake's tables and
    /// functions, but not tarndb's statements, and refuses time travel; use [`Lakehouse::sql`] for those.
    pub fn session_context(&self) -> &SessionContext {
        &self.0.context
    }

    /// The lake's storage, confined to its own folders.
    pub fn storage(&self) -> &Storage {
        &self.0.env.storage
    }

    /// The lake's location, an absolute URL.
    pub fn location(&self) -> &str {
        self.0.env.storage.root()
    }

    /// The state of a table now. `name` is `table`, which is in the namespace `default`, or `namespace.table`.
    ///
    /// # Errors
    /// `NotFound`; `DataInvalid` when its metadata cannot be read.
    pub async fn table(&self, name: &str) -> Result<Table> {
        self.load(&query::parse_table_name(name)?).await
    }

    pub(crate) async fn load(&self, ident: &TableIdent) -> Result<Table> {
        self.check_open()?;
        let loaded = self.0.env.catalog.load_table(ident).await?;
        Ok(Table::new(Arc::clone(&self.0.env), loaded))
    }

    /// All namespaces, nested ones with dots, sorted.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn namespaces(&self) -> Result<Vec<String>> {
        self.check_open()?;
        let all = self.0.env.catalog.list_namespaces().await?;
        Ok(all.into_iter().map(|namespace| namespace.join(".")).collect())
    }

    /// Creates a namespace.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        self.check_open()?;
        self.0.env.catalog.create_namespace(&query::parse_namespace(name)?, std::collections::HashMap::new()).await
    }

    /// The names of a namespace's tables, sorted; of all namespaces when none is given. Each is `namespace.table`.
    ///
    /// # Errors
    /// `NotFound` for the namespace.
    pub async fn tables(&self, namespace: Option<&str>) -> Result<Vec<String>> {
        self.check_open()?;
        let namespaces: Vec<NamespaceIdent> = match namespace {
            Some(name) => vec![query::parse_namespace(name)?],
            None => self.0.env.catalog.list_namespaces().await?,
        };
        let mut names = Vec::new();
        for namespace in namespaces {
            let tables = self.0.env.catalog.list_tables(&namespace).await?;
            names.extend(tables.into_iter().map(|ident| ident.to_string()));
        }
        Ok(names)
    }

    /// Waits for background work to end. Using the lake afterwards, or a clone of it, is `InvalidInput`; results that are
    /// being read can be read to their end.
    pub async fn close(&self) {
        // While the lake can still be used: what is under way ends in commits.
        for extension in &self.0.extensions {
            extension.close().await;
        }
        self.0.closed.store(true, Ordering::SeqCst);
    }

    /// The extension of this type, if the lake was opened with one.
    pub fn extension<E: Extension>(&self) -> Option<&E> {
        self.0.extensions.iter().find_map(|extension| (extension.as_ref() as &dyn Any).downcast_ref())
    }

    pub(crate) fn env(&self) -> &Arc<Environment> {
        &self.0.env
    }

    /// A closed lake is not used, nor is one in a forked child: it has its parent's handles but not its threads, and nothing
    /// would ever answer.
    fn check_open(&self) -> Result<()> {
        if self.0.closed.load(Ordering::SeqCst) {
            return Err(Error::invalid_input("this lake was closed: open it again"));
        }
        if std::process::id() == self.0.process_id {
            return Ok(());
        }
        Err(Error::invalid_input("this lake was opened before the process forked: open it again in the child"))
    }
}
