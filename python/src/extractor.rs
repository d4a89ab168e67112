use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, LazyLock};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString};
use tarndb::{Content, Extractor, Extractors};

use crate::error::to_py;

/// Bytes that are read at once, where nobody says how many.
const READ_AT_ONCE: usize = 1024 * 1024;

static EXTRACTORS: LazyLock<Extractors> = LazyLock::new(Extractors::default);

/// The functions that are extractors, of all lakes of the process.
pub(crate) fn extractors() -> &'static Extractors {
    &EXTRACTORS
}

/// A function of Python that learns something from the content of objects.
#[derive(Debug)]
struct Function {
    name: String,
    function: Py<PyAny>,
}

#[pyfunction(name = "_register_extractor")]
pub(crate) fn register_extractor(name: String, function: Py<PyAny>) -> PyResult<()> {
    extractors().register(Arc::new(Function { name, function })).map_err(|e| to_py(&e))
}

/// A value of an attribute; `None` for None.
fn value(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    if value.is_none() {
        return Ok(None);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Some(flag.is_true().to_string()));
    }
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>() {
        return value.str()?.extract().map(Some);
    }
    // numpy's numbers and the like.
    if let Ok(number) = value.call_method0("item")
        && !number.is(value)
    {
        return self::value(&number);
    }
    let message =
        format!("an extractor returns str, bool, int, float or None, or a dict of these, and no {}", value.get_type().name()?);
    Err(PyTypeError::new_err(message))
}

fn attributes(found: &Bound<'_, PyAny>) -> PyResult<BTreeMap<String, String>> {
    let Ok(dict) = found.cast::<PyDict>() else {
        return Ok(value(found)?.map(|value| (String::new(), value)).into_iter().collect());
    };
    let pairs = dict.iter().map(|(name, found)| Ok(value(&found)?.map(|value| Ok((name.extract()?, value)))));
    pairs.filter_map(|pair: PyResult<Option<PyResult<(String, String)>>>| pair.and_then(Option::transpose).transpose()).collect()
}

impl Extractor for Function {
    fn name(&self) -> &str {
        &self.name
    }

    fn extract(&self, object: Content) -> Result<BTreeMap<String, String>, Box<dyn StdError + Send + Sync>> {
        let called = Python::try_attach(|py| {
            let found = self.function.bind(py).call1((PyContent { content: Some(object) },)).and_then(|found| attributes(&found));
            // What is wrong is told without the interpreter.
            found.map_err(|error| error.to_string())
        });
        Ok(called.ok_or("the interpreter ended")??)
    }
}

#[pyclass(name = "ObjectContent", module = "tarndb")]
pub(crate) struct PyContent {
    /// There is none when it is closed.
    content: Option<Content>,
}

impl PyContent {
    fn open(&self) -> PyResult<&Content> {
        self.content.as_ref().ok_or_else(|| PyValueError::new_err("the object is closed"))
    }

    fn open_mut(&mut self) -> PyResult<&mut Content> {
        self.content.as_mut().ok_or_else(|| PyValueError::new_err("the object is closed"))
    }
}

#[pymethods]
impl PyContent {
    #[getter]
    fn key(&self) -> PyResult<&str> {
        Ok(self.open()?.key())
    }

    #[getter]
    fn version_id(&self) -> PyResult<Option<&str>> {
        Ok(self.open()?.version_id())
    }

    #[getter]
    fn size(&self) -> PyResult<u64> {
        Ok(self.open()?.size())
    }

    #[getter]
    fn media_type(&self) -> PyResult<Option<&'static str>> {
        Ok(self.open()?.media_type())
    }

    #[pyo3(signature = (size=None))]
    fn read<'py>(&mut self, py: Python<'py>, size: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let content = self.open_mut()?;
        let most = size.and_then(|size| u64::try_from(size).ok()).unwrap_or(u64::MAX);
        let read = py.detach(|| {
            let mut bytes = Vec::new();
            content.take(most).read_to_end(&mut bytes).map(|_| bytes)
        });
        Ok(PyBytes::new(py, &read?))
    }

    /// As `io.RawIOBase` has it.
    fn readinto(&mut self, py: Python<'_>, buffer: PyBuffer<u8>) -> PyResult<usize> {
        let content = self.open_mut()?;
        let mut bytes = vec![0; buffer.item_count().min(READ_AT_ONCE)];
        let read = py.detach(|| content.read(&mut bytes))?;
        let Some(target) = buffer.as_mut_slice(py) else {
            return Err(PyTypeError::new_err("a buffer that can be written to, and lies in one piece, is needed"));
        };
        for (place, byte) in target.iter().zip(bytes.iter().take(read)) {
            place.set(*byte);
        }
        Ok(read)
    }

    #[pyo3(signature = (offset, whence=0))]
    fn seek(&mut self, offset: i64, whence: u8) -> PyResult<u64> {
        let to = match (whence, u64::try_from(offset)) {
            (0, Ok(offset)) => SeekFrom::Start(offset),
            (1, _) => SeekFrom::Current(offset),
            (2, _) => SeekFrom::End(offset),
            _ => return Err(PyValueError::new_err(format!("there is no place {offset} of whence {whence}"))),
        };
        Ok(self.open_mut()?.seek(to)?)
    }

    fn tell(&mut self) -> PyResult<u64> {
        Ok(self.open_mut()?.stream_position()?)
    }

    fn close(&mut self) {
        self.content = None;
    }

    #[getter]
    fn closed(&self) -> bool {
        self.content.is_none()
    }

    fn readable(&self) -> bool {
        true
    }

    fn seekable(&self) -> bool {
        true
    }

    fn writable(&self) -> bool {
        false
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&mut self, _kind: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        self.content
            .as_ref()
            .map_or_else(|| "ObjectContent()".to_string(), |content| format!("ObjectContent({:?})", content.key()))
    }
}
