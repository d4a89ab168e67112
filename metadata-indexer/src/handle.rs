use std::sync::Arc;

use async_trait::async_trait;
use tarndb_core::{Error, Lakehouse, Result};

use crate::event::{self, EventHook};
use crate::extract::Extractor;
use crate::feed::EventSource;
use crate::index::{EventCounts, Index, IndexStatus, Synced};
use crate::indexer::MetadataIndexer;
use crate::options::IndexOptions;

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
    /// is in the tables; but what a queue of events keeps, and what contents tell, comes then.
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

    /// Takes a message about objects of the bucket, in JSON, as its store sends it: of Amazon S3, also through SNS or EventBridge, MinIO,
    /// Ceph, SeaweedFS, Cloud Storage through Pub/Sub or Eventarc, or Azure's Event Grid. When this returns, what it tells is in the
    /// tables. A message may be handed in more than once, and earlier or later than others: each change is in the journal once. What is
    /// not understood is kept in the table `dead_letters` with the reason.
    ///
    /// # Errors
    /// `InvalidInput` for what is no JSON; `Unsupported` for an index of a folder, and where its hook is not registered; those of commits, after which the message has to be
    /// handed in again.
    pub async fn push(&self, message: &str) -> Result<EventCounts> {
        self.index.apply(&self.lake, event::parse(message.as_bytes())?).await
    }

    /// Brings the tables up to the source now, whether it is followed or not, annotations too.
    ///
    /// # Errors
    /// As [`MetadataIndex::reconcile`].
    pub async fn sync(&self) -> Result<Synced> {
        self.index.sync(&self.lake).await
    }

    /// Lists the source, and adds the rows to the journal that make the inventory true again.
    ///
    /// # Errors
    /// `Unavailable` when a part of the source cannot be read: the rest is done, and nothing below that part is taken for gone;
    /// `Unsupported` when this process does not have all extractors of the index, after the rest is done; those of commits. Objects of
    /// which only the content cannot be read are no error: the status tells of them.
    pub async fn reconcile(&self) -> Result<Synced> {
        self.index.sync(&self.lake).await
    }
}

/// The methods of a lake that are about metadata indexes: the same as the statements.
#[async_trait]
pub trait MetadataIndexes {
    /// Creates an index named `name` on `source`, and follows it: a folder, as a path or a `file:` URL, or a bucket or a part of one, as
    /// `s3://bucket/prefix`, `gs://…` or `az://…`. The objects that are there already are in its inventory when this returns. When that
    /// fails after some of them were listed, the index stays, and to create it again goes on; in another process after a minute.
    ///
    /// # Errors
    /// `AlreadyExists`, also while it is being created; `NotFound` for the folder; `Unavailable` for a bucket that cannot be listed; `Unsupported` for other sources.
    async fn create_metadata_index(&self, name: &str, source: &str) -> Result<MetadataIndex> {
        self.create_metadata_index_with(name, source, &IndexOptions::default()).await
    }

    /// As [`MetadataIndexes::create_metadata_index`], with options.
    ///
    /// # Errors
    /// Also `InvalidInput` for options that do not fit the source, `Unavailable` for a source of events that cannot be used; `Unsupported` for an own
    /// one, a hook or an extractor that is not registered.
    async fn create_metadata_index_with(&self, name: &str, source: &str, options: &IndexOptions) -> Result<MetadataIndex>;

    /// Lets indexes of this lake use an extractor: their option `extract` names it. An index that names one needs it in each process that
    /// follows it.
    ///
    /// # Errors
    /// `InvalidInput` for a name that it cannot have.
    fn register_extractor(&self, extractor: Arc<dyn Extractor>) -> Result<()>;

    /// Lets indexes of this lake take events from a source of the caller's own: their option `events` is `own://NAME`. An index that names
    /// one needs it in each process that follows it.
    ///
    /// # Errors
    /// `InvalidInput` for a name that it cannot have.
    fn register_event_source(&self, name: &str, source: Arc<dyn EventSource>) -> Result<()>;

    /// Lets indexes of this lake have their events changed before they are heeded: their option `hook` names it. An index that names one
    /// needs it in each process that hands it events.
    ///
    /// # Errors
    /// `InvalidInput` for a name that it cannot have.
    fn register_event_hook(&self, name: &str, hook: Arc<dyn EventHook>) -> Result<()>;

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
    async fn create_metadata_index_with(&self, name: &str, source: &str, options: &IndexOptions) -> Result<MetadataIndex> {
        let index = indexer(self)?.create(self, name, source, options, false).await?;
        Ok(MetadataIndex { lake: self.clone(), index })
    }

    fn register_extractor(&self, extractor: Arc<dyn Extractor>) -> Result<()> {
        indexer(self)?.own().extractors.register(extractor)
    }

    fn register_event_source(&self, name: &str, source: Arc<dyn EventSource>) -> Result<()> {
        indexer(self)?.own().sources.register("a source of events", name, source)
    }

    fn register_event_hook(&self, name: &str, hook: Arc<dyn EventHook>) -> Result<()> {
        indexer(self)?.own().hooks.register("a hook of events", name, hook)
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
