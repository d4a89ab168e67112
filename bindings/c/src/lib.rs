//! The C interface of tarndb. `include/tarndb.h` is made from this file by cbindgen and checked by a test.
//!
//! Functions that can fail return an error, or NULL for success; results come through out-pointers. Handles may be used
//! from several threads; each has a free function, which takes NULL too. No panic crosses into C.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ffi_stream::FFI_ArrowArrayStream;
use arrow::record_batch::RecordBatchReader;
use futures::StreamExt;
use tarndb::{Error, ErrorKind, Lakehouse, QueryResult, Result};
use tokio::runtime::Runtime;

/// What the caller can do about an error.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum tarndb_error_kind {
    /// The request is wrong: change it.
    TARNDB_INVALID_INPUT = 1,
    /// The named thing does not exist.
    TARNDB_NOT_FOUND = 2,
    /// The named thing exists already.
    TARNDB_ALREADY_EXISTS = 3,
    /// Another writer changed what this depends on: run it again.
    TARNDB_COMMIT_CONFLICT = 4,
    /// Whether the commit took effect is not known: look before trying again.
    TARNDB_COMMIT_STATE_UNKNOWN = 5,
    /// Storage or catalog could not be reached: try again later.
    TARNDB_UNAVAILABLE = 6,
    /// A limit was met: free some disk, memory or time.
    TARNDB_RESOURCES_EXHAUSTED = 7,
    /// tarndb does not offer this.
    TARNDB_UNSUPPORTED = 8,
    /// Stored data is missing or damaged.
    TARNDB_DATA_INVALID = 9,
    /// The caller cancelled the operation.
    TARNDB_CANCELLED = 10,
    /// A defect in tarndb.
    TARNDB_INTERNAL = 11,
}

/// An open lake.
#[allow(non_camel_case_types)]
pub struct tarndb_lakehouse {
    lake: Lakehouse,
    runtime: Arc<Runtime>,
}

/// An error: a kind and a message.
#[allow(non_camel_case_types)]
pub struct tarndb_error {
    kind: tarndb_error_kind,
    message: CString,
}

/// The Arrow C stream interface: <https://arrow.apache.org/docs/format/CStreamInterface.html>.
#[repr(C)]
pub struct ArrowArrayStream {
    _private: [u8; 0],
}

fn kind_of(kind: ErrorKind) -> tarndb_error_kind {
    use tarndb_error_kind as K;
    match kind {
        ErrorKind::InvalidInput => K::TARNDB_INVALID_INPUT,
        ErrorKind::NotFound => K::TARNDB_NOT_FOUND,
        ErrorKind::AlreadyExists => K::TARNDB_ALREADY_EXISTS,
        ErrorKind::CommitConflict => K::TARNDB_COMMIT_CONFLICT,
        ErrorKind::CommitStateUnknown => K::TARNDB_COMMIT_STATE_UNKNOWN,
        ErrorKind::Unavailable => K::TARNDB_UNAVAILABLE,
        ErrorKind::ResourcesExhausted => K::TARNDB_RESOURCES_EXHAUSTED,
        ErrorKind::Unsupported => K::TARNDB_UNSUPPORTED,
        ErrorKind::DataInvalid => K::TARNDB_DATA_INVALID,
        ErrorKind::Cancelled => K::TARNDB_CANCELLED,
        _ => K::TARNDB_INTERNAL,
    }
}

/// Runs `work`, and makes a C error of an error or a panic.
fn guarded(work: impl FnOnce() -> Result<()>) -> *mut tarndb_error {
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::internal("tarndb panicked")));
    match result {
        Ok(()) => std::ptr::null_mut(),
        Err(error) => {
            let text = error.report().replace('\0', " ");
            let message = CString::new(text).unwrap_or_default();
            Box::into_raw(Box::new(tarndb_error { kind: kind_of(error.kind()), message }))
        }
    }
}

/// # Safety
/// `text` is NULL or a NUL-terminated string.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::invalid_input(format!("{what} is NULL")));
    }
    // SAFETY: not NULL, and the caller vouches for the terminator.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|e| Error::invalid_input(format!("{what} is not UTF-8")).with_source(e))
}

