use std::time::Duration;

use iceberg::spec::TableMetadata;
use tarndb_catalog::{Error, ErrorKind, Ids, Result};
use tokio::time::Instant;

use super::Caller;
use crate::table::properties;

/// Pauses between attempts: jittered, doubling, within a total time.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    max_attempts: Option<u32>,
    deadline: Instant,
    wait_ms: u64,
    max_wait_ms: u64,
}

impl Backoff {
    /// By the table's `commit.retry.*` properties where they are set. Unset, a commit is tried for five minutes for a
    /// user and thirty for upkeep, however many attempts that takes.
    pub(crate) fn new(metadata: &TableMetadata, caller: Caller) -> Result<Self> {
        let default_total_ms = match caller {
            Caller::User => 5 * 60 * 1000,
            Caller::Upkeep => 30 * 60 * 1000,
        };
        let total_ms = properties::get_or(metadata, properties::COMMIT_TOTAL_TIMEOUT_MS, default_total_ms)?;
        let retries: Option<u32> = properties::get(metadata, properties::COMMIT_NUM_RETRIES)?;
        Ok(Self {
            attempts: 1,
            max_attempts: retries.map(|n| n.saturating_add(1)),
            deadline: Instant::now() + Duration::from_millis(total_ms),
            wait_ms: properties::get_or(metadata, properties::COMMIT_MIN_WAIT_MS, 10)?,
            max_wait_ms: properties::get_or(metadata, properties::COMMIT_MAX_WAIT_MS, 1000)?,
        })
    }

    pub(super) fn for_probes(probes: u32) -> Self {
        Self {
            attempts: 1,
            max_attempts: Some(probes),
            deadline: Instant::now() + Duration::from_secs(60),
            wait_ms: 20,
            max_wait_ms: 2000,
        }
    }

    /// The number of the attempt that is running.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Waits before the next attempt; `CommitConflict` when there is to be none.
    pub(crate) async fn pause(&mut self, ids: &dyn Ids, reason: &str) -> Result<()> {
        if self.max_attempts.is_some_and(|max| self.attempts >= max) || Instant::now() >= self.deadline {
            let attempts = self.attempts;
            return Err(Error::new(ErrorKind::CommitConflict, format!("gave up after {attempts} attempt(s): {reason}")));
        }
        let wait = self.wait_ms / 2 + ids.jitter(self.wait_ms.max(1));
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.attempts += 1;
        self.wait_ms = (self.wait_ms * 2).min(self.max_wait_ms);
        Ok(())
    }
}
