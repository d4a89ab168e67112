use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, SchemaRef, TimeUnit, TimestampNanosecondType};
use datafusion::common::ScalarValue;
use tarndb_catalog::{Error, Result};

/// How the columns of a batch find those of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matching {
    /// By name; columns that are missing become their default, which is NULL unless the table says otherwise, columns that the table lacks are an error.
    ByName,
    /// One by one in order.
    ByPosition,
}

/// The batch in the table's schema. Values are cast where that loses nothing, and refused where it would.
///
/// # Errors
/// `InvalidInput`, naming the column, when a column is unknown or missing, a value does not fit, or a NULL stands in a
/// required column.
pub(crate) fn conform(
    batch: &RecordBatch,
    schema: &SchemaRef,
    matching: Matching,
    defaults: &HashMap<String, ScalarValue>,
) -> Result<RecordBatch> {
    let names =
        |fields: &arrow::datatypes::Fields| fields.iter().map(|f| format!("`{}`", f.name())).collect::<Vec<_>>().join(", ");
    let columns: Result<Vec<ArrayRef>> = match matching {
        Matching::ByPosition => {
            if batch.num_columns() != schema.fields().len() {
                return Err(Error::invalid_input(format!(
                    "{} columns are given for a table of {}: {}",
                    batch.num_columns(),
                    schema.fields().len(),
                    names(schema.fields())
                )));
            }
            schema.fields().iter().zip(batch.columns()).map(|(field, array)| column(array, field)).collect()
        }
        Matching::ByName => {
            let given = batch.schema();
            let twice =
                given.fields().iter().enumerate().find(|(i, f)| given.fields().iter().take(*i).any(|g| g.name() == f.name()));
            if let Some((_, field)) = twice {
                return Err(Error::invalid_input(format!("column `{}` is given twice", field.name())));
            }
            if let Some(unknown) = batch.schema().fields().iter().find(|f| schema.field_with_name(f.name()).is_err()) {
                return Err(Error::invalid_input(format!(
                    "the table has no column `{}`; it has {}",
                    unknown.name(),
                    names(schema.fields())
                )));
            }
            let of_name = |field: &Field| match batch.column_by_name(field.name()) {
                Some(array) => column(array, field),
                None if defaults.contains_key(field.name()) => default_column(defaults, field, batch.num_rows()),
                None if field.is_nullable() => Ok(new_null_array(field.data_type(), batch.num_rows())),
                None => Err(Error::invalid_input(format!("the required column `{}` is missing", field.name()))),
            };
            schema.fields().iter().map(|field| of_name(field)).collect()
        }
    };
    RecordBatch::try_new(Arc::clone(schema), columns?)
        .map_err(|e| Error::invalid_input(format!("the rows do not fit the table: {e}")).with_source(e))
}

fn default_column(defaults: &HashMap<String, ScalarValue>, field: &Field, rows: usize) -> Result<ArrayRef> {
    let value = defaults.get(field.name()).ok_or_else(|| Error::internal("a default is gone"))?;
    let array = value.cast_to(field.data_type()).and_then(|value| value.to_array_of_size(rows));
    array.map_err(crate::error::engine_error)
}

fn column(array: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let converted = convert(array, field)?;
    if !field.is_nullable() && converted.null_count() > 0 {
        return Err(Error::invalid_input(format!("column `{}` is NOT NULL, but a row has NULL there", field.name())));
    }
    Ok(converted)
}

