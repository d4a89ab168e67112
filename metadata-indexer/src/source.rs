use tarndb_core::{Error, ErrorKind, Result};

use crate::bucket::Bucket;
use crate::extract::Ranges;
use crate::folder::Folder;
use crate::options::IndexOptions;
use crate::record::ObjectId;
use crate::stores::Stores;

/// Options that do not need a bucket.
const OF_ALL: [&str; 5] = ["journal_retention", "extract", "suffix", "min_size", "max_size"];

/// What is indexed.
#[derive(Debug)]
pub(crate) enum Source {
    Folder(Folder),
    Bucket(Bucket),
}

impl Source {
    /// What a user names.
    ///
    /// # Errors
    /// `Unsupported` for what is neither a folder nor a bucket, and for options that it cannot have; `NotFound` for a folder.
    pub(crate) fn open(location: &str, lake: &str, options: &IndexOptions, stores: &Stores) -> Result<Self> {
        if let Some(bucket) = Bucket::open(location, options, stores.get(location))? {
            return Ok(Self::Bucket(bucket));
        }
        if let Some((name, _)) = options.iter().find(|(name, _)| !OF_ALL.contains(name)) {
            let message = format!("the option `{name}` is for metadata indexes of buckets: folders are watched");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Folder::open(location, lake, options.filter()?).map(Self::Folder)
    }

    /// What [`Source::url`] told, whether it is there now or not.
    ///
    /// # Errors
    /// `Unsupported` for other locations.
    pub(crate) fn of_url(url: &str, lake: &str, mounted: bool, options: &IndexOptions, stores: &Stores) -> Result<Self> {
        match Bucket::open(url, options, stores.get(url))? {
            Some(bucket) => Ok(Self::Bucket(bucket)),
            None => Folder::of_url(url, lake, mounted, options.filter()?).map(Self::Folder),
        }
    }

    /// Its location, in the one way to write it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Folder(folder) => folder.url(),
            Self::Bucket(bucket) => bucket.url(),
        }
    }

    /// What the column `bucket` says.
    pub(crate) fn bucket(&self) -> String {
        match self {
            Self::Folder(folder) => folder.url(),
            Self::Bucket(bucket) => bucket.name().to_string(),
        }
    }

    /// Whether it can be listed now.
    pub(crate) async fn answers(&self) -> bool {
        match self {
            Self::Folder(folder) => {
                let folder = folder.clone();
                tokio::task::spawn_blocking(move || folder.check().is_ok()).await.unwrap_or(false)
            }
            Self::Bucket(bucket) => bucket.answers().await,
        }
    }

    /// Where the content of an object is that has this tag.
    ///
    /// # Errors
    /// Those of opening a store.
    pub(crate) async fn content(&self, id: ObjectId, e_tag: Option<String>) -> Result<Box<dyn Ranges>> {
        match self {
            Self::Folder(folder) => Ok(folder.content(&id.key, e_tag)),
            Self::Bucket(bucket) => bucket.content(id, e_tag).await,
        }
    }

    pub(crate) fn is_mounted(&self) -> bool {
        matches!(self, Self::Folder(folder) if folder.is_mounted())
    }
}
