use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// The only source of wall-clock time.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// The clock of the machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the seam itself
    fn now_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The only source of identifiers and of jitter.
pub trait Ids: Debug + Send + Sync {
    /// A new unique id for a table or a file name.
    fn uuid(&self) -> Uuid;

    /// A new snapshot id: positive, unlikely to repeat.
    fn snapshot_id(&self) -> i64 {
        let (high, low) = self.uuid().as_u64_pair();
        i64::try_from((high ^ low) >> 1).unwrap_or(i64::MAX)
    }

    /// A number in `0..bound` for back-off jitter; 0 when `bound` is 0.
    fn jitter(&self, bound: u64) -> u64 {
        let (_, low) = self.uuid().as_u64_pair();
        low.checked_rem(bound).unwrap_or(0)
    }
}

/// Random version 4 UUIDs.
#[derive(Debug, Default, Clone, Copy)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[allow(clippy::disallowed_methods)] // the seam itself
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}