fn convert(array: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let not_fitting = |e: arrow::error::ArrowError| {
        Error::invalid_input(format!("column `{}` does not fit {}: {e}", field.name(), field.data_type())).with_source(e)
    };
    let array = match array.data_type() {
        DataType::Dictionary(_, values) => &cast_with_options(array, values, &STRICT).map_err(not_fitting)?,
        _ => array,
    };
    match (array.data_type(), field.data_type()) {
        // Arithmetic does not check that its results still have the precision that it gives them.
        (DataType::Decimal128(precision, _), to) if array.data_type() == to => {
            let decimals = array.as_primitive::<Decimal128Type>();
            decimals.validate_decimal_precision(*precision).map_err(not_fitting)?;
            Ok(Arc::clone(array))
        }
        (from, to) if from == to && !to.is_nested() => Ok(Arc::clone(array)),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let source = array.as_struct();
            if let Some(extra) = source.column_names().into_iter().find(|name| !fields.iter().any(|f| f.name() == name)) {
                return Err(Error::invalid_input(format!("column `{}` has no field `{extra}`", field.name())));
            }
            let children = fields.iter().map(|f| match source.column_by_name(f.name()) {
                Some(child) => {
                    let child = convert(child, f)?;
                    let required = !f.is_nullable() && (0..child.len()).any(|row| child.is_null(row) && source.is_valid(row));
                    if required {
                        return Err(Error::invalid_input(format!(
                            "field `{}.{}` is required, but a row has NULL there",
                            field.name(),
                            f.name()
                        )));
                    }
                    Ok(child)
                }
                None if f.is_nullable() => Ok(new_null_array(f.data_type(), source.len())),
                None => Err(Error::invalid_input(format!("the required field `{}.{}` is missing", field.name(), f.name()))),
            });
            let children = children.collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), children, source.nulls().cloned()).map_err(not_fitting)?))
        }
        (DataType::List(_), DataType::List(element)) => {
            let source = array.as_list::<i32>();
            let values = convert(source.values(), element)?;
            let list = ListArray::try_new(Arc::clone(element), source.offsets().clone(), values, source.nulls().cloned());
            Ok(Arc::new(list.map_err(not_fitting)?))
        }
        (DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item), DataType::List(_)) => {
            let plain = cast_with_options(array, &DataType::List(Arc::clone(item)), &STRICT).map_err(not_fitting)?;
            convert(&plain, field)
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let source = array.as_map();
            let DataType::Struct(pair) = entries.data_type() else {
                return Err(Error::internal("an Arrow map without entries"));
            };
            let [key, value] = pair.as_ref() else {
                return Err(Error::internal("an Arrow map without keys and values"));
            };
            let columns = vec![convert(source.keys(), key)?, convert(source.values(), value)?];
            let pairs = StructArray::try_new(pair.clone(), columns, source.entries().nulls().cloned()).map_err(not_fitting)?;
            let map = MapArray::try_new(Arc::clone(entries), source.offsets().clone(), pairs, source.nulls().cloned(), *sorted);
            Ok(Arc::new(map.map_err(not_fitting)?))
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, _), DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            let values = array.as_primitive::<TimestampNanosecondType>();
            if values.iter().flatten().any(|ns| ns % 1000 != 0) {
                return Err(Error::invalid_input(format!(
                    "column `{}` has nanoseconds, which the table's microseconds would lose: cast the column first",
                    field.name()
                )));
            }
            cast_with_options(array, field.data_type(), &STRICT).map_err(not_fitting)
        }
        (from, to) if !comparable(from, to) => {
            Err(Error::invalid_input(format!("column `{}` is {from} and the table's is {to}: cast it first", field.name())))
        }
        (from, to) => {
            let converted = cast_with_options(array, to, &STRICT).map_err(not_fitting)?;
            check_lossless(array, from, &converted, field)?;
            Ok(converted)
        }
    }
}

/// Whether values of one type can be told in the other without a question of what they mean.
fn comparable(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, Date32, Date64, FixedSizeBinary, LargeBinary, Null, Time32, Time64, Timestamp};
    let number = |of: &DataType| of.is_numeric();
    let bytes = |of: &DataType| matches!(of, Binary | LargeBinary | DataType::BinaryView | FixedSizeBinary(_));
    match (from, to) {
        (Null, _) => true,
        (from, to) if number(from) && number(to) => true,
        (from, to) if from.is_string() && to.is_string() => true,
        (from, to) if bytes(from) && bytes(to) => true,
        (Date32 | Date64, Date32 | Date64) | (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (Date32 | Date64, Timestamp(_, None)) | (Timestamp(_, None), Date32 | Date64) => true,
        (Timestamp(_, from), Timestamp(_, to)) => from.is_some() == to.is_some(),
        (from, to) => from == to,
    }
}

