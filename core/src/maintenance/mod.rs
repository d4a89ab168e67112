//! Upkeep of tables: Spark's verbs, options and defaults.

mod expire_snapshots;
mod owned;
mod reachable;
mod remove_orphan_files;
mod rewrite_data_files;
mod rewrite_group;
mod sort;

pub use expire_snapshots::{ExpireSnapshotsOptions, ExpireSnapshotsResult, expirable_files, expire_snapshots};
pub(crate) use owned::{check_owned, overlap, overlapping};
pub use remove_orphan_files::{RemoveOrphanFilesOptions, remove_orphan_files};
pub use rewrite_data_files::{RewriteDataFilesOptions, RewriteDataFilesResult, plan_rewrite, rewrite_data_files};
pub use rewrite_group::{RewriteGroup, RewrittenGroup};
