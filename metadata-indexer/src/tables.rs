//! The tables of an index: those of S3 Metadata, column for column.

use std::collections::HashMap;

use tarndb_core::{Error, ErrorKind, Lakehouse, Result, Table};

use crate::options::IndexOptions;
use crate::source::Source;

/// Table property: what is indexed. That of the journal makes a namespace an index.
const SOURCE: &str = "tarndb.metadata-index.source";

/// Table property: the source was the root of a mounted file system when the index was created.
const MOUNTED: &str = "tarndb.metadata-index.mounted";

/// Table properties of the journal: options of the index, each with its name behind this.
const OPTION: &str = "tarndb.metadata-index.option.";

/// Table properties of all tables: files of 128 MiB, whose row groups are written and compacted beside whatever the process is there
/// for, snapshots for a day, as S3 Metadata has them, and few files of metadata.
const UPKEEP: [(&str, &str); 5] = [
    ("write.target-file-size-bytes", "134217728"),
    ("write.parquet.row-group-size-bytes", "33554432"),
    ("history.expire.max-snapshot-age-ms", "86400000"),
    ("write.metadata.delete-after-commit.enabled", "true"),
    ("write.metadata.previous-versions-max", "20"),
];

/// Table properties of those that are asked for single objects, for which a page of rows is read, and the dictionary of its column: that of
/// keys and tags of contents, each of which is there once, would be of no use and as large as it may be.
const LOOK_UPS: &str = "'write.parquet.page-row-limit' = '2048', 'write.parquet.dict-size-bytes' = '65536'";

/// Table property of all that have keys: most files have none that is asked for, and their bloom filters tell.
const KEYS: &str = "'write.parquet.bloom-filter-enabled.column.key' = 'true'";

/// Table property of `tarndb_core`: columns of whose values data files tell the rows, and those of each table.
const BITMAP_COLUMNS: &str = "tarndb.bitmap-columns";
const INVENTORY_BITMAPS: &str = "object_tags,user_metadata,storage_class";
const ANNOTATION_BITMAPS: &str = "media_type,text_encoding,attributes";

/// How long nobody takes to create the journal after the inventory.
const LEFT_AFTER_MS: i64 = 60_000;

/// Partitions of the inventory, by the hash of the key.
const INVENTORY_BUCKETS: u32 = 4;

/// The columns that both tables have after `sequence_number`, in S3's order.
const OBJECT_COLUMNS: &str = "version_id STRING, is_delete_marker BOOLEAN, size BIGINT, last_modified_date TIMESTAMP, e_tag STRING, \
     storage_class STRING, is_multipart BOOLEAN, encryption_status STRING, is_bucket_key_enabled BOOLEAN, kms_key_arn STRING, \
     checksum_algorithm STRING, object_tags MAP<STRING, STRING>, user_metadata MAP<STRING, STRING>";

/// What `annotations` has after `sequence_number`, which is that of the object in the inventory when its content was looked at.
const ANNOTATION_COLUMNS: &str = "version_id STRING, e_tag STRING, annotated_at TIMESTAMP NOT NULL, media_type STRING, \
     image_width INT, image_height INT, exif MAP<STRING, STRING>, parquet_rows BIGINT, parquet_columns MAP<STRING, STRING>, \
     text_lines BIGINT, text_encoding STRING, attributes MAP<STRING, STRING>, errors MAP<STRING, STRING>";

const KEY_COLUMNS: &str = "bucket STRING NOT NULL, key STRING NOT NULL, sequence_number STRING NOT NULL";

/// The names of an index's tables in SQL.
#[derive(Debug, Clone)]
pub(crate) struct TableNames {
    pub(crate) namespace: String,
    pub(crate) journal: String,
    pub(crate) inventory: String,
    /// What contents tell; it is there when the index has extractors.
    pub(crate) annotations: String,
    /// What came as an event and was not understood.
    pub(crate) dead_letters: String,
}

