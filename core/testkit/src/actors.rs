use std::collections::BTreeSet;
use std::ops::Range;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tarndb_core::{ErrorKind, Lakehouse};
use tokio::task::JoinSet;

/// Writers that work on one table beside each other, each with a connection of its own, and the account of what must be
/// in the table in the end. The table has the columns `(id BIGINT, writer BIGINT)`.
#[derive(Debug)]
pub struct Actors {
    location: String,
    table: String,
    tasks: JoinSet<()>,
    ids: BTreeSet<i64>,
}

impl Actors {
    /// Actors on a table in the lake at `location`, which is created with the ids `first`.
    ///
    /// # Panics
    /// When it cannot be created.
    pub async fn new(location: &str, table: &str, first: Range<i64>) -> Self {
        let lake = tarndb_core::connect(location).await.unwrap();
        run(&lake, &format!("CREATE TABLE {table} (id BIGINT, writer BIGINT)")).await.unwrap();
        let values = format!("SELECT value, -1 FROM generate_series({}, {})", first.start, first.end - 1);
        run(&lake, &format!("INSERT INTO {table} {values}")).await.unwrap();
        Self { location: location.to_string(), table: table.to_string(), tasks: JoinSet::new(), ids: first.collect() }
    }

    /// Adds each of `ids` in a commit of its own; none may fail.
    pub fn append(&mut self, writer: i64, ids: Range<i64>) {
        self.ids.extend(ids.clone());
        let (location, table) = (self.location.clone(), self.table.clone());
        self.tasks.spawn(async move {
            let lake = tarndb_core::connect(&location).await.unwrap();
            for id in ids {
                run(&lake, &format!("INSERT INTO {table} VALUES ({id}, {writer})")).await.unwrap();
            }
        });
    }

    /// Deletes each of `ids`, which are in the table, in a commit of its own; none may fail.
    pub fn delete(&mut self, ids: Range<i64>) {
        self.ids.retain(|id| !ids.contains(id));
        let (location, table) = (self.location.clone(), self.table.clone());
        self.tasks.spawn(async move {
            let lake = tarndb_core::connect(&location).await.unwrap();
            for id in ids {
                let deleted = run(&lake, &format!("DELETE FROM {table} WHERE id = {id}")).await.unwrap();
                assert_eq!(deleted, Some(1), "row {id} was there once");
            }
        });
    }

    /// Runs an upkeep statement `rounds` times. It may find that others always came first.
    pub fn upkeep(&mut self, statement: &str, rounds: usize) {
        let (location, statement) = (self.location.clone(), statement.to_string());
        self.tasks.spawn(async move {
            let lake = tarndb_core::connect(&location).await.unwrap();
            for _ in 0..rounds {
                match run(&lake, &statement).await {
                    Err(e) if e.kind() != ErrorKind::CommitConflict => panic!("{statement}: {e:?}"),
                    _ => {}
                }
            }
        });
    }

    /// Counts the rows `rounds` times: no state may show a row twice.
    pub fn watch(&mut self, rounds: usize) {
        let (location, table) = (self.location.clone(), self.table.clone());
        self.tasks.spawn(async move {
            let lake = tarndb_core::connect(&location).await.unwrap();
            for _ in 0..rounds {
                let twice = format!("SELECT count(*) - count(DISTINCT id) FROM {table}");
                assert_eq!(run(&lake, &twice).await.unwrap(), Some(0), "a row was seen twice");
            }
        });
    }

    /// Waits for all, and gives the ids that must be in the table, each once.
    ///
    /// # Panics
    /// When an actor did.
    pub async fn finish(mut self) -> BTreeSet<i64> {
        while let Some(done) = self.tasks.join_next().await {
            done.unwrap();
        }
        self.ids
    }
}

/// Runs a statement; the first number of its answer.
async fn run(lake: &Lakehouse, statement: &str) -> tarndb_core::Result<Option<i64>> {
    let batches = lake.sql(statement).await?.collect().await?;
    let first = batches.iter().find(|batch| batch.num_rows() > 0);
    Ok(first.and_then(|batch| Some(batch.column(0).as_primitive_opt::<Int64Type>()?.value(0))))
}
