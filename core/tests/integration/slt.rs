//! Runs `core/tests/slt/*.slt`, each file over a lake of its own.

use std::path::{Path, PathBuf};

use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tarndb_core::{Error, Lakehouse};

struct LakeDb(Lakehouse);

#[derive(Debug)]
struct SltError(Error);

impl std::fmt::Display for SltError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.kind(), self.0.report())
    }
}

impl std::error::Error for SltError {}

#[async_trait]
impl AsyncDB for LakeDb {
    type Error = SltError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SltError> {
        let result = self.0.sql(sql).await.map_err(SltError)?;
        let schema = result.schema().clone();
        let batches = result.collect().await.map_err(SltError)?;
        if schema.fields().is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = schema.fields().iter().map(|field| match field.data_type() {
            of if of.is_integer() => DefaultColumnType::Integer,
            DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => DefaultColumnType::FloatingPoint,
            _ => DefaultColumnType::Text,
        });
        let options = FormatOptions::new().with_null("NULL");
        let mut rows = Vec::new();
        for batch in &batches {
            let columns: Vec<ArrayFormatter<'_>> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
            for row in 0..batch.num_rows() {
                let cell = |column: &ArrayFormatter<'_>| match column.value(row).to_string() {
                    empty if empty.is_empty() => "(empty)".to_string(),
                    text => text,
                };
                rows.push(columns.iter().map(cell).collect());
            }
        }
        Ok(DBOutput::Rows { types: types.collect(), rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tarndb"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_logic_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(files.len() >= 8, "the .slt files are missing");
    for file in files {
        let scratch = tempfile::tempdir().unwrap();
        let lake = tarndb_core::connect(scratch.path().join("lake").to_str().unwrap()).await.unwrap();
        let mut runner = Runner::new(|| async { Ok(LakeDb(lake.clone())) });
        runner.set_var("SCRATCH".to_string(), scratch.path().display().to_string());
        runner.run_file_async(&file).await.unwrap_or_else(|e| panic!("{}\n{}", file.display(), e.display(false)));
    }
}
