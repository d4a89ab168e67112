use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Schema, Struct};
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::ParquetObjectWriter;
use parquet::file::metadata::ParquetMetaData;
use tarndb_catalog::{Error, Result, Storage};

use super::column_statistics::{FileStatistics, StatisticsCollector};
use super::parquet_properties::writer_options;
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
    options: ArrowWriterOptions,
    current: Option<OpenFile>,
    files: Vec<WrittenFile>,
    opened: Vec<String>,
}

struct OpenFile {
    location: String,
    writer: AsyncArrowWriter<ParquetObjectWriter>,
    statistics: StatisticsCollector,
}

fn write_failure(e: parquet::errors::ParquetError) -> Error {
    match e {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(storage) => (*storage).into(),
            Err(inner) => match inner.downcast::<std::io::Error>() {
                Ok(io) => (*io).into(),
                Err(inner) => Error::internal("a Parquet file could not be written").with_source(inner),
            },
        },
        other => Error::internal("a Parquet file could not be written").with_source(other),
    }
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
            options: writer_options(table)?,
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
                let upload = ParquetObjectWriter::from_buf_writer(BufWriter::new(self.storage.object_store(), path));
                let writer = AsyncArrowWriter::try_new_with_options(upload, Arc::clone(&self.arrow), self.options.clone());
                self.opened.push(location.clone());
                let statistics = StatisticsCollector::new(Arc::clone(&self.schema));
                self.current.insert(OpenFile { location, writer: writer.map_err(write_failure)?, statistics })
            }
        };
        file.statistics.add(batch)?;
        file.writer.write(batch).await.map_err(write_failure)?;
        if file.writer.bytes_written() + file.writer.in_progress_size() >= self.target_bytes {
            self.close_file().await?;
        }
        Ok(())
    }

    /// Ends the file that is open, if one is; it is durable when this returns.
    pub(super) async fn close_file(&mut self) -> Result<()> {
        let Some(mut file) = self.current.take() else {
            return Ok(());
        };
        let footer = file.writer.finish().await.map_err(write_failure)?;
        let size = file.writer.bytes_written() as u64;
        let data_file = data_file(file.location, self.partition.clone(), self.spec_id, size, &footer, file.statistics.finish())?;
        self.files.push(WrittenFile { spec_id: self.spec_id, file: data_file });
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.current.is_some()
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |file| file.writer.memory_size())
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
