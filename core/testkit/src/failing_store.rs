use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tarndb_catalog::StoreLayer;

/// What happens to the request that a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out and fails.
    Fail,
    /// It is carried out, and fails all the same.
    LoseReply,
}

/// Counts requests and says which one fails. Shared by clones.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan(Arc<State>);

#[derive(Debug, Default)]
struct State {
    requests: AtomicU64,
    /// The request to hit, counted from 1; 0 for none.
    at: AtomicU64,
    lose_reply: std::sync::atomic::AtomicBool,
}

impl FaultPlan {
    /// Hits the `at`th request from now on, counted from 1.
    pub fn arm(&self, at: u64, fault: Fault) {
        self.0.requests.store(0, Ordering::SeqCst);
        self.0.lose_reply.store(fault == Fault::LoseReply, Ordering::SeqCst);
        self.0.at.store(at, Ordering::SeqCst);
    }

    /// Hits nothing any more.
    pub fn disarm(&self) {
        self.0.at.store(0, Ordering::SeqCst);
    }

    /// Requests since the plan was armed.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// A layer for a lake's store.
    pub fn layer(&self) -> StoreLayer {
        let plan = self.clone();
        Arc::new(move |inner| Arc::new(FailingStore { inner, plan: plan.clone() }))
    }

    fn hit(&self) -> Option<Fault> {
        let number = self.0.requests.fetch_add(1, Ordering::SeqCst) + 1;
        (number == self.0.at.load(Ordering::SeqCst))
            .then(|| if self.0.lose_reply.load(Ordering::SeqCst) { Fault::LoseReply } else { Fault::Fail })
    }
}

/// A store that fails when its [`FaultPlan`] says so.
#[derive(Debug)]
pub struct FailingStore {
    inner: Arc<dyn ObjectStore>,
    plan: FaultPlan,
}

fn injected() -> Error {
    Error::Generic { store: "FailingStore", source: "an injected fault".into() }
}

impl FailingStore {
    async fn faulty<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        match self.plan.hit() {
            None => request.await,
            Some(Fault::Fail) => Err(injected()),
            Some(Fault::LoseReply) => {
                request.await?;
                Err(injected())
            }
        }
    }
}

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FailingStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.faulty(self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.faulty(self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.faulty(self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.faulty(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.plan.hit() {
            None => self.inner.delete_stream(locations),
            Some(Fault::Fail) => futures::stream::once(async { Err(injected()) }).boxed(),
            Some(Fault::LoseReply) => self.inner.delete_stream(locations).map(|_| Err(injected())).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.plan.hit() {
            None => self.inner.list(prefix),
            Some(_) => futures::stream::once(async { Err(injected()) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.faulty(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.faulty(self.inner.copy_opts(from, to, options)).await
    }
}
