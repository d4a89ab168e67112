use std::fmt;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// The local file system, with writes that survive a power failure: a write returns after the file, its folder and
/// every folder that was made for it have been synced. (`object_store`'s own local store does not sync.)
#[derive(Debug, Clone)]
pub struct SyncedLocalStore {
    inner: Arc<LocalFileSystem>,
}

impl SyncedLocalStore {
    /// A store over the whole file system; paths are absolute ones without their first slash.
    pub fn new() -> Self {
        Self { inner: Arc::new(LocalFileSystem::new()) }
    }

    async fn sync(&self, location: &Path, existing: PathBuf) -> Result<()> {
        let file = self.inner.path_to_filesystem(location)?;
        run(move || sync_file_and_folders(&file, &existing)).await
    }

    /// The deepest folder above `location` that exists now.
    async fn existing_folder(&self, location: &Path) -> Result<PathBuf> {
        let file = self.inner.path_to_filesystem(location)?;
        run(move || Ok(file.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(FsPath::new("/")).to_path_buf())).await
    }
}

impl Default for SyncedLocalStore {
    fn default() -> Self {
        Self::new()
    }
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await?;
    done.map_err(|e| object_store::Error::Generic { store: "SyncedLocalStore", source: Box::new(e) })
}

fn sync_file_and_folders(file: &FsPath, existing: &FsPath) -> std::io::Result<()> {
    std::fs::File::open(file)?.sync_all()?;
    for folder in file.ancestors().skip(1) {
        std::fs::File::open(folder)?.sync_all()?;
        if folder == existing {
            break;
        }
    }
    Ok(())
}

impl fmt::Display for SyncedLocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncedLocalStore")
    }
}

#[async_trait]
impl ObjectStore for SyncedLocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let existing = self.existing_folder(location).await?;
        let result = self.inner.put_opts(location, payload, opts).await?;
        self.sync(location, existing).await?;
        Ok(result)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let existing = self.existing_folder(location).await?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(SyncedUpload { inner, store: self.clone(), location: location.clone(), existing }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let existing = self.existing_folder(to).await?;
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to, existing).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let existing = self.existing_folder(to).await?;
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to, existing).await
    }
}

#[derive(Debug)]
struct SyncedUpload {
    inner: Box<dyn MultipartUpload>,
    store: SyncedLocalStore,
    location: Path,
    existing: PathBuf,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        self.store.sync(&self.location, self.existing.clone()).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
