//! What `fuzz/` calls: everything that decodes bytes of other writers, each with the bytes of one file. Only there with the
//! feature `fuzzing`.

use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef};
use iceberg::spec::{ManifestFile, TableMetadata};

use crate::manifest::fuzzing as manifests;
use crate::positions;
use crate::scan::fuzzing as scans;

/// A table with a partition spec of every transform, for the types of partitions.
static TABLE: LazyLock<Option<TableMetadata>> = LazyLock::new(|| serde_json::from_str(include_str!("fuzzing.json")).ok());

pub use tarndb_catalog::fuzz_metadata as metadata_json;

/// A manifest list of any version.
pub fn manifest_list(bytes: &[u8]) {
    let _ = black_box(manifests::list(bytes));
}

/// A manifest, as planning and as commits decode it.
pub fn manifest(bytes: &[u8]) {
    let Ok(line) = manifests::line_of(bytes) else { return };
    let _ = black_box(manifests::columns(bytes, &line));
    if let Some(table) = TABLE.as_ref() {
        let line = ManifestFile { partition_spec_id: table.default_partition_spec_id(), ..line };
        let _ = black_box(manifests::entries(bytes, &line, table));
    }
}

/// The blob of a deletion vector in a Puffin file.
pub fn deletion_vector(bytes: &[u8]) {
    let _ = black_box(scans::deletion_vector(bytes));
}

/// Where in a data file the rows of each value are.
pub fn rows_of_value(bytes: &[u8]) {
    let _ = black_box(positions::decode_and_find(bytes, (3, "colour", "red")));
}

/// A Parquet file, as far as its footer.
pub fn parquet_footer(bytes: &[u8]) {
    let _ = black_box(scans::parquet_schema(bytes));
}

/// The JSON of a name mapping, applied to a file without ids.
pub fn name_mapping(bytes: &[u8]) {
    let Ok(mapping) = serde_json::from_slice(bytes) else { return };
    let leaf = |name: &str| Field::new(name, DataType::Int64, true);
    let pair = Fields::from(vec![leaf("key"), leaf("value")]);
    let entries = Field::new("key_value", DataType::Struct(pair), false);
    let file: SchemaRef = Arc::new(ArrowSchema::new(vec![
        leaf("id"),
        Field::new("nested", DataType::Struct(Fields::from(vec![leaf("a"), leaf("b")])), true),
        Field::new("list", DataType::List(Arc::new(leaf("element"))), true),
        Field::new("map", DataType::Map(Arc::new(entries), false), true),
    ]));
    black_box(scans::with_ids(&file, &mapping));
}
