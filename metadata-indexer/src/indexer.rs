use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use futures::FutureExt;
use object_store::ObjectStore;
use tarndb_core::{Error, ErrorKind, Extension, Lakehouse, QueryResult, Result};

use crate::extract::Extractors;
use crate::index::{Index, IndexStatus, Left, Synced};
use crate::options::{Feed, IndexOptions};
use crate::own::Own;
use crate::source::Source;
use crate::statements::{self, Statement};
use crate::stores::Stores;
use crate::tables::{self, TableNames};

/// The extension that brings metadata indexes to a lake: their SQL, and, through [`MetadataIndexes`], their methods.
#[derive(Debug, Default)]
pub struct MetadataIndexer {
    /// Those that this process has used.
    indexes: Mutex<HashMap<String, Arc<Index>>>,
    stores: Stores,
    own: Own,
}

impl Drop for MetadataIndexer {
    fn drop(&mut self) {
        self.used().iter().for_each(|index| index.abort());
    }
}

impl MetadataIndexer {
    /// With a store of the caller's own for the bucket at `url`, such as `s3://bucket`. What S3 offers beside `object_store` (tags,
    /// versions) is not asked for then.
    #[must_use]
    pub fn with_object_store(mut self, url: &str, store: Arc<dyn ObjectStore>) -> Self {
        self.stores.add(url, store);
        self
    }

