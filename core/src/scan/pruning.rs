use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array};
use arrow::compute::is_not_null;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, TryCastExpr};
use datafusion_pruning::PruningPredicate;
use iceberg::spec::{
    Datum, FieldSummary, Literal, ManifestFile, PrimitiveLiteral, PrimitiveType, Schema, TableMetadata, Transform,
};
use iceberg::transform::{BoxedTransformFunction, create_transform_function};
use tarndb_catalog::Result;

use super::bounds::{self, End};
use super::partition_range::{self, Range};
use super::prefix::{self, Keeps};
use crate::error::engine_error;
use crate::manifest::{Count, ManifestColumns};
use crate::table::schema_for_spec;

/// Up to how many values of an `IN` DataFusion compares each with the bounds; of more it asks for [`PruningStatistics::contained`]
/// alone.
const VALUES_IN_PREDICATE: usize = 20;

/// Decides which manifests and files can hold rows that a filter keeps. In doubt it keeps.
#[derive(Debug)]
pub(crate) struct Pruner {
    predicates: Vec<PruningPredicate>,
    schema: Arc<Schema>,
    arrow: SchemaRef,
}

/// A partition field of a spec, with the column of the scan's schema that it comes from.
struct PartitionField {
    position: usize,
    transform: Transform,
    source_id: i32,
    result_type: PrimitiveType,
    bucket: Option<(BoxedTransformFunction, PrimitiveType)>,
}

impl Pruner {
    /// A pruner for rows that all of `filters` keep. `arrow` is the engine's form of `schema`.
    pub(crate) fn new(schema: Arc<Schema>, arrow: SchemaRef, filters: &[Arc<dyn PhysicalExpr>]) -> Result<Self> {
        let mut predicates = Vec::new();
        for filter in filters.iter().filter(|filter| casts_keep_order(filter, &arrow)) {
            let filter = prefix::with_ranges(filter, Keeps::SameOrMore);
            let predicate = PruningPredicate::try_new(filter, Arc::clone(&arrow)).map_err(engine_error)?;
            if !predicate.always_true() {
                predicates.push(predicate);
            }
        }
        Ok(Self { predicates, schema, arrow })
    }

    fn partition_fields(&self, metadata: &TableMetadata, spec_id: i32) -> Vec<PartitionField> {
        let (Some(spec), Ok(spec_schema)) = (metadata.partition_spec_by_id(spec_id), schema_for_spec(metadata, spec_id)) else {
            return Vec::new();
        };
        let fields = spec.fields().iter().enumerate().filter_map(|(position, field)| {
            let source = spec_schema.field_by_id(field.source_id)?.field_type.as_primitive_type()?.clone();
            let result = field.transform.result_type(&iceberg::spec::Type::Primitive(source.clone())).ok()?;
            // The crate's bucket of nanoseconds hashes another value than the specification says.
            let nanos = matches!(source, PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs);
            let bucket = match field.transform {
                Transform::Bucket(_) if !nanos => Some((create_transform_function(&field.transform).ok()?, source)),
                _ => None,
            };
            Some(PartitionField {
                position,
                transform: field.transform,
                source_id: field.source_id,
                result_type: result.as_primitive_type()?.clone(),
                bucket,
            })
        });
        fields.collect()
    }

    /// Which of the manifests, all of one partition spec, can have matching files.
    fn keep_of_spec(&self, metadata: &TableMetadata, spec_id: i32, manifests: &[&ManifestFile]) -> Vec<bool> {
        if self.predicates.is_empty() {
            return vec![true; manifests.len()];
        }
        let fields = self.partition_fields(metadata, spec_id);
        let statistics = ManifestStatistics { pruner: self, manifests, fields };
        self.prune(&statistics)
    }

    /// What no predicate rules out. One that cannot be evaluated over bounds rules out nothing.
    fn prune(&self, statistics: &impl PruningStatistics) -> Vec<bool> {
        let mut keep = vec![true; statistics.num_containers()];
        for predicate in &self.predicates {
            match predicate.prune(statistics) {
                Ok(kept) => keep.iter_mut().zip(kept).for_each(|(keep, kept)| *keep &= kept),
                Err(error) => tracing::debug!(%error, "a predicate does not prune"),
            }
        }
        keep
    }

