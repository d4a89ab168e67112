use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_arrow::PySchema;
use tarndb::inspect::MetadataTable;
use tarndb::maintenance::{
    ExpireSnapshotsOptions, RemoveOrphanFilesOptions, RewriteDataFilesOptions, expire_snapshots, remove_orphan_files,
    rewrite_data_files,
};
use tarndb::{Error, Lakehouse, QueryResult, Result, Table, Version};

use crate::error::to_py;
use crate::input;
use crate::lakehouse::version_of;
use crate::not_offered;
use crate::result::PyResultSet;
use crate::runtime::wait;

#[pyclass(frozen, name = "Table", module = "tarndb")]
pub(crate) struct PyTarnTable {
    lake: Lakehouse,
    name: String,
    version: Option<Version>,
}

impl PyTarnTable {
    pub(crate) fn new(lake: Lakehouse, name: String, version: Option<Version>) -> Self {
        Self { lake, name, version }
    }

    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, self.load()).map(|_| ())
    }

    async fn load(&self) -> Result<Table> {
        let table = self.lake.table(&self.name).await?;
        match &self.version {
            Some(version) => table.at(version),
            None => Ok(table),
        }
    }

    async fn load_writable(&self) -> Result<Table> {
        if self.version.is_some() {
            return Err(Error::invalid_input("an earlier version of a table cannot be changed"));
        }
        self.lake.table(&self.name).await
    }

    fn metadata_rows(&self, py: Python<'_>, of: MetadataTable) -> PyResult<PyResultSet> {
        let rows = wait(py, async { of.rows(&self.load().await?).await })?;
        Ok(PyResultSet::new(QueryResult::from_batches(rows.schema(), vec![rows])))
    }
}

fn counts<'py>(py: Python<'py>, pairs: &[(&str, u64)]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in pairs {
        dict.set_item(key, value)?;
    }
    Ok(dict)
}

/// Milliseconds since the epoch of a datetime or an ISO string.
fn time_ms(time: Option<&Bound<'_, PyAny>>) -> PyResult<Option<i64>> {
    Ok(match version_of(None, time)? {
        Some(Version::TimestampMs(ms)) => Some(ms),
        _ => None,
    })
}

/// Methods to come.
const PLANNED: [&str; 6] =
    ["compute_table_stats", "overwrite", "rewrite_manifests", "rewrite_position_delete_files", "update", "upsert"];

