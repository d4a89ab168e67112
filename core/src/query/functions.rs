//! `read_parquet`, `read_csv`, `read_json`: files as tables. `iceberg_scan`: a table without its catalog.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result as EngineResult, ScalarValue, not_impl_err, plan_err};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use tarndb_catalog::Error;

use super::blocking;
use super::catalog_provider::LakeCatalogs;
use super::table_provider::IcebergTableProvider;
use crate::error::{engine_error, to_engine_error};
use crate::table::{Environment, Table};

/// The formats of files that are read as tables.
#[derive(Debug, Clone, Copy)]
enum Format {
    Parquet,
    Csv,
    Json,
}

pub(super) fn register(context: &SessionContext, env: &Arc<Environment>) {
    for (name, format) in [("read_parquet", Format::Parquet), ("read_csv", Format::Csv), ("read_json", Format::Json)] {
        context.register_udtf(name, Arc::new(ReadFiles { name, format }));
    }
    context.register_udtf("iceberg_scan", Arc::new(IcebergScan(Arc::clone(env))));
    context.register_udtf("table_changes", Arc::new(NotOffered("table_changes")));
}

/// Reads an Iceberg table by the path of its folder, or of one of its metadata files.
#[derive(Debug)]
struct IcebergScan(Arc<Environment>);

impl TableFunctionImpl for IcebergScan {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> EngineResult<Arc<dyn TableProvider>> {
        let [path] = args.exprs() else {
            return plan_err!("iceberg_scan takes one path: that of a table's folder or metadata file");
        };
        let path = path_of("iceberg_scan", path)?;
        let table = blocking::wait(Table::at_path(&self.0, path)).map_err(to_engine_error)?;
        let catalogs = args.session().as_any().downcast_ref::<SessionState>().map(SessionState::catalog_list);
        let provider = match catalogs.and_then(|catalogs| LakeCatalogs::of(catalogs.as_ref())) {
            Some(catalogs) => catalogs.provider(table, path),
            None => IcebergTableProvider::try_new(table),
        };
        Ok(Arc::new(provider.map_err(to_engine_error)?))
    }
}

/// A path that was given as a string.
fn path_of<'a>(function: &str, argument: &'a Expr) -> EngineResult<&'a str> {
    match argument {
        Expr::Literal(ScalarValue::Utf8(Some(path)) | ScalarValue::Utf8View(Some(path)), _) => Ok(path),
        other => plan_err!("{function} takes paths as string literals, not `{other}`"),
    }
}

/// A table function of api.md that is not offered yet.
#[derive(Debug)]
struct NotOffered(&'static str);

impl TableFunctionImpl for NotOffered {
    fn call_with_args(&self, _args: TableFunctionArgs<'_, '_>) -> EngineResult<Arc<dyn TableProvider>> {
        not_impl_err!("{} is not supported yet", self.0)
    }
}

/// Reads files by path or glob pattern; the first line of CSV files names the columns, JSON files hold an object a line.
#[derive(Debug)]
struct ReadFiles {
    name: &'static str,
    format: Format,
}

impl TableFunctionImpl for ReadFiles {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> EngineResult<Arc<dyn TableProvider>> {
        let mut urls = Vec::new();
        for argument in args.exprs() {
            urls.push(ListingTableUrl::parse(path_of(self.name, argument)?)?);
        }
        if urls.is_empty() {
            return plan_err!("{} needs a path, such as {}('in/*')", self.name, self.name);
        }
        let (format, extension): (Arc<dyn FileFormat>, &str) = match self.format {
            Format::Parquet => (Arc::new(ParquetFormat::default()), ".parquet"),
            Format::Csv => (Arc::new(CsvFormat::default().with_has_header(true)), ".csv"),
            Format::Json => (Arc::new(JsonFormat::default()), ".json"),
        };
        // A file or pattern that is named is read whatever its extension; a folder is searched for the format's own.
        let in_folder = urls.iter().any(|url| url.is_collection() && url.get_glob().is_none());
        let options = ListingOptions::new(format)
            .with_file_extension(if in_folder { extension } else { "" })
            .with_session_config_options(args.session().config());
        let session = args.session();
        let names = urls.iter().map(|url| url.as_str().to_string()).collect::<Vec<_>>().join(", ");
        let config = blocking::wait(async move {
            let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options);
            config.infer_schema(session).await.map_err(engine_error)
        })
        .map_err(|e| to_engine_error(e.with_context("file", names.clone())))?;
        if config.file_schema.as_ref().is_none_or(|schema| schema.fields().is_empty()) {
            return Err(to_engine_error(Error::not_found(format!("{} finds no file at `{names}`", self.name))));
        }
        Ok(Arc::new(ListingTable::try_new(config)?))
    }
}
