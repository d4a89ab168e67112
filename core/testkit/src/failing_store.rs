use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tarndb_catalog::StoreLayer;
use tokio::sync::Notify;

/// What happens to the request that a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out and fails.
    Fail,
    /// It is carried out, and fails all the same.
    LoseReply,
    /// It waits until [`FaultPlan::release`], and is carried out then.
    Stall,
}

/// Counts requests and says which one is hit. Shared by clones.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan(Arc<State>);

#[derive(Debug, Default)]
struct State {
    requests: AtomicU64,
    armed: Mutex<Option<(u64, Fault)>>,
    stalled: Notify,
    released: Notify,
}

impl FaultPlan {
    /// Hits the `at`th request from now on, counted from 1.
    ///
    /// # Panics
    /// After another panic here.
    pub fn arm(&self, at: u64, fault: Fault) {
        self.0.requests.store(0, Ordering::SeqCst);
        *self.0.armed.lock().unwrap() = Some((at, fault));
    }

    /// Hits nothing any more.
    ///
    /// # Panics
    /// After another panic here.
    pub fn disarm(&self) {
        *self.0.armed.lock().unwrap() = None;
    }

    /// Requests since the plan was armed.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// Waits until a request has stalled.
    pub async fn stalled(&self) {
        self.0.stalled.notified().await;
    }

    /// Lets the request that stalled, or the next one that does, go on.
    pub fn release(&self) {
        self.0.released.notify_one();
    }

    /// A layer for a lake's store.
    pub fn layer(&self) -> StoreLayer {
        let plan = self.clone();
        Arc::new(move |inner| Arc::new(FailingStore { inner, plan: plan.clone() }))
    }

    fn hit(&self) -> Option<Fault> {
        let number = self.0.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let armed = *self.0.armed.lock().unwrap();
        armed.filter(|(at, _)| *at == number).map(|(_, fault)| fault)
    }

    async fn stall(self) {
        self.0.stalled.notify_one();
        self.0.released.notified().await;
    }

    async fn carry_out<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        match self.hit() {
            None => request.await,
            Some(Fault::Fail) => Err(injected()),
            Some(Fault::LoseReply) => {
                request.await?;
                Err(injected())
            }
            Some(Fault::Stall) => {
                self.clone().stall().await;
                request.await
            }
        }
    }

    fn carry_out_stream<T: Send + 'static>(&self, answers: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        match self.hit() {
            None => answers,
            Some(Fault::Fail) => stream::once(async { Err(injected()) }).boxed(),
            Some(Fault::LoseReply) => answers.map(|_| Err(injected())).boxed(),
            Some(Fault::Stall) => {
                let plan = self.clone();
                stream::once(plan.stall()).filter_map(|()| std::future::ready(None)).chain(answers).boxed()
            }
        }
    }
}

/// A store that fails when its [`FaultPlan`] says so. Each part of an upload and its end are requests of their own.
#[derive(Debug)]
pub struct FailingStore {
    inner: Arc<dyn ObjectStore>,
    plan: FaultPlan,
}

#[derive(Debug)]
struct FailingUpload {
    inner: Box<dyn MultipartUpload>,
    plan: FaultPlan,
}

#[async_trait]
impl MultipartUpload for FailingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (plan, part) = (self.plan.clone(), self.inner.put_part(data));
        Box::pin(async move { plan.carry_out(part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.plan.carry_out(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.plan.carry_out(self.inner.abort()).await
    }
}

fn injected() -> Error {
    Error::Generic { store: "FailingStore", source: "an injected fault".into() }
}

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FailingStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.plan.carry_out(self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.plan.carry_out(self.inner.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(FailingUpload { inner, plan: self.plan.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.plan.carry_out(self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.plan.carry_out(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.plan.carry_out_stream(self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.plan.carry_out_stream(self.inner.list(prefix))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.plan.carry_out(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.plan.carry_out(self.inner.copy_opts(from, to, options)).await
    }
}
