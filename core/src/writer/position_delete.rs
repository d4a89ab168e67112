use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Datum, Struct};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::schema::types::ColumnPath;
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, Result};

use super::parquet_file::ParquetFileWriter;
use super::parquet_properties::writer_properties;
use crate::manifest::{FILE_PATH_FIELD_ID, POS_FIELD_ID};
use crate::table::Table;
use crate::transaction::WrittenFile;

/// How many delete files are written at once.
const WRITE_CONCURRENCY: usize = 16;

/// Rows in one batch of a delete file.
const BATCH_ROWS: usize = 64 * 1024;

/// The deleted rows of one data file.
#[derive(Debug, Clone)]
pub(crate) struct DeletedRows {
    pub(crate) spec_id: i32,
    pub(crate) partition: Struct,
    pub(crate) positions: RoaringTreemap,
}

fn delete_schema() -> SchemaRef {
    let field = |name: &str, data_type, id: i32| {
        Field::new(name, data_type, false).with_metadata(HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string())]))
    };
    Arc::new(ArrowSchema::new(vec![
        field("file_path", DataType::Utf8, FILE_PATH_FIELD_ID),
        field("pos", DataType::Int64, POS_FIELD_ID),
    ]))
}

/// Writes one position delete file per data file. When one fails, all are deleted again.
pub(crate) async fn write_position_deletes(table: &Table, deleted: BTreeMap<String, DeletedRows>) -> Result<Vec<WrittenFile>> {
    let folder = table.data_folder();
    let named: Vec<(String, String, DeletedRows)> = deleted
        .into_iter()
        .map(|(path, rows)| (format!("{folder}/{}-deletes.parquet", table.env().storage.ids().uuid()), path, rows))
        .collect();
    let locations: Vec<String> = named.iter().map(|(location, ..)| location.clone()).collect();
    let written = stream::iter(named)
        .map(|(location, path, rows)| write_one(table, location, path, rows))
        .buffer_unordered(WRITE_CONCURRENCY)
        .try_collect()
        .await;
    if written.is_err() {
        for (location, error) in table.env().storage.delete_all(locations).await {
            tracing::warn!(location, %error, "a delete file that is not needed stays behind as an orphan");
        }
    }
    written
}

fn encode(path: &str, positions: &RoaringTreemap, properties: WriterPropertiesPtr) -> parquet::errors::Result<Bytes> {
    let schema = delete_schema();
    let mut writer = ParquetFileWriter::try_new(Arc::clone(&schema), properties)?;
    let mut positions = positions.iter().map(u64::cast_signed).peekable();
    while positions.peek().is_some() {
        let batch: Int64Array = positions.by_ref().take(BATCH_ROWS).collect();
        let paths = StringArray::from_iter_values(std::iter::repeat_n(path, batch.len()));
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(paths), Arc::new(batch)])?)?;
    }
    writer.finish()?;
    Ok(writer.take_encoded())
}

async fn write_one(table: &Table, location: String, path: String, rows: DeletedRows) -> Result<WrittenFile> {
    // A position is there once.
    let properties = writer_properties(table)?.as_ref().clone().into_builder();
    let properties = Arc::new(properties.set_column_dictionary_enabled(ColumnPath::from("pos"), false).build());
    // On all cores: a change of many rows makes many of these files.
    let positions = Arc::new(rows.positions);
    let (of, encoded) = (path.clone(), Arc::clone(&positions));
    let encoded = tokio::spawn(async move { encode(&of, &encoded, properties) }).await;
    let encoded = encoded.map_err(|e| Error::internal("writing a position delete file stopped").with_source(e))?;
    let content = encoded.map_err(|e| Error::internal("a position delete file could not be written").with_source(e))?;
    let size = content.len() as u64;
    table.env().storage.write(&location, content).await?;
    let bounds = |position: Option<u64>| {
        let position = position.map_or(0, u64::cast_signed);
        HashMap::from([(FILE_PATH_FIELD_ID, Datum::string(&path)), (POS_FIELD_ID, Datum::long(position))])
    };
    let count = positions.len();
    let file = DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(location)
        .file_format(DataFileFormat::Parquet)
        .partition(rows.partition)
        .partition_spec_id(rows.spec_id)
        .record_count(count)
        .file_size_in_bytes(size)
        .value_counts(HashMap::from([(FILE_PATH_FIELD_ID, count), (POS_FIELD_ID, count)]))
        .null_value_counts(HashMap::from([(FILE_PATH_FIELD_ID, 0), (POS_FIELD_ID, 0)]))
        .lower_bounds(bounds(positions.min()))
        .upper_bounds(bounds(positions.max()))
        .referenced_data_file(Some(path.clone()))
        .build()
        .map_err(|e| Error::internal("a delete file could not be described").with_source(e))?;
    Ok(WrittenFile { spec_id: rows.spec_id, file })
}