#[pymethods]
impl PyTarnTable {
    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(not_offered::attribute(py, "Table", &PLANNED, name))
    }

    fn append<'py>(&self, py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let rows = input::rows(data)?;
        let appended = wait(py, async {
            self.load_writable().await?;
            self.lake.append(&self.name, input::stream(rows)).await
        })?;
        let dict = counts(py, &[("rows", appended.rows), ("files", appended.files)])?;
        dict.set_item("snapshot_id", appended.snapshot_id)?;
        Ok(dict)
    }

    fn delete<'py>(&self, py: Python<'py>, r#where: &str) -> PyResult<Bound<'py, PyDict>> {
        let deleted = wait(py, async {
            self.load_writable().await?;
            self.lake.delete(&self.name, r#where).await
        })?;
        counts(
            py,
            &[
                ("rows", deleted.rows),
                ("removed_data_files", deleted.removed_data_files),
                ("added_delete_files", deleted.added_delete_files),
            ],
        )
    }

    #[pyo3(signature = (columns=None, r#where=None, limit=None, version=None))]
    fn scan(
        &self,
        py: Python<'_>,
        columns: Option<Vec<String>>,
        r#where: Option<&str>,
        limit: Option<usize>,
        version: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyResultSet> {
        let version = version_of(version, None)?;
        let result = wait(py, async {
            let mut table = self.load().await?;
            if let Some(version) = &version {
                table = table.at(version)?;
            }
            self.lake.scan(&table, columns.as_deref(), r#where, limit).await
        })?;
        Ok(PyResultSet::new(result))
    }

    fn snapshots(&self, py: Python<'_>) -> PyResult<PyResultSet> {
        self.metadata_rows(py, MetadataTable::Snapshots)
    }

    fn history(&self, py: Python<'_>) -> PyResult<PyResultSet> {
        self.metadata_rows(py, MetadataTable::History)
    }

    fn files(&self, py: Python<'_>) -> PyResult<PyResultSet> {
        self.metadata_rows(py, MetadataTable::Files)
    }

    fn refs(&self, py: Python<'_>) -> PyResult<PyResultSet> {
        self.metadata_rows(py, MetadataTable::Refs)
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let schema = wait(py, async { self.load().await?.arrow_schema() })?;
        PySchema::new(schema).into_pyarrow(py)
    }

    #[getter]
    fn properties(&self, py: Python<'_>) -> PyResult<HashMap<String, String>> {
        wait(py, async { Ok(self.load().await?.metadata().properties().clone()) })
    }

    #[getter]
    fn current_snapshot_id(&self, py: Python<'_>) -> PyResult<Option<i64>> {
        wait(py, async { Ok(self.load().await?.snapshot().map(|snapshot| snapshot.snapshot_id())) })
    }

    #[getter]
    fn location(&self, py: Python<'_>) -> PyResult<String> {
        wait(py, async { Ok(self.load().await?.location().to_string()) })
    }

    #[getter]
    fn metadata_location(&self, py: Python<'_>) -> PyResult<String> {
        wait(py, async { Ok(self.load().await?.metadata_location().to_string()) })
    }

    #[pyo3(signature = (strategy="auto", r#where=None, progress=None, **options))]
    fn rewrite_data_files<'py>(
        &self,
        py: Python<'py>,
        strategy: &str,
        r#where: Option<&str>,
        progress: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        if !matches!(strategy, "auto" | "binpack") {
            return Err(to_py(&Error::unsupported(format!("the strategy `{strategy}` is not supported yet: use binpack"))));
        }
        if progress.is_some_and(|progress| !progress.is_none()) {
            return Err(to_py(&Error::unsupported("progress is not reported yet")));
        }
        let options = rewrite_options(options)?;
        let done = wait(py, async {
            let table = self.load_writable().await?;
            let filters = match r#where {
                Some(condition) => vec![self.lake.predicate(&table, condition)?],
                None => Vec::new(),
            };
            rewrite_data_files(&table, &options, &filters).await
        })?;
        counts(
            py,
            &[
                ("rewritten_data_files_count", done.rewritten_data_files_count as u64),
                ("added_data_files_count", done.added_data_files_count as u64),
                ("rewritten_bytes_count", done.rewritten_bytes_count),
                ("failed_data_files_count", done.failed_data_files_count as u64),
                ("removed_delete_files_count", done.removed_delete_files_count as u64),
            ],
        )
    }

    #[pyo3(signature = (older_than=None, retain_last=None))]
    fn expire_snapshots<'py>(
        &self,
        py: Python<'py>,
        older_than: Option<&Bound<'py, PyAny>>,
        retain_last: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let options = ExpireSnapshotsOptions { older_than_ms: time_ms(older_than)?, retain_last };
        let done = wait(py, async { expire_snapshots(&self.load_writable().await?, &options).await })?;
        counts(
            py,
            &[
                ("deleted_snapshots_count", done.deleted_snapshots_count as u64),
                ("deleted_data_files_count", done.deleted_data_files_count as u64),
                ("deleted_position_delete_files_count", done.deleted_position_delete_files_count as u64),
                ("deleted_equality_delete_files_count", done.deleted_equality_delete_files_count as u64),
                ("deleted_manifest_files_count", done.deleted_manifest_files_count as u64),
                ("deleted_manifest_lists_count", done.deleted_manifest_lists_count as u64),
                ("deleted_statistics_files_count", done.deleted_statistics_files_count as u64),
            ],
        )
    }

    #[pyo3(signature = (older_than=None, dry_run=true, force=false))]
    fn remove_orphan_files(
        &self,
        py: Python<'_>,
        older_than: Option<&Bound<'_, PyAny>>,
        dry_run: bool,
        force: bool,
    ) -> PyResult<Vec<String>> {
        let options = RemoveOrphanFilesOptions { older_than_ms: time_ms(older_than)?, force, dry_run };
        wait(py, async { remove_orphan_files(&self.load_writable().await?, &options).await })
    }

    fn __repr__(&self) -> String {
        format!("Table({:?})", self.name)
    }
}

fn rewrite_options(given: Option<&Bound<'_, PyDict>>) -> PyResult<RewriteDataFilesOptions> {
    let mut options = RewriteDataFilesOptions::default();
    let Some(given) = given else {
        return Ok(options);
    };
    for (key, value) in given.iter() {
        let key: String = key.extract()?;
        match key.as_str() {
            "target_file_size_bytes" => options.target_file_size_bytes = Some(value.extract()?),
            "min_file_size_bytes" => options.min_file_size_bytes = Some(value.extract()?),
            "max_file_size_bytes" => options.max_file_size_bytes = Some(value.extract()?),
            "min_input_files" => options.min_input_files = value.extract()?,
            "delete_file_threshold" => options.delete_file_threshold = value.extract()?,
            "delete_ratio_threshold" => options.delete_ratio_threshold = value.extract()?,
            "rewrite_all" => options.rewrite_all = value.extract()?,
            "max_file_group_size_bytes" => options.max_file_group_size_bytes = value.extract()?,
            "max_concurrent_file_group_rewrites" => options.max_concurrent_file_group_rewrites = value.extract()?,
            other => return Err(to_py(&Error::invalid_input(format!("rewrite_data_files has no option `{other}`")))),
        }
    }
    Ok(options)
}
