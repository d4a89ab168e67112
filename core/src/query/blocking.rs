use std::future::Future;

use tarndb_catalog::{Error, ErrorKind, Result};

/// Waits for a future where DataFusion's interface is not async (lists of names, table functions).
///
/// The future runs on a thread and a runtime of its own: the caller's runtime may have a single thread, which is the one
/// that waits here.
pub(super) fn wait<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime =
                runtime.map_err(|e| Error::new(ErrorKind::ResourcesExhausted, "no runtime could be started").with_source(e))?;
            runtime.block_on(future)
        });
        thread.join().unwrap_or_else(|_| Err(Error::internal("a helper thread stopped")))
    })
}
