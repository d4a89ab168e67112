use std::fmt;
use std::io::{Read, Result as IoResult, Seek, SeekFrom};
use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tarndb_core::{Error, Result};
use tokio::runtime::Handle;

use crate::record::ObjectId;

/// Bytes that are read at first: most of what is learnt is in the beginning of an object.
const HEAD: u64 = 64 * 1024;

/// Bytes that are read at once at most, by who reads on and on.
const LONGEST_READ: u64 = 4 * 1024 * 1024;

/// A part of an object, and how many bytes the whole has.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) bytes: Bytes,
    pub(crate) size: u64,
}

/// Where the bytes of one content of an object are.
#[async_trait]
pub(crate) trait Ranges: Send + Sync {
    /// Some bytes of it; `None` when the object has another content by now, or is gone. There are fewer bytes where the object ends.
    async fn read(&self, range: Range<u64>) -> Result<Option<Part>>;
}

/// Why reading ended where the object does not.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It has another content by now, or is gone.
    Changed,
    Error(Error),
}

/// The content of an object, which is read as a file is, and only as far as it is asked for.
///
/// It may be read from threads that may block only, as those are on which [`Extractor`](super::Extractor)s run. Copies read the same
/// object, each at its own place.
#[derive(Clone)]
pub struct Content {
    shared: Arc<Shared>,
    position: u64,
}

struct Shared {
    id: ObjectId,
    media_type: Option<&'static str>,
    size: u64,
    head: Bytes,
    runtime: Handle,
    ranges: Box<dyn Ranges>,
    window: Mutex<Window>,
    failure: Mutex<Option<Failure>>,
}

/// What was read last.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Bytes,
    /// How many bytes are read next, when it is those behind.
    ahead: u64,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { id, size, media_type, .. } = &*self.shared;
        f.debug_struct("Content").field("id", id).field("size", size).field("media_type", media_type).finish_non_exhaustive()
    }
}

