//! Tables that other engines wrote (`core/tests/corpus`): each is read as its writer reads it and as the naive reader does,
//! whatever is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::prelude::{Expr, SessionContext, lit};
use iceberg::spec::FormatVersion;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tarndb_core::{ErrorKind, Lakehouse, Table};
use tarndb_testkit::naive;
use tempfile::TempDir;
use uuid::Uuid;

use crate::rows;

/// The tables, unpacked: they lie elsewhere than they were made.
pub(crate) struct Corpus(TempDir);

impl Corpus {
    pub(crate) fn unpack() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/tables.tar.zst");
        let file = std::fs::File::open(archive).unwrap();
        tar::Archive::new(zstd::Decoder::new(file).unwrap()).unpack(folder.path()).unwrap();
        Self(folder)
    }

    /// The folders of all states, sorted by name.
    pub(crate) fn states(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut states: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        states.retain(|state| !name(state).contains("refused"));
        states.sort();
        assert!(states.len() >= 60, "the corpus has {} tables", states.len());
        states
    }
}

fn name(state: &Path) -> String {
    state.file_name().unwrap().to_str().unwrap().to_string()
}

fn path(state: &Path) -> String {
    state.join("table").to_str().unwrap().to_string()
}

/// What the writer reads from its table, in the types that the table has here.
fn writers_answer(state: &Path, schema: &SchemaRef) -> Vec<RecordBatch> {
    answer(&state.join("expected.parquet"), schema)
}

fn answer(path: &Path, schema: &SchemaRef) -> Vec<RecordBatch> {
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let in_types = |batch: RecordBatch| {
        let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| in_type(column, field));
        RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
    };
    reader.map(|batch| in_types(batch.unwrap())).collect()
}

fn in_type(column: &ArrayRef, field: &Field) -> ArrayRef {
    match (column.data_type(), field.data_type()) {
        // Spark shows UUIDs as text.
        (DataType::Utf8, DataType::FixedSizeBinary(16)) => {
            let uuids = column.as_string::<i32>().iter().map(|text| Some(Uuid::parse_str(text?).unwrap().into_bytes()));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, 16).unwrap())
        }
        (_, to) => cast(column, to).unwrap_or_else(|e| panic!("{field}: {e}")),
    }
}

