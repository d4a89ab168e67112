use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchIterator};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatchReader;
use futures::{StreamExt, TryStreamExt};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyList, PyTuple};
use pyo3_arrow::{PyRecordBatchReader, PySchema, PyTable};
use tarndb::{Error, QueryResult, Result};

use crate::error::to_py;
use crate::runtime::{handle, wait};

/// Rows on their way, or here.
enum Rows {
    Stream(QueryResult),
    Batches(Vec<RecordBatch>),
    /// Handed to a reader, which takes each row once.
    Gone,
}

#[pyclass(frozen, name = "Result", module = "tarndb")]
pub(crate) struct PyResultSet {
    schema: SchemaRef,
    rows: Mutex<Rows>,
    /// The rows that `fetchone` gives, as one list, and how far it has come.
    fetched: Mutex<Option<(Py<PyList>, usize)>>,
}

impl PyResultSet {
    pub(crate) fn new(result: QueryResult) -> Self {
        Self { schema: Arc::clone(result.schema()), rows: Mutex::new(Rows::Stream(result)), fetched: Mutex::new(None) }
    }

    fn take(&self) -> Rows {
        std::mem::replace(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner), Rows::Gone)
    }

    /// All rows, kept for the next call.
    fn batches(&self, py: Python<'_>) -> PyResult<Vec<RecordBatch>> {
        let batches = match self.take() {
            Rows::Batches(batches) => batches,
            Rows::Stream(stream) => wait(py, stream.try_collect::<Vec<_>>())?,
            Rows::Gone => {
                return Err(to_py(&Error::invalid_input(
                    "the rows of this result were read as a stream already: run the statement again",
                )));
            }
        };
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Rows::Batches(batches.clone());
        Ok(batches)
    }

    fn reader(&self) -> PyResult<Box<dyn RecordBatchReader + Send>> {
        let schema = Arc::clone(&self.schema);
        match self.take() {
            Rows::Batches(batches) => {
                *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Rows::Batches(batches.clone());
                Ok(Box::new(RecordBatchIterator::new(batches.into_iter().map(Ok), schema)))
            }
            Rows::Stream(stream) => {
                let handle = handle().map_err(|e| to_py(&e))?;
                Ok(Box::new(StreamReader { stream, schema, handle }))
            }
            Rows::Gone => Err(to_py(&Error::invalid_input(
                "the rows of this result were read as a stream already: run the statement again",
            ))),
        }
    }

    fn tuples<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let table = self.arrow(py)?;
        let columns = table.getattr("columns")?;
        let mut lists = Vec::new();
        for (column, field) in columns.try_iter()?.zip(self.schema.fields()) {
            let values = column?.call_method0("to_pylist")?;
            if !has_map(field.data_type()) {
                lists.push(values);
                continue;
            }
            let converted = PyList::empty(py);
            for value in values.try_iter()? {
                converted.append(with_dicts(&value?, field.data_type())?)?;
            }
            lists.push(converted.into_any());
        }
        if lists.is_empty() {
            return Ok(PyList::empty(py));
        }
        let zipped = py.import("builtins")?.getattr("zip")?.call1(PyTuple::new(py, lists)?)?;
        PyList::new(py, zipped.try_iter()?.collect::<PyResult<Vec<_>>>()?)
    }
}

fn has_map(of: &DataType) -> bool {
    match of {
        DataType::Map(..) => true,
        DataType::List(item) => has_map(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_map(field.data_type())),
        _ => false,
    }
}

/// pyarrow gives maps as lists of pairs; users expect dicts.
fn with_dicts<'py>(value: &Bound<'py, PyAny>, of: &DataType) -> PyResult<Bound<'py, PyAny>> {
    if value.is_none() {
        return Ok(value.clone());
    }
    let py = value.py();
    match of {
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else { return Ok(value.clone()) };
            let dict = PyDict::new(py);
            for item in value.try_iter()? {
                let item = item?;
                let inner = item.get_item(1)?;
                let inner = match pair.get(1) {
                    Some(field) => with_dicts(&inner, field.data_type())?,
                    None => inner,
                };
                dict.set_item(item.get_item(0)?, inner)?;
            }
            Ok(dict.into_any())
        }
        DataType::List(field) => {
            let list = PyList::empty(py);
            for item in value.try_iter()? {
                list.append(with_dicts(&item?, field.data_type())?)?;
            }
            Ok(list.into_any())
        }
        DataType::Struct(fields) => {
            let dict = PyDict::new(py);
            for field in fields {
                dict.set_item(field.name(), with_dicts(&value.get_item(field.name())?, field.data_type())?)?;
            }
            Ok(dict.into_any())
        }
        _ => Ok(value.clone()),
    }
}

/// A stream as the blocking reader that the Arrow C stream interface is.
struct StreamReader {
    stream: QueryResult,
    schema: SchemaRef,
    handle: tokio::runtime::Handle,
}

impl Iterator for StreamReader {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next: Option<Result<RecordBatch>> = self.handle.block_on(self.stream.next());
        next.map(|batch| batch.map_err(|e| ArrowError::ExternalError(Box::new(e))))
    }
}

impl RecordBatchReader for StreamReader {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

#[pymethods]
impl PyResultSet {
    fn arrow<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let table = PyTable::try_new(self.batches(py)?, Arc::clone(&self.schema))?;
        table.into_pyarrow(py)
    }

    fn pandas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.arrow(py)?.call_method0("to_pandas")
    }

    fn polars<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("polars")?.call_method1("from_arrow", (self.arrow(py)?,))
    }

    fn fetchall<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.tuples(py)
    }

    fn fetchone<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let so_far = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (all, next) = match so_far {
            Some((all, next)) => (all.into_bound(py), next),
            None => (self.tuples(py)?, 0),
        };
        let row = if next < all.len() { Some(all.get_item(next)?) } else { None };
        let fetched = (all.unbind(), next + usize::from(row.is_some()));
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(fetched);
        Ok(row)
    }

    fn fetch_batches<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PyRecordBatchReader::new(self.reader()?).into_pyarrow(py)
    }

    #[pyo3(signature = (limit=20))]
    fn show(&self, py: Python<'_>, limit: usize) -> PyResult<()> {
        let mut left = limit;
        let mut shown = Vec::new();
        let batches = self.batches(py)?;
        let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
        for batch in batches {
            let rows = batch.num_rows().min(left);
            left -= rows;
            shown.push(batch.slice(0, rows));
        }
        let text = arrow::util::pretty::pretty_format_batches(&shown)
            .map_err(|e| to_py(&Error::internal("rows cannot be printed").with_source(e)))?;
        let builtins = py.import("builtins")?;
        builtins.call_method1("print", (text.to_string(),))?;
        if total > limit {
            builtins.call_method1("print", (format!("{limit} of {total} rows"),))?;
        }
        Ok(())
    }

    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PySchema::new(Arc::clone(&self.schema)).into_pyarrow(py)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let reader = self.reader()?;
        let array_reader = PyRecordBatchReader::new(reader);
        let capsule = Py::new(py, array_reader)?.bind(py).call_method1("__arrow_c_stream__", (requested_schema,))?;
        Ok(capsule.cast_into::<PyCapsule>()?)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.tuples(py)?.try_iter()?.into_any())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.batches(py)?.iter().map(RecordBatch::num_rows).sum())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        self.pandas(py)?.call_method0("_repr_html_")?.extract()
    }

    fn __repr__(&self) -> String {
        let columns: Vec<String> = self.schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
        format!("Result({})", columns.join(", "))
    }
}
