//! Errors of the libraries below, told as ours.

use datafusion::common::DataFusionError;
use tarndb_catalog::{Error, ErrorKind};

/// Turns an error of DataFusion into ours. One of ours that travelled through DataFusion comes out as it was.
pub(crate) fn engine_error(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(inner) => engine_error(*inner),
                Err(inner) => Error::new(ErrorKind::Internal, inner.to_string()).with_source(inner),
            },
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => engine_error(*inner),
        DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => engine_error(inner),
            Err(shared) => match ours_in(shared.as_ref()) {
                Some((kind, message)) => Error::new(kind, message).with_source(DataFusionError::Shared(shared)),
                None => classify(DataFusionError::Shared(shared)),
            },
        },
        DataFusionError::ArrowError(arrow, backtrace) => match *arrow {
            arrow::error::ArrowError::ExternalError(inner) => engine_error(DataFusionError::External(inner)),
            other => classify(DataFusionError::ArrowError(Box::new(other), backtrace)),
        },
        DataFusionError::ObjectStore(storage) => (*storage).into(),
        DataFusionError::IoError(io) => io.into(),
        other => classify(other),
    }
}

fn ours_in(error: &DataFusionError) -> Option<(ErrorKind, String)> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return Some((ours.kind(), ours.to_string()));
        }
        cause = inner.source();
    }
    None
}

fn classify(error: DataFusionError) -> Error {
    use DataFusionError as E;
    let kind = match error.find_root() {
        E::SQL(..) | E::Plan(_) | E::SchemaError(..) | E::Configuration(_) => ErrorKind::InvalidInput,
        E::NotImplemented(_) => ErrorKind::Unsupported,
        E::ResourcesExhausted(_) => ErrorKind::ResourcesExhausted,
        E::ParquetError(_) => ErrorKind::DataInvalid,
        E::ObjectStore(_) | E::IoError(_) => ErrorKind::Unavailable,
        // What goes wrong while rows are computed (a cast, an overflow, a division by zero) comes from their values.
        E::Execution(_) | E::ArrowError(..) => ErrorKind::InvalidInput,
        _ => ErrorKind::Internal,
    };
    let mut message = error.strip_backtrace();
    for prefix in ["Error during planning: ", "SQL error: ", "Execution error: ", "Arrow error: ", "Schema error: "] {
        if let Some(rest) = message.strip_prefix(prefix) {
            message = rest.to_string();
        }
    }
    Error::new(kind, message).with_source(error)
}

/// Turns ours into DataFusion's, to travel through a plan.
pub(crate) fn to_engine_error(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What a caught panic left.
pub(crate) type Panic = Box<dyn std::any::Any + Send>;

pub(crate) fn panic_message(panic: &Panic) -> &str {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    message.unwrap_or("no message")
}
