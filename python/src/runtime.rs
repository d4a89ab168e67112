use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::prelude::*;
use tarndb::{Error, ErrorKind, Result};
use tokio::runtime::{Handle, Runtime};

use crate::error::to_py;

/// How often a waiting call looks for Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

static RUNTIME: OnceLock<(u32, Runtime)> = OnceLock::new();

/// The module's runtime. Its threads stay behind when the process forks, so a child cannot use it.
pub(crate) fn handle() -> Result<Handle> {
    let (process_id, runtime) = match RUNTIME.get() {
        Some(runtime) => runtime,
        None => {
            let runtime = tarndb_runtime::runtime()
                .map_err(|e| Error::new(ErrorKind::ResourcesExhausted, "no runtime could be started").with_source(e))?;
            RUNTIME.get_or_init(|| (std::process::id(), runtime))
        }
    };
    if *process_id != std::process::id() {
        return Err(Error::invalid_input(
            "tarndb was used before the process forked and cannot be used in the child: start child processes with `spawn`",
        ));
    }
    Ok(runtime.handle().clone())
}

/// Waits for a future with the interpreter released. Ctrl-C drops the future, which cancels it, and raises.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    let handle = handle().map_err(|e| to_py(&e))?;
    py.detach(|| {
        handle.block_on(async {
            let mut future = std::pin::pin!(future);
            loop {
                tokio::select! {
                    result = &mut future => return result.map_err(|e| to_py(&e)),
                    () = tokio::time::sleep(SIGNAL_INTERVAL) => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    })
}
