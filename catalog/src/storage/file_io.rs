//! The `iceberg` crate's storage interface over [`Storage`].

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage as IcebergStorage, StorageConfig,
    StorageFactory,
};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::Storage;
use crate::Error;

pub(super) fn file_io(storage: Storage) -> FileIO {
    FileIOBuilder::new(Arc::new(Bridge { storage: Some(storage) })).build()
}

/// `iceberg` can send its storage to other processes; ours belongs to an open lake, so a copy that arrived elsewhere
/// has none and says so at its first use.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bridge {
    #[serde(skip)]
    storage: Option<Storage>,
}

impl Bridge {
    fn storage(&self) -> iceberg::Result<&Storage> {
        self.storage.as_ref().ok_or_else(|| to_iceberg(Error::unsupported("a lake's storage cannot be used in another process")))
    }
}

fn to_iceberg(error: impl Into<Error>) -> iceberg::Error {
    let error = error.into();
    iceberg::Error::new(iceberg::ErrorKind::Unexpected, error.to_string()).with_source(error)
}

#[typetag::serde(name = "tarndb")]
impl StorageFactory for Bridge {
    fn build(&self, _config: &StorageConfig) -> iceberg::Result<Arc<dyn IcebergStorage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "tarndb")]
impl IcebergStorage for Bridge {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        match self.storage()?.size(path).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == crate::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(to_iceberg(e)),
        }
    }

    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        let size = self.storage()?.size(path).await.map_err(to_iceberg)?;
        Ok(FileMetadata { size })
    }

    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        self.storage()?.read(path).await.map_err(to_iceberg)
    }

    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        let storage = self.storage()?;
        Ok(Box::new(Reader { store: storage.object_store(), path: storage.path(path).map_err(to_iceberg)? }))
    }

    async fn write(&self, path: &str, bs: Bytes) -> iceberg::Result<()> {
        self.storage()?.write(path, bs).await.map_err(to_iceberg)
    }

    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        let storage = self.storage()?;
        let path = storage.path(path).map_err(to_iceberg)?;
        Ok(Box::new(Writer(BufWriter::new(storage.object_store(), path))))
    }

    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        self.storage()?.delete(path).await.map_err(to_iceberg)
    }

    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        let storage = self.storage()?;
        let mut listed = storage.list(path).map_err(to_iceberg)?;
        while let Some(object) = listed.next().await {
            storage.delete(&object.map_err(to_iceberg)?.location).await.map_err(to_iceberg)?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> iceberg::Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> iceberg::Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_string()))
    }

    fn new_output(&self, path: &str) -> iceberg::Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_string()))
    }
}

#[derive(Debug)]
struct Reader {
    store: Arc<dyn ObjectStore>,
    path: Path,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        self.store.get_range(&self.path, range).await.map_err(to_iceberg)
    }
}

struct Writer(BufWriter);

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bs: Bytes) -> iceberg::Result<()> {
        self.0.put(bs).await.map_err(to_iceberg)
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        self.0.shutdown().await.map_err(to_iceberg)
    }
}
