use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read, Result as IoResult, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use tarndb_core::{Error, Result};

use super::{state, unavailable};
use crate::extract::{Part, Ranges};

/// One content of a file.
pub(super) struct FileContent {
    path: PathBuf,
    e_tag: Option<String>,
}

impl FileContent {
    pub(super) fn new(path: PathBuf, e_tag: Option<String>) -> Self {
        Self { path, e_tag }
    }
}

/// Some bytes of a file; `None` when its tag is another.
fn read(path: &Path, e_tag: Option<&str>, range: &Range<u64>) -> IoResult<Option<Part>> {
    // What may not be a file by now is not opened: that of a pipe would wait.
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || e_tag.is_some() && state(&metadata).e_tag.as_deref() != e_tag {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(range.start))?;
    file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
    Ok(Some(Part { bytes: Bytes::from(bytes), size: metadata.len() }))
}

#[async_trait]
impl Ranges for FileContent {
    async fn read(&self, range: Range<u64>) -> Result<Option<Part>> {
        let (path, e_tag) = (self.path.clone(), self.e_tag.clone());
        let part = tokio::task::spawn_blocking(move || match read(&path, e_tag.as_deref(), &range) {
            Ok(part) => Ok(part),
            Err(e) if matches!(e.kind(), IoErrorKind::NotFound | IoErrorKind::NotADirectory) => Ok(None),
            Err(e) if e.kind() == IoErrorKind::PermissionDenied => {
                Err(Error::unsupported(format!("the file `{}` is not ours to read", path.display())).with_source(e))
            }
            Err(e) => Err(unavailable("the file", &path, e)),
        });
        part.await.map_err(|e| Error::internal("reading a file ended early").with_source(e))?
    }
}