    /// Which manifests can have matching files, by the partition ranges in the manifest list.
    pub(crate) fn keep_manifests(&self, metadata: &TableMetadata, manifests: &[ManifestFile]) -> Vec<bool> {
        let mut by_spec: HashMap<i32, Vec<usize>> = HashMap::new();
        for (index, manifest) in manifests.iter().enumerate() {
            by_spec.entry(manifest.partition_spec_id).or_default().push(index);
        }
        let mut keep = vec![true; manifests.len()];
        for (spec_id, indexes) in by_spec {
            let group: Vec<&ManifestFile> = indexes.iter().filter_map(|i| manifests.get(*i)).collect();
            for (index, kept) in indexes.iter().zip(self.keep_of_spec(metadata, spec_id, &group)) {
                if let Some(slot) = keep.get_mut(*index) {
                    *slot = kept;
                }
            }
        }
        keep
    }

    /// Which of the manifest's `rows` can have matching rows, by partition values and column bounds.
    pub(crate) fn keep_files(
        &self,
        metadata: &TableMetadata,
        spec_id: i32,
        columns: &ManifestColumns,
        rows: &[usize],
    ) -> Vec<bool> {
        if self.predicates.is_empty() {
            return vec![true; rows.len()];
        }
        let fields = self.partition_fields(metadata, spec_id);
        let statistics = FileStatistics { pruner: self, columns, rows, fields };
        self.prune(&statistics)
    }

    fn column(&self, column: &Column) -> Option<(i32, &DataType)> {
        let field = self.arrow.field_with_name(&column.name).ok()?;
        Some((self.schema.field_by_name(&column.name)?.id, field.data_type()))
    }
}

