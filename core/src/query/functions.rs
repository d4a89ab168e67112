//! `read_parquet`, `read_csv`, `read_json`: files as tables.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result as EngineResult, ScalarValue, not_impl_err, plan_err};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use tarndb_catalog::Error;

use super::blocking;
use crate::error::{engine_error, to_engine_error};

/// The formats of files that are read as tables.
#[derive(Debug, Clone, Copy)]
enum Format {
    Parquet,
    Csv,
    Json,
}

pub(super) fn register(context: &SessionContext) {
    for (name, format) in [("read_parquet", Format::Parquet), ("read_csv", Format::Csv), ("read_json", Format::Json)] {
        context.register_udtf(name, Arc::new(ReadFiles { name, format }));
    }
    for name in ["iceberg_scan", "table_changes"] {
        context.register_udtf(name, Arc::new(NotOffered(name)));
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
            match argument {
                Expr::Literal(ScalarValue::Utf8(Some(path)) | ScalarValue::Utf8View(Some(path)), _) => {
                    urls.push(ListingTableUrl::parse(path)?);
                }
                other => return plan_err!("{} takes paths as string literals, not `{other}`", self.name),
            }
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
