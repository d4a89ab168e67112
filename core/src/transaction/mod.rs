//! Changes to tables, committed optimistically.
//!
//! A [`Transaction`] starts from a table as it was when it was loaded. Its [`Action`]s say what changes, as data. The
//! commit loop, the same for every action, does the rest:
//!
//! 1. refresh: load the table's current state from the catalog;
//! 2. validate: each action checks what others committed since the start (`CommitConflict` when it cannot hold);
//! 3. apply: each action adds requirements and updates; [`snapshot::SnapshotProducer`] makes the manifests;
//! 4. commit: the catalog makes files durable, then moves the table, or answers with a conflict;
//! 5. a conflict starts again at 1 after a jittered pause, until the timeout; manifests that still fit are reused;
//! 6. an unknown outcome is probed: only when the table shows that the attempt took effect, or that it never can,
//!    does the loop go on. Otherwise the caller is told `CommitStateUnknown` and nothing is deleted;
//! 7. on known failure the files of this transaction are deleted, and no others.

mod alter;
mod append;
mod create;
mod delete_files;
mod expire_snapshots;
mod history;
mod manifest_filter;
mod manifest_merge;
mod manifest_uuid;
mod manifest_write;
mod retry;
mod rewrite_files;
mod row_delta;
mod snapshot;
mod summary;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::spec::{DataFile, TableMetadata};
use iceberg::{TableRequirement, TableUpdate};
use tarndb_catalog::{CommitOutcome, Error, ErrorKind, LoadedTable, NewFile, Result, TableCommit, table_replaced};

pub(crate) use alter::Alter;
pub(crate) use append::Append;
pub(crate) use create::create_with_rows;
pub(crate) use delete_files::DeleteFiles;
pub(crate) use expire_snapshots::ExpireSnapshots;
pub(crate) use retry::Backoff;
pub(crate) use rewrite_files::RewriteFiles;
pub(crate) use row_delta::{ConflictFilter, RowDelta};
pub(crate) use summary::is_reserved;

use crate::table::{Environment, Table};
use snapshot::SnapshotProducer;

/// A data or delete file that was written and is not yet part of a table.
#[derive(Debug, Clone)]
pub(crate) struct WrittenFile {
    /// The partition spec by which it was written.
    pub(crate) spec_id: i32,
    pub(crate) file: DataFile,
}

/// Who waits for the commit, which decides for how long it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    User,
    Upkeep,
}

/// One kind of change.
#[async_trait]
pub(crate) trait Action: Debug + Send + Sync {
    /// Checks that the change still means what it meant at the transaction's start.
    async fn validate(&self, attempt: &Attempt<'_>) -> Result<()>;

    /// Adds what the change requires and updates to the attempt.
    async fn apply(&mut self, attempt: &mut Attempt<'_>) -> Result<()>;

    /// What makes the action's snapshot, if it makes one.
    fn producer(&self) -> Option<&SnapshotProducer>;

    /// Whether the table shows that an attempt of this action took effect.
    fn is_in(&self, metadata: &TableMetadata) -> bool {
        self.producer().is_some_and(|producer| producer.is_in(metadata))
    }

    /// The data and delete files that come into the table with this action.
    fn new_files(&self) -> Vec<String> {
        self.producer().map(SnapshotProducer::new_files).unwrap_or_default()
    }
}

/// One round of the commit loop.
pub(crate) struct Attempt<'a> {
    pub(crate) env: &'a Environment,
    /// The table now.
    pub(crate) current: Arc<TableMetadata>,
    pub(crate) requirements: Vec<TableRequirement>,
    pub(crate) updates: Vec<TableUpdate>,
    pub(crate) files: Vec<NewFile>,
}

/// The state of a table after a commit.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) table: LoadedTable,
    /// How many attempts it took.
    pub(crate) attempts: u32,
}

/// Whether what failed on `table` may go well on the table's new state: another writer came first, or a file is gone
/// because its snapshot has expired meanwhile.
pub(crate) async fn met_another_writer(error: &Error, table: &Table) -> bool {
    match error.kind() {
        ErrorKind::CommitConflict => true,
        ErrorKind::NotFound | ErrorKind::DataInvalid => {
            let now = table.refresh().await;
            now.is_ok_and(|now| now.metadata_location() != table.metadata_location())
        }
        _ => false,
    }
}

/// Collects actions on one table and commits them.
#[derive(Debug)]
pub(crate) struct Transaction {
    env: Arc<Environment>,
    start: LoadedTable,
    actions: Vec<Box<dyn Action>>,
    caller: Caller,
    /// Whether the outcome of an attempt could only be inferred.
    had_unknown: bool,
}

impl Transaction {
    /// Starts from the state of `table`.
    pub(crate) fn new(table: &Table, caller: Caller) -> Self {
        Self { env: Arc::clone(table.env()), start: table.loaded().clone(), actions: Vec::new(), caller, had_unknown: false }
    }

    pub(crate) fn with(mut self, action: impl Action + 'static) -> Self {
        self.actions.push(Box::new(action));
        self
    }

