use bytes::Bytes;
use iceberg::{TableIdent, TableRequirement, TableUpdate};

use crate::{Error, LoadedTable};

/// A file that has to be durable before a commit that names it takes effect.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Absolute location.
    pub location: String,
    /// The whole content.
    pub content: Bytes,
}

/// One table's part of a commit: what must hold of the table, and what then changes.
#[derive(Debug, Clone)]
pub struct TableCommit {
    /// The table.
    pub ident: TableIdent,
    /// The metadata file from which the updates were made: another one is a conflict. Requirements name only what a commit
    /// knows of; a branch that appears meanwhile, or moves unseen, is caught by this.
    pub base_metadata_location: Option<String>,
    /// Checked against the table's state at the moment of the commit, as in the Iceberg REST protocol.
    pub requirements: Vec<TableRequirement>,
    /// Applied in order when every requirement holds.
    pub updates: Vec<TableUpdate>,
    /// Manifests and manifest lists that the updates refer to. The catalog writes them together with the new table
    /// metadata, so that a commit pays for one round of syncing and not for three.
    pub files: Vec<NewFile>,
}

/// What became of a commit.
#[derive(Debug)]
pub enum CommitOutcome {
    /// It took effect; the new state of each table, in the order of the request.
    Committed(Vec<LoadedTable>),
    /// It did not take effect, because a table is not in the state that the commit requires. The files of the commit
    /// may have been written.
    Conflict {
        /// The table that stood in the way.
        ident: TableIdent,
        /// Which requirement failed.
        reason: String,
    },
    /// It may or may not have taken effect. Nothing that the commit refers to may be deleted.
    Unknown(Error),
}
