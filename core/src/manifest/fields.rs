//! Field ids that the specification reserves, and the names of manifests' fields for files whose writers left the ids out.

use super::avro::Field;

/// The metadata column `_file`.
pub(crate) const FILE_FIELD_ID: i32 = 2_147_483_646;
/// Column `file_path` of position delete files.
pub(crate) const FILE_PATH_FIELD_ID: i32 = 2_147_483_546;
/// Column `pos` of position delete files.
pub(crate) const POS_FIELD_ID: i32 = 2_147_483_545;

/// A name of a field, and its id.
type Names = &'static [(&'static str, i32)];

/// Fields of a manifest entry.
pub(super) const ENTRY: Names =
    &[("status", 0), ("snapshot_id", 1), ("data_file", 2), ("sequence_number", 3), ("file_sequence_number", 4)];

/// Fields of the file of a manifest entry.
pub(super) const FILE: Names = &[
    ("content", 134),
    ("file_path", 100),
    ("file_format", 101),
    ("partition", 102),
    ("record_count", 103),
    ("file_size_in_bytes", 104),
    ("column_sizes", 108),
    ("value_counts", 109),
    ("null_value_counts", 110),
    ("nan_value_counts", 137),
    ("lower_bounds", 125),
    ("upper_bounds", 128),
    ("key_metadata", 131),
    ("split_offsets", 132),
    ("equality_ids", 135),
    ("sort_order_id", 140),
    ("first_row_id", 142),
    ("referenced_data_file", 143),
    ("content_offset", 144),
    ("content_size_in_bytes", 145),
];

/// Fields of a line of a manifest list, with the names that the counts had in format version 1.
pub(super) const LIST: Names = &[
    ("manifest_path", 500),
    ("manifest_length", 501),
    ("partition_spec_id", 502),
    ("added_snapshot_id", 503),
    ("added_files_count", 504),
    ("added_data_files_count", 504),
    ("existing_files_count", 505),
    ("existing_data_files_count", 505),
    ("deleted_files_count", 506),
    ("deleted_data_files_count", 506),
    ("partitions", 507),
    ("added_rows_count", 512),
    ("existing_rows_count", 513),
    ("deleted_rows_count", 514),
    ("sequence_number", 515),
    ("min_sequence_number", 516),
    ("content", 517),
    ("key_metadata", 519),
    ("first_row_id", 520),
];

/// Fields of the summary of a partition field.
pub(super) const SUMMARY: Names = &[("contains_null", 509), ("contains_nan", 518), ("lower_bound", 510), ("upper_bound", 511)];

/// The id of a field: its own, or the one that its name stands for.
pub(super) fn id(field: &Field, names: Names) -> Option<i32> {
    field.id.or_else(|| names.iter().find(|(name, _)| *name == field.name).map(|(_, id)| *id))
}
