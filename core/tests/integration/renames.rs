//! Names and columns that change while a statement runs: what it was for keeps it, what has its name by now is not touched.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;
use iceberg::TableUpdate;
use iceberg::spec::Schema as IcebergSchema;
use tarndb_catalog::{
    CommitOutcome, Location, RandomIds, Storage, SystemClock, TableCommit, sqlite_catalog as open_sqlite_catalog,
};
use tarndb_core::maintenance::{RemoveOrphanFilesOptions, remove_orphan_files};
use tarndb_core::{ErrorKind, Lakehouse};
use tarndb_testkit::{Fault, FaultPlan, invariants, naive};

use crate::{number, rows, run};

const ORPHANS: &str = "remove_orphan_files(force)";

async fn carry_out(lake: &Lakehouse, statement: &str) -> tarndb_core::Result<()> {
    if statement == ORPHANS {
        let options = RemoveOrphanFilesOptions { force: true, ..RemoveOrphanFilesOptions::default() };
        return remove_orphan_files(&lake.table("t").await?, &options).await.map(|_| ());
    }
    rows(lake, statement).await.map(|_| ())
}

/// Another process renames the table to `u` and creates a new `t`, while a statement on `t` waits for its request number N.
#[tokio::test(flavor = "multi_thread")]
async fn renamed_and_created_anew_at_every_request() {
    for statement in ["DROP TABLE t PURGE", "VACUUM t RETAIN 0 HOURS", ORPHANS, "OPTIMIZE t", "INSERT INTO t VALUES (5, 5)"] {
        for request in 1..1000 {
            let label = format!("{statement}, stalled at request {request}");
            let plan = FaultPlan::default();
            let folder = tempfile::tempdir().unwrap();
            let location = folder.path().join("lake").display().to_string();
            let one = Lakehouse::builder(&location).with_store_layer(plan.layer()).build().await.unwrap();
            run(&one, &["CREATE TABLE t (id BIGINT, k INT)"]).await;
            for id in 0..6 {
                run(&one, &[&format!("INSERT INTO t VALUES ({id}, 0)")]).await;
            }
            let other = tarndb_core::connect(&location).await.unwrap();
            plan.arm(request, Fault::Stall);
            let mut task = tokio::spawn(async move { carry_out(&one, statement).await });
            let finished = tokio::select! {
                () = plan.stalled() => None,
                done = &mut task => Some(done),
            };
            let reached = finished.is_none();
            let renamed = rows(&other, "ALTER TABLE t RENAME TO u").await;
            run(&other, &["CREATE TABLE t (id BIGINT, k INT)", "INSERT INTO t VALUES (7, 7)"]).await;
            plan.release();
            let done = match finished {
                None => task.await,
                Some(done) => done,
            }
            .unwrap();
            if let Err(e) = &done {
                assert!(matches!(e.kind(), ErrorKind::CommitConflict | ErrorKind::NotFound), "{label}: {e:?}");
            }
            let new = other.table("t").await.unwrap();
            invariants::assert_referenced_files_exist(other.storage(), &new).await;
            assert_eq!(naive::lines(&naive::read(other.storage(), &new).await), ["7|7"], "{label}");
            if renamed.is_ok() {
                assert!(done.is_err() || !statement.starts_with("DROP"), "{label}: what was renamed was not dropped");
                let old = other.table("u").await.unwrap();
                invariants::assert_referenced_files_exist(other.storage(), &old).await;
                let inserted = i64::from(done.is_ok() && statement.starts_with("INSERT"));
                assert_eq!(number(&other, "SELECT count(*) FROM u").await, 6 + inserted, "{label}");
            } else {
                assert!(done.is_ok() && statement.starts_with("DROP"), "{label}: {renamed:?}");
            }
            if !reached {
                break;
            }
        }
    }
}

/// A source that swaps the columns of `t` before it gives its row.
#[derive(Debug)]
struct SwapsColumns {
    schema: SchemaRef,
    location: String,
}

impl PartitionStream for SwapsColumns {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, location) = (Arc::clone(&self.schema), self.location.clone());
        let row = stream::once(async move {
            swap_columns(&location).await;
            let column = |value| Arc::new(Int64Array::from(vec![value])) as _;
            Ok(RecordBatch::try_new(schema, vec![column(1), column(-1)])?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), row))
    }
}

async fn swap_columns(location: &str) {
    let ids = Arc::new(RandomIds);
    let storage = Storage::with_components(Location::parse(location).unwrap(), None, Arc::new(SystemClock), ids);
    let path = std::path::Path::new(location).join("catalog.db");
    let catalog = Box::new(open_sqlite_catalog(&path, storage).await.unwrap()) as Box<dyn tarndb_catalog::Catalog>;
    let ident = iceberg::TableIdent::from_strs(["default", "t"]).unwrap();
    let metadata = catalog.load_table(&ident).await.unwrap().metadata;
    let mut fields = metadata.current_schema().as_struct().fields().to_vec();
    fields.reverse();
    let schema = IcebergSchema::builder().with_fields(fields).build().unwrap();
    let updates = vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
    let commit = TableCommit { ident, requirements: Vec::new(), updates, files: Vec::new(), base_metadata_location: None };
    assert!(matches!(catalog.commit(vec![commit]).await.unwrap(), CommitOutcome::Committed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_swapped_while_rows_are_inserted() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("lake").display().to_string();
    let lake = tarndb_core::connect(&location).await.unwrap();
    run(&lake, &["CREATE TABLE t (a BIGINT, b BIGINT)"]).await;
    let fields = vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Int64, true)];
    let schema = Arc::new(Schema::new(fields));
    let source = Arc::new(SwapsColumns { schema: Arc::clone(&schema), location });
    let table = StreamingTable::try_new(schema, vec![source]).unwrap();
    lake.session_context().register_table("source", Arc::new(table)).unwrap();
    run(&lake, &["INSERT INTO t SELECT x, y FROM source"]).await;
    let names = rows(&lake, "SELECT * FROM t").await.unwrap();
    assert_eq!(names[0].schema().field(0).name(), "b", "the columns were swapped");
    assert_eq!((number(&lake, "SELECT a FROM t").await, number(&lake, "SELECT b FROM t").await), (1, -1));
}
