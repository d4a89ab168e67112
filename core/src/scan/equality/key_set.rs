use std::collections::HashMap;
use std::hash::BuildHasher;

use arrow::array::ArrayRef;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::execution::memory_pool::MemoryReservation;
use hashbrown::{DefaultHashBuilder, HashTable};
use tarndb_catalog::{Error, Result};

use super::TaskEquality;
use super::index::EqualityFile;
use crate::error::engine_error;

/// Bytes that a value takes beside its own, roughly: its place in a table that may just have grown.
const ENTRY_BYTES: usize = 64;

/// A deleted value.
#[derive(Debug, Clone, Copy)]
struct Deleted {
    /// Where its bytes begin.
    start: usize,
    len: u32,
    /// Which of the set's deletions it is of.
    deletion: u32,
}

/// Where values are deleted: the partition, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Deletion {
    scope: u32,
    sequence_number: i64,
}

/// The deleted values of one set of columns. There can be as many as rows, so that each takes no memory of its own.
#[derive(Debug)]
pub(super) struct KeySet {
    pub(super) ids: Vec<i32>,
    converter: RowConverter,
    hasher: DefaultHashBuilder,
    table: HashTable<Deleted>,
    /// The values, one after the other.
    bytes: Vec<u8>,
    deletions: Vec<Deletion>,
    /// The place of each in `deletions`.
    numbers: HashMap<Deletion, u32>,
}

fn bytes_of(bytes: &[u8], value: Deleted) -> &[u8] {
    bytes.get(value.start..).and_then(|rest| rest.get(..value.len as usize)).unwrap_or_default()
}

impl KeySet {
    /// An empty set for the columns of `ids`.
    pub(super) fn new(ids: &[i32], columns: &SchemaRef) -> Result<Self> {
        fn leaf_type(of: &DataType) -> &DataType {
            match of {
                DataType::Struct(fields) if fields.len() == 1 => fields.first().map_or(of, |field| leaf_type(field.data_type())),
                other => other,
            }
        }
        let sorts = columns.fields().iter().map(|field| SortField::new(leaf_type(field.data_type()).clone())).collect();
        let converter = RowConverter::new(sorts).map_err(|e| engine_error(e.into()))?;
        Ok(Self {
            ids: ids.to_vec(),
            converter,
            hasher: DefaultHashBuilder::default(),
            table: HashTable::new(),
            bytes: Vec::new(),
            deletions: Vec::new(),
            numbers: HashMap::new(),
        })
    }

    /// Adds values that `file` deletes.
    ///
    /// # Errors
    /// `ResourcesExhausted`.
    pub(super) fn add(&mut self, file: &EqualityFile, values: &[ArrayRef], memory: &MemoryReservation) -> Result<()> {
        let rows = self.converter.convert_columns(values).map_err(|e| engine_error(e.into()))?;
        let deletion = Deletion { scope: file.scope, sequence_number: file.sequence_number };
        let next = u32::try_from(self.deletions.len());
        let next = next.map_err(|_| Error::unsupported("more than 2^32 partitions and sequence numbers of equality deletes"))?;
        let number = *self.numbers.entry(deletion).or_insert_with(|| {
            self.deletions.push(deletion);
            next
        });
        let Self { hasher, table, bytes, deletions, .. } = self;
        let bytes_before = bytes.capacity();
        let scope_of = |value: Deleted| deletions.get(value.deletion as usize).map(|deletion| deletion.scope);
        let newer = |value: Deleted| {
            deletions.get(value.deletion as usize).is_none_or(|known| deletion.sequence_number > known.sequence_number)
        };
        let mut grown = 0;
        for row in &rows {
            let row = row.data();
            let hash = hasher.hash_one(row);
            // Of one partition the newest deletion has the others in it.
            let known = table.find_mut(hash, |value| bytes_of(bytes, *value) == row && scope_of(*value) == Some(deletion.scope));
            match known {
                Some(known) if newer(*known) => known.deletion = number,
                Some(_) => {}
                None => {
                    let len = u32::try_from(row.len()).map_err(|_| Error::unsupported("a deleted value is longer than 4 GiB"))?;
                    let value = Deleted { start: bytes.len(), len, deletion: number };
                    bytes.extend_from_slice(row);
                    table.insert_unique(hash, value, |value| hasher.hash_one(bytes_of(bytes, *value)));
                    grown += ENTRY_BYTES;
                }
            }
        }
        memory.try_grow(grown + bytes.capacity() - bytes_before).map_err(engine_error)
    }