/// The version of the library, a static string.
#[unsafe(no_mangle)]
pub extern "C" fn tarndb_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Opens the lake at `location` (a folder, file:///dir or memory://) and creates it when there is none.
///
/// # Safety
/// `location` is a NUL-terminated string, `out` points at a place for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tarndb_lakehouse_connect(location: *const c_char, out: *mut *mut tarndb_lakehouse) -> *mut tarndb_error {
    guarded(|| {
        if out.is_null() {
            return Err(Error::invalid_input("the place for the lake is NULL"));
        }
        // SAFETY: by this function's own contract.
        let location = unsafe { text(location, "the location") }?;
        let runtime = tarndb_runtime::runtime()
            .map_err(|e| Error::new(ErrorKind::ResourcesExhausted, "no runtime could be started").with_source(e))?;
        let lake = runtime.block_on(tarndb::connect(location))?;
        let handle = Box::new(tarndb_lakehouse { lake, runtime: Arc::new(runtime) });
        // SAFETY: not NULL, and the caller vouches for it.
        unsafe { out.write(Box::into_raw(handle)) };
        Ok(())
    })
}

/// Runs one SQL statement. Its rows come through `out`, an uninitialised or released stream, which the caller releases;
/// `out` may be NULL when the rows are not wanted.
///
/// # Safety
/// `lake` is an open handle, `sql` a NUL-terminated string, `out` NULL or a place for a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tarndb_lakehouse_sql(
    lake: *const tarndb_lakehouse,
    sql: *const c_char,
    out: *mut ArrowArrayStream,
) -> *mut tarndb_error {
    guarded(|| {
        // SAFETY: by this function's own contract.
        let lake = unsafe { lake.as_ref() }.ok_or_else(|| Error::invalid_input("the lake is NULL"))?;
        // SAFETY: by this function's own contract.
        let sql = unsafe { text(sql, "the statement") }?;
        let rows = lake.runtime.block_on(lake.lake.sql(sql))?;
        if out.is_null() {
            lake.runtime.block_on(rows.collect())?;
            return Ok(());
        }
        let reader = Reader { schema: Arc::clone(rows.schema()), rows, runtime: Arc::clone(&lake.runtime) };
        // SAFETY: not NULL, the caller vouches for it, and the two types are the same structure of Arrow's specification.
        unsafe { out.cast::<FFI_ArrowArrayStream>().write(FFI_ArrowArrayStream::new(Box::new(reader))) };
        Ok(())
    })
}

/// Closes a lake. Streams that it gave stay usable.
///
/// # Safety
/// `lake` is NULL or a handle that is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tarndb_lakehouse_free(lake: *mut tarndb_lakehouse) {
    if !lake.is_null() {
        // SAFETY: it came from `Box::into_raw`, and the caller gives it up.
        drop(unsafe { Box::from_raw(lake) });
    }
}

/// The kind of an error.
///
/// # Safety
/// `error` is an error of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tarndb_error_get_kind(error: *const tarndb_error) -> tarndb_error_kind {
    // SAFETY: by this function's own contract.
    unsafe { error.as_ref() }.map_or(tarndb_error_kind::TARNDB_INTERNAL, |error| error.kind)
}

/// The message of an error, which lives as long as the error.
///
/// # Safety
/// `error` is an error of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tarndb_error_get_message(error: *const tarndb_error) -> *const c_char {
    // SAFETY: by this function's own contract.
    unsafe { error.as_ref() }.map_or(c"no error".as_ptr(), |error| error.message.as_ptr())
}

/// Frees an error.
///
/// # Safety
/// `error` is NULL or an error that is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tarndb_error_free(error: *mut tarndb_error) {
    if !error.is_null() {
        // SAFETY: it came from `Box::into_raw`, and the caller gives it up.
        drop(unsafe { Box::from_raw(error) });
    }
}

/// Rows as the blocking reader that the C stream interface is. It holds the runtime, so that it outlives the lake.
struct Reader {
    schema: SchemaRef,
    rows: QueryResult,
    runtime: Arc<Runtime>,
}

impl Iterator for Reader {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = catch_unwind(AssertUnwindSafe(|| self.runtime.block_on(self.rows.next())));
        let Ok(next) = next else {
            return Some(Err(ArrowError::ExternalError("tarndb panicked while it computed rows".into())));
        };
        next.map(|batch| batch.map_err(|e| ArrowError::ExternalError(e.report().into())))
    }
}

impl RecordBatchReader for Reader {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