    /// With extractors of the caller's own, which indexes may name in their option `extract`. Those that are registered later count
    /// too.
    #[must_use]
    pub fn with_extractors(mut self, extractors: &Extractors) -> Self {
        self.own.extractors = extractors.clone();
        self
    }

    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    fn used(&self) -> Vec<Arc<Index>> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The index of this name, the same one each time.
    pub(crate) async fn index(&self, lake: &Lakehouse, name: &str) -> Result<Arc<Index>> {
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
        let (options, mounted) = (tables::options(&journal)?, tables::is_mounted(&journal));
        let source_of_index = Source::of_url(source, lake.location(), mounted, &options, &self.stores)?;
        let index = Index::new(name, source_of_index, options, self.own.clone())?;
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match indexes.entry(name.to_string()) {
            Entry::Occupied(known) if known.get().source() == source && known.get().options() == index.options() => {
                Arc::clone(known.get())
            }
            // Dropped elsewhere, and another made under its name.
            Entry::Occupied(mut other) => {
                let index = Arc::new(index);
                other.insert(Arc::clone(&index)).abort();
                index
            }
            Entry::Vacant(place) => Arc::clone(place.insert(Arc::new(index))),
        })
    }

    pub(crate) async fn create(
        &self,
        lake: &Lakehouse,
        name: &str,
        source: &str,
        options: &IndexOptions,
        if_not_exists: bool,
    ) -> Result<Arc<Index>> {
        statements::check_name(name)?;
        self.own.extractors.named(&options.extract()?)?;
        let source = Source::open(source, lake.location(), options, &self.stores)?;
        let is_same = |index: &Index| source.url() == index.source() && index.options() == options;
        let exists =
            |what: &str| Error::new(ErrorKind::AlreadyExists, format!("there is a metadata index `{name}` already{what}"));
        let (index, is_new) = match self.index(lake, name).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.check_queue(lake, options).await?;
                tables::create(lake, &TableNames::of(name), &source, options).await?;
                (self.index(lake, name).await?, true)
            }
            Ok(index) if !is_same(&index) => return Err(exists("")),
            Ok(index) => match index.left(lake).await? {
                Left::Failed | Left::Incomplete => (index, false),
                _ if if_not_exists => return Ok(index),
                Left::BeingCreated => return Err(exists(", which is being created")),
                Left::Nothing => return Err(exists("")),
            },
            Err(e) => return Err(e),
        };
        match index.start(lake).await {
            Ok(()) => Ok(index),
            Err(error) => Err(self.not_created(lake, &index, is_new, error).await),
        }
    }

    /// A queue hands each message to one reader: of two indexes, each would lose what the other takes.
    async fn check_queue(&self, lake: &Lakehouse, options: &IndexOptions) -> Result<()> {
        let queue = |options: &IndexOptions| -> Result<_> {
            let queue = options.events()?.filter(|feed| matches!(feed, Feed::Queue { .. }));
            Ok(queue.map(|queue| (queue, options.endpoint().map(str::to_string), options.region().map(str::to_string))))
        };
        let Some(wanted) = queue(options)? else { return Ok(()) };
        for (name, index) in self.indexes(lake).await? {
            // One that cannot be read is about nothing now.
            if index.is_ok_and(|index| queue(index.options()).is_ok_and(|other| other.as_ref() == Some(&wanted))) {
                let message = format!("the metadata index `{name}` takes what comes through `{}`", wanted.0);
                return Err(Error::invalid_input(format!("{message}: each needs a queue of its own, as SNS fans out to")));
            }
        }
        Ok(())
    }

    /// Why an index is not as it was to be. What cannot be followed was not created, and is dropped again; but not hours of listing, nor
    /// what was there before, nor what cannot be looked at now.
    async fn not_created(&self, lake: &Lakehouse, index: &Index, is_new: bool, error: Error) -> Error {
        let name = index.name();
        let objects = index.status(lake).await.map(|status| status.objects);
        if let (true, Ok(0), Ok(false)) = (is_new, &objects, index.is_complete(lake).await) {
            if let Err(left) = self.drop_index(lake, name).await {
                tracing::warn!(index = name, error = left.report(), "an index that could not be created is not gone");
            }
            return error;
        }
        index.set_failed(&error);
        let what = match objects {
            Ok(objects) => format!("the metadata index `{name}` has {objects} objects, and does not follow its source"),
            Err(_) => format!("the metadata index `{name}` does not follow its source"),
        };
        let message = format!("{what}: to create it again, or `CALL system.start_metadata_index('{name}')`, goes on");
        Error::new(error.kind(), message).with_source(error)
    }

    pub(crate) async fn drop_index(&self, lake: &Lakehouse, name: &str) -> Result<()> {
        let index = self.index(lake, name).await?;
        index.stop().await;
        tables::drop(lake, index.names()).await?;
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    /// The lake's indexes by name, or why one cannot be read.
    async fn indexes(&self, lake: &Lakehouse) -> Result<Vec<(String, Result<Arc<Index>>)>> {
        let mut indexes = Vec::new();
        for namespace in lake.namespaces().await? {
            if namespace.contains('.') {
                continue;
            }
            match self.index(lake, &namespace).await {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                index => indexes.push((namespace, index)),
            }
        }
        Ok(indexes)
    }

    /// How the lake's indexes are, by name.
    pub(crate) async fn statuses(&self, lake: &Lakehouse) -> Result<Vec<IndexStatus>> {
        let mut statuses = Vec::new();
        for (name, index) in self.indexes(lake).await? {
            statuses.push(match index {
                Ok(index) => index.status(lake).await.unwrap_or_else(|e| IndexStatus::failed(&name, index.source(), &e)),
                // It does not hide the others.
                Err(e) => IndexStatus::failed(&name, String::new(), &e),
            });
        }
        Ok(statuses)
    }

    async fn run(&self, lake: &Lakehouse, statement: Statement) -> Result<QueryResult> {
        match statement {
            Statement::Create { name, source, options, if_not_exists } => {
                self.create(lake, &name, &source, &options, if_not_exists).await?;
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
    let annotated: Int64Array =
        statuses.iter().map(|status| status.annotated.and_then(|annotated| i64::try_from(annotated).ok())).collect();
    let lags: Int64Array = statuses.iter().map(|status| status.lag_ms.and_then(|lag| i64::try_from(lag).ok())).collect();
    let listed: Int64Array = statuses.iter().map(|status| status.listed.and_then(|listed| i64::try_from(listed).ok())).collect();
    let errors: StringArray = statuses.iter().map(|status| status.last_error.as_deref()).collect();
    result(vec![
        ("name", texts(|status| status.name.clone()), false),
        ("source", texts(|status| status.source.clone()), false),
        ("state", texts(|status| status.state.to_string()), false),
        ("objects", numbers(statuses.iter().map(|status| status.objects)), false),
        ("changes", numbers(statuses.iter().map(|status| status.changes)), false),
        ("annotated", Arc::new(annotated), true),
        ("listed", Arc::new(listed), true),
        ("events", numbers(statuses.iter().map(|status| status.events.received)), false),
        ("dead_events", numbers(statuses.iter().map(|status| status.events.dead)), false),
        ("lag_ms", Arc::new(lags), true),
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