    /// Which of the `row_count` rows with these values the deletions that apply to `task` leave.
    pub(super) fn left(&self, values: &[ArrayRef], row_count: usize, task: &TaskEquality) -> Result<BooleanBuffer> {
        if !self.deletions.iter().any(|of| task.has(of.scope, of.sequence_number)) {
            return Ok(BooleanBuffer::new_set(row_count));
        }
        let rows = self.converter.convert_columns(values).map_err(|e| engine_error(e.into()))?;
        Ok(BooleanBuffer::collect_bool(row_count, |row| {
            let row = rows.row(row);
            let row = row.data();
            let is_it = |value: &Deleted| {
                let deletion = self.deletions.get(value.deletion as usize);
                deletion.is_some_and(|of| task.has(of.scope, of.sequence_number)) && bytes_of(&self.bytes, *value) == row
            };
            self.table.find(self.hasher.hash_one(row), is_it).is_none()
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::manifest::FileFormat;

    fn set() -> KeySet {
        let fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
        KeySet::new(&[1, 2], &Arc::new(Schema::new(fields))).unwrap()
    }

    fn file(scope: u32, sequence_number: i64) -> EqualityFile {
        let path = format!("{scope}-{sequence_number}");
        EqualityFile { path, size: 0, format: FileFormat::Parquet, sequence_number, scope, ids: vec![1, 2] }
    }

    fn values(pairs: &[(Option<i64>, Option<String>)]) -> Vec<ArrayRef> {
        let a: Int64Array = pairs.iter().map(|(a, _)| *a).collect();
        let b: StringArray = pairs.iter().map(|(_, b)| b.clone()).collect();
        vec![Arc::new(a), Arc::new(b)]
    }

    /// Values that are deleted again and again, in some partitions and in all, in any order.
    #[test]
    fn a_row_is_deleted_when_any_deletion_of_its_value_applies() {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let memory = MemoryConsumer::new("test").register(&pool);
        let mut random = StdRng::seed_from_u64(7);
        let value = |random: &mut StdRng| {
            let a = random.random_range(0..12);
            let b = random.random_range(0..4);
            ((a > 0).then_some(a), (b > 0).then(|| "x".repeat(b * 9)))
        };
        for _ in 0..100 {
            let mut set = set();
            let mut deleted = Vec::new();
            for _ in 0..random.random_range(0..12) {
                let of = file(random.random_range(0..3), random.random_range(1..9));
                let some: Vec<_> = (0..random.random_range(0..20)).map(|_| value(&mut random)).collect();
                set.add(&of, &values(&some), &memory).unwrap();
                deleted.extend(some.into_iter().map(|value| (of.scope, of.sequence_number, value)));
            }
            let rows: Vec<_> = (0..60).map(|_| value(&mut random)).collect();
            for scope in [None, Some(1), Some(2)] {
                let task = TaskEquality { index: Arc::default(), scope, sequence_number: random.random_range(0..9) };
                let left = set.left(&values(&rows), rows.len(), &task).unwrap();
                for (row, value) in rows.iter().enumerate() {
                    let is_deleted = deleted.iter().any(|(scope, number, of)| of == value && task.has(*scope, *number));
                    assert_eq!(left.value(row), !is_deleted, "{value:?} of {task:?}");
                }
            }
        }
    }

    #[test]
    fn values_take_memory_of_the_pool() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10_000));
        let memory = MemoryConsumer::new("test").register(&pool);
        let many = values(&(0..1000).map(|n| (Some(n), None)).collect::<Vec<_>>());
        let error = set().add(&file(0, 1), &many, &memory).unwrap_err();
        assert_eq!(error.kind(), tarndb_catalog::ErrorKind::ResourcesExhausted, "{error:?}");
    }
}
