use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyDict, PyString};
use tarndb::{EventCounts, MetadataIndex, Synced};

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

fn counts(py: Python<'_>, synced: Synced) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("created", synced.created)?;
    dict.set_item("overwritten", synced.overwritten)?;
    dict.set_item("deleted", synced.deleted)?;
    Ok(dict)
}

fn event_counts(py: Python<'_>, counts: EventCounts) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("received", counts.received)?;
    dict.set_item("applied", counts.applied)?;
    dict.set_item("late", counts.late)?;
    dict.set_item("duplicates", counts.duplicates)?;
    dict.set_item("ignored", counts.ignored)?;
    dict.set_item("dead", counts.dead)?;
    Ok(dict)
}

#[pymethods]
impl PyMetadataIndex {
    /// A message as its store sends it: JSON as `str` or `bytes`, or what `json.loads` makes of it.
    fn push<'py>(&self, py: Python<'py>, event_json: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        // There may be many megabytes of it, which stay where they are.
        if event_json.is_instance_of::<PyBytes>() {
            let bytes: PyBackedBytes = event_json.extract()?;
            return event_counts(py, wait(py, self.index.push(std::str::from_utf8(&bytes)?))?);
        }
        let message: PyBackedStr = match event_json.is_instance_of::<PyString>() {
            true => event_json.extract()?,
            false => py.import("json")?.call_method1("dumps", (event_json,))?.extract()?,
        };
        event_counts(py, wait(py, self.index.push(&message))?)
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
        dict.set_item("annotated", status.annotated)?;
        dict.set_item("listed", status.listed)?;
        dict.set_item("events", event_counts(py, status.events)?)?;
        dict.set_item("lag_ms", status.lag_ms)?;
        dict.set_item("last_error", status.last_error)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        format!("MetadataIndex({:?})", self.index.name())
    }
}
