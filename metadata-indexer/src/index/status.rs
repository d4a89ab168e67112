use std::fmt;

/// What an index is doing in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexState {
    /// It follows nothing in this process: its tables are what they were.
    #[default]
    Stopped,
    /// The objects that were there when it was created come into the inventory.
    Backfilling,
    /// It follows what happens.
    Active,
    /// Its last attempt failed; it tries again.
    Failed,
}

impl fmt::Display for IndexState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "Stopped",
            Self::Backfilling => "Backfilling",
            Self::Active => "Active",
            Self::Failed => "Failed",
        })
    }
}

/// How an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexStatus {
    /// Its name, which is the namespace of its tables.
    pub name: String,
    /// What is indexed, as a URL.
    pub source: String,
    /// What it does in this process.
    pub state: IndexState,
    /// Objects in the inventory.
    pub objects: u64,
    /// Changes in the journal.
    pub changes: u64,
    /// What went wrong last in this process, if what came after it did not go well.
    pub last_error: Option<String>,
}

/// What looking at a source changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Synced {
    /// Objects that are new.
    pub created: u64,
    /// Objects that have another content.
    pub overwritten: u64,
    /// Objects that are gone.
    pub deleted: u64,
}

impl std::ops::AddAssign for Synced {
    fn add_assign(&mut self, other: Self) {
        self.created += other.created;
        self.overwritten += other.overwritten;
        self.deleted += other.deleted;
    }
}
