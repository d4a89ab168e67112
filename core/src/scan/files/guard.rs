//! What goes wrong while a file is read names the file, and is an error where the libraries that read it panic over bytes that
//! they did not expect.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result as EngineResult;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tarndb_catalog::{Error, ErrorKind, Result};

use crate::error::{Panic, engine_error, panic_message, to_engine_error};

/// What storage says where it is what failed, and not what it has. The libraries between pass that on as a cause.
fn storage_failure(error: &Error) -> Option<ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(storage) = inner.downcast_ref::<object_store::Error>() {
            match storage {
                object_store::Error::NotFound { .. } => return Some(ErrorKind::NotFound),
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                    return Some(ErrorKind::Unavailable);
                }
                // Also what is said of a file that is too short.
                _ => {}
            }
        }
        if inner.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error().is_some()) {
            return Some(ErrorKind::Unavailable);
        }
        cause = inner.source();
    }
    None
}

/// Of which file something is read.
#[derive(Debug, Clone)]
pub(in crate::scan) struct FileGuard {
    /// What it is, such as "data file".
    what: &'static str,
    path: Arc<str>,
    /// Whether functions are evaluated over what is read, which may be what panics.
    evaluates: bool,
}

impl FileGuard {
    pub(in crate::scan) fn new(what: &'static str, path: &str, evaluates: bool) -> Self {
        Self { what, path: path.into(), evaluates }
    }

    /// What came of reading.
    pub(super) fn result<T>(&self, read: std::result::Result<Result<T>, Panic>) -> Result<T> {
        let read = read.unwrap_or_else(|panic| {
            let message = panic_message(&panic);
            Err(if self.evaluates {
                Error::internal(format!("a panic while a {} was read: {message}", self.what))
            } else {
                Error::data_invalid(format!("{} is damaged: its reader stopped with `{message}`", self.what))
            })
        });
        read.map_err(|error| self.named(error))
    }

    fn engine_result<T>(&self, read: std::result::Result<EngineResult<T>, Panic>) -> EngineResult<T> {
        self.result(read.map(|read| read.map_err(engine_error))).map_err(to_engine_error)
    }

    fn named(&self, error: Error) -> Error {
        // Of another file, such as one with deletes.
        if error.context("file").is_some() {
            return error;
        }
        let error = match storage_failure(&error) {
            // Metadata names the file: that it is not there is wrong with the table, and not with the question.
            Some(ErrorKind::NotFound) => Error::data_invalid(format!("{} is missing", self.what)).with_source(error),
            Some(kind) if error.kind() == ErrorKind::DataInvalid => {
                Error::new(kind, format!("{} cannot be read", self.what)).with_source(error)
            }
            _ => error,
        };
        error.with_context("file", self.path.as_ref())
    }

