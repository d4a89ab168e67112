use std::collections::{HashMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use iceberg::io::FileIO;
use iceberg::puffin::{Blob, CompressionCodec, PuffinWriter};
use iceberg::spec::{Schema, TableMetadata, Type};
use roaring::RoaringTreemap;
use tarndb_catalog::{Error, Result};

use super::blob;
use super::directory::{self, BLOB_TYPE, KEY, LEFT_OUT, LeftOut, VALUE, list_text};

/// Table property: columns whose values data files tell the rows of, by name, divided by commas. Those of type `STRING` and
/// `MAP<STRING, STRING>`, each key of which counts as a column.
const COLUMNS: &str = "tarndb.bitmap-columns";

/// Rows of a file below which it has no sets: to read it whole is no more work.
const MIN_ROWS: u64 = 1024;

/// Values of a column, or of a key of a map, beyond which it has no sets: each would be of few rows.
const MAX_VALUES: usize = 256;

/// The longest value, in bytes, that has a set.
const MAX_VALUE_BYTES: usize = 512;

/// Memory that a set takes beside its value and its positions, roughly; and that of a position.
const SET_BYTES: usize = 200;
const POSITION_BYTES: usize = 4;

/// Keys of a map beyond which it has no sets, and values of all of them together.
const MAX_KEYS: usize = 256;
const MAX_VALUES_OF_ALL_KEYS: usize = 2048;

/// The columns that [`COLUMNS`] names.
#[derive(Debug, Clone, Default)]
pub(crate) struct ValueColumns {
    /// With their places in the schema.
    columns: Vec<(usize, i32)>,
}

impl ValueColumns {
    /// Those of the table's current schema. What is no column any more, or is one of another type by now, is none of them.
    pub(crate) fn of(metadata: &TableMetadata) -> Self {
        let Some(names) = metadata.properties().get(COLUMNS) else { return Self::default() };
        let names: HashSet<&str> = names.split(',').map(str::trim).collect();
        let fields = metadata.current_schema().as_struct().fields().iter().enumerate();
        let named = fields.filter(|(_, field)| names.contains(field.name.as_str()) && has_sets(&field.field_type));
        Self { columns: named.map(|(index, field)| (index, field.id)).collect() }
    }

    /// Whether the value of [`COLUMNS`] among `properties`, if there is one, can be that of a table with this schema.
    ///
    /// # Errors
    /// `InvalidInput` for a column of a type that has no sets.
    pub(crate) fn check(properties: &HashMap<String, String>, schema: &Schema) -> Result<()> {
        for name in properties.get(COLUMNS).iter().flat_map(|names| names.split(',')).map(str::trim) {
            if schema.as_struct().fields().iter().any(|field| field.name == name && !has_sets(&field.field_type)) {
                let message = format!("table property `{COLUMNS}` names `{name}`, which is no STRING and no MAP<STRING, STRING>");
                return Err(Error::invalid_input(message));
            }
        }
        Ok(())
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i32> {
        self.columns.iter().map(|(_, id)| *id)
    }
}

fn has_sets(of: &Type) -> bool {
    iceberg::arrow::type_to_arrow_type(of).is_ok_and(|arrow| is_text(&arrow) || is_map_of_texts(&arrow))
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8)
}

fn is_map_of_texts(of: &DataType) -> bool {
    let DataType::Map(entries, _) = of else { return false };
    let DataType::Struct(fields) = entries.data_type() else { return false };
    fields.len() == 2 && fields.iter().all(|field| is_text(field.data_type()))
}

/// Gathers which rows of a data file have which values.
#[derive(Debug)]
pub(crate) struct ValueCollector {
    columns: Vec<Column>,
    rows: u64,
}

#[derive(Debug, Default)]
struct Column {
    id: i32,
    /// Its place in batches.
    index: usize,
    is_map: bool,
    /// By key; a column that is no map has one, which is empty.
    keys: HashMap<String, Values>,
    has_too_many_keys: bool,
    /// Memory that was taken for it, roughly.
    bytes: usize,
}

/// `None` when there are too many.
type Values = Option<RowsByValue>;
type RowsByValue = HashMap<String, RoaringTreemap>;

/// Memory that was taken for them, roughly.
fn memory_of(values: &RowsByValue) -> usize {
    values.iter().map(|(value, rows)| SET_BYTES + value.len() + POSITION_BYTES * (rows.len() as usize)).sum()
}

impl ValueCollector {
    /// For batches that begin with the columns of the schema.
    pub(crate) fn new(columns: &ValueColumns) -> Self {
        let column = |(index, id): &(usize, i32)| Column { id: *id, index: *index, ..Column::default() };
        Self { columns: columns.columns.iter().map(column).collect(), rows: 0 }
    }

    /// Bytes of memory that it takes, roughly.
    pub(crate) fn memory_size(&self) -> usize {
        self.columns.iter().map(|column| column.bytes).sum()
    }

    /// Adds the rows of a batch, which follow those of before.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        for column in &mut self.columns {
            match batch.columns().get(column.index) {
                Some(array) => column.add(array, self.rows),
                None => column.leave_out(),
            }
        }
        self.rows += batch.num_rows() as u64;
    }

    /// A Puffin file with the sets; `None` where they are no use.
    pub(crate) async fn finish(&mut self) -> Result<Option<Vec<u8>>> {
        if self.columns.is_empty() || self.rows < MIN_ROWS {
            return Ok(None);
        }
        const NAME: &str = "values.puffin";
        let memory = FileIO::new_with_memory();
        let (ids, left_out): (Vec<i32>, Vec<LeftOut>) = self.described();
        let properties = HashMap::from([
            ("created-by".to_string(), format!("tarndb version {}", env!("CARGO_PKG_VERSION"))),
            (directory::COLUMNS.to_string(), list_text(&ids)?),
            (LEFT_OUT.to_string(), list_text(&left_out)?),
        ]);
        let mut writer = PuffinWriter::new(&memory.new_output(NAME)?, properties, false).await?;
        for column in self.columns.drain(..).filter(|column| !column.has_too_many_keys) {
            for (key, values) in column.keys {
                for (value, rows) in values.into_iter().flatten() {
                    let key = column.is_map.then(|| (KEY.to_string(), key.clone())).into_iter();
                    let properties = key.chain([(VALUE.to_string(), value)]).collect();
                    let blob = Blob::builder()
                        .r#type(BLOB_TYPE.to_string())
                        .fields(vec![column.id])
                        .snapshot_id(-1)
                        .sequence_number(-1)
                        .data(blob::encode(&rows)?)
                        .properties(properties);
                    writer.add(blob.build(), CompressionCodec::None).await?;
                }
            }
        }
        writer.close().await?;
        Ok(Some(memory.new_input(NAME)?.read().await?.to_vec()))
    }

    /// The columns that have sets, and what of them has none.
    fn described(&self) -> (Vec<i32>, Vec<LeftOut>) {
        let complete = || self.columns.iter().filter(|column| !column.has_too_many_keys);
        let left_out = complete().flat_map(|column| {
            let keys = column.keys.iter().filter(|(_, values)| values.is_none());
            keys.map(|(key, _)| LeftOut { column: column.id, key: column.is_map.then(|| key.clone()) })
        });
        (complete().map(|column| column.id).collect(), left_out.collect())
    }
}

