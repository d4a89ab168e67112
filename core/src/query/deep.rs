//! Deep statements. DataFusion walks, prints and copies the trees of expressions by recursion, and a chain of a thousand
//! operators needs more than the two megabytes of stack that a task of tokio's has.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Up to this depth any stack will do.
const SHALLOW: usize = 100;

/// What a statement of the greatest depth that is allowed needs, also in builds without optimisation.
const STACK_BYTES: usize = 32 * 1024 * 1024;

/// Calls `work` with as much stack as a statement of this depth needs.
pub(super) fn call<T>(depth: usize, work: impl FnOnce() -> T) -> T {
    if depth <= SHALLOW { work() } else { stacker::grow(STACK_BYTES, work) }
}

/// The future, with as much stack as a statement of this depth needs.
pub(super) fn future<F: Future>(depth: usize, work: F) -> impl Future<Output = F::Output> {
    OnStack { depth, work: Box::pin(work) }
}

struct OnStack<F> {
    depth: usize,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for OnStack<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        call(self.depth, || self.work.as_mut().poll(cx))
    }
}
