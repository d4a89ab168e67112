use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use futures::FutureExt;
use tarndb_core::{Error, ErrorKind, Extension, Lakehouse, QueryResult, Result};

use crate::folder::Folder;
use crate::index::{Index, IndexStatus, Synced};
use crate::statements::{self, Statement};
use crate::tables::{self, TableNames};

/// The extension that brings metadata indexes to a lake: their SQL, and, through [`MetadataIndexes`], their methods.
#[derive(Debug, Default)]
pub struct MetadataIndexer {
    /// Those that this process has used.
    indexes: Mutex<HashMap<String, Arc<Index>>>,
}

impl Drop for MetadataIndexer {
    fn drop(&mut self) {
        self.used().iter().for_each(|index| index.abort());
    }
}

impl MetadataIndexer {
    fn used(&self) -> Vec<Arc<Index>> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The index of this name, the same one each time.
    async fn index(&self, lake: &Lakehouse, name: &str) -> Result<Arc<Index>> {
        let unknown = || Error::not_found(format!("there is no metadata index `{name}`"));
        let journal = match lake.table(&TableNames::of(name).journal).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let dropped = self.indexes.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                dropped.iter().for_each(|index| index.abort());
                return Err(unknown());
            }
            other => other?,
        };
        let source = tables::source(&journal).ok_or_else(unknown)?;
        let index = Index::new(name, Folder::of_url(source, lake.location(), tables::is_mounted(&journal))?);
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match indexes.entry(name.to_string()) {
            Entry::Occupied(known) if known.get().source() == source => Arc::clone(known.get()),
            // Dropped elsewhere, and another made under its name.
            Entry::Occupied(mut other) => {
                let index = Arc::new(index);
                other.insert(Arc::clone(&index)).abort();
                index
            }
            Entry::Vacant(place) => Arc::clone(place.insert(Arc::new(index))),
        })
    }

    async fn create(&self, lake: &Lakehouse, name: &str, source: &str, if_not_exists: bool) -> Result<Arc<Index>> {
        statements::check_name(name)?;
        match self.index(lake, name).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Ok(index) if if_not_exists && Folder::open(source, lake.location())?.url() == index.source() => return Ok(index),
            Ok(_) => {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("there is a metadata index `{name}` already")));
            }
            Err(e) => return Err(e),
        }
        let folder = Folder::open(source, lake.location())?;
        tables::create(lake, &TableNames::of(name), &folder.url(), folder.is_mounted()).await?;
        let index = self.index(lake, name).await?;
        if let Err(error) = index.start(lake).await {
            // What cannot be followed was not created.
            if let Err(left) = self.drop_index(lake, name).await {
                tracing::warn!(index = name, error = left.report(), "an index that could not be created is not gone");
            }
            return Err(error);
        }
        Ok(index)
    }

    async fn drop_index(&self, lake: &Lakehouse, name: &str) -> Result<()> {
        let index = self.index(lake, name).await?;
        index.stop().await;
        tables::drop(lake, index.names()).await?;
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    /// How the lake's indexes are, by name.
    async fn statuses(&self, lake: &Lakehouse) -> Result<Vec<IndexStatus>> {
        let mut statuses = Vec::new();
        for namespace in lake.namespaces().await? {
            if namespace.contains('.') {
                continue;
            }
            match self.index(lake, &namespace).await {
                Ok(index) => statuses.push(index.status(lake).await.unwrap_or_else(|e| index.failed_status(&e))),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(statuses)
    }

    async fn run(&self, lake: &Lakehouse, statement: Statement) -> Result<QueryResult> {
        match statement {
            Statement::Create { name, source, if_not_exists } => {
                self.create(lake, &name, &source, if_not_exists).await?;
                nothing()
            }
            Statement::Drop { name, if_exists } => {
                match self.drop_index(lake, &name).await {
                    Err(e) if !(if_exists && e.kind() == ErrorKind::NotFound) => return Err(e),
                    _ => {}
                }
                nothing()
            }
            Statement::Show => shown(&self.statuses(lake).await?),
            Statement::Sync { name } => synced(self.index(lake, &name).await?.sync(lake).await?),
            Statement::Start { name } => {
                self.index(lake, &name).await?.start(lake).await?;
                nothing()
            }
            Statement::Stop { name } => {
                self.index(lake, &name).await?.stop().await;
                nothing()
            }
        }
    }
}

fn result(columns: Vec<(&str, ArrayRef, bool)>) -> Result<QueryResult> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|e| Error::internal("a result does not fit its columns").with_source(e))?;
    Ok(QueryResult::from_batches(batch.schema(), vec![batch]))
}

fn nothing() -> Result<QueryResult> {
    let schema = Arc::new(arrow::datatypes::Schema::empty());
    Ok(QueryResult::from_batches(schema, Vec::new()))
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(|value| i64::try_from(value).unwrap_or(i64::MAX))))
}

