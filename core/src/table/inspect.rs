//! Metadata tables: what a table's metadata says, as rows. Names and columns are those of Spark's metadata tables, of
//! which `files` and `manifests` have the most used: no statistics of columns, no partition summaries. A partition is a
//! struct of the partition fields of all specs, and there is none in tables that were never partitioned.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use iceberg::spec::{ManifestContentType, SnapshotReference, SnapshotRetention, Struct, TableMetadata};
use tarndb_catalog::{Error, Result};

use super::Table;
use super::partition::PartitionColumn;
use crate::manifest::FileContent;

/// A metadata table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetadataTable {
    /// All snapshots.
    Snapshots,
    /// Which snapshot was current from when.
    History,
    /// Data and delete files of the snapshot that is read.
    Files,
    /// Manifests of the snapshot that is read.
    Manifests,
    /// Partitions of the snapshot that is read.
    Partitions,
    /// Branches and tags.
    Refs,
}

impl MetadataTable {
    /// Every metadata table.
    pub const ALL: [MetadataTable; 6] =
        [Self::Snapshots, Self::History, Self::Files, Self::Manifests, Self::Partitions, Self::Refs];

    /// The name that follows `$`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::History => "history",
            Self::Files => "files",
            Self::Manifests => "manifests",
            Self::Partitions => "partitions",
            Self::Refs => "refs",
        }
    }

    /// The metadata table of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Whether Iceberg knows a metadata table of this name that is not offered yet.
    pub(crate) fn is_known(name: &str) -> bool {
        const KNOWN: [&str; 12] = [
            "entries",
            "all_entries",
            "data_files",
            "delete_files",
            "all_files",
            "all_data_files",
            "all_delete_files",
            "all_manifests",
            "metadata_log_entries",
            "position_deletes",
            "properties",
            "statistics_files",
        ];
        KNOWN.contains(&name)
    }

    fn schema(self, partition: Option<&PartitionColumn>) -> SchemaRef {
        use DataType::{Boolean, Int32, Int64, Utf8};
        let field = |name: &str, data_type: DataType, nullable: bool| Field::new(name, data_type, nullable);
        let partition = partition.map(|column| field("partition", DataType::Struct(column.fields.clone()), false));
        let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let fields = match self {
            Self::Snapshots => vec![
                field("committed_at", time(), false),
                field("snapshot_id", Int64, false),
                field("parent_id", Int64, true),
                field("operation", Utf8, true),
                field("manifest_list", Utf8, true),
                field("summary", summary_type(), true),
            ],
            Self::History => vec![
                field("made_current_at", time(), false),
                field("snapshot_id", Int64, false),
                field("parent_id", Int64, true),
                field("is_current_ancestor", Boolean, false),
            ],
            Self::Files => {
                let mut fields = vec![
                    field("content", Int32, false),
                    field("file_path", Utf8, false),
                    field("file_format", Utf8, false),
                    field("spec_id", Int32, false),
                ];
                fields.extend(partition);
                fields.extend([
                    field("record_count", Int64, false),
                    field("file_size_in_bytes", Int64, false),
                    field("sort_order_id", Int32, true),
                ]);
                fields
            }
            Self::Manifests => vec![
                field("content", Int32, false),
                field("path", Utf8, false),
                field("length", Int64, false),
                field("partition_spec_id", Int32, false),
                field("added_snapshot_id", Int64, false),
                field("added_data_files_count", Int64, false),
                field("existing_data_files_count", Int64, false),
                field("deleted_data_files_count", Int64, false),
                field("added_delete_files_count", Int64, false),
                field("existing_delete_files_count", Int64, false),
                field("deleted_delete_files_count", Int64, false),
            ],
            Self::Partitions => {
                let mut fields: Vec<Field> = Vec::from_iter(partition);
                fields.extend([
                    field("spec_id", Int32, false),
                    field("record_count", Int64, false),
                    field("file_count", Int64, false),
                    field("total_data_file_size_in_bytes", Int64, false),
                    field("position_delete_record_count", Int64, false),
                    field("position_delete_file_count", Int64, false),
                    field("equality_delete_record_count", Int64, false),
                    field("equality_delete_file_count", Int64, false),
                    field("last_updated_at", time(), true),
                    field("last_updated_snapshot_id", Int64, true),
                ]);
                fields
            }
            Self::Refs => vec![
                field("name", Utf8, false),
                field("type", Utf8, false),
                field("snapshot_id", Int64, false),
                field("max_reference_age_in_ms", Int64, true),
                field("min_snapshots_to_keep", Int32, true),
                field("max_snapshot_age_in_ms", Int64, true),
            ],
        };
        Arc::new(ArrowSchema::new(fields))
    }

    /// Its rows.
    ///
    /// # Errors
    /// `DataInvalid` when metadata is missing or damaged.
    pub async fn rows(self, table: &Table) -> Result<RecordBatch> {
        let partition = PartitionColumn::of(table.metadata())?;
        let columns = match self {
            Self::Snapshots => snapshots(table)?,
            Self::History => history(table),
            Self::Files => files(table, partition.as_ref()).await?,
            Self::Manifests => manifests(table).await?,
            Self::Partitions => partitions(table, partition.as_ref()).await?,
            Self::Refs => refs(table),
        };
        RecordBatch::try_new(self.schema(partition.as_ref()), columns)
            .map_err(|e| Error::internal(format!("metadata table `{}` has wrong rows", self.name())).with_source(e))
    }
}