impl TableNames {
    pub(crate) fn of(index: &str) -> Self {
        let namespace = quoted(index);
        let table = |name: &str| format!("{namespace}.{name}");
        let (journal, inventory, annotations) = (table("journal"), table("inventory"), table("annotations"));
        Self { journal, inventory, annotations, dead_letters: table("dead_letters"), namespace }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn run(lake: &Lakehouse, statement: &str) -> Result<()> {
    lake.sql(statement).await?.collect().await.map(|_| ())
}

/// Creates the tables of an index. The journal, with what makes the namespace an index, comes last.
///
/// # Errors
/// `AlreadyExists` when the namespace has a table of such a name.
pub(crate) async fn create(lake: &Lakehouse, names: &TableNames, source: &Source, options: &IndexOptions) -> Result<()> {
    run(lake, &format!("CREATE NAMESPACE IF NOT EXISTS {}", names.namespace)).await?;
    let TableNames { journal, inventory, annotations, .. } = names;
    // What is left of an index of which the journal was never created, unless someone is about to.
    let oldest_ms = lake.storage().clock().now_ms().saturating_sub(LEFT_AFTER_MS);
    for table in [annotations, inventory] {
        match lake.table(table).await {
            Ok(left) if self::source(&left).is_some() && left.metadata().last_updated_ms() < oldest_ms => {
                lake.drop_table(table, true).await?;
            }
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    let is_foreign = |table: &Table| self::source(table).is_none();
    if lake_table(lake, &names.dead_letters).await?.as_ref().is_some_and(is_foreign) {
        let message = format!("the table {} is none of a metadata index, which needs its name", names.dead_letters);
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    let mut properties = vec![(SOURCE.to_string(), source.url())];
    properties.extend(UPKEEP.map(|(name, value)| (name.to_string(), value.to_string())));
    properties.extend(source.is_mounted().then(|| (MOUNTED.to_string(), "true".to_string())));
    properties.extend(options.iter().map(|(name, value)| (format!("{OPTION}{name}"), value.to_string())));
    let text = |text: &str| text.replace('\'', "''");
    let properties: Vec<String> =
        properties.iter().map(|(name, value)| format!("'{}' = '{}'", text(name), text(value))).collect();
    let properties = properties.join(", ");
    let by_key = |columns: &str, bitmaps: &str| {
        let properties = format!("TBLPROPERTIES ({properties}, {KEYS}, {LOOK_UPS}, '{BITMAP_COLUMNS}' = '{bitmaps}')");
        format!("({KEY_COLUMNS}, {columns}) PARTITIONED BY (bucket({INVENTORY_BUCKETS}, key)) {properties}")
    };
    let mut statements = vec![(inventory, by_key(OBJECT_COLUMNS, INVENTORY_BITMAPS))];
    if !options.extract()?.is_empty() {
        statements.push((annotations, by_key(ANNOTATION_COLUMNS, ANNOTATION_BITMAPS)));
    }
    let columns = format!(
        "{KEY_COLUMNS}, record_type STRING NOT NULL, record_timestamp TIMESTAMP NOT NULL, {OBJECT_COLUMNS}, \
         requester STRING, source_ip_address STRING, request_id STRING"
    );
    statements
        .push((journal, format!("({columns}) PARTITIONED BY (day(record_timestamp)) TBLPROPERTIES ({properties}, {KEYS})")));
    let mut made = Vec::new();
    for (table, definition) in statements {
        if let Err(error) = run(lake, &format!("CREATE TABLE {table} {definition}")).await {
            for made in made {
                lake.drop_table(made, true).await?;
            }
            return Err(error);
        }
        made.push(table);
    }
    Ok(())
}

/// Drops the tables of an index with their files, and its namespace when nothing else is in it. The journal goes last: until then
/// there is the index.
pub(crate) async fn drop(lake: &Lakehouse, names: &TableNames) -> Result<()> {
    for table in [&names.dead_letters, &names.annotations, &names.inventory, &names.journal] {
        // Where an index has none of this name, it is somebody's own.
        if lake_table(lake, table).await?.as_ref().and_then(source).is_none() {
            continue;
        }
        match lake.drop_table(table, true).await {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    if lake.tables(Some(&names.namespace)).await?.is_empty() {
        run(lake, &format!("DROP NAMESPACE {}", names.namespace)).await?;
    }
    Ok(())
}

async fn lake_table(lake: &Lakehouse, name: &str) -> Result<Option<Table>> {
    match lake.table(name).await {
        Ok(table) => Ok(Some(table)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the index is about that this table is of; `None` when it is of none.
pub(crate) fn source(table: &Table) -> Option<&str> {
    table.metadata().properties().get(SOURCE).map(String::as_str)
}

/// The options of the index that this journal is of.
///
/// # Errors
/// `Unsupported` for options that a later version of this crate knows.
pub(crate) fn options(journal: &Table) -> Result<IndexOptions> {
    let properties = journal.metadata().properties().iter();
    let mut given = properties.filter_map(|(name, value)| Some((name.strip_prefix(OPTION)?, value)));
    given.try_fold(IndexOptions::default(), |options, (name, value)| options.with(name, value))
}

/// The table of what was not understood, created when it is not there: most indexes need none.
pub(crate) async fn create_dead_letters(lake: &Lakehouse, names: &TableNames, source: &str) -> Result<()> {
    let (table, columns) = (&names.dead_letters, "received_at TIMESTAMP NOT NULL, reason STRING NOT NULL, body STRING");
    let properties = std::iter::once((SOURCE, source)).chain(UPKEEP);
    let properties: Vec<String> = properties.map(|(name, value)| format!("'{name}' = '{}'", value.replace('\'', "''"))).collect();
    let properties = properties.join(", ");
    run(lake, &format!("CREATE TABLE IF NOT EXISTS {table} ({columns}) TBLPROPERTIES ({properties})")).await
}

/// That table; `None` where everything was understood.
pub(crate) async fn dead_letters(lake: &Lakehouse, names: &TableNames) -> Result<Option<Table>> {
    Ok(lake_table(lake, &names.dead_letters).await?.filter(|table| source(table).is_some()))
}

/// Whether the source was the root of a file system that is mounted.
pub(crate) fn is_mounted(table: &Table) -> bool {
    table.metadata().properties().contains_key(MOUNTED)
}

/// How many rows a table has, by its snapshot's summary.
pub(crate) fn row_count(table: &Table) -> Result<u64> {
    let Some(snapshot) = table.snapshot() else { return Ok(0) };
    let summary: &HashMap<String, String> = &snapshot.summary().additional_properties;
    let total = |key: &str| {
        let value = summary.get(key).and_then(|text| text.parse::<u64>().ok());
        value.ok_or_else(|| {
            Error::data_invalid(format!("a snapshot's summary has no `{key}`")).with_context("table", table.ident().to_string())
        })
    };
    Ok(total("total-records")?.saturating_sub(total("total-position-deletes")?))
}
