use pyo3::prelude::*;
use pyo3::{create_exception, exceptions::PyException};
use tarndb::{Error as TarnError, ErrorKind};

create_exception!(tarndb, Error, PyException);
create_exception!(tarndb, InvalidInputError, Error);
create_exception!(tarndb, NotFoundError, Error);
create_exception!(tarndb, AlreadyExistsError, Error);
create_exception!(tarndb, CommitConflictError, Error);
create_exception!(tarndb, CommitStateUnknownError, Error);
create_exception!(tarndb, UnavailableError, Error);
create_exception!(tarndb, ResourcesExhaustedError, Error);
create_exception!(tarndb, UnsupportedError, Error);
create_exception!(tarndb, DataInvalidError, Error);
create_exception!(tarndb, CancelledError, Error);
create_exception!(tarndb, InternalError, Error);

pub(crate) fn register(py: Python<'_>, module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("Error", py.get_type::<Error>())?;
    module.add("InvalidInputError", py.get_type::<InvalidInputError>())?;
    module.add("NotFoundError", py.get_type::<NotFoundError>())?;
    module.add("AlreadyExistsError", py.get_type::<AlreadyExistsError>())?;
    module.add("CommitConflictError", py.get_type::<CommitConflictError>())?;
    module.add("CommitStateUnknownError", py.get_type::<CommitStateUnknownError>())?;
    module.add("UnavailableError", py.get_type::<UnavailableError>())?;
    module.add("ResourcesExhaustedError", py.get_type::<ResourcesExhaustedError>())?;
    module.add("UnsupportedError", py.get_type::<UnsupportedError>())?;
    module.add("DataInvalidError", py.get_type::<DataInvalidError>())?;
    module.add("CancelledError", py.get_type::<CancelledError>())?;
    module.add("InternalError", py.get_type::<InternalError>())
}

/// The exception of an error, with all its causes in the message.
pub(crate) fn to_py(error: &TarnError) -> PyErr {
    let message = error.report();
    match error.kind() {
        ErrorKind::InvalidInput => InvalidInputError::new_err(message),
        ErrorKind::NotFound => NotFoundError::new_err(message),
        ErrorKind::AlreadyExists => AlreadyExistsError::new_err(message),
        ErrorKind::CommitConflict => CommitConflictError::new_err(message),
        ErrorKind::CommitStateUnknown => CommitStateUnknownError::new_err(message),
        ErrorKind::Unavailable => UnavailableError::new_err(message),
        ErrorKind::ResourcesExhausted => ResourcesExhaustedError::new_err(message),
        ErrorKind::Unsupported => UnsupportedError::new_err(message),
        ErrorKind::DataInvalid => DataInvalidError::new_err(message),
        ErrorKind::Cancelled => CancelledError::new_err(message),
        _ => InternalError::new_err(message),
    }
}
