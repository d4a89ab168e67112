use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef, TimeUnit};
use datafusion::execution::memory_pool::MemoryPool;
use futures::{Stream, StreamExt, TryStreamExt};
use iceberg::spec::{FormatVersion, NestedField, Schema, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec};
use iceberg::{NamespaceIdent, TableCreation, TableIdent};
use tarndb_catalog::{Error, ErrorKind, LoadedTable, Result};

use super::alter_table::literal;
use super::parse::{CreateTable, PartitionField, parse_transform};
use super::{plan, run_plan};
use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult, write_batches};
use crate::table::evolution::{check_kept, check_source, check_version};
use crate::table::{Table, iceberg_type, partition_field_name};
use crate::transaction::create_with_rows;
use crate::writer::{Matching, check_properties};

/// What a table is created with.
#[derive(Debug)]
pub(crate) struct NewTable {
    columns: Vec<NestedField>,
    partition_by: Vec<PartitionField>,
    properties: HashMap<String, String>,
}

impl NewTable {
    fn new(columns: Vec<NestedField>, partition_by: Vec<PartitionField>, properties: Vec<(String, String)>) -> Self {
        Self { columns, partition_by, properties: properties.into_iter().collect() }
    }

    /// With the columns of an Arrow schema.
    pub(crate) fn from_arrow(
        schema: &ArrowSchemaRef,
        partition_by: &[String],
        properties: Vec<(String, String)>,
    ) -> Result<Self> {
        let fields = partition_by.iter().map(|text| parse_transform(text)).collect::<Result<Vec<_>>>()?;
        Ok(Self::new(columns_of(schema)?, fields, properties))
    }
}

fn columns_of(schema: &ArrowSchemaRef) -> Result<Vec<NestedField>> {
    let mut next_id = 0;
    let column = |field: &Arc<arrow::datatypes::Field>| {
        next_id += 1;
        let id = next_id;
        let field_type = iceberg_type(field, &mut next_id)?;
        Ok(NestedField::new(id, field.name(), field_type, !field.is_nullable()))
    };
    schema.fields().iter().map(column).collect()
}

pub(super) async fn create_namespace(lake: &Lakehouse, name: &NamespaceIdent, if_not_exists: bool) -> Result<QueryResult> {
    match lake.env().catalog.create_namespace(name, HashMap::new()).await {
        Err(e) if !(if_not_exists && e.kind() == ErrorKind::AlreadyExists) => Err(e),
        _ => Ok(QueryResult::empty()),
    }
}

pub(super) async fn run(lake: &Lakehouse, statement: CreateTable) -> Result<QueryResult> {
    let CreateTable { table: ident, if_not_exists, mut columns, defaults, partition_by, properties, query } = statement;
    for (name, default) in defaults {
        let Some(column) = columns.iter_mut().find(|column| column.name == name) else { continue };
        let default = literal(lake, &name, &default, &column.field_type)?;
        (column.initial_default, column.write_default) = (default.clone(), default);
    }
    if if_not_exists && lake.env().catalog.table_exists(&ident).await? {
        return Ok(QueryResult::empty());
    }
    let tolerate = |e: Error| {
        if if_not_exists && e.kind() == ErrorKind::AlreadyExists { Ok(QueryResult::empty()) } else { Err(e) }
    };
    let Some(query) = query else {
        let created = create_table(lake, &ident, NewTable::new(columns, partition_by, properties)).await;
        return created.map(|_| QueryResult::empty()).or_else(tolerate);
    };
    if lake.env().catalog.table_exists(&ident).await? {
        return tolerate(Error::new(ErrorKind::AlreadyExists, format!("table `{ident}` exists already")));
    }
    let (state, plan) = plan(lake, query, None).await?;
    let memory = Arc::clone(&state.runtime_env().memory_pool);
    let rows = run_plan(state, plan).await?;
    let rows_schema = Arc::clone(rows.schema());
    // DataFusion's own clock has nanoseconds.
    let rows = rows.and_then(|batch| futures::future::ready(with_microseconds(&batch)));
    // What a query happens not to answer NULL for is no promise about rows to come.
    let columns = columns_of(&Arc::new(nullable(&rows_schema)))?;
    let new = NewTable::new(columns, partition_by, properties);
    match create_table_from(lake, &ident, new, rows.boxed(), &memory).await {
        Ok(count) => QueryResult::counts(&[("rows", count)]),
        Err(e) => tolerate(e),
    }
}

/// Creates a table with rows in the order of its columns: it appears with all of them, or not at all. Returns how many.
pub(crate) async fn create_table_from(
    lake: &Lakehouse,
    ident: &TableIdent,
    new: NewTable,
    rows: impl Stream<Item = Result<RecordBatch>> + Send,
    memory: &Arc<dyn MemoryPool>,
) -> Result<u64> {
    let staged = stage(lake, ident, new).await?;
    let files = write_batches(&staged, rows, Matching::ByPosition, memory).await?;
    let count = files.iter().map(|written| written.file.record_count()).sum();
    if files.is_empty() {
        lake.env().catalog.create_table(ident, TableMetadata::clone(staged.metadata()), Vec::new()).await?;
    } else {
        create_with_rows(&staged, files).await?;
    }
    Ok(count)
}

