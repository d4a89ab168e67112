use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::error::UnsupportedError;

/// The error of an attribute that a class lacks. For those among `planned` it is an `UnsupportedError` too, and for all an
/// `AttributeError`, so that `hasattr` says no.
pub(crate) fn attribute(py: Python<'_>, class: &str, planned: &[&str], name: &str) -> PyErr {
    if !planned.contains(&name) {
        return PyAttributeError::new_err(format!("'{class}' object has no attribute '{name}'"));
    }
    let both = || -> PyResult<Bound<'_, PyAny>> {
        let bases = PyTuple::new(py, [py.get_type::<UnsupportedError>(), py.get_type::<PyAttributeError>()])?;
        let kind = py.get_type::<pyo3::types::PyType>().call1(("UnsupportedError", bases, PyDict::new(py)))?;
        kind.call1((format!("{class}.{name} is not supported yet"),))
    };
    both().map_or_else(|error| error, PyErr::from_value)
}
