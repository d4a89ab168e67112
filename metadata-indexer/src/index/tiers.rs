use tarndb_core::maintenance::{RewriteDataFilesOptions, RewriteGroup, plan_rewrite};
use tarndb_core::{Result, Table};

pub(super) const MIB: u64 = 1024 * 1024;

/// Files of this size are as large as they should be: three quarters of their target.
const FULL: u64 = 96 * MIB;

/// Files are put together with all smaller ones when there are some of about the same size in a partition: so no row is written again
/// often, and there are few files of any size.
pub(super) const LARGE: Tier = Tier { below: None, until: u64::MAX, from: 16 * MIB, files: 4 };
pub(super) const MEDIUM: Tier = Tier { below: Some(16 * MIB), until: 16 * MIB, from: MIB, files: 8 };
pub(super) const SMALL: Tier = Tier { below: Some(MIB), until: 16 * MIB, from: 0, files: 12 };

/// A large file is put together with all that are not, when many of its rows are deleted.
pub(super) const DELETED: Tier = Tier { below: Some(16 * MIB), until: u64::MAX, from: 0, files: usize::MAX };

pub(super) const TIERS: [Tier; 4] = [LARGE, DELETED, MEDIUM, SMALL];

/// Files of a table of which nobody writes more.
pub(super) const ALL: Tier = Tier { below: None, until: u64::MAX, from: 0, files: 2 };

/// So many commits of a table after the last one to a partition, it is as if nothing was committed: days of a journal are over.
pub(super) const QUIET_COMMITS: i64 = 256;

/// Then files are put together, too, when the largest of them has at most so many times as many bytes as the others: no row is written
/// again more often than so many times for one that is new, and few files are left, of very different sizes.
const QUIET_RATIO: u64 = 16;

/// Which files are put together, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tier {
    /// The size of the files, in bytes; `None` is [`FULL`].
    pub(super) below: Option<u64>,
    /// From this size on, files stay as they are, even if many of their rows are deleted.
    pub(super) until: u64,
    /// There are so many files of at least this size.
    pub(super) from: u64,
    pub(super) files: usize,
}

impl Tier {
    /// The files of a table to put together, of those that are free. `is_by_key` is said of the tables whose rows are looked for by key,
    /// `is_quiet` of those to which nobody adds.
    ///
    /// # Errors
    /// Those of reading what the table consists of.
    pub(super) async fn plan(
        self,
        table: &Table,
        is_by_key: bool,
        is_quiet: bool,
        is_free: impl Fn(&str) -> bool + Send,
    ) -> Result<Vec<RewriteGroup>> {
        let last = table.metadata().last_sequence_number();
        let options = RewriteDataFilesOptions {
            min_file_size_bytes: self.below,
            min_input_files: 2,
            sort_by: if is_by_key { vec!["key".to_string()] } else { Vec::new() },
            ..RewriteDataFilesOptions::default()
        };
        let is_worth = |group: &RewriteGroup| {
            // A file that is larger is there because many of its rows are deleted.
            let is_larger = |size: u64| size >= self.below.unwrap_or(FULL);
            let are_many = group.sizes().filter(|size| *size >= self.from).count() >= self.files;
            let (all, largest) = (group.sizes().sum::<u64>(), group.sizes().max().unwrap_or(0));
            let is_quiet = is_quiet || group.newest() + QUIET_COMMITS <= last;
            are_many || group.sizes().any(is_larger) || is_quiet && largest <= QUIET_RATIO.saturating_mul(all - largest)
        };
        let may_be = move |file: &str, size: u64| size < self.until && is_free(file);
        Ok(plan_rewrite(table, &options, &[], may_be).await?.into_iter().filter(is_worth).collect())
    }
}