fn nullable(schema: &ArrowSchema) -> ArrowSchema {
    fn field(of: &FieldRef) -> FieldRef {
        Arc::new(of.as_ref().clone().with_nullable(true).with_data_type(data_type(of.data_type())))
    }
    fn data_type(of: &DataType) -> DataType {
        match of {
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
            DataType::List(element) => DataType::List(field(element)),
            other => other.clone(),
        }
    }
    ArrowSchema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

/// SQL's own times have nanoseconds (`now()`, literals); assigned to a column of microseconds they are cast, as in INSERT.
fn with_microseconds(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let DataType::Timestamp(TimeUnit::Nanosecond, zone) = field.data_type() else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(array));
            continue;
        };
        let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
        columns.push(arrow::compute::cast(array, &micros).map_err(|e| engine_error(e.into()))?);
        fields.push(Arc::new(field.as_ref().clone().with_data_type(micros)));
    }
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).map_err(|e| engine_error(e.into()))
}

/// Creates an empty table.
pub(crate) async fn create_table(lake: &Lakehouse, ident: &TableIdent, new: NewTable) -> Result<Table> {
    let staged = stage(lake, ident, new).await?;
    let loaded = lake.env().catalog.create_table(ident, TableMetadata::clone(staged.metadata()), Vec::new()).await?;
    Ok(Table::new(Arc::clone(lake.env()), loaded))
}

/// A new table that its catalog does not know yet.
async fn stage(lake: &Lakehouse, ident: &TableIdent, new: NewTable) -> Result<Table> {
    let env = lake.env();
    if !env.catalog.namespace_exists(ident.namespace()).await? {
        return Err(Error::not_found(format!("namespace `{}` does not exist", ident.namespace().join("."))));
    }
    let NewTable { columns, partition_by, mut properties } = new;
    if columns.is_empty() {
        return Err(Error::invalid_input(format!("table `{ident}` has no columns")));
    }
    check_names(ident, &columns)?;
    let version = properties.remove("format-version").or_else(|| properties.remove("format_version"));
    let version = match version.as_deref() {
        None | Some("2") => FormatVersion::V2,
        Some("3") => FormatVersion::V3,
        Some("1") => return Err(Error::unsupported("tables of format version 1 cannot be created: leave out `format-version`")),
        Some(other) => return Err(Error::invalid_input(format!("`{other}` is not a format version"))),
    };
    check_version(&columns, version)?;
    let fields = columns.into_iter().map(Arc::new);
    let schema = Schema::builder().with_fields(fields).build()?;
    check_kept(&schema)?;
    let spec = partition_spec(&schema, &partition_by)?;
    let uuid = env.storage.ids().uuid();
    let short: String = uuid.simple().to_string().chars().take(8).collect();
    let location = format!("{}/{}/{}-{short}", env.storage.root(), folder(&ident.namespace().join(".")), folder(ident.name()));
    let creation = TableCreation::builder()
        .name(ident.name().to_string())
        .location(location)
        .schema(schema)
        .partition_spec(spec)
        .properties(properties)
        .format_version(version)
        .build();
    let metadata = TableMetadataBuilder::from_table_creation(creation)?.assign_uuid(uuid).build()?.metadata;
    let loaded = LoadedTable {
        ident: ident.clone(),
        metadata_location: String::new(),
        metadata: Arc::new(metadata),
        unsupported_types: Arc::default(),
    };
    let table = Table::new(Arc::clone(env), loaded);
    check_properties(&table)?;
    Ok(table)
}

/// A name as part of a path: what is unusual becomes `_`; the table's uuid keeps it unique.
fn folder(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
        .collect::<String>()
        .trim_start_matches('.')
        .to_string()
}

/// Refuses names that could not be used afterwards.
pub(super) fn check_name(ident: &TableIdent) -> Result<()> {
    if ident.name().contains('$') {
        return Err(Error::invalid_input(format!(
            "`{}` cannot be a table's name: `$` begins the name of a metadata table",
            ident.name()
        )));
    }
    Ok(())
}

fn check_names(ident: &TableIdent, columns: &[NestedField]) -> Result<()> {
    check_name(ident)?;
    let mut seen = std::collections::HashSet::new();
    for column in columns {
        if !seen.insert(column.name.to_lowercase()) {
            return Err(Error::invalid_input(format!("column `{}` is named twice", column.name)));
        }
        if column.name.is_empty() || column.name.starts_with("_tarndb_") {
            return Err(Error::invalid_input(format!("`{}` cannot be a column's name", column.name)));
        }
    }
    Ok(())
}

fn partition_spec(schema: &Schema, fields: &[PartitionField]) -> Result<UnboundPartitionSpec> {
    let mut builder = UnboundPartitionSpec::builder();
    for PartitionField { column, transform } in fields {
        let source = schema.field_by_name(column);
        let source = source
            .ok_or_else(|| Error::invalid_input(format!("the table is partitioned by `{column}`, which is not a column")))?;
        check_source(source, column, *transform)?;
        builder = builder.add_partition_field(source.id, partition_field_name(schema, column, transform), *transform)?;
    }
    Ok(builder.build())
}
