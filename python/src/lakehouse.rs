use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::prelude::*;
use tarndb::{Error, IndexOptions, Lakehouse, MetadataIndexer, MetadataIndexes, Version};

use crate::error::to_py;
use crate::extractor::extractors;
use crate::input;
use crate::metadata_index::PyMetadataIndex;
use crate::not_offered;
use crate::result::PyResultSet;
use crate::runtime::wait;
use crate::table::PyTarnTable;

#[pyfunction]
#[pyo3(signature = (location, *, settings=None, storage=None))]
pub(crate) fn connect(
    py: Python<'_>,
    location: PathBuf,
    settings: Option<HashMap<String, String>>,
    storage: Option<HashMap<String, String>>,
) -> PyResult<PyLakehouse> {
    if storage.is_some_and(|storage| !storage.is_empty()) {
        return Err(to_py(&Error::unsupported("storage options are not supported yet: lakes are folders or memory://")));
    }
    let location = utf8(&location)?;
    let lake = wait(py, async {
        let indexer = MetadataIndexer::default().with_extractors(extractors());
        let lake = Lakehouse::builder(location).with_extension(Arc::new(indexer)).build().await?;
        for (key, value) in settings.unwrap_or_default() {
            lake.sql(&format!("SET {key} = '{}'", value.replace('\'', "''"))).await?;
        }
        Ok(lake)
    })?;
    Ok(PyLakehouse { lake })
}

#[pyfunction]
pub(crate) fn read_iceberg(py: Python<'_>, location: PathBuf) -> PyResult<PyResultSet> {
    let location = utf8(&location)?;
    let result = wait(py, async {
        let lake = tarndb::connect("memory://").await?;
        let table = lake.read_iceberg(location).await?;
        lake.scan(&table, None, None, None).await
    })?;
    Ok(PyResultSet::new(result))
}

fn utf8(location: &Path) -> PyResult<&str> {
    let text = location.to_str();
    text.ok_or_else(|| to_py(&Error::invalid_input(format!("`{}` is not valid UTF-8", location.display()))))
}

#[pyclass(frozen, name = "Lakehouse", module = "tarndb")]
pub(crate) struct PyLakehouse {
    lake: Lakehouse,
}

/// Methods to come.
const PLANNED: [&str; 5] = ["maintain", "maintenance_status", "start_maintenance", "stop_maintenance", "transaction"];

/// Names of extractors, one by one or as the option has them.
#[derive(FromPyObject)]
pub(crate) enum Extract {
    Text(String),
    Names(Vec<String>),
}