impl Column {
    fn add(&mut self, array: &ArrayRef, start: u64) {
        self.is_map = array.as_map_opt().is_some();
        if let Some(texts) = array.as_string_opt::<i32>() {
            for (position, value) in (start..).zip(texts) {
                if let Some(value) = value {
                    self.add_value("", value, position);
                }
            }
        } else if let Some(maps) = array.as_map_opt()
            && let (Some(keys), Some(values)) = (maps.keys().as_string_opt::<i32>(), maps.values().as_string_opt::<i32>())
        {
            for (position, row) in (start..).zip(0..maps.len()) {
                if maps.is_valid(row)
                    && let [from, to] = maps.value_offsets().get(row..row + 2).unwrap_or_default()
                {
                    self.add_entries(keys, values, (*from, *to), position);
                }
            }
        } else {
            // Of what is not looked at nothing may be told.
            self.leave_out();
        }
        // A limit of all keys is one of memory, and need not be exact.
        while !self.has_too_many_keys && self.values() > MAX_VALUES_OF_ALL_KEYS {
            let most = self.keys.values_mut().max_by_key(|values| values.as_ref().map_or(0, HashMap::len));
            self.bytes -= most.and_then(Option::take).as_ref().map_or(0, memory_of);
        }
    }

    fn add_entries(&mut self, keys: &StringArray, values: &StringArray, (from, to): (i32, i32), position: u64) {
        let entries = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
        for entry in entries.filter(|entry| values.is_valid(*entry)) {
            self.add_value(keys.value(entry), values.value(entry), position);
        }
    }