fn synced(synced: Synced) -> Result<QueryResult> {
    result(vec![
        ("created", numbers(std::iter::once(synced.created)), false),
        ("overwritten", numbers(std::iter::once(synced.overwritten)), false),
        ("deleted", numbers(std::iter::once(synced.deleted)), false),
    ])
}

fn shown(statuses: &[IndexStatus]) -> Result<QueryResult> {
    let texts = |of: fn(&IndexStatus) -> String| Arc::new(StringArray::from_iter_values(statuses.iter().map(of))) as ArrayRef;
    let errors: StringArray = statuses.iter().map(|status| status.last_error.as_deref()).collect();
    result(vec![
        ("name", texts(|status| status.name.clone()), false),
        ("source", texts(|status| status.source.clone()), false),
        ("state", texts(|status| status.state.to_string()), false),
        ("objects", numbers(statuses.iter().map(|status| status.objects)), false),
        ("changes", numbers(statuses.iter().map(|status| status.changes)), false),
        ("last_error", Arc::new(errors), true),
    ])
}

#[async_trait]
impl Extension for MetadataIndexer {
    fn name(&self) -> &'static str {
        "metadata index"
    }

    async fn execute(&self, lake: &Lakehouse, statement: &str) -> Result<Option<QueryResult>> {
        match statements::parse(statement)? {
            Some(statement) => self.run(lake, statement).boxed().await.map(Some),
            None => Ok(None),
        }
    }

    async fn close(&self) {
        for index in self.used() {
            index.stop().await;
        }
    }
}

/// An index of an open lake.
#[derive(Debug, Clone)]
pub struct MetadataIndex {
    lake: Lakehouse,
    index: Arc<Index>,
}

impl MetadataIndex {
    /// Its name, which is the namespace of its tables.
    pub fn name(&self) -> &str {
        self.index.name()
    }

    /// How the index is.
    ///
    /// # Errors
    /// Those of loading its tables.
    pub async fn status(&self) -> Result<IndexStatus> {
        self.index.status(&self.lake).await
    }

    /// Follows the source from now on, until [`MetadataIndex::stop`] or the end of the process. When this returns, what happened before
    /// is in the tables.
    ///
    /// # Errors
    /// `Unavailable` when the source cannot be read or watched; those of commits.
    pub async fn start(&self) -> Result<()> {
        self.index.start(&self.lake).await
    }

    /// Ends following, after what is under way is committed. The tables stay.
    pub async fn stop(&self) {
        self.index.stop().await;
    }

    /// Brings the tables up to the source now, whether it is followed or not.
    ///
    /// # Errors
    /// As [`MetadataIndex::reconcile`].
    pub async fn sync(&self) -> Result<Synced> {
        self.index.sync(&self.lake).await
    }

    /// Lists the source, and adds the rows to the journal that make the inventory true again.
    ///
    /// # Errors
    /// `Unavailable` when a part of the source cannot be read: the rest is done, and nothing below that part is taken for gone; those
    /// of commits.
    pub async fn reconcile(&self) -> Result<Synced> {
        self.index.sync(&self.lake).await
    }
}

/// The methods of a lake that are about metadata indexes: the same as the statements.
#[async_trait]
pub trait MetadataIndexes {
    /// Creates an index named `name` on the folder `source`, a path or a `file:` URL, and follows it. The objects that are there
    /// already are in its inventory when this returns.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for the folder; `Unsupported` for sources that are no folders.
    async fn create_metadata_index(&self, name: &str, source: &str) -> Result<MetadataIndex>;

    /// The index named `name`.
    ///
    /// # Errors
    /// `NotFound`.
    async fn metadata_index(&self, name: &str) -> Result<MetadataIndex>;

    /// How all indexes are, by name.
    ///
    /// # Errors
    /// Those of loading their tables.
    async fn metadata_indexes(&self) -> Result<Vec<IndexStatus>>;

    /// Ends an index, and drops its tables with their files.
    ///
    /// # Errors
    /// `NotFound`.
    async fn drop_metadata_index(&self, name: &str) -> Result<()>;
}

fn indexer(lake: &Lakehouse) -> Result<&MetadataIndexer> {
    lake.extension().ok_or_else(|| Error::unsupported("this lake was opened without metadata indexes"))
}

#[async_trait]
impl MetadataIndexes for Lakehouse {
    async fn create_metadata_index(&self, name: &str, source: &str) -> Result<MetadataIndex> {
        let index = indexer(self)?.create(self, name, source, false).await?;
        Ok(MetadataIndex { lake: self.clone(), index })
    }

    async fn metadata_index(&self, name: &str) -> Result<MetadataIndex> {
        let index = indexer(self)?.index(self, name).await?;
        Ok(MetadataIndex { lake: self.clone(), index })
    }

    async fn metadata_indexes(&self) -> Result<Vec<IndexStatus>> {
        indexer(self)?.statuses(self).await
    }

    async fn drop_metadata_index(&self, name: &str) -> Result<()> {
        indexer(self)?.drop_index(self, name).await
    }
}
