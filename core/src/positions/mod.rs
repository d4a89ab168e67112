//! Sets of row positions of data files: of deleted rows, and of the rows that have a value.
//!
//! * [`blob`]: a set as a blob of the Puffin specification.
//! * [`by_value`]: the rows of a data file by the values of some of its columns, as they are gathered when it is written; the sets are
//!   blobs of a Puffin file within the data file. [`directory`]: where each of them is.
//! * [`cache`]: sets that queries may need again.

mod blob;
mod by_value;
mod cache;
mod directory;

pub(crate) use blob::decode as decode_positions;
pub(crate) use blob::encode as encode_positions;
pub(crate) use by_value::{ValueCollector, ValueColumns};
pub(crate) use cache::{Part, PositionCache, PositionsByFile, memory_size};
#[cfg(feature = "fuzzing")]
pub(crate) use directory::decode_and_find;
pub(crate) use directory::{Directory, Embedded, Found};
