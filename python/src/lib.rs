//! The Python module `tarndb`: the same verbs as in Rust, on Arrow data of any library. No rules live here.
#![allow(missing_docs)] // documented for users in the `.pyi` file

mod error;
mod extractor;
mod input;
mod lakehouse;
mod metadata_index;
mod not_offered;
mod result;
mod runtime;
mod table;

use pyo3::prelude::*;

#[pymodule]
fn _native(py: Python<'_>, module: &Bound<'_, PyModule>) -> PyResult<()> {
    tarndb_allocator::set_up();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<lakehouse::PyLakehouse>()?;
    module.add_class::<table::PyTarnTable>()?;
    module.add_class::<metadata_index::PyMetadataIndex>()?;
    module.add_class::<extractor::PyContent>()?;
    module.add_class::<result::PyResultSet>()?;
    module.add_function(wrap_pyfunction!(extractor::register_extractor, module)?)?;
    module.add_function(wrap_pyfunction!(lakehouse::connect, module)?)?;
    module.add_function(wrap_pyfunction!(lakehouse::read_iceberg, module)?)?;
    error::register(py, module)
}
