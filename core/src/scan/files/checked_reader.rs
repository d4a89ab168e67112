use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result as EngineResult;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::{CachedParquetFileReaderFactory, CachedParquetMetaData};
use datafusion::execution::cache::cache_manager::{CachedFileMetadataEntry, FileMetadataCache};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;

use super::footer;

/// DataFusion's readers, with footers that were checked before they came into its cache.
#[derive(Debug)]
pub(in crate::scan) struct CheckedReaders {
    inner: CachedParquetFileReaderFactory,
    cache: Arc<dyn FileMetadataCache>,
}

impl CheckedReaders {
    pub(in crate::scan) fn new(store: Arc<dyn ObjectStore>, cache: Arc<dyn FileMetadataCache>) -> Self {
        Self { inner: CachedParquetFileReaderFactory::new(store, Arc::clone(&cache)), cache }
    }
}

impl ParquetFileReaderFactory for CheckedReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> EngineResult<Box<dyn AsyncFileReader + Send>> {
        let meta = file.object_meta.clone();
        let inner = self.inner.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(CheckedReader { inner, file: meta, cache: Arc::clone(&self.cache), indexes: None }))
    }
}

/// What is wrong with a part of the file.
fn unreadable(part: &str, error: ParquetError) -> ParquetError {
    match error {
        // Of the storage, whose errors are told apart above.
        ParquetError::External(_) => error,
        error => ParquetError::General(format!("{part} cannot be read: {error}")),
    }
}

struct CheckedReader {
    inner: Box<dyn AsyncFileReader + Send>,
    file: ObjectMeta,
    cache: Arc<dyn FileMetadataCache>,
    /// The footer, where it came without the page indexes, and where these are.
    indexes: Option<(Arc<ParquetMetaData>, Range<u64>)>,
}

impl CheckedReader {
    async fn footer(&mut self) -> Result<Arc<ParquetMetaData>> {
        let cached = self.cache.get(&self.file.location).filter(|cached| cached.is_valid_for(&self.file));
        let cached = cached.as_ref().and_then(|cached| cached.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>());
        if let Some(cached) = cached {
            return Ok(Arc::clone(cached.parquet_metadata()));
        }
        let footer = footer::read(self.inner.as_mut(), self.file.size).await;
        let footer = footer.map_err(|e| unreadable("the footer", e))?;
        Ok(self.cached(footer))
    }

    fn cached(&self, footer: ParquetMetaData) -> Arc<ParquetMetaData> {
        let footer = Arc::new(footer);
        let entry = Arc::new(CachedParquetMetaData::new(Arc::clone(&footer)));
        self.cache.put(&self.file.location, CachedFileMetadataEntry::new(self.file.clone(), entry));
        footer
    }
}

impl AsyncFileReader for CheckedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let bytes = self.inner.get_bytes(range.clone()).await?;
            let overlaps = |of: &Range<u64>| of.start < range.end && range.start < of.end;
            let Some((footer, of)) = self.indexes.as_ref().filter(|(_, of)| overlaps(of)) else { return Ok(bytes) };
            let damaged = |e| unreadable("a page index", e);
            if range.start <= of.start && of.end <= range.end {
                // DataFusion asks for all of them when a predicate needs some, and does not keep them.
                let footer = ParquetMetaData::clone(footer);
                let with_indexes = footer::with_page_indexes(footer, range.start, bytes.clone()).await.map_err(damaged)?;
                self.cached(with_indexes);
            } else {
                footer::check_page_indexes(footer, range.start, &bytes).map_err(damaged)?;
            }
            Ok(bytes)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(&'a mut self, _options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let footer = self.footer().await?;
            if footer.column_index().is_none() {
                self.indexes = footer::span_of_page_indexes(&footer).map(|span| (Arc::clone(&footer), span));
            }
            Ok(footer)
        }
        .boxed()
    }
}
