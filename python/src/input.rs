use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatchReader;
use datafusion::common::{ParamValues, ScalarValue};
use futures::stream::{self, Stream};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3_arrow::PySchema;
use pyo3_arrow::input::AnyRecordBatch;
use tarndb::{Error, Result};

use crate::error::to_py;

/// Rows of any Arrow library, or a list of dicts.
pub(crate) fn rows(data: &Bound<'_, PyAny>) -> PyResult<Box<dyn RecordBatchReader + Send>> {
    let has = |name: &str| data.hasattr(name).unwrap_or(false);
    if has("__arrow_c_stream__") || has("__arrow_c_array__") {
        return data.extract::<AnyRecordBatch>()?.into_reader();
    }
    let pyarrow = data.py().import("pyarrow")?;
    let table = pyarrow.getattr("Table")?;
    if let Ok(list) = data.cast::<PyList>() {
        return table.call_method1("from_pylist", (list,))?.extract::<AnyRecordBatch>()?.into_reader();
    }
    if data.get_type().name()? == "DataFrame" && has("to_numpy") {
        return table.call_method1("from_pandas", (data,))?.extract::<AnyRecordBatch>()?.into_reader();
    }
    Err(to_py(&Error::invalid_input(
        "the data is neither Arrow data (pyarrow, polars, pandas, duckdb, anything with __arrow_c_stream__) nor a list of dicts",
    )))
}

/// A schema, if the object is one rather than data.
pub(crate) fn schema_only(object: &Bound<'_, PyAny>) -> PyResult<Option<SchemaRef>> {
    let has = |name: &str| object.hasattr(name).unwrap_or(false);
    if has("__arrow_c_schema__") && !has("__arrow_c_stream__") && !has("__arrow_c_array__") {
        return Ok(Some(object.extract::<PySchema>()?.into_inner()));
    }
    Ok(None)
}

/// The batches of a reader, which may call back into Python, read on threads that may wait.
pub(crate) fn stream(reader: Box<dyn RecordBatchReader + Send>) -> impl Stream<Item = Result<arrow::array::RecordBatch>> + Send {
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        let next = tokio::task::spawn_blocking(move || {
            let batch = reader.next();
            (batch, reader)
        })
        .await;
        match next {
            Ok((None, _)) => None,
            Ok((Some(Ok(batch)), reader)) => Some((Ok(batch), Some(reader))),
            Ok((Some(Err(e)), _)) => {
                Some((Err(Error::invalid_input(format!("the data cannot be read: {e}")).with_source(e)), None))
            }
            Err(e) => Some((Err(Error::internal("reading the data stopped").with_source(e)), None)),
        }
    })
}

/// Values for `$1`, `$2`, … from a list, or `$name` from a dict.
pub(crate) fn parameters(values: &Bound<'_, PyAny>) -> PyResult<ParamValues> {
    let scalar = |value: &Bound<'_, PyAny>| -> PyResult<ScalarValue> {
        let pyarrow = value.py().import("pyarrow")?;
        let array = pyarrow.call_method1("array", (vec![value],))?.extract::<pyo3_arrow::PyArray>()?;
        let (array, _) = array.into_inner();
        ScalarValue::try_from_array(&array, 0)
            .map_err(|e| to_py(&Error::invalid_input(format!("a parameter cannot be used: {e}"))))
    };
    if let Ok(named) = values.cast::<PyDict>() {
        let mut all = Vec::new();
        for (name, value) in named.iter() {
            all.push((name.extract::<String>()?, scalar(&value)?));
        }
        return Ok(all.into());
    }
    if values.is_instance_of::<pyo3::types::PyString>() || values.is_instance_of::<pyo3::types::PyBytes>() {
        return Err(to_py(&Error::invalid_input("parameters are a list, or a dict by name, not one text")));
    }
    let mut all = Vec::new();
    for value in values.try_iter()? {
        all.push(scalar(&value?)?);
    }
    Ok(all.into())
}
