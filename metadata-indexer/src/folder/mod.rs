//! A folder of files as a source of objects.
//!
//! The order of what happens in a folder is not told by the file system: times of modification go back, and a file that is renamed
//! keeps its own. So whatever may have changed is looked at, one file after the other and by one observer at a time, and what is
//! found is a change when it is not what is known. Watching ([`watch`]) and listing only say where to look.

mod content;
pub(crate) mod watch;

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tarndb_core::{Error, ErrorKind, Result};
use walkdir::{DirEntry, WalkDir};

use self::content::FileContent;
use crate::extract::Ranges;
use crate::object_filter::ObjectFilter;
use crate::record::ObjectState;

/// Keys that are handed on at once.
const LISTING_CHUNK: usize = 8192;

/// A folder. Its objects are the regular files below it, wherever they are; links are not followed. A key is the path from the
/// folder on, its parts separated by `/`.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
    /// Of the lake, which may lie in the folder: its files are no objects.
    lake: Option<PathBuf>,
    /// Whether another file system is mounted there when the folder is what it should be.
    mounted: bool,
    /// Which files are its objects.
    filter: ObjectFilter,
}

/// What looking at objects found.
#[derive(Debug, Default)]
pub(crate) struct States {
    /// By key; `None` where no object is.
    pub(crate) found: Vec<(String, Option<ObjectState>)>,
    /// The first thing that could not be looked at. Its key is not among the others.
    pub(crate) unreadable: Option<Error>,
}

/// What a listing found.
#[derive(Debug)]
pub(crate) enum Listed {
    Keys(Vec<String>),
    /// What is below this key could not be listed.
    Unreadable(String, Error),
}

fn unavailable(what: &str, path: &Path, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{what} cannot be read"))
        .with_context("path", path.display().to_string())
        .with_source(e)
}

fn lake_folder(location: &str) -> Option<PathBuf> {
    location.strip_prefix("file://").and_then(|path| std::fs::canonicalize(path).ok())
}

impl Folder {
    /// The folder at `location`, a path or a `file:` URL, for an index in the lake at `lake`.
    ///
    /// # Errors
    /// `Unsupported` for other locations; `NotFound` when there is no such folder.
    pub(crate) fn open(location: &str, lake: &str, filter: ObjectFilter) -> Result<Self> {
        let path = match location.split_once("://") {
            None => location,
            Some(("file", path)) => path,
            Some((scheme, _)) => {
                return Err(Error::unsupported(format!("a metadata index on `{scheme}://` is not supported yet: folders are")));
            }
        };
        let root = match std::fs::canonicalize(path) {
            Ok(root) if root.is_dir() => root,
            Ok(_) => return Err(Error::invalid_input(format!("`{path}` is not a folder"))),
            Err(e) if e.kind() == IoErrorKind::NotFound => {
                return Err(Error::not_found(format!("there is no folder `{path}`")).with_source(e));
            }
            Err(e) => return Err(unavailable("the folder", Path::new(path), e)),
        };
        if root.to_str().is_none() {
            return Err(Error::unsupported("a folder whose path is not UTF-8 cannot be indexed"));
        }
        let mounted = is_mount_point(&root);
        let folder = Self { root, lake: lake_folder(lake), mounted, filter };
        if folder.is_of_lake(&folder.root) {
            return Err(Error::invalid_input("a folder inside of the lake cannot be indexed: its own tables would be"));
        }
        Ok(folder)
    }

    /// The folder that [`Folder::url`] told, whether it is there now or not.
    ///
    /// # Errors
    /// `Unsupported` for other locations.
    pub(crate) fn of_url(url: &str, lake: &str, mounted: bool, filter: ObjectFilter) -> Result<Self> {
        let path = url.strip_prefix("file://");
        let path = path.ok_or_else(|| Error::unsupported(format!("a metadata index on `{url}` is not supported yet")))?;
        Ok(Self { root: PathBuf::from(path), lake: lake_folder(lake), mounted, filter })
    }

    /// What stands for a bucket's name, and is the source's location.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    pub(crate) fn is_mounted(&self) -> bool {
        self.mounted
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn is_of_lake(&self, path: &Path) -> bool {
        self.lake.as_ref().is_some_and(|lake| path.starts_with(lake))
    }

    /// The key of a path below the folder; `None` for the folder itself, what is not below it, paths of the lake and names that are
    /// not UTF-8.
    pub(crate) fn key(&self, path: &Path) -> Option<String> {
        if self.is_of_lake(path) {
            return None;
        }
        let parts = path.strip_prefix(&self.root).ok()?.components();
        let parts: Option<Vec<&str>> = parts.map(|part| part.as_os_str().to_str()).collect();
        parts.map(|parts| parts.join("/")).filter(|key| !key.is_empty())
    }

    /// The folder is there as a whole: one that is not mounted has not lost its files.
    ///
    /// # Errors
    /// `Unavailable` when it is not.
    pub(crate) fn check(&self) -> Result<()> {
        std::fs::read_dir(&self.root).map_err(|e| unavailable("the folder", &self.root, e))?;
        if self.mounted && !is_mount_point(&self.root) {
            return Err(Error::new(ErrorKind::Unavailable, "the folder is not mounted")
                .with_context("path", self.root.display().to_string()));
        }
        Ok(())
    }

