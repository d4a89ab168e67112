//! Files of rows, whatever their format: data files, and delete files.
//!
//! * [`parquet`], [`avro`]: one format each.
//! * [`footer`]: footers of Parquet files, which are checked ([`thrift`]) before they are believed; [`checked_reader`]: for
//!   DataFusion.
//! * [`guard`]: errors name the file.

mod avro;
pub(super) mod checked_reader;
pub(super) mod footer;
pub(super) mod guard;
mod parquet;
mod thrift;

use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::stream::BoxStream;
use iceberg::spec::NameMapping;
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, Result, Storage};

use self::guard::FileGuard;
use crate::manifest::FileFormat;

/// The column in which rows come with their positions in the file, after the file's own.
pub(super) const POSITION: &str = "_tarndb_position";

/// A file that metadata names.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileRef<'a> {
    /// What it is, such as "data file", for messages.
    pub(super) what: &'static str,
    pub(super) path: &'a str,
    /// In bytes.
    pub(super) size: u64,
    pub(super) format: FileFormat,
}

/// What is wanted of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The columns, found by field id; without, all.
    pub(super) columns: Option<&'a SchemaRef>,
    /// Ids for files that have none.
    pub(super) mapping: Option<&'a NameMapping>,
    /// Whether rows come with [`POSITION`].
    pub(super) positions: bool,
    /// Positions of rows that are left out.
    pub(super) deleted: Option<&'a RoaringTreemap>,
    /// Rows in a batch, at most.
    pub(super) batch_size: usize,
}

impl Wanted<'_> {
    /// All of a delete file.
    pub(super) const EVERYTHING: Self = Self { columns: None, mapping: None, positions: false, deleted: None, batch_size: 8192 };
}

/// The rows of a file.
pub(super) struct FileRows {
    /// The columns, with field ids at every depth.
    pub(super) schema: SchemaRef,
    pub(super) batches: BoxStream<'static, Result<RecordBatch>>,
}

/// Opens a file.
///
/// # Errors
/// `DataInvalid`, naming the file, when it is missing or damaged, as errors of its rows do; `Unsupported` for other formats.
pub(super) async fn open(storage: &Storage, file: FileRef<'_>, wanted: Wanted<'_>) -> Result<FileRows> {
    let opened = async {
        match file.format {
            FileFormat::Parquet => parquet::open(storage, file, wanted).await,
            FileFormat::Avro => avro::open(storage, file, wanted).await,
            FileFormat::Orc | FileFormat::Puffin => {
                Err(Error::unsupported(format!("a {} of the format {:?} cannot be read", file.what, file.format)))
            }
        }
    };
    let opened = AssertUnwindSafe(opened).catch_unwind().await;
    let guard = FileGuard::new(file.what, file.path, false);
    let FileRows { schema, batches } = guard.result(opened)?;
    Ok(FileRows { schema, batches: guard.rows(batches) })
}

/// What is wrong with a file that metadata names.
fn unreadable(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data_invalid(format!("{what} cannot be read")).with_source(error)
}