    /// The rows of the file.
    pub(super) fn rows(self, batches: BoxStream<'static, Result<RecordBatch>>) -> BoxStream<'static, Result<RecordBatch>> {
        AssertUnwindSafe(batches).catch_unwind().map(move |batch| self.result(batch)).boxed()
    }

    /// What plans how the file is read.
    pub(in crate::scan) fn planner(
        self,
        plan: impl FnOnce() -> EngineResult<Box<dyn MorselPlanner>>,
    ) -> EngineResult<Box<dyn MorselPlanner>> {
        let inner = self.engine_result(catch_unwind(AssertUnwindSafe(plan)))?;
        Ok(Box::new(Guarded { guard: self, inner }))
    }
}

/// A part of reading a file.
#[derive(Debug)]
struct Guarded<T> {
    guard: FileGuard,
    inner: T,
}

impl MorselPlanner for Guarded<Box<dyn MorselPlanner>> {
    fn plan(self: Box<Self>) -> EngineResult<Option<MorselPlan>> {
        let Self { guard, inner } = *self;
        let planned = guard.engine_result(catch_unwind(AssertUnwindSafe(|| inner.plan())))?;
        let Some(mut plan) = planned else { return Ok(None) };
        let morsels = plan.take_morsels().into_iter();
        let morsels = morsels.map(|inner| Box::new(Guarded { guard: guard.clone(), inner }) as Box<dyn Morsel>).collect();
        let planners = plan.take_ready_planners().into_iter().map(|inner| guard.clone().planner(|| Ok(inner)));
        let planners = planners.collect::<EngineResult<_>>()?;
        let guarded = MorselPlan::new().with_morsels(morsels).with_planners(planners);
        Ok(Some(match plan.take_pending_planner() {
            None => guarded,
            Some(pending) => guarded.with_pending_planner(async move {
                let planner = guard.engine_result(AssertUnwindSafe(pending).catch_unwind().await)?;
                guard.planner(|| Ok(planner))
            }),
        }))
    }
}

impl Morsel for Guarded<Box<dyn Morsel>> {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, EngineResult<RecordBatch>> {
        let Self { guard, inner } = *self;
        match guard.engine_result(catch_unwind(AssertUnwindSafe(|| Ok(inner.into_stream())))) {
            Ok(rows) => AssertUnwindSafe(rows).catch_unwind().map(move |batch| guard.engine_result(batch)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use datafusion::common::DataFusionError;
    use parquet::errors::ParquetError;

    use super::*;

    fn read(evaluates: bool, failed: std::result::Result<DataFusionError, &'static str>) -> Error {
        let guard = FileGuard::new("data file", "file:///t/data/a.parquet", evaluates);
        let read = match failed {
            Ok(error) => Ok(Err::<(), _>(error)),
            Err(message) => Err(Box::new(message) as Panic),
        };
        engine_error(guard.engine_result(read).unwrap_err())
    }

    fn parquet(cause: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
        DataFusionError::ParquetError(Box::new(ParquetError::External(Box::new(cause))))
    }

    fn generic(source: io::Error) -> object_store::Error {
        object_store::Error::Generic { store: "local", source: Box::new(source) }
    }

    #[test]
    fn what_is_told_of_another_file_stays() {
        let gone = object_store::Error::NotFound { path: "d".into(), source: "gone".into() };
        let deletes = Error::data_invalid("position delete file is missing").with_source(gone).with_context("file", "d");
        let error = read(false, Ok(to_engine_error(deletes)));
        assert_eq!(error.to_string(), "position delete file is missing, file=`d`");
    }

    #[test]
    fn what_failed_is_told_and_where() {
        let missing = object_store::Error::NotFound { path: "a".into(), source: "gone".into() };
        let denied = object_store::Error::PermissionDenied { path: "a".into(), source: "no".into() };
        let device = generic(io::Error::from_raw_os_error(5));
        let short = generic(io::Error::from(io::ErrorKind::UnexpectedEof));
        // As the decompressors say it.
        let damaged = io::Error::other("corrupt");
        let cases = [
            (read(false, Ok(parquet(missing))), ErrorKind::DataInvalid, "data file is missing"),
            (read(false, Ok(parquet(denied))), ErrorKind::Unavailable, "data file cannot be read"),
            (read(false, Ok(parquet(device))), ErrorKind::Unavailable, "data file cannot be read"),
            (read(false, Ok(parquet(short))), ErrorKind::DataInvalid, "unexpected end of file"),
            (read(false, Ok(parquet(damaged))), ErrorKind::DataInvalid, "corrupt"),
            (read(false, Err("boom")), ErrorKind::DataInvalid, "data file is damaged: its reader stopped with `boom`"),
            (read(true, Err("boom")), ErrorKind::Internal, "a panic while a data file was read: boom"),
            (read(true, Ok(DataFusionError::Execution("overflow".into()))), ErrorKind::InvalidInput, "overflow"),
            (read(true, Ok(DataFusionError::ResourcesExhausted("full".into()))), ErrorKind::ResourcesExhausted, "full"),
        ];
        for (error, kind, message) in cases {
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.to_string().ends_with("file=`file:///t/data/a.parquet`"), "{error}");
        }
    }
}