fn summary_type() -> DataType {
    let entries = Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

fn strings<T: Into<String>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values.into_iter().map(Into::into)))
}

fn longs(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn ints(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

fn times(milliseconds: impl IntoIterator<Item = i64>) -> ArrayRef {
    let micros = milliseconds.into_iter().map(|ms| ms.saturating_mul(1000));
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Branches and tags by name. The metadata shows them only in its JSON form.
pub(crate) fn references(metadata: &TableMetadata) -> Vec<(String, SnapshotReference)> {
    let json = serde_json::to_value(metadata).ok();
    let refs = json.as_ref().and_then(|json| json.get("refs"));
    let parsed = refs.and_then(|refs| serde_json::from_value::<BTreeMap<String, SnapshotReference>>(refs.clone()).ok());
    parsed.unwrap_or_default().into_iter().collect()
}

fn snapshots(table: &Table) -> Result<Vec<ArrayRef>> {
    let mut all: Vec<_> = table.metadata().snapshots().collect();
    all.sort_by_key(|s| (s.sequence_number(), s.timestamp_ms()));
    let mut summaries = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for snapshot in &all {
        let sorted: BTreeMap<_, _> = snapshot.summary().additional_properties.iter().collect();
        for (key, value) in sorted {
            summaries.keys().append_value(key);
            summaries.values().append_value(value);
        }
        summaries.append(true).map_err(|e| Error::internal("a snapshot summary does not fit a map").with_source(e))?;
    }
    Ok(vec![
        times(all.iter().map(|s| s.timestamp_ms())),
        longs(all.iter().map(|s| s.snapshot_id())),
        Arc::new(all.iter().map(|s| s.parent_snapshot_id()).collect::<Int64Array>()),
        strings(all.iter().map(|s| s.summary().operation.as_str())),
        strings(all.iter().map(|s| s.manifest_list())),
        Arc::new(summaries.finish()),
    ])
}

fn history(table: &Table) -> Vec<ArrayRef> {
    let metadata = table.metadata();
    let mut ancestors = HashSet::new();
    let mut next = metadata.current_snapshot();
    while let Some(snapshot) = next {
        ancestors.insert(snapshot.snapshot_id());
        next = snapshot.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id));
    }
    let log = metadata.history();
    let parent = |id: i64| metadata.snapshot_by_id(id).and_then(|s| s.parent_snapshot_id());
    vec![
        times(log.iter().map(|entry| entry.timestamp_ms())),
        longs(log.iter().map(|entry| entry.snapshot_id)),
        Arc::new(log.iter().map(|entry| parent(entry.snapshot_id)).collect::<Int64Array>()),
        Arc::new(log.iter().map(|entry| Some(ancestors.contains(&entry.snapshot_id))).collect::<BooleanArray>()),
    ]
}

/// A live file of the snapshot, as metadata tables show it.
struct LiveFile {
    spec_id: i32,
    entry: crate::manifest::Entry,
}

async fn live_files(table: &Table) -> Result<Vec<LiveFile>> {
    let Some(snapshot) = table.snapshot() else {
        return Ok(Vec::new());
    };
    let cache = &table.env().manifests;
    let list = cache.manifest_list(snapshot).await?;
    let mut files = Vec::new();
    for (manifest, columns) in cache.manifests(list.as_ref().clone()).await? {
        let spec_id = manifest.partition_spec_id;
        for entry in columns.entries().iter().filter(|entry| entry.is_live()) {
            files.push(LiveFile { spec_id, entry: entry.clone() });
        }
    }
    Ok(files)
}

fn content_code(content: FileContent) -> i32 {
    match content {
        FileContent::Data => 0,
        FileContent::PositionDeletes => 1,
        FileContent::EqualityDeletes => 2,
    }
}

async fn files(table: &Table, partition: Option<&PartitionColumn>) -> Result<Vec<ArrayRef>> {
    let files = live_files(table).await?;
    let mut columns = vec![
        ints(files.iter().map(|f| content_code(f.entry.content))),
        strings(files.iter().map(|f| f.entry.path.as_str())),
        strings(files.iter().map(|f| format!("{:?}", f.entry.format).to_uppercase())),
        ints(files.iter().map(|f| f.spec_id)),
    ];
    if let Some(partition) = partition {
        columns.push(partition.array(table.metadata(), files.iter().map(|f| (f.spec_id, &f.entry.partition)))?);
    }
    columns.extend([
        longs(files.iter().map(|f| signed(f.entry.record_count))),
        longs(files.iter().map(|f| signed(f.entry.file_size))),
        Arc::new(files.iter().map(|f| f.entry.sort_order_id).collect::<Int32Array>()) as ArrayRef,
    ]);
    Ok(columns)
}

async fn manifests(table: &Table) -> Result<Vec<ArrayRef>> {
    let list = match table.snapshot() {
        Some(snapshot) => table.env().manifests.manifest_list(snapshot).await?,
        None => Arc::default(),
    };
    let count = |content: ManifestContentType, count: fn(&iceberg::spec::ManifestFile) -> Option<u32>| {
        longs(list.iter().map(move |m| if m.content == content { i64::from(count(m).unwrap_or(0)) } else { 0 }))
    };
    use ManifestContentType::{Data, Deletes};
    Ok(vec![
        ints(list.iter().map(|m| i32::from(m.content == Deletes))),
        strings(list.iter().map(|m| m.manifest_path.as_str())),
        longs(list.iter().map(|m| m.manifest_length)),
        ints(list.iter().map(|m| m.partition_spec_id)),
        longs(list.iter().map(|m| m.added_snapshot_id)),
        count(Data, |m| m.added_files_count),
        count(Data, |m| m.existing_files_count),
        count(Data, |m| m.deleted_files_count),
        count(Deletes, |m| m.added_files_count),
        count(Deletes, |m| m.existing_files_count),
        count(Deletes, |m| m.deleted_files_count),
    ])
}

async fn partitions(table: &Table, partition: Option<&PartitionColumn>) -> Result<Vec<ArrayRef>> {
    /// Rows, files and bytes by content.
    #[derive(Default)]
    struct Totals {
        rows: [i64; 3],
        files: [i64; 3],
        data_bytes: i64,
        /// The last commit that added a file, as far as it has not expired.
        last_updated: Option<(i64, i64)>,
    }
    let metadata = table.metadata();
    let mut totals: HashMap<(i32, Struct), Totals> = HashMap::new();
    for file in live_files(table).await? {
        let total = totals.entry((file.spec_id, file.entry.partition)).or_default();
        let slot = usize::try_from(content_code(file.entry.content)).unwrap_or(0);
        if let (Some(rows), Some(files)) = (total.rows.get_mut(slot), total.files.get_mut(slot)) {
            *rows += signed(file.entry.record_count);
            *files += 1;
        }
        if file.entry.content == FileContent::Data {
            total.data_bytes += signed(file.entry.file_size);
        }
        let updated = metadata.snapshot_by_id(file.entry.snapshot_id).map(|s| (s.timestamp_ms(), s.snapshot_id()));
        total.last_updated = total.last_updated.max(updated);
    }
    let totals: Vec<((i32, Struct), Totals)> = totals.into_iter().collect();
    let column = |of: fn(&Totals) -> i64| longs(totals.iter().map(|(_, total)| of(total)));
    let mut columns = Vec::new();
    if let Some(partition) = partition {
        columns.push(partition.array(metadata, totals.iter().map(|((spec_id, partition), _)| (*spec_id, partition)))?);
    }
    let last_updated_us = totals.iter().map(|(_, total)| total.last_updated.map(|(ms, _)| ms.saturating_mul(1000)));
    columns.extend([
        ints(totals.iter().map(|((spec_id, _), _)| *spec_id)),
        column(|t| t.rows[0]),
        column(|t| t.files[0]),
        column(|t| t.data_bytes),
        column(|t| t.rows[1]),
        column(|t| t.files[1]),
        column(|t| t.rows[2]),
        column(|t| t.files[2]),
        Arc::new(last_updated_us.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(totals.iter().map(|(_, total)| total.last_updated.map(|(_, id)| id)).collect::<Int64Array>()),
    ]);
    Ok(columns)
}

fn refs(table: &Table) -> Vec<ArrayRef> {
    let refs = references(table.metadata());
    let retention = |of: fn(&SnapshotRetention) -> Option<i64>| {
        Arc::new(refs.iter().map(|(_, r)| of(&r.retention)).collect::<Int64Array>()) as ArrayRef
    };
    let min_keep = |r: &SnapshotRetention| match r {
        SnapshotRetention::Branch { min_snapshots_to_keep, .. } => *min_snapshots_to_keep,
        SnapshotRetention::Tag { .. } => None,
    };
    vec![
        strings(refs.iter().map(|(name, _)| name.as_str())),
        strings(refs.iter().map(|(_, r)| if r.is_branch() { "BRANCH" } else { "TAG" })),
        longs(refs.iter().map(|(_, r)| r.snapshot_id)),
        retention(|r| match r {
            SnapshotRetention::Branch { max_ref_age_ms, .. } | SnapshotRetention::Tag { max_ref_age_ms } => *max_ref_age_ms,
        }),
        Arc::new(refs.iter().map(|(_, r)| min_keep(&r.retention)).collect::<Int32Array>()),
        retention(|r| match r {
            SnapshotRetention::Branch { max_snapshot_age_ms, .. } => *max_snapshot_age_ms,
            SnapshotRetention::Tag { .. } => None,
        }),
    ]
}
