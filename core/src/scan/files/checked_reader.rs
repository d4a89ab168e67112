//! Footers of Parquet files, checked before anything is read by them: the reader panics where a footer names bytes that cannot
//! be those of a column, and where an Arrow schema is embedded that it does not know.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result as EngineResult;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder};

/// Makes the readers of `inner`, with checked footers.
#[derive(Debug)]
pub(in crate::scan) struct CheckedReaders {
    pub(in crate::scan) inner: Arc<dyn ParquetFileReaderFactory>,
}

impl ParquetFileReaderFactory for CheckedReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> EngineResult<Box<dyn AsyncFileReader + Send>> {
        let size = file.object_meta.size;
        let inner = self.inner.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(CheckedReader { inner, size }))
    }
}

struct CheckedReader {
    inner: Box<dyn AsyncFileReader + Send>,
    size: u64,
}

impl AsyncFileReader for CheckedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let footer = self.inner.get_metadata(options).await?;
            check(&footer, self.size)?;
            Ok(without_arrow_schema(footer))
        }
        .boxed()
    }
}

/// The footer without the Arrow schema that some writers put into it. The reader panics on one that is damaged, and it tells
/// nothing that Parquet's own schema and the table's do not.
fn without_arrow_schema(footer: Arc<ParquetMetaData>) -> Arc<ParquetMetaData> {
    let file = footer.file_metadata();
    let Some(pairs) = file.key_value_metadata().filter(|pairs| pairs.iter().any(is_arrow_schema)) else { return footer };
    let others = pairs.iter().filter(|pair| !is_arrow_schema(pair)).cloned().collect();
    let (created_by, orders) = (file.created_by().map(str::to_string), file.column_orders().cloned());
    let file = FileMetaData::new(file.version(), file.num_rows(), created_by, Some(others), file.schema_descr_ptr(), orders);
    let plain = ParquetMetaDataBuilder::new(file)
        .set_row_groups(footer.row_groups().to_vec())
        .set_column_index(footer.column_index().cloned())
        .set_offset_index(footer.offset_index().cloned());
    Arc::new(plain.build())
}

fn is_arrow_schema(pair: &KeyValue) -> bool {
    pair.key == ARROW_SCHEMA_META_KEY
}

/// Refuses a footer whose columns do not lie in a file of `size` bytes.
pub(in crate::scan) fn check(footer: &ParquetMetaData, size: u64) -> Result<()> {
    let wrong = |what: &str| Err(ParquetError::General(format!("the footer is damaged: {what}")));
    for group in footer.row_groups() {
        if group.num_rows() < 0 {
            return wrong("a row group has a negative number of rows");
        }
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            let inside = end.and_then(|end| u64::try_from(end).ok()).is_some_and(|end| end <= size);
            if start < 0 || column.data_page_offset() < 0 || column.compressed_size() < 0 || !inside {
                return wrong("a column lies outside of the file");
            }
        }
    }
    Ok(())
}