    /// Commits. See the module for what happens.
    ///
    /// # Errors
    /// `CommitConflict` when another writer's change makes this one wrong, or when the time is over;
    /// `CommitStateUnknown`; `NotFound` when the table was dropped; the storage's and the catalog's.
    pub(crate) async fn commit(mut self) -> Result<Committed> {
        let mut written = BTreeSet::new();
        match self.run(&mut written).await {
            Ok((committed, used)) => {
                let unused: Vec<String> = written.difference(&used).cloned().collect();
                self.discard(unused).await;
                self.env
                    .forget(self.actions.iter().filter_map(|action| action.producer()).flat_map(SnapshotProducer::replaced))
                    .await;
                Ok(committed)
            }
            Err(error) if error.kind() == ErrorKind::CommitStateUnknown => Err(error),
            // An attempt that was taken for lost may have been committed and expired within the same moment.
            Err(error) if self.had_unknown => {
                let message = "an attempt of this commit had an unknown outcome, and the next one failed";
                Err(Error::new(ErrorKind::CommitStateUnknown, message).with_source(error))
            }
            Err(error) => {
                let own = self.actions.iter().flat_map(|action| action.new_files());
                let files: Vec<String> = own.chain(written).collect();
                self.discard(files).await;
                Err(error.with_context("table", self.start.ident.to_string()))
            }
        }
    }

    async fn discard(&self, files: Vec<String>) {
        for (location, error) in self.env.storage.delete_all(files).await {
            tracing::warn!(location, %error, "a file of a commit that did not happen stays behind as an orphan");
        }
    }

    async fn run(&mut self, written: &mut BTreeSet<String>) -> Result<(Committed, BTreeSet<String>)> {
        let mut backoff = Backoff::new(&self.start.metadata, self.caller)?;
        loop {
            let base = self.env.catalog.load_table(&self.start.ident).await?;
            if base.metadata.uuid() != self.start.metadata.uuid() {
                return Err(table_replaced(&self.start.ident));
            }
            let mut attempt = Attempt {
                env: &self.env,
                current: Arc::clone(&base.metadata),
                requirements: vec![TableRequirement::UuidMatch { uuid: base.metadata.uuid() }],
                updates: Vec::new(),
                files: Vec::new(),
            };
            if let Err(error) = Self::prepare(&mut self.actions, &mut attempt).await {
                let snapshot_expired = error.kind() != ErrorKind::CommitConflict
                    && met_another_writer(&error, &Table::new(Arc::clone(&self.env), base.clone())).await;
                if !snapshot_expired {
                    return Err(error);
                }
                backoff.pause(self.env.storage.ids(), "the snapshot that the attempt started from has expired").await?;
                continue;
            }
            if attempt.updates.is_empty() {
                return Ok((Committed { table: base, attempts: backoff.attempts() }, BTreeSet::new()));
            }
            let used: BTreeSet<String> = attempt.files.iter().map(|file| file.location.clone()).collect();
            written.extend(used.iter().cloned());
            let commit = TableCommit {
                ident: self.start.ident.clone(),
                base_metadata_location: Some(base.metadata_location.clone()),
                requirements: attempt.requirements,
                updates: attempt.updates,
                files: attempt.files,
            };
            let attempts = backoff.attempts();
            match self.env.catalog.commit(vec![commit]).await? {
                CommitOutcome::Committed(mut tables) => {
                    let table = tables.pop().ok_or_else(|| Error::internal("a commit returned no table"))?;
                    return Ok((Committed { table, attempts }, used));
                }
                CommitOutcome::Conflict { reason, .. } => backoff.pause(self.env.storage.ids(), &reason).await?,
                CommitOutcome::Unknown(error) => {
                    if let Some(table) = self.probe(&base, error).await? {
                        return Ok((Committed { table, attempts }, used));
                    }
                    self.had_unknown = true;
                    backoff.pause(self.env.storage.ids(), "an attempt failed in the catalog").await?;
                }
            }
        }
    }

    async fn prepare(actions: &mut [Box<dyn Action>], attempt: &mut Attempt<'_>) -> Result<()> {
        for action in actions {
            action.validate(attempt).await?;
            action.apply(attempt).await?;
        }
        Ok(())
    }

    /// Finds out what became of an attempt on `base` whose outcome is unknown: the table when it took effect, `None`
    /// when another commit took its place, so that it never can.
    async fn probe(&self, base: &LoadedTable, cause: Error) -> Result<Option<LoadedTable>> {
        const PROBES: u32 = 5;
        let unknown = |cause: Error| {
            Error::new(
                ErrorKind::CommitStateUnknown,
                format!("whether the commit to `{}` took effect is not known: look at the table before trying again", base.ident),
            )
            .with_source(cause)
        };
        let mut backoff = Backoff::for_probes(PROBES);
        loop {
            if let Ok(now) = self.env.catalog.load_table(&base.ident).await {
                if self.actions.iter().all(|action| action.is_in(&now.metadata)) {
                    return Ok(Some(now));
                }
                if now.metadata_location != base.metadata_location {
                    let mut producers = self.actions.iter().filter_map(|action| action.producer());
                    let lost = producers.all(|producer| producer.is_lost(&now.metadata));
                    return if lost { Ok(None) } else { Err(unknown(cause)) };
                }
            }
            if backoff.pause(self.env.storage.ids(), "the catalog does not answer").await.is_err() {
                return Err(unknown(cause));
            }
        }
    }
}
