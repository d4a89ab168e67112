use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};
use tarndb::Error;

use crate::error::to_py;

/// An attribute that a class lacks: for the methods among `planned` a function that raises `UnsupportedError`.
pub(crate) fn attribute(py: Python<'_>, class: &str, planned: &[&str], name: &str) -> PyResult<Py<PyAny>> {
    if !planned.contains(&name) {
        return Err(PyAttributeError::new_err(format!("'{class}' object has no attribute '{name}'")));
    }
    let message = format!("{class}.{name} is not supported yet");
    let refuse = move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
        Err(to_py(&Error::unsupported(message.clone())))
    };
    Ok(PyCFunction::new_closure(py, None, None, refuse)?.into_any().unbind())
}
