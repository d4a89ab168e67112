//! Tables and their snapshots.

mod environment;
pub(crate) mod evolution;
pub mod inspect;
mod memory;
mod partition;
mod partition_text;
pub(crate) mod properties;
mod schema;
pub(crate) mod time_travel;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use datafusion::common::ScalarValue;
use iceberg::TableIdent;
use iceberg::spec::{FormatVersion, Literal, NestedField, Schema, Snapshot, SnapshotRef, TableMetadata, Type};
use tarndb_catalog::{Error, LoadedTable, PathTable, Result, Storage, table_replaced};

pub(crate) use environment::Environment;
pub(crate) use evolution::partition_field_name;
pub(crate) use partition::{MICROS_PER_DAY, PartitionColumn, partition_scalar, schema_for_spec};
pub(crate) use partition_text::partition_parts;
pub use schema::is_uuid_field;
pub(crate) use schema::{
    EXTENSION_KEY, UUID_EXTENSION, arrow_schema, engine_schema, engine_schema_with_ids, engine_type, iceberg_type,
};
pub use time_travel::Version;

/// A table at one moment: immutable metadata and the snapshot that is read.
///
/// What others commit later does not show here; load the table again to see it.
#[derive(Debug, Clone)]
pub struct Table {
    env: Arc<Environment>,
    loaded: LoadedTable,
    snapshot: Option<SnapshotRef>,
    schema: Arc<Schema>,
}

impl Table {
    pub(crate) fn new(env: Arc<Environment>, loaded: LoadedTable) -> Self {
        let snapshot = loaded.metadata.current_snapshot().cloned();
        let schema = Arc::clone(loaded.metadata.current_schema());
        Self { env, loaded, snapshot, schema }
    }

    /// A table without a catalog, by the path of its folder or of one of its metadata files.
    pub(crate) async fn at_path(env: &Environment, path: &str) -> Result<Self> {
        let PathTable { loaded, storage } = PathTable::open(&env.storage, path).await?;
        Ok(Self::new(Arc::new(env.with_storage(storage)), loaded))
    }

    /// The table as an earlier snapshot left it, with the schema that was current then.
    ///
    /// # Errors
    /// `NotFound` when there is no such version.
    pub fn at(&self, version: &Version) -> Result<Self> {
        let snapshot =
            time_travel::resolve(self.metadata(), version).map_err(|e| e.with_context("table", self.ident().to_string()))?;
        // A branch goes on in the table's current schema; a tag or an older snapshot is read as it was.
        let schema = match version {
            Version::Ref(name) if time_travel::is_branch(self.metadata(), name) => Arc::clone(self.metadata().current_schema()),
            _ => snapshot.schema(self.metadata())?,
        };
        Ok(Self { snapshot: Some(snapshot), schema, ..self.clone() })
    }

    /// Name of the table.
    pub fn ident(&self) -> &TableIdent {
        &self.loaded.ident
    }

    /// The table's metadata, all snapshots included.
    pub fn metadata(&self) -> &Arc<TableMetadata> {
        &self.loaded.metadata
    }

    /// Location of the metadata file.
    pub fn metadata_location(&self) -> &str {
        &self.loaded.metadata_location
    }

    /// The table's own folder.
    pub fn location(&self) -> &str {
        self.metadata().location()
    }