async fn open(lake: &Lakehouse, state: &Path) -> Table {
    lake.read_iceberg(&path(state)).await.unwrap_or_else(|e| panic!("{}: {e:?}", name(state)))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_read_as_its_writer_reads_it() {
    let corpus = Corpus::unpack();
    let lake = tarndb_core::connect("memory://").await.unwrap();
    let mut wrong = Vec::new();
    for state in corpus.states() {
        let table = open(&lake, &state).await;
        let writers = naive::lines(&writers_answer(&state, &table.arrow_schema().unwrap()));
        let naive = naive::lines(&naive::read(table.storage(), &table).await);
        let found = match rows(&lake, &format!("SELECT * FROM iceberg_scan('{}')", path(&state))).await {
            Ok(rows) => naive::lines(&rows),
            Err(e) => {
                wrong.push(format!("{}: {e:?}", name(&state)));
                continue;
            }
        };
        for (who, expected) in [("its writer", &writers), ("the naive reader", &naive)] {
            if found != *expected {
                let lost: Vec<_> = expected.iter().filter(|line| !found.contains(line)).take(2).collect();
                let made_up: Vec<_> = found.iter().filter(|line| !expected.contains(line)).take(2).collect();
                let counts = format!("{} rows, {who} reads {}", found.len(), expected.len());
                wrong.push(format!("{}: {counts}; lost {lost:#?}, made up {made_up:#?}", name(&state)));
            }
        }
        // One column alone: the others are left out in files, too.
        let schema = table.arrow_schema().unwrap();
        if let Some((index, last)) = schema.fields().iter().enumerate().next_back() {
            let one = format!("SELECT \"{}\" FROM iceberg_scan('{}')", last.name(), path(&state));
            let one = naive::lines(&rows(&lake, &one).await.unwrap_or_else(|e| panic!("{}: {e:?}", name(&state))));
            let expected = naive::read(table.storage(), &table).await;
            let expected: Vec<RecordBatch> = expected.iter().map(|batch| batch.project(&[index]).unwrap()).collect();
            if one != naive::lines(&expected) {
                wrong.push(format!("{}: column `{}` alone is another", name(&state), last.name()));
            }
        }
        let count = crate::number(&lake, &format!("SELECT count(*) FROM iceberg_scan('{}')", path(&state))).await;
        if usize::try_from(count).unwrap() != naive.len() {
            wrong.push(format!("{}: count(*) is {count}, not {}", name(&state), naive.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_formats_that_are_not_read_are_named() {
    let corpus = Corpus::unpack();
    let lake = tarndb_core::connect("memory://").await.unwrap();
    let orc = format!("SELECT * FROM iceberg_scan('{}')", path(&corpus.0.path().join("spark_refused_orc")));
    let error = rows(&lake, &orc).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.report().contains(".orc") && error.report().contains("data file of the format Orc"), "{}", error.report());
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_columns_are_those_of_the_writer_and_of_the_naive_reader() {
    let corpus = Corpus::unpack();
    let lake = tarndb_core::connect("memory://").await.unwrap();
    let (mut wrong, mut by_writers) = (Vec::new(), 0);
    for state in corpus.states() {
        let table = open(&lake, &state).await;
        let is_partitioned = table.metadata().partition_specs_iter().any(|spec| !spec.is_unpartitioned());
        let partition = if is_partitioned { "_partition, " } else { "" };
        let select = async |names: &str| {
            let found = rows(&lake, &format!("SELECT {names} FROM iceberg_scan('{}')", path(&state))).await;
            found.unwrap_or_else(|e| panic!("{}: {e:?}", name(&state)))
        };
        let found = select(&format!("_file, _pos, _spec_id, {partition}_row_id, _last_updated_sequence_number")).await;
        let fields = found.first().and_then(|batch| match batch.column_by_name("_partition")?.data_type() {
            DataType::Struct(fields) => Some(fields.clone()),
            other => panic!("{other}"),
        });
        let expected = naive::metadata_columns(table.storage(), &table, fields.as_ref()).await;
        let (found, expected) = (naive::lines(&found), naive::lines(&expected));
        if found != expected {
            wrong.push(format!("{}: {:?}, not {:?}", name(&state), found.first(), expected.first()));
        }
        // Spark tells them too, of most of its tables.
        let theirs = state.join("metadata_columns.parquet");
        if theirs.exists() {
            let is_v3 = table.metadata().format_version() == FormatVersion::V3;
            let lineage = if is_v3 { ", _row_id, _last_updated_sequence_number" } else { "" };
            let found =
                select(&format!("_file, _pos, _spec_id{}{lineage}", if is_partitioned { ", _partition" } else { "" })).await;
            let Some(schema) = found.first().map(RecordBatch::schema) else { continue };
            let (found, expected) = (naive::lines(&found), naive::lines(&answer(&theirs, &schema)));
            if found != expected {
                wrong.push(format!("{}: {:?}, but Spark says {:?}", name(&state), found.first(), expected.first()));
            }
            by_writers += 1;
        }
    }
    assert!(by_writers > 50, "Spark says it of {by_writers} tables");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A predicate over the columns of the table, with values of its rows and near them.
fn predicate(random: &mut StdRng, rows: &[RecordBatch]) -> Expr {
    let filled: Vec<&RecordBatch> = rows.iter().filter(|batch| batch.num_rows() > 0).collect();
    let batch = filled[random.random_range(0..filled.len())];
    let index = random.random_range(0..batch.num_columns());
    let schema = batch.schema();
    let column = Expr::Column(datafusion::common::Column::from_name(schema.field(index).name()));
    let value =
        |random: &mut StdRng| ScalarValue::try_from_array(batch.column(index), random.random_range(0..batch.num_rows())).unwrap();
    let leaf = if schema.field(index).data_type().is_nested() || random.random_ratio(1, 8) {
        if random.random() { column.is_null() } else { column.is_not_null() }
    } else {
        let first = lit(value(random));
        match random.random_range(0..9) {
            0 | 1 => column.eq(first),
            2 => column.not_eq(first),
            3 => column.lt(first),
            4 => column.lt_eq(first),
            5 => column.gt(first),
            6 => column.gt_eq(first),
            7 => column.in_list(vec![first, lit(value(random)), lit(value(random))], random.random_ratio(1, 4)),
            _ => column.between(first, lit(value(random))),
        }
    };
    match random.random_range(0..6) {
        0 => leaf.and(predicate(random, rows)),
        1 => leaf.or(predicate(random, rows)),
        2 => !leaf,
        _ => leaf,
    }
}

async fn kept(context: &SessionContext, rows: &[RecordBatch], predicate: &Expr) -> Vec<String> {
    let frame = context.read_batches(rows.to_vec()).unwrap().filter(predicate.clone()).unwrap();
    naive::lines(&frame.collect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_predicate_hides_a_row_of_any_table() {
    const PREDICATES: usize = 2000;
    let corpus = Corpus::unpack();
    let lake = tarndb_core::connect("memory://").await.unwrap();
    let context = lake.session_context();
    let states = corpus.states();
    let each = PREDICATES.div_ceil(states.len());
    let mut wrong = Vec::new();
    for (seed, state) in states.iter().enumerate() {
        let mut random = StdRng::seed_from_u64(seed as u64);
        let table = open(&lake, state).await;
        let all = naive::read(table.storage(), &table).await;
        if all.iter().all(|batch| batch.num_rows() == 0) {
            continue;
        }
        // Some tables have no rows; the others make up for them.
        for _ in 0..each + 2 {
            let predicate = predicate(&mut random, &all);
            let frame = context.sql(&format!("SELECT * FROM iceberg_scan('{}')", path(state))).await.unwrap();
            let frame = frame.filter(predicate.clone()).unwrap();
            let found = naive::lines(&frame.collect().await.unwrap_or_else(|e| panic!("{}: {predicate}: {e}", name(state))));
            let expected = kept(context, &all, &predicate).await;
            if found != expected {
                wrong.push(format!("{} WHERE {predicate}: {} rows, not {}", name(state), found.len(), expected.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
