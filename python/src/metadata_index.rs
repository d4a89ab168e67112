use pyo3::prelude::*;
use pyo3::types::PyDict;
use tarndb::{MetadataIndex, Synced};

use crate::not_offered;
use crate::runtime::wait;

#[pyclass(frozen, name = "MetadataIndex", module = "tarndb")]
pub(crate) struct PyMetadataIndex {
    index: MetadataIndex,
}

impl PyMetadataIndex {
    pub(crate) fn new(index: MetadataIndex) -> Self {
        Self { index }
    }
}

/// Methods to come.
const PLANNED: [&str; 1] = ["push"];

fn counts(py: Python<'_>, synced: Synced) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("created", synced.created)?;
    dict.set_item("overwritten", synced.overwritten)?;
    dict.set_item("deleted", synced.deleted)?;
    Ok(dict)
}

#[pymethods]
impl PyMetadataIndex {
    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(not_offered::attribute(py, "MetadataIndex", &PLANNED, name))
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, self.index.start())
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, async {
            self.index.stop().await;
            Ok(())
        })
    }

    fn sync<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counts(py, wait(py, self.index.sync())?)
    }

    fn reconcile<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counts(py, wait(py, self.index.reconcile())?)
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let status = wait(py, self.index.status())?;
        let dict = PyDict::new(py);
        dict.set_item("name", status.name)?;
        dict.set_item("source", status.source)?;
        dict.set_item("state", status.state.to_string())?;
        dict.set_item("objects", status.objects)?;
        dict.set_item("changes", status.changes)?;
        dict.set_item("last_error", status.last_error)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        format!("MetadataIndex({:?})", self.index.name())
    }
}