#[pymethods]
impl PyLakehouse {
    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(not_offered::attribute(py, "Lakehouse", &PLANNED, name))
    }

    #[pyo3(signature = (query, params=None))]
    fn sql(&self, py: Python<'_>, query: &str, params: Option<&Bound<'_, PyAny>>) -> PyResult<PyResultSet> {
        let params = params.map(input::parameters).transpose()?;
        let result = wait(py, async {
            match params {
                None => self.lake.sql(query).await,
                Some(params) => self.lake.sql_with_params(query, params).await,
            }
        })?;
        Ok(PyResultSet::new(result))
    }

    fn create_namespace(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        wait(py, self.lake.create_namespace(name))
    }

    fn namespaces(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        wait(py, self.lake.namespaces())
    }

    #[pyo3(signature = (namespace=None))]
    fn tables(&self, py: Python<'_>, namespace: Option<&str>) -> PyResult<Vec<String>> {
        wait(py, self.lake.tables(namespace))
    }

    #[pyo3(signature = (name, purge=false))]
    fn drop_table(&self, py: Python<'_>, name: &str, purge: bool) -> PyResult<()> {
        wait(py, self.lake.drop_table(name, purge))
    }

    #[pyo3(signature = (name, schema_or_data, partition_by=None, sort_by=None, properties=None))]
    fn create_table(
        &self,
        py: Python<'_>,
        name: &str,
        schema_or_data: &Bound<'_, PyAny>,
        partition_by: Option<Vec<String>>,
        sort_by: Option<Vec<String>>,
        properties: Option<HashMap<String, String>>,
    ) -> PyResult<PyTarnTable> {
        if sort_by.is_some_and(|columns| !columns.is_empty()) {
            return Err(to_py(&Error::unsupported("sort_by is not supported yet")));
        }
        let partition_by = partition_by.unwrap_or_default();
        let properties: Vec<(String, String)> = properties.unwrap_or_default().into_iter().collect();
        if let Some(schema) = input::schema_only(schema_or_data)? {
            wait(py, self.lake.create_table(name, &schema, &partition_by, properties))?;
        } else {
            let rows = input::rows(schema_or_data)?;
            let schema = rows.schema();
            wait(py, self.lake.create_table_from(name, &schema, input::stream(rows), &partition_by, properties))?;
        }
        Ok(PyTarnTable::new(self.lake.clone(), name.to_string(), None))
    }

    #[pyo3(signature = (name, version=None, timestamp=None))]
    fn table(
        &self,
        py: Python<'_>,
        name: &str,
        version: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyTarnTable> {
        let version = version_of(version, timestamp)?;
        let table = PyTarnTable::new(self.lake.clone(), name.to_string(), version);
        table.check(py)?;
        Ok(table)
    }

    #[pyo3(signature = (name, source, events=None, extract=None, *, options=None))]
    fn create_metadata_index(
        &self,
        py: Python<'_>,
        name: &str,
        source: &str,
        events: Option<&str>,
        extract: Option<Extract>,
        options: Option<BTreeMap<String, String>>,
    ) -> PyResult<PyMetadataIndex> {
        let extract = extract.map(|extract| match extract {
            Extract::Text(text) => text,
            Extract::Names(names) => names.join(","),
        });
        let named = [("events", events.map(str::to_string)), ("extract", extract.filter(|extract| !extract.is_empty()))];
        let named = named.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
        let given = named.chain(options.unwrap_or_default());
        let options = given.into_iter().try_fold(IndexOptions::default(), |options, (name, value)| options.with(&name, &value));
        let options = options.map_err(|e| to_py(&e))?;
        wait(py, self.lake.create_metadata_index_with(name, source, &options)).map(PyMetadataIndex::new)
    }

    fn metadata_index(&self, py: Python<'_>, name: &str) -> PyResult<PyMetadataIndex> {
        wait(py, self.lake.metadata_index(name)).map(PyMetadataIndex::new)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, async {
            self.lake.close().await;
            Ok(())
        })
    }

    #[getter]
    fn location(&self) -> String {
        self.lake.location().to_string()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        format!("Lakehouse({:?})", self.lake.location())
    }
}

/// A snapshot id, the name of a branch or tag, or a time (a datetime or a string).
pub(crate) fn version_of(version: Option<&Bound<'_, PyAny>>, timestamp: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Version>> {
    match (version, timestamp) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(to_py(&Error::invalid_input("give a version or a timestamp, not both"))),
        (Some(version), None) => match version.extract::<i64>() {
            Ok(id) => Ok(Some(Version::Snapshot(id))),
            Err(_) => Ok(Some(Version::Ref(version.extract::<String>()?))),
        },
        (None, Some(time)) => {
            let datetime = time.py().import("datetime")?;
            let time = if time.is_instance_of::<pyo3::types::PyString>() {
                let parsed = datetime.getattr("datetime")?.call_method1("fromisoformat", (time,));
                parsed.map_err(|e| to_py(&Error::invalid_input(format!("`{time}` is not a time: {e}"))))?
            } else {
                time.clone()
            };
            // A time without a zone is UTC, as in SQL.
            let utc = datetime.getattr("timezone")?.getattr("utc")?;
            let zoned = if time.getattr("tzinfo")?.is_none() {
                let arguments = pyo3::types::PyDict::new(time.py());
                arguments.set_item("tzinfo", utc)?;
                time.call_method("replace", (), Some(&arguments))?
            } else {
                time
            };
            let seconds: f64 = zoned.call_method0("timestamp")?.extract()?;
            #[allow(clippy::cast_possible_truncation)] // milliseconds since the epoch fit
            Ok(Some(Version::TimestampMs((seconds * 1000.0).floor() as i64)))
        }
    }
}
