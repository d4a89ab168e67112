use std::any::Any;
use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Lakehouse, QueryResult, Result};

/// Statements that another crate adds to a lake's SQL, and work that it does in the background: the metadata index plugs
/// in here.
#[async_trait]
pub trait Extension: Any + Debug + Send + Sync {
    /// A short name, for messages.
    fn name(&self) -> &'static str;

    /// Runs a statement when it is one of this extension's; `None` hands it on.
    ///
    /// # Errors
    /// Those of the statement.
    async fn execute(&self, lake: &Lakehouse, statement: &str) -> Result<Option<QueryResult>>;

    /// Ends background work, after what is under way is committed.
    async fn close(&self) {}
}