    /// The snapshot that this table reads; `None` while nothing was ever committed.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_deref()
    }

    /// The schema of that snapshot.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The schema in Arrow, with `PARQUET:field_id` on every field.
    ///
    /// # Errors
    /// `Unsupported` for types that Arrow lacks.
    pub fn arrow_schema(&self) -> Result<ArrowSchemaRef> {
        arrow_schema(&self.schema)
    }

    /// Where the table's files are: that of its lake, or its own folder for a table that was opened by its path.
    pub fn storage(&self) -> &Storage {
        &self.env.storage
    }

    pub(crate) fn env(&self) -> &Arc<Environment> {
        &self.env
    }

    pub(crate) fn loaded(&self) -> &LoadedTable {
        &self.loaded
    }

    /// The state that the catalog has now.
    ///
    /// # Errors
    /// `CommitConflict` when the name stands for another table by now.
    pub(crate) async fn refresh(&self) -> Result<Self> {
        let loaded = self.env.catalog.load_table(self.ident()).await?;
        if loaded.metadata.uuid() != self.metadata().uuid() {
            return Err(table_replaced(self.ident()));
        }
        Ok(Self::new(Arc::clone(&self.env), loaded))
    }

    /// The type, as the metadata file has it, of a top-level column that cannot be read: it, or something inside of it, is of a
    /// type that is not supported yet.
    pub fn unsupported_type(&self, column: &NestedField) -> Option<&str> {
        fn of<'a>(unsupported: &'a BTreeMap<i32, String>, id: i32, data_type: &Type) -> Option<&'a String> {
            let inside = || match data_type {
                Type::Primitive(_) => None,
                Type::Struct(fields) => fields.fields().iter().find_map(|field| of(unsupported, field.id, &field.field_type)),
                Type::List(list) => of(unsupported, list.element_field.id, &list.element_field.field_type),
                Type::Map(map) => of(unsupported, map.key_field.id, &map.key_field.field_type)
                    .or_else(|| of(unsupported, map.value_field.id, &map.value_field.field_type)),
            };
            unsupported.get(&id).or_else(inside)
        }
        if self.loaded.unsupported_types.is_empty() {
            return None;
        }
        of(&self.loaded.unsupported_types, column.id, &column.field_type).map(String::as_str)
    }

    /// Refuses to read columns (all, or those of these indexes) of types that are not supported.
    pub(crate) fn check_columns(&self, columns: Option<&[usize]>) -> Result<()> {
        if self.loaded.unsupported_types.is_empty() {
            return Ok(());
        }
        let fields = self.schema.as_struct().fields();
        let read = fields.iter().enumerate().filter(|(index, _)| columns.is_none_or(|columns| columns.contains(index)));
        for (_, field) in read {
            if let Some(of) = self.unsupported_type(field) {
                let message = format!("column `{}` is of the type {of}, which cannot be read yet: name the others", field.name);
                return Err(Error::unsupported(message).with_context("table", self.ident().to_string()));
            }
        }
        Ok(())
    }

    /// What columns get that a writer leaves out, by name: top-level columns with a write default.
    pub(crate) fn write_defaults(&self) -> Result<HashMap<String, ScalarValue>> {
        let mut defaults = HashMap::new();
        for field in self.metadata().current_schema().as_struct().fields() {
            let (Some(default), Some(of)) = (&field.write_default, field.field_type.as_primitive_type()) else { continue };
            let value = match default {
                Literal::Primitive(value) => partition_scalar(&engine_type(of)?, value),
                _ => None,
            };
            let value = value.ok_or_else(|| {
                let message = format!("the default of column `{}`, {default:?}, is not supported", field.name);
                Error::unsupported(message).with_context("table", self.ident().to_string())
            })?;
            defaults.insert(field.name.clone(), value);
        }
        Ok(defaults)
    }

    /// The folder of new data and delete files: `write.data.path`, or `data` in the table's own folder.
    pub(crate) fn data_folder(&self) -> String {
        self.folder(properties::WRITE_DATA_PATH, "data")
    }

    /// The folder of new manifests and manifest lists: `write.metadata.path`, or `metadata` in the table's own folder.
    pub(crate) fn metadata_folder(&self) -> String {
        self.folder(properties::WRITE_METADATA_PATH, "metadata")
    }

    fn folder(&self, property: &str, default: &str) -> String {
        let own = || format!("{}/{default}", self.location().trim_end_matches('/'));
        self.metadata().properties().get(property).map_or_else(own, |path| path.trim_end_matches('/').to_string())
    }

    /// Refuses to change tables whose rules for writers are not implemented: of format version 1, or with files in places that
    /// are not the lake's.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_columns(None)?;
        if let Some(path) = self.metadata().properties().get(properties::OBJECT_STORAGE_PATH) {
            let message = format!("tables with `{}` (`{path}`) cannot be changed yet", properties::OBJECT_STORAGE_PATH);
            return Err(Error::unsupported(message).with_context("table", self.ident().to_string()));
        }
        for property in [properties::WRITE_DATA_PATH, properties::WRITE_METADATA_PATH] {
            let Some(path) = self.metadata().properties().get(property) else { continue };
            self.env.storage.path(path).map_err(|e| {
                let message = format!("table property `{property}` names a folder that is not the lake's: `{path}`");
                Error::unsupported(message).with_context("table", self.ident().to_string()).with_source(e)
            })?;
        }
        match self.metadata().format_version() {
            FormatVersion::V2 | FormatVersion::V3 => Ok(()),
            FormatVersion::V1 => {
                let message = "tables of format version 1 can be read but not changed: ALTER TABLE … SET TBLPROPERTIES \
                               ('format-version' = '2') makes it one of version 2";
                Err(Error::unsupported(message).with_context("table", self.ident().to_string()))
            }
        }
    }
}