impl Content {
    /// Reads the beginning; `None` when the object has another content by now, or is gone.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) async fn open(id: ObjectId, is_empty: bool, ranges: Box<dyn Ranges>) -> Result<Option<Self>> {
        // Stores do not hand out ranges of what is empty.
        let head = if is_empty {
            Part { bytes: Bytes::new(), size: 0 }
        } else {
            match ranges.read(0..HEAD).await? {
                Some(part) => part,
                None => return Ok(None),
            }
        };
        // Whoever looks at what is not ours may not end who reads it.
        let media_type = catch_unwind(|| super::media::media_type(&head.bytes)).unwrap_or(Some(super::media::OTHER));
        let shared = Shared {
            id,
            media_type,
            size: head.size,
            head: head.bytes,
            runtime: Handle::current(),
            ranges,
            window: Mutex::default(),
            failure: Mutex::default(),
        };
        Ok(Some(Self { shared: Arc::new(shared), position: 0 }))
    }

    /// The key of the object.
    pub fn key(&self) -> &str {
        &self.shared.id.key
    }

    /// Its version, in buckets with versions.
    pub fn version_id(&self) -> Option<&str> {
        self.shared.id.version.as_deref()
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.shared.size
    }

    /// What it is by its first bytes, such as `image/png`; `None` for what is empty.
    pub fn media_type(&self) -> Option<&'static str> {
        self.shared.media_type
    }

    /// The beginning: at least 64 KiB, or all.
    pub(super) fn head(&self) -> &Bytes {
        &self.shared.head
    }

    /// Why reading failed, if it did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The bytes at a place: as many as are at hand or read at once, and none at the end.
    fn bytes_at(&self, position: u64) -> IoResult<Bytes> {
        let shared = &*self.shared;
        let of = |start: u64, bytes: &Bytes| {
            let from = usize::try_from(position.checked_sub(start)?).ok()?;
            (from < bytes.len()).then(|| bytes.slice(from..))
        };
        if let Some(bytes) = of(0, &shared.head) {
            return Ok(bytes);
        }
        let mut window = shared.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = of(window.start, &window.bytes) {
            return Ok(bytes);
        }
        if position >= shared.size {
            return Ok(Bytes::new());
        }
        let goes_on = position == window.start + window.bytes.len() as u64 || position == shared.head.len() as u64;
        let ahead = if goes_on { (window.ahead * 4).clamp(HEAD, LONGEST_READ) } else { HEAD };
        let range = position..shared.size.min(position.saturating_add(ahead));
        let failed = |failure: Failure, told: String| {
            *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            std::io::Error::other(told)
        };
        let part = match shared.runtime.block_on(shared.ranges.read(range)) {
            Ok(Some(part)) if part.size == shared.size && !part.bytes.is_empty() => part,
            Ok(_) => return Err(failed(Failure::Changed, "the object changed while it was read".to_string())),
            Err(error) => {
                let told = error.to_string();
                return Err(failed(Failure::Error(error), told));
            }
        };
        *window = Window { start: position, bytes: part.bytes.clone(), ahead };
        Ok(part.bytes)
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let bytes = self.bytes_at(self.position)?;
        let read = bytes.as_ref().read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Content {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(from) => self.size().checked_add_signed(from),
            SeekFrom::Current(from) => self.position.checked_add_signed(from),
        };
        self.position = position.ok_or_else(|| std::io::Error::other("a place before the beginning of an object"))?;
        Ok(self.position)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Annotation, Wrong};
    use super::*;

    /// What is in memory, and how often it was asked for.
    pub(crate) struct InMemory(pub(crate) Vec<u8>, pub(crate) Arc<AtomicUsize>);

    #[async_trait]
    impl Ranges for InMemory {
        async fn read(&self, range: Range<u64>) -> Result<Option<Part>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let size = self.0.len() as u64;
            let range = range.start as usize..range.end.min(size) as usize;
            Ok(Some(Part { bytes: Bytes::copy_from_slice(&self.0[range]), size }))
        }
    }

    /// Runs `work` on the content with these bytes, where it may block.
    pub(crate) fn with<T: Send + 'static>(bytes: &[u8], work: impl FnOnce(Content) -> T + Send + 'static) -> (T, usize) {
        let (reads, bytes) = (Arc::new(AtomicUsize::new(0)), bytes.to_vec());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let done = runtime.block_on(async {
            let ranges = Box::new(InMemory(bytes, Arc::clone(&reads)));
            let content = Content::open(ObjectId::of_key("a"), false, ranges).await.unwrap().unwrap();
            tokio::task::spawn_blocking(move || work(content)).await.unwrap()
        });
        (done, reads.load(Ordering::Relaxed))
    }

    /// What is built in.
    type Learn = fn(&Content, &mut Annotation) -> std::result::Result<(), Wrong>;

    /// What `learn` finds in these bytes, and how often they were asked for.
    pub(crate) fn learnt_by(learn: Learn, bytes: &[u8]) -> (std::result::Result<Annotation, String>, usize) {
        with(bytes, move |content| {
            let mut annotation = Annotation::default();
            learn(&content, &mut annotation).map_err(|e| e.to_string()).map(|()| annotation)
        })
    }

    #[test]
    fn contents_are_read_as_files_are_and_in_growing_parts() {
        let bytes: Vec<u8> = (0..10_000_000u32).map(|number| (number % 251) as u8).collect();
        let expected = bytes.clone();
        let (read, requests) = with(&bytes, |mut content| {
            let mut all = Vec::new();
            content.read_to_end(&mut all).unwrap();
            all
        });
        assert!(read == expected);
        assert!(requests < 10, "{requests}");
        let (found, requests) = with(&bytes, |mut content| {
            let mut some = |to: SeekFrom| {
                let at = content.seek(to).unwrap();
                let mut byte = [0u8; 3];
                let read = content.read(&mut byte).unwrap();
                (at, byte[..read].to_vec())
            };
            [SeekFrom::End(-2), SeekFrom::Start(5), SeekFrom::Current(1_000_000), SeekFrom::End(-1), SeekFrom::End(7)]
                .map(&mut some)
        });
        for (at, read) in found {
            let at = at as usize;
            let end = (at + 3).min(expected.len());
            assert_eq!(read, if at < end { &expected[at..end] } else { &[] });
        }
        assert_eq!(requests, 4, "the beginning, the end, the middle, the end");
    }
}