/// Whether every cast in the expression keeps order, so that bounds can go through it. DataFusion takes that for granted;
/// a timestamp's time of day, or a number as a boolean, has another order.
pub(super) fn casts_keep_order(expr: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> bool {
    // Local time goes back once a year.
    let local = |of: &DataType| matches!(of, DataType::Timestamp(_, Some(zone)) if !matches!(zone.as_ref(), "UTC" | "+00:00"));
    let keeps_order = |from: &DataType, to: &DataType| {
        let instant = |of: &DataType| matches!(of, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
        from == to
            || (from.is_numeric() && to.is_numeric())
            || (from.is_string() && to.is_string())
            || (from.is_binary() && to.is_binary())
            || (instant(from) && instant(to) && !local(to))
    };
    let mut all = true;
    let walked = expr.apply(|expr| {
        let cast = expr.downcast_ref::<CastExpr>().map(|cast| (cast.expr(), cast.cast_type()));
        let cast = cast.or_else(|| expr.downcast_ref::<TryCastExpr>().map(|cast| (cast.expr(), cast.cast_type())));
        if let Some((child, to)) = cast {
            all &= child.data_type(schema).is_ok_and(|from| keeps_order(&from, to));
        }
        Ok(if all { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    all && walked.is_ok()
}

fn scalars_to_array(data_type: &DataType, scalars: impl Iterator<Item = Option<ScalarValue>>) -> Option<ArrayRef> {
    let null = ScalarValue::try_from(data_type).ok()?;
    ScalarValue::iter_to_array(scalars.map(|s| s.unwrap_or_else(|| null.clone()))).ok()
}

/// The first array's values, the second's where the first has none.
fn coalesce(first: Option<ArrayRef>, second: Option<ArrayRef>) -> Option<ArrayRef> {
    match (first, second) {
        (Some(first), Some(second)) if first.null_count() > 0 => zip(&is_not_null(&first).ok()?, &first, &second).ok(),
        (Some(first), _) => Some(first),
        (None, second) => second,
    }
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// Statistics of files: bounds and counts of their columns, and what their partition values say.
struct FileStatistics<'a> {
    pruner: &'a Pruner,
    columns: &'a ManifestColumns,
    rows: &'a [usize],
    fields: Vec<PartitionField>,
}

impl FileStatistics<'_> {
    fn partition_value(&self, field: &PartitionField, row: usize) -> Option<Option<&PrimitiveLiteral>> {
        let values = self.columns.entries().get(row)?.partition.fields();
        Some(match values.get(field.position)? {
            Some(Literal::Primitive(value)) => Some(value),
            _ => None,
        })
    }

    fn partition_ranges(&self, field_id: i32, data_type: &DataType) -> Vec<Range> {
        let fields: Vec<&PartitionField> = self.fields.iter().filter(|f| f.source_id == field_id).collect();
        if fields.is_empty() {
            return Vec::new();
        }
        let of_row = |row: &usize| {
            let mut merged = Range::default();
            for field in &fields {
                if let Some(Some(value)) = self.partition_value(field, *row) {
                    let range = partition_range::range(&field.transform, data_type, value);
                    merged.lower = merged.lower.or(range.lower);
                    merged.upper = merged.upper.or(range.upper);
                }
            }
            merged
        };
        self.rows.iter().map(of_row).collect()
    }

    fn values(&self, column: &Column, end: End) -> Option<ArrayRef> {
        let (id, data_type) = self.pruner.column(column)?;
        let statistics = self.columns.column(id);
        let bound = |row: &usize| {
            let statistics = statistics.as_ref()?;
            // Bounds of floats leave NaN out, which the engine orders above everything.
            if is_float(data_type) && statistics.count(Count::Nans, *row) != Some(0) {
                return None;
            }
            match end {
                End::Lower => statistics.lower(*row),
                End::Upper => statistics.upper(*row),
            }
        };
        let of_column = bounds::array(data_type, end, self.rows.iter().map(bound));
        let ranges = self.partition_ranges(id, data_type);
        let of_partition = (!ranges.is_empty()).then(|| {
            let ends = ranges.into_iter().map(|range| if end == End::Lower { range.lower } else { range.upper });
            scalars_to_array(data_type, ends)
        });
        coalesce(of_column, of_partition.flatten())
    }
}

impl PruningStatistics for FileStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, End::Lower)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, End::Upper)
    }

    fn num_containers(&self) -> usize {
        self.rows.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let (id, _) = self.pruner.column(column)?;
        let fields: Vec<&PartitionField> = self.fields.iter().filter(|f| f.source_id == id).collect();
        let statistics = self.columns.column(id);
        let counts = self.rows.iter().map(|row| {
            statistics.as_ref().and_then(|statistics| statistics.count(Count::Nulls, *row)).or_else(|| {
                // Every transform but void maps NULL, and nothing else, to NULL.
                let known = fields.iter().find(|f| !matches!(f.transform, Transform::Void | Transform::Unknown))?;
                match self.partition_value(known, *row)? {
                    None => Some(self.columns.entries().get(*row)?.record_count),
                    Some(_) => Some(0),
                }
            })
        });
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let count = |row: &usize| self.columns.entries().get(*row).map(|entry| entry.record_count);
        Some(Arc::new(self.rows.iter().map(count).collect::<UInt64Array>()))
    }

    #[allow(clippy::mutable_key_type)] // the trait's own signature
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let (id, data_type) = self.pruner.column(column)?;
        let values = typed(values, data_type)?;
        let buckets: Vec<(&PartitionField, HashSet<i32>)> = self
            .fields
            .iter()
            .filter(|field| field.source_id == id)
            .filter_map(|field| Some((field, bucket_numbers(field, &values)?)))
            .collect();
        // Few values are compared with the bounds by the predicate itself.
        if buckets.is_empty() && values.len() <= VALUES_IN_PREDICATE {
            return None;
        }
        let (lowers, uppers) = (self.min_values(column), self.max_values(column));
        let outside = |index: usize, row: usize| -> Option<bool> {
            for (field, numbers) in &buckets {
                if let Some(Some(PrimitiveLiteral::Int(bucket))) = self.partition_value(field, row)
                    && !numbers.contains(bucket)
                {
                    return Some(false);
                }
            }
            let at = |array: &Option<ArrayRef>| {
                let array = array.as_ref()?;
                ScalarValue::try_from_array(array, index).ok().filter(|value| !value.is_null())
            };
            let (lower, upper) = (at(&lowers)?, at(&uppers)?);
            // The values are sorted: the first that is not below the file must not be above it.
            let first = values.partition_point(|value| *value < lower);
            match values.get(first) {
                Some(value) if *value <= upper => None,
                _ => Some(false),
            }
        };
        Some(self.rows.iter().enumerate().map(|(index, row)| outside(index, *row)).collect())
    }
}

/// The values in the column's type, sorted; `None` when one cannot be compared.
fn typed(values: &HashSet<ScalarValue>, data_type: &DataType) -> Option<Vec<ScalarValue>> {
    if is_float(data_type) {
        return None;
    }
    let mut typed = Vec::with_capacity(values.len());
    for value in values {
        let value = value.cast_to(data_type).ok()?;
        if value.is_null() {
            return None;
        }
        typed.push(value);
    }
    typed.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    Some(typed)
}

