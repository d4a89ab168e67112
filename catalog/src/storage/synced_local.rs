use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// How many files are deleted at once.
const DELETE_CONCURRENCY: usize = 16;

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

/// Reads a whole file of `size` bytes. The buffer is the caller's and not that of one of the many threads for blocking calls: each
/// of them would keep memory of its own, which is most of what reading many manifests takes.
pub(super) async fn read_file(file: std::fs::File, size: u64) -> Result<Bytes> {
    let mut buffer = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    run(move || {
        file.take(size).read_to_end(&mut buffer)?;
        if buffer.len() as u64 == size { Ok(Bytes::from(buffer)) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    })
    .await
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

/// Whether the name is one under which `LocalFileSystem` writes what it has not finished: it ends in `#` and a number.
fn is_staged(path: &Path) -> bool {
    let number = path.filename().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// What writers that were killed have left below `folder`. `LocalFileSystem` does not list it, so nobody would remove it.
fn staged_files(folder: &FsPath) -> Vec<ObjectMeta> {
    let mut found = Vec::new();
    // What vanishes while it is looked at is in use.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        if metadata.is_dir() {
            found.extend(staged_files(&path));
            continue;
        }
        let location = path.to_str().and_then(|path| Path::parse(path.trim_start_matches('/')).ok());
        if let (Some(location), Ok(modified)) = (location.filter(is_staged), metadata.modified()) {
            let last_modified = modified.into();
            found.push(ObjectMeta { location, last_modified, size: metadata.len(), e_tag: None, version: None });
        }
    }
    found
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
        let inner = Arc::clone(&self.inner);
        let delete = move |location: Result<Path>| {
            let inner = Arc::clone(&inner);
            async move {
                let location = location?;
                if is_staged(&location) {
                    let file = PathBuf::from(format!("/{location}"));
                    run(move || std::fs::remove_file(file)).await?;
                } else {
                    inner.delete(&location).await?;
                }
                Ok(location)
            }
        };
        locations.map(delete).buffered(DELETE_CONCURRENCY).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.map(|prefix| self.inner.path_to_filesystem(prefix));
        let staged = async move {
            match folder {
                Some(folder) => {
                    let folder = folder?;
                    run(move || Ok(staged_files(&folder))).await
                }
                None => Ok(Vec::new()),
            }
        };
        let staged = stream::once(staged).map_ok(|files| stream::iter(files.into_iter().map(Ok))).try_flatten();
        self.inner.list(prefix).chain(staged).boxed()
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
