use std::path::{Component, Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::SyncedLocalStore;
use crate::{Error, Result};

/// Where a lake is: what a user types, made absolute.
#[derive(Debug, Clone)]
pub struct Location {
    scheme: Scheme,
    url: String,
}

#[derive(Debug, Clone)]
enum Scheme {
    File,
    Memory(Arc<InMemory>),
}

impl Location {
    /// Parses `./dir`, `dir`, `/dir`, `file:/dir`, `file:///dir` or `memory://`. Relative paths are taken from the
    /// current directory.
    ///
    /// # Errors
    /// `Unsupported` for other schemes, `InvalidInput` for an empty location.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid_input("a lake's location is empty: give a folder such as `./lake`, or `memory://`"));
        }
        if text == "memory://" || text == "memory:" {
            return Ok(Self { scheme: Scheme::Memory(Arc::new(InMemory::new())), url: "memory:///lake".to_string() });
        }
        if let Some(rest) = text.strip_prefix("file:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(Error::invalid_input(format!(
                    "`{text}` is not a file location: it needs an absolute path, as in `file:///dir`"
                )));
            }
            return Self::file(FsPath::new(path));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(Error::unsupported(format!(
                "locations of the scheme `{scheme}` are not supported: use a folder or `memory://`"
            )));
        }
        Self::file(FsPath::new(text))
    }

    /// The same place's location of another folder: `text` as in [`Location::parse`], or a location in the memory of `self`.
    ///
    /// # Errors
    /// As [`Location::parse`].
    pub(crate) fn folder(&self, text: &str) -> Result<Self> {
        match &self.scheme {
            Scheme::Memory(_) if text.starts_with("memory:") => {
                Ok(Self { scheme: self.scheme.clone(), url: self.canonical(text.trim_end_matches('/'))? })
            }
            _ => Self::parse(text),
        }
    }

    fn file(path: &FsPath) -> Result<Self> {
        let absolute = std::path::absolute(path)
            .map_err(|e| Error::invalid_input(format!("`{}` is not a usable path", path.display())).with_source(e))?;
        let mut clean = PathBuf::from("/");
        for component in absolute.components() {
            match component {
                Component::ParentDir => {
                    clean.pop();
                }
                Component::Normal(part) => clean.push(part),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let text = clean.to_str().ok_or_else(|| Error::invalid_input(format!("`{}` is not valid UTF-8", clean.display())))?;
        Ok(Self { scheme: Scheme::File, url: format!("file://{}", text.trim_end_matches('/')) })
    }

    /// The absolute location, without a slash at its end: `file:///data/lake`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder on the local file system, if it is one.
    pub fn local_path(&self) -> Option<PathBuf> {
        match self.scheme {
            Scheme::File => self.url.strip_prefix("file://").map(PathBuf::from),
            Scheme::Memory(_) => None,
        }
    }

    /// Whether it is in the memory of this process.
    pub fn is_memory(&self) -> bool {
        matches!(self.scheme, Scheme::Memory(_))
    }

    pub(super) fn object_store(&self) -> Arc<dyn ObjectStore> {
        match &self.scheme {
            Scheme::File => Arc::new(SyncedLocalStore::new()),
            Scheme::Memory(store) => Arc::clone(store) as _,
        }
    }

    fn prefix(&self) -> &'static str {
        match self.scheme {
            Scheme::File => "file://",
            Scheme::Memory(_) => "memory://",
        }
    }

    /// One spelling for a location of this scheme: `/a`, `file:/a`, `file://a`-free and `file:///a` become `file:///a`.
    pub(super) fn canonical(&self, location: &str) -> Result<String> {
        let foreign = || Error::unsupported(format!("`{location}` is not in the storage of this lake, `{}`", self.url));
        let rest = match &self.scheme {
            Scheme::File if location.starts_with('/') => location,
            Scheme::File => location.strip_prefix("file:").ok_or_else(foreign)?,
            Scheme::Memory(_) => location.strip_prefix("memory:").ok_or_else(foreign)?,
        };
        if !rest.starts_with('/') {
            return Err(foreign());
        }
        Ok(format!("{}/{}", self.prefix(), rest.trim_start_matches('/')))
    }

    /// The key in the object store of a canonical location.
    pub(super) fn key<'a>(&self, canonical: &'a str) -> &'a str {
        canonical.strip_prefix(self.prefix()).unwrap_or(canonical).trim_start_matches('/')
    }

    pub(super) fn location_of(&self, path: &object_store::path::Path) -> String {
        format!("{}/{path}", self.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_folder_are_one_location() {
        let url = |text: &str| Location::parse(text).unwrap().url().to_string();
        assert_eq!(url("/a/b/../c/"), "file:///a/c");
        assert_eq!(url("file:///a/c"), "file:///a/c");
        assert_eq!(url("file:/a/c"), "file:///a/c");
        assert_eq!(url("./x"), format!("file://{}/x", std::env::current_dir().unwrap().display()));
        assert_eq!(url("/with space/ü%20"), "file:///with space/ü%20");
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        let error = Location::parse("ftp://host/dir").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.to_string().contains("`ftp`"));
        assert_eq!(Location::parse("").unwrap_err().kind(), crate::ErrorKind::InvalidInput);
        assert_eq!(Location::parse("file://host").unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    }

    #[test]
    fn slashes_do_not_matter_in_stored_locations() {
        let lake = Location::parse("/lake").unwrap();
        for spelling in ["/lake/f", "file:/lake/f", "file:///lake/f"] {
            assert_eq!(lake.canonical(spelling).unwrap(), "file:///lake/f");
        }
        assert!(lake.canonical("s3://bucket/f").is_err());
        assert!(lake.canonical("lake/f").is_err());
    }
}