    /// The objects of these keys now, as far as the index is about them.
    ///
    /// # Errors
    /// As [`Folder::check`].
    pub(crate) fn states(&self, keys: Vec<String>) -> Result<States> {
        let mut states = States::default();
        let mut folders = HashMap::new();
        for key in keys {
            match self.state(&key, &mut folders) {
                Ok(state) => states.found.push((key, state)),
                Err(error) => drop(states.unreadable.get_or_insert(error)),
            }
        }
        // Afterwards: what was not there while the folder was is gone.
        self.check()?;
        Ok(states)
    }

    /// `folders` remembers which paths are folders that no link leads to.
    fn state(&self, key: &str, folders: &mut HashMap<PathBuf, bool>) -> Result<Option<ObjectState>> {
        if !self.filter.keeps_key(key) {
            return Ok(None);
        }
        let path = self.root.join(key);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                let Some(parent) = path.parent() else { return Ok(None) };
                let is_own = match folders.get(parent) {
                    Some(is_own) => *is_own,
                    None => {
                        let is_own = self.is_own_folder(parent);
                        folders.insert(parent.to_path_buf(), is_own);
                        is_own
                    }
                };
                Ok(is_own.then(|| state(&metadata)).filter(|state| self.filter.keeps(state)))
            }
            Ok(_) => Ok(None),
            Err(e) if matches!(e.kind(), IoErrorKind::NotFound | IoErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(unavailable("the file", &path, e)),
        }
    }

    /// Where the content of an object is that has this tag.
    pub(crate) fn content(&self, key: &str, e_tag: Option<String>) -> Box<dyn Ranges> {
        Box::new(FileContent::new(self.root.join(key), e_tag))
    }

    /// Whether there is a folder at a key.
    pub(crate) fn is_folder(&self, key: &str) -> bool {
        self.is_own_folder(&self.root.join(key))
    }

    /// Whether a path in this folder is that of a folder, and not one by way of a link in it. A link may lead to this folder itself.
    fn is_own_folder(&self, path: &Path) -> bool {
        let canonical = |path: &Path| std::fs::canonicalize(path).ok();
        let (Ok(below), Some(root)) = (path.strip_prefix(&self.root), canonical(&self.root)) else { return false };
        path.is_dir() && canonical(path).is_some_and(|path| path == root.join(below))
    }

    /// Hands on the keys below `below`, a key or the empty one, in chunks. Ends early when `found` says no.
    pub(crate) fn list(&self, below: &str, mut found: impl FnMut(Listed) -> bool) {
        let start = if below.is_empty() { self.root.clone() } else { self.root.join(below) };
        let entries = WalkDir::new(start).into_iter().filter_entry(|entry: &DirEntry| !self.is_of_lake(entry.path()));
        let mut keys = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) if entry.file_type().is_file() => match self.key(entry.path()) {
                    Some(key) if self.filter.keeps_key(&key) => keys.push(key),
                    Some(_) => {}
                    None => tracing::warn!(path = %entry.path().display(), "a file whose name is not UTF-8 is not indexed"),
                },
                Ok(_) => {}
                // It went while the folder was listed.
                Err(e) if e.depth() > 0 && e.io_error().is_some_and(|e| e.kind() == IoErrorKind::NotFound) => {}
                Err(e) => {
                    let path = e.path().unwrap_or(&self.root).to_path_buf();
                    let error = unavailable("a part of the folder", &path, e.into());
                    if !found(Listed::Unreadable(self.key(&path).unwrap_or_default(), error)) {
                        return;
                    }
                }
            }
            if keys.len() >= LISTING_CHUNK && !found(Listed::Keys(std::mem::take(&mut keys))) {
                return;
            }
        }
        found(Listed::Keys(keys));
    }
}

/// What is known of a file. Its tag tells contents apart as far as the file system does: by size, time of modification, and inode.
fn state(metadata: &Metadata) -> ObjectState {
    let modified = metadata.modified().ok();
    let since = |time: std::time::SystemTime| match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |nanos| -nanos),
    };
    let nanos = modified.map_or(0, since);
    ObjectState {
        size: Some(i64::try_from(metadata.len()).unwrap_or(i64::MAX)),
        last_modified: Some(i64::try_from(nanos.div_euclid(1000)).unwrap_or(0)),
        e_tag: Some(format!("{}-{nanos}-{}", metadata.len(), inode(metadata))),
        ..ObjectState::default()
    }
}

#[cfg(unix)]
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.dev());
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

#[cfg(not(unix))]
fn is_mount_point(_path: &Path) -> bool {
    false
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> u64 {
    0
}

/// Whether `key` lies below one of the folders with these keys, of which the empty one is the whole source.
pub(crate) fn is_below(key: &str, folders: &HashSet<String>) -> bool {
    let mut ends = key.match_indices('/').map(|(index, _)| index);
    folders.contains("") || ends.any(|end| key.get(..end).is_some_and(|folder| folders.contains(folder)))
}
