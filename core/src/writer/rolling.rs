use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Schema, Struct};
use object_store::buffered::BufWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterPropertiesPtr;
use tarndb_catalog::{Error, Result, Storage};
use tokio::io::AsyncWriteExt;

use super::column_statistics::{FileStatistics, StatisticsCollector};
use super::parquet_file::ParquetFileWriter;
use super::parquet_properties::writer_properties;
use crate::positions::{Embedded, ValueCollector, ValueColumns};
use crate::table::{Table, properties};
use crate::transaction::WrittenFile;

/// Writes the rows of one partition into files of the table's target size.
pub(super) struct RollingWriter {
    storage: Storage,
    schema: Arc<Schema>,
    arrow: SchemaRef,
    spec_id: i32,
    partition: Struct,
    folder: String,
    target_bytes: usize,
    properties: WriterPropertiesPtr,
    value_columns: ValueColumns,
    current: Option<OpenFile>,
    files: Vec<WrittenFile>,
    opened: Vec<String>,
}

struct OpenFile {
    location: String,
    writer: ParquetFileWriter,
    upload: BufWriter,
    statistics: StatisticsCollector,
    values: ValueCollector,
}

impl OpenFile {
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.statistics.add(batch)?;
        self.values.add(batch);
        self.writer.write(batch).map_err(encoding_failure)?;
        self.upload().await
    }

    async fn upload(&mut self) -> Result<()> {
        let encoded = self.writer.take_encoded();
        if encoded.is_empty() {
            return Ok(());
        }
        Ok(self.upload.put(encoded).await?)
    }

    /// Ends the file; it is durable when this returns.
    async fn finish(&mut self) -> Result<ParquetMetaData> {
        if let Some(puffin) = self.values.finish().await? {
            self.writer.embed(&puffin, |offset, rows| Embedded::describe(&puffin, offset, rows))?;
        }
        let footer = self.writer.finish().map_err(encoding_failure)?;
        self.upload().await?;
        self.upload.shutdown().await?;
        Ok(footer)
    }
}

fn encoding_failure(e: ParquetError) -> Error {
    Error::internal("a Parquet file could not be written").with_source(e)
}

impl RollingWriter {
    pub(super) fn try_new(table: &Table, arrow: &SchemaRef, partition: Struct, partition_path: String) -> Result<Self> {
        let metadata = table.metadata();
        if let Some(format) = metadata.properties().get(properties::WRITE_FORMAT)
            && !format.eq_ignore_ascii_case("parquet")
        {
            return Err(Error::unsupported(format!("data files of the format `{format}` cannot be written: use parquet")));
        }
        let schema = Arc::clone(metadata.current_schema());
        Ok(Self {
            storage: table.env().storage.clone(),
            arrow: Arc::clone(arrow),
            schema,
            spec_id: metadata.default_partition_spec_id(),
            partition,
            folder: format!("{}/{partition_path}", table.data_folder()),
            target_bytes: properties::get_or(metadata, properties::TARGET_FILE_SIZE_BYTES, 512 * 1024 * 1024)?,
            properties: writer_properties(table)?,
            value_columns: ValueColumns::of(metadata),
            current: None,
            files: Vec::new(),
            opened: Vec::new(),
        })
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let file = match &mut self.current {
            Some(file) => file,
            None => {
                let location = format!("{}{}.parquet", self.folder, self.storage.ids().uuid());
                let path = self.storage.path(&location)?;
                let upload = BufWriter::new(self.storage.object_store(), path);
                let writer = ParquetFileWriter::try_new(Arc::clone(&self.arrow), Arc::clone(&self.properties));
                self.opened.push(location.clone());
                let statistics = StatisticsCollector::new(Arc::clone(&self.schema));
                let (writer, values) = (writer.map_err(encoding_failure)?, ValueCollector::new(&self.value_columns));
                self.current.insert(OpenFile { location, writer, upload, statistics, values })
            }
        };
        file.write(batch).await?;
        if file.writer.encoded_size() >= self.target_bytes {
            self.close_file().await?;
        }
        Ok(())
    }

    /// Ends the file that is open, if one is; it is durable when this returns.
    pub(super) async fn close_file(&mut self) -> Result<()> {
        let Some(mut file) = self.current.take() else {
            return Ok(());
        };
        let footer = file.finish().await?;
        let size = file.writer.encoded_size() as u64;
        let data_file = data_file(file.location, self.partition.clone(), self.spec_id, size, &footer, file.statistics.finish())?;
        self.files.push(WrittenFile { spec_id: self.spec_id, file: data_file });
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.current.is_some()
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |file| file.writer.memory_size() + file.values.memory_size())
    }

    pub(super) fn take_files(&mut self) -> Vec<WrittenFile> {
        std::mem::take(&mut self.files)
    }

    /// Every file that was begun.
    pub(super) fn locations(self) -> Vec<String> {
        self.opened
    }
}

fn data_file(
    location: String,
    partition: Struct,
    spec_id: i32,
    size: u64,
    footer: &ParquetMetaData,
    statistics: FileStatistics,
) -> Result<DataFile> {
    let mut column_sizes: HashMap<i32, u64> = HashMap::new();
    let mut split_offsets = Vec::new();
    for group in footer.row_groups() {
        for column in group.columns() {
            let info = column.column_descr().self_type().get_basic_info();
            if info.has_id() {
                *column_sizes.entry(info.id()).or_default() += u64::try_from(column.compressed_size()).unwrap_or(0);
            }
        }
        let start = group.columns().first().map(|first| first.dictionary_page_offset().unwrap_or(first.data_page_offset()));
        split_offsets.extend(start);
    }
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(location)
        .file_format(DataFileFormat::Parquet)
        .partition(partition)
        .partition_spec_id(spec_id)
        .record_count(u64::try_from(footer.file_metadata().num_rows()).unwrap_or(0))
        .file_size_in_bytes(size)
        .column_sizes(column_sizes)
        .value_counts(statistics.value_counts)
        .null_value_counts(statistics.null_counts)
        .nan_value_counts(statistics.nan_counts)
        .lower_bounds(statistics.lower_bounds)
        .upper_bounds(statistics.upper_bounds)
        .split_offsets(Some(split_offsets))
        .build()
        .map_err(|e| Error::internal("a data file could not be described").with_source(e))
}
