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

/// Of which file something is read.
#[derive(Debug, Clone)]
pub(in crate::scan) struct FileGuard {
    /// What it is, such as "data file".
    what: &'static str,
    path: Arc<str>,
}

impl FileGuard {
    pub(in crate::scan) fn new(what: &'static str, path: &str) -> Self {
        Self { what, path: path.into() }
    }

    /// What came of reading, with nothing else done.
    pub(super) fn result<T>(&self, read: std::result::Result<Result<T>, Panic>) -> Result<T> {
        let read = read.unwrap_or_else(|panic| {
            let message = panic_message(&panic);
            Err(Error::data_invalid(format!("{} is damaged: its reader stopped with `{message}`", self.what)))
        });
        read.map_err(|error| {
            let error = match error.kind() {
                // Metadata names the file: that it is not there is wrong with the table, and not with the question.
                ErrorKind::NotFound => Error::data_invalid(format!("{} is missing", self.what)).with_source(error),
                _ => error,
            };
            error.with_context("file", self.path.as_ref())
        })
    }

    /// What came of reading and of evaluating the query's expressions, which may be what failed.
    fn engine_result<T>(&self, read: std::result::Result<EngineResult<T>, Panic>) -> EngineResult<T> {
        let read = read.unwrap_or_else(|panic| {
            let message = panic_message(&panic);
            Err(to_engine_error(Error::internal(format!("a panic while a {} was read: {message}", self.what))))
        });
        match read.map_err(engine_error) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => Err(to_engine_error(error)),
            read => self.result(Ok(read)).map_err(to_engine_error),
        }
    }

    /// The rows of the file.
    pub(super) fn rows(self, batches: BoxStream<'static, Result<RecordBatch>>) -> BoxStream<'static, Result<RecordBatch>> {
        AssertUnwindSafe(batches).catch_unwind().map(move |batch| self.result(batch)).boxed()
    }

    /// What plans how the file is read.
    pub(in crate::scan) fn planner(self, inner: Box<dyn MorselPlanner>) -> Box<dyn MorselPlanner> {
        Box::new(Guarded { guard: self, inner })
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
        let planners = plan.take_ready_planners().into_iter().map(|inner| guard.clone().planner(inner)).collect();
        let guarded = MorselPlan::new().with_morsels(morsels).with_planners(planners);
        Ok(Some(match plan.take_pending_planner() {
            None => guarded,
            Some(pending) => guarded.with_pending_planner(async move {
                let planner = guard.engine_result(AssertUnwindSafe(pending).catch_unwind().await)?;
                Ok(guard.planner(planner))
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