fn bucket_numbers(field: &PartitionField, values: &[ScalarValue]) -> Option<HashSet<i32>> {
    let (function, source) = field.bucket.as_ref()?;
    let mut numbers = HashSet::new();
    for value in values {
        let hashed = function.transform_literal(&datum(value, source)?).ok()??;
        match hashed.literal() {
            PrimitiveLiteral::Int(number) => numbers.insert(*number),
            _ => return None,
        };
    }
    Some(numbers)
}

fn datum(value: &ScalarValue, source: &PrimitiveType) -> Option<Datum> {
    Some(match (value, source) {
        (ScalarValue::Int32(Some(n)), PrimitiveType::Int) => Datum::int(*n),
        (ScalarValue::Int64(Some(n)), PrimitiveType::Int) => Datum::int(i32::try_from(*n).ok()?),
        (ScalarValue::Int64(Some(n)), PrimitiveType::Long) => Datum::long(*n),
        (ScalarValue::Date32(Some(n)), PrimitiveType::Date) => Datum::date(*n),
        (ScalarValue::Time64Microsecond(Some(n)), PrimitiveType::Time) => Datum::time_micros(*n).ok()?,
        (ScalarValue::TimestampMicrosecond(Some(n), None), PrimitiveType::Timestamp) => Datum::timestamp_micros(*n),
        (ScalarValue::TimestampMicrosecond(Some(n), Some(_)), PrimitiveType::Timestamptz) => Datum::timestamptz_micros(*n),
        (ScalarValue::Utf8View(Some(text)), PrimitiveType::String) => Datum::string(text),
        (ScalarValue::BinaryView(Some(bytes)), PrimitiveType::Binary) => Datum::binary(bytes.iter().copied()),
        _ => return None,
    })
}

/// A partition field with its summary in each manifest.
type FieldSummaries<'a> = (&'a PartitionField, Vec<Option<&'a FieldSummary>>);

/// Statistics of manifests: what the ranges of their partition values say.
struct ManifestStatistics<'a> {
    pruner: &'a Pruner,
    manifests: &'a [&'a ManifestFile],
    fields: Vec<PartitionField>,
}

impl ManifestStatistics<'_> {
    fn summaries(&self, column: &Column) -> Option<(Vec<FieldSummaries<'_>>, &DataType)> {
        let (id, data_type) = self.pruner.column(column)?;
        let of_field = |field: &PartitionField| -> Vec<Option<&FieldSummary>> {
            self.manifests.iter().map(|manifest| manifest.partitions.as_ref()?.get(field.position)).collect()
        };
        let fields: Vec<_> = self.fields.iter().filter(|f| f.source_id == id).map(|f| (f, of_field(f))).collect();
        if fields.is_empty() { None } else { Some((fields, data_type)) }
    }

    fn values(&self, column: &Column, end: End) -> Option<ArrayRef> {
        let (fields, data_type) = self.summaries(column)?;
        let mut result = None;
        for (field, summaries) in fields {
            let ends = summaries.into_iter().map(|summary| {
                let summary = summary?;
                if is_float(data_type) {
                    return None;
                }
                let range = |bytes: &[u8]| {
                    let value = Datum::try_from_bytes(bytes, field.result_type.clone()).ok()?;
                    Some(partition_range::range(&field.transform, data_type, value.literal()))
                };
                let highest = range(summary.upper_bound.as_ref()?)?;
                match end {
                    // Values of which nothing is known, such as those that wrapped around, may belong at this end.
                    End::Lower if highest == Range::default() => None,
                    End::Lower => range(summary.lower_bound.as_ref()?)?.lower,
                    End::Upper => highest.upper,
                }
            });
            result = coalesce(result, scalars_to_array(data_type, ends));
        }
        result
    }
}

impl PruningStatistics for ManifestStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, End::Lower)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, End::Upper)
    }

    fn num_containers(&self) -> usize {
        self.manifests.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let (fields, _) = self.summaries(column)?;
        let (_, summaries) = fields.iter().find(|(f, _)| !matches!(f.transform, Transform::Void | Transform::Unknown))?;
        let counts = summaries.iter().map(|summary| summary.and_then(|s| (!s.contains_null).then_some(0)));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    #[allow(clippy::mutable_key_type)] // the trait's own signature
    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