/// Refuses a value that the cast changed: cast back, it has to be what it was.
fn check_lossless(array: &ArrayRef, from: &DataType, converted: &ArrayRef, field: &Field) -> Result<()> {
    let not_fitting = |e: arrow::error::ArrowError| {
        Error::invalid_input(format!("column `{}` does not fit {}: {e}", field.name(), field.data_type())).with_source(e)
    };
    // Text and bytes only change their layout.
    if from.is_null() || field.data_type().is_string() || !(from.is_numeric() || from.is_temporal()) {
        return Ok(());
    }
    let back = cast_with_options(converted, from, &CastOptions::default()).map_err(not_fitting)?;
    let changed = arrow::compute::kernels::cmp::distinct(array, &back).map_err(not_fitting)?;
    let Some(row) = changed.values().set_indices().next() else {
        return Ok(());
    };
    let value = arrow::util::display::array_value_to_string(array, row).map_err(not_fitting)?;
    Err(Error::invalid_input(format!(
        "column `{}` has the value {value}, which {} cannot hold exactly: cast the column first",
        field.name(),
        field.data_type()
    )))
}

const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::Schema;

    use super::*;

    fn schema(fields: Vec<Field>) -> SchemaRef {
        Arc::new(Schema::new(fields))
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
    }

    #[test]
    fn values_are_widened_and_never_lost() {
        let table = schema(vec![Field::new("a", DataType::Int64, false)]);
        let fits = batch(vec![("a", Arc::new(Int32Array::from(vec![1, 2])))]);
        assert_eq!(conform(&fits, &table, Matching::ByName, &HashMap::new()).unwrap().column(0).data_type(), &DataType::Int64);
        let narrow = schema(vec![Field::new("a", DataType::Int32, true)]);
        let large = batch(vec![("a", Arc::new(Int64Array::from(vec![1 << 40])))]);
        assert!(conform(&large, &narrow, Matching::ByName, &HashMap::new()).unwrap_err().to_string().contains("`a`"));
    }

    #[test]
    fn nulls_and_names_are_checked() {
        let table = schema(vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8, true)]);
        let nulls = batch(vec![("a", Arc::new(Int64Array::from(vec![None, Some(1)])))]);
        assert!(conform(&nulls, &table, Matching::ByName, &HashMap::new()).unwrap_err().to_string().contains("NOT NULL"));
        let unknown = batch(vec![("a", Arc::new(Int64Array::from(vec![1]))), ("c", Arc::new(StringArray::from(vec!["x"])))]);
        assert!(conform(&unknown, &table, Matching::ByName, &HashMap::new()).unwrap_err().to_string().contains("`c`"));
        let missing = batch(vec![("b", Arc::new(StringArray::from(vec!["x"])))]);
        assert!(conform(&missing, &table, Matching::ByName, &HashMap::new()).unwrap_err().to_string().contains("`a` is missing"));
        assert!(conform(&missing, &table, Matching::ByPosition, &HashMap::new()).is_err());
    }

    #[test]
    fn nanoseconds_pass_only_when_they_are_whole_microseconds() {
        let table = schema(vec![Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, None), true)]);
        let rows = |ns: i64| batch(vec![("t", Arc::new(TimestampNanosecondArray::from(vec![ns])) as ArrayRef)]);
        assert!(conform(&rows(5_000), &table, Matching::ByName, &HashMap::new()).is_ok());
        assert!(conform(&rows(5_001), &table, Matching::ByName, &HashMap::new()).is_err());
    }
}
