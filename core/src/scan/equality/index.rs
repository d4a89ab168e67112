use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::Struct;

use crate::manifest::FileFormat;

/// The scope of delete files that apply to the whole table: those of an unpartitioned spec.
const EVERYWHERE: u32 = 0;

/// An equality delete file.
#[derive(Debug, Clone)]
pub(super) struct EqualityFile {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) format: FileFormat,
    pub(super) sequence_number: i64,
    /// The partition it is about.
    pub(super) scope: u32,
    /// Field ids of the columns that are compared, sorted.
    pub(super) ids: Vec<i32>,
}

/// All equality delete files of a snapshot.
#[derive(Debug, Default, Clone)]
pub(in crate::scan) struct EqualityIndex {
    files: Vec<EqualityFile>,
    scopes: HashMap<(i32, Struct), u32>,
    /// The newest delete file of each scope.
    newest: HashMap<u32, i64>,
}

/// What of an [`EqualityIndex`] applies to a data file.
#[derive(Debug, Clone)]
pub(in crate::scan) struct TaskEquality {
    pub(super) index: Arc<EqualityIndex>,
    /// The partition of the data file, if there are deletes for it alone.
    pub(super) scope: Option<u32>,
    /// The sequence number of the data file.
    pub(super) sequence_number: i64,
}

impl TaskEquality {
    /// Whether a delete of the partition `scope`, made at `sequence_number`, applies.
    pub(super) fn has(&self, scope: u32, sequence_number: i64) -> bool {
        sequence_number > self.sequence_number && (scope == EVERYWHERE || Some(scope) == self.scope)
    }
}

/// The delete files that apply to any of `tasks`, all of which are of one snapshot.
pub(super) fn applying(tasks: &[TaskEquality]) -> Vec<&EqualityFile> {
    let Some(first) = tasks.first() else { return Vec::new() };
    // The oldest data file of each partition, and of all, is what most deletes apply to.
    let mut oldest: HashMap<u32, i64> = HashMap::new();
    for task in tasks {
        for scope in std::iter::once(EVERYWHERE).chain(task.scope) {
            let oldest = oldest.entry(scope).or_insert(task.sequence_number);
            *oldest = task.sequence_number.min(*oldest);
        }
    }
    let applies = |file: &&EqualityFile| oldest.get(&file.scope).is_some_and(|oldest| file.sequence_number > *oldest);
    first.index.files.iter().filter(applies).collect()
}

impl EqualityIndex {
    /// Adds a delete file. `partition` is in the widest types; a file without one is about the whole table.
    pub(in crate::scan) fn add(
        &mut self,
        (path, size, format): (String, u64, FileFormat),
        sequence_number: i64,
        partition: Option<(i32, Struct)>,
        mut ids: Vec<i32>,
    ) {
        let next = u32::try_from(self.scopes.len()).unwrap_or(u32::MAX).saturating_add(1);
        let scope = partition.map_or(EVERYWHERE, |partition| *self.scopes.entry(partition).or_insert(next));
        ids.sort_unstable();
        ids.dedup();
        let newest = self.newest.entry(scope).or_insert(sequence_number);
        *newest = sequence_number.max(*newest);
        self.files.push(EqualityFile { path, size, format, sequence_number, scope, ids });
    }

    pub(in crate::scan) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What applies to a data file; `None` when nothing does.
    pub(in crate::scan) fn of(self: &Arc<Self>, spec_id: i32, partition: Struct, sequence_number: i64) -> Option<TaskEquality> {
        if self.is_empty() {
            return None;
        }
        let scope = self.scopes.get(&(spec_id, partition)).copied();
        let newest = |scope: u32| self.newest.get(&scope).is_some_and(|newest| *newest > sequence_number);
        let applies = newest(EVERYWHERE) || scope.is_some_and(newest);
        applies.then(|| TaskEquality { index: Arc::clone(self), scope, sequence_number })
    }
}