    fn add_value(&mut self, key: &str, value: &str, position: u64) {
        if self.has_too_many_keys {
            return;
        }
        if !self.keys.contains_key(key) {
            if self.keys.len() >= MAX_KEYS {
                self.leave_out();
                return;
            }
            self.keys.insert(key.to_string(), Some(HashMap::new()));
        }
        let Some(values) = self.keys.get_mut(key) else { return };
        let Some(known) = values else { return };
        if let Some(rows) = known.get_mut(value) {
            // A map may have an entry twice, which is then one.
            if rows.try_push(position).is_ok() {
                self.bytes += POSITION_BYTES;
            }
        } else if known.len() < MAX_VALUES && value.len() <= MAX_VALUE_BYTES {
            self.bytes += SET_BYTES + value.len() + POSITION_BYTES;
            known.insert(value.to_string(), RoaringTreemap::from_iter([position]));
        } else {
            self.bytes -= values.take().as_ref().map_or(0, memory_of);
        }
    }

    fn leave_out(&mut self) {
        self.has_too_many_keys = true;
        self.keys = HashMap::new();
        self.bytes = 0;
    }

    fn values(&self) -> usize {
        self.keys.values().flatten().map(HashMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{MapBuilder, StringBuilder};
    use iceberg::spec::{NestedField, PrimitiveType};
    use parquet::file::metadata::{FileMetaData, ParquetMetaDataBuilder};
    use parquet::schema::types::{SchemaDescriptor, Type as ParquetType};

    use super::*;
    use crate::positions::{Directory, Embedded, Found};

    /// A row's text, and its entries of a map.
    type Row = (Option<String>, Option<Vec<(String, Option<String>)>>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let texts: StringArray = rows.iter().map(|(text, _)| text.as_deref()).collect();
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for (_, entries) in rows {
            for (key, value) in entries.iter().flatten() {
                maps.keys().append_value(key);
                maps.values().append_option(value.as_deref());
            }
            maps.append(entries.is_some()).unwrap();
        }
        let columns: [(&str, ArrayRef); 2] = [("text", Arc::new(texts)), ("map", Arc::new(maps.finish()))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
    }

    async fn puffin(batches: &[Vec<Row>]) -> Option<Vec<u8>> {
        let mut collector = ValueCollector::new(&ValueColumns { columns: vec![(0, 7), (1, 9)] });
        batches.iter().for_each(|rows| collector.add(&batch(rows)));
        collector.finish().await.unwrap()
    }

    /// The directory of a Puffin file at the offset 100 of a file of so many rows.
    fn directory(puffin: &[u8], rows: usize) -> (Directory, Embedded) {
        let rows = i64::try_from(rows).unwrap();
        let pair = Embedded::describe(puffin, 100, rows).unwrap();
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(ParquetType::group_type_builder("root").build().unwrap())));
        let of_rows = |rows| {
            let file = FileMetaData::new(2, rows, None, Some(vec![pair.clone()]), Arc::clone(&schema), None);
            ParquetMetaDataBuilder::new(file).build()
        };
        let size = 100 + puffin.len() as u64;
        let embedded = Embedded::of(&of_rows(rows), size).unwrap();
        assert_eq!(Embedded::of(&of_rows(rows), size - 1), None, "the file is too short");
        assert_eq!(Embedded::of(&of_rows(rows + 1), size), None, "it is about other rows");
        let range = embedded.directory();
        let footer = &puffin[usize::try_from(range.start - 100).unwrap()..usize::try_from(range.end - 100).unwrap()];
        for byte in (0..footer.len()).step_by(footer.len() / 500 + 1) {
            let mut changed = footer.to_vec();
            changed[byte] ^= 1;
            assert!(!Directory::decode(&changed, &embedded).is_ok_and(|directory| directory.is_some()));
            assert!(!Directory::decode(&footer[..byte], &embedded).is_ok_and(|directory| directory.is_some()));
        }
        (Directory::decode(footer, &embedded).unwrap().unwrap(), embedded)
    }

    fn set(puffin: &[u8], found: &Found) -> Vec<u64> {
        let Found::Rows(offset, length) = found else { panic!("{found:?}") };
        let start = usize::try_from(offset - 100).unwrap();
        blob::decode(&puffin[start..start + usize::try_from(*length).unwrap()]).unwrap().iter().collect()
    }

    #[tokio::test]
    async fn rows_are_found_by_value() {
        let text = |row: usize| (!row.is_multiple_of(5)).then(|| format!("t{}", row % 3));
        let entries = |row: usize| {
            let many = ("many".to_string(), Some(row.to_string()));
            let colour = ("colour".to_string(), (!row.is_multiple_of(7)).then(|| ["red", ""][row % 2].to_string()));
            (!row.is_multiple_of(4)).then(|| vec![many, colour])
        };
        let rows: Vec<Row> = (0..3000).map(|row| (text(row), entries(row))).collect();
        let batches = [rows[..100].to_vec(), Vec::new(), rows[100..].to_vec()];
        let puffin = puffin(&batches).await.unwrap();
        let (directory, _) = directory(&puffin, rows.len());
        let rows_where =
            |keep: &dyn Fn(usize) -> bool| (0..3000).filter(|row| keep(*row)).map(|row| row as u64).collect::<Vec<_>>();
        let of_text = |value: &str| rows_where(&|row| text(row).as_deref() == Some(value));
        assert_eq!(set(&puffin, &directory.find(7, None, "t1")), of_text("t1"));
        let of_colour = |value: &str| rows_where(&|row| entries(row).is_some_and(|of| of[1].1.as_deref() == Some(value)));
        assert_eq!(set(&puffin, &directory.find(9, Some("colour"), "red")), of_colour("red"));
        assert_eq!(set(&puffin, &directory.find(9, Some("colour"), "")), of_colour(""));
        for nowhere in [(7, None, "t3"), (9, Some("colour"), "blue"), (9, Some("shape"), "t1")] {
            assert_eq!(directory.find(nowhere.0, nowhere.1, nowhere.2), Found::Nowhere, "{nowhere:?}");
        }
        for unknown in [(9, Some("many"), "1"), (8, None, "t1")] {
            assert_eq!(directory.find(unknown.0, unknown.1, unknown.2), Found::Unknown, "{unknown:?}");
        }
    }

    #[tokio::test]
    async fn sets_that_would_be_many_are_none() {
        let few = vec![vec![(Some("a".to_string()), None); 1023]];
        assert_eq!(puffin(&few).await, None);
        // Keys that are too many; and values that are, of all keys.
        let keys: Vec<Row> = (0..2000).map(|row| (None, Some(vec![(format!("k{row}"), Some("v".to_string()))]))).collect();
        let file = puffin(std::slice::from_ref(&keys)).await.unwrap();
        assert_eq!(directory(&file, keys.len()).0.find(9, Some("k0"), "v"), Found::Unknown);
        let values: Vec<Row> =
            (0..9000).map(|row| (None, Some(vec![(format!("k{}", row % 30), Some(format!("v{}", row % 6000)))]))).collect();
        let file = puffin(std::slice::from_ref(&values)).await.unwrap();
        let (directory, _) = directory(&file, values.len());
        let known = (0..30).filter(|key| directory.find(9, Some(&format!("k{key}")), "v-") == Found::Nowhere).count();
        assert!((1..=2048 / 200).contains(&known), "{known} keys have sets");
    }

    #[test]
    fn what_is_left_out_takes_no_memory() {
        let mut collector = ValueCollector::new(&ValueColumns { columns: vec![(0, 7), (1, 9)] });
        let row = |row: usize| {
            let many = ("many".to_string(), Some(row.to_string()));
            (Some(row.to_string()), Some(vec![many, ("few".to_string(), Some("x".to_string()))]))
        };
        collector.add(&batch(&(0..200).map(row).collect::<Vec<_>>()));
        assert!(collector.memory_size() > 400 * SET_BYTES);
        collector.add(&batch(&(200..400).map(row).collect::<Vec<_>>()));
        assert_eq!(collector.memory_size(), SET_BYTES + 1 + 400 * POSITION_BYTES, "one set of 400 rows is left");
    }

    #[test]
    fn columns_are_texts_and_maps_of_texts() {
        let is_map = |value| {
            let (key, value) = (PrimitiveType::String, Type::Primitive(value));
            let key = NestedField::map_key_element(2, Type::Primitive(key)).into();
            let value = NestedField::map_value_element(3, value, false).into();
            let map = Type::Map(iceberg::spec::MapType::new(key, value));
            is_map_of_texts(&iceberg::arrow::type_to_arrow_type(&map).unwrap())
        };
        assert!(is_map(PrimitiveType::String) && !is_map(PrimitiveType::Int));
        assert!(!is_text(&DataType::Int32) && !is_map_of_texts(&DataType::Utf8));
    }
}
