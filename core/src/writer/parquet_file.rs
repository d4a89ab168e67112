use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::SchemaDescPtr;

use super::page_checksums::with_checksums;

/// Encodes batches as one Parquet file, in memory. It does what `ArrowWriter` does, and adds checksums to the pages: they can be
/// added to whole columns only, before the file's metadata is made of them.
pub(super) struct ParquetFileWriter {
    arrow: SchemaRef,
    schema: SchemaDescPtr,
    properties: WriterPropertiesPtr,
    file: SerializedFileWriter<Vec<u8>>,
    columns: ArrowRowGroupWriterFactory,
    open: Option<RowGroup>,
}

struct RowGroup {
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

impl RowGroup {
    fn encoded_size(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// How many rows there is room for, if they are as wide as those before.
    fn room(&self, properties: &WriterPropertiesPtr) -> usize {
        let by_rows = properties.max_row_group_row_count().map_or(usize::MAX, |most| most.saturating_sub(self.rows));
        let by_bytes = properties.max_row_group_bytes().and_then(|most| {
            let bytes = self.encoded_size();
            if bytes >= most && self.rows > 0 {
                return Some(0);
            }
            (most - bytes.min(most)).checked_div(bytes.checked_div(self.rows)?)
        });
        by_rows.min(by_bytes.unwrap_or(usize::MAX))
    }

    fn write(&mut self, batch: &RecordBatch, arrow: &SchemaRef) -> Result<()> {
        let mut columns = self.columns.iter_mut();
        for (field, array) in arrow.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, array)? {
                let column =
                    columns.next().ok_or_else(|| ParquetError::General(format!("column `{}` has no writer", field.name())))?;
                column.write(&leaf)?;
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }
}

/// Bytes that are written one after the other, cut into chunks of known lengths.
struct Chunks {
    lengths: std::vec::IntoIter<usize>,
    chunks: Vec<Vec<u8>>,
    /// Bytes that the last chunk lacks.
    left: usize,
}

impl Chunks {
    fn new(lengths: Vec<usize>) -> Self {
        Self { chunks: Vec::with_capacity(lengths.len()), lengths: lengths.into_iter(), left: 0 }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.left == 0 && !bytes.is_empty() {
            self.left = self.lengths.next().ok_or_else(|| io::Error::other("a row group has more bytes than its columns"))?;
            self.chunks.push(Vec::with_capacity(self.left));
        }
        let taken = bytes.split_at_checked(self.left).map_or(bytes, |(taken, _)| taken);
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.extend_from_slice(taken);
        }
        self.left -= taken.len();
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ParquetFileWriter {
    pub(super) fn try_new(arrow: SchemaRef, properties: WriterPropertiesPtr) -> Result<Self> {
        let schema = ArrowSchemaConverter::new().with_coerce_types(properties.coerce_types()).convert(&arrow)?;
        let file = SerializedFileWriter::new(Vec::new(), schema.root_schema_ptr(), Arc::clone(&properties))?;
        let columns = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&arrow));
        Ok(Self { arrow, schema: Arc::new(schema), properties, file, columns, open: None })
    }

    /// Adds rows to the row group that is open, and ends it when it is full.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut written = 0;
        while written < batch.num_rows() {
            let group = match &mut self.open {
                Some(group) => group,
                none => {
                    let columns = self.columns.create_column_writers(self.file.flushed_row_groups().len())?;
                    none.insert(RowGroup { columns, rows: 0 })
                }
            };
            let rows = group.room(&self.properties).min(batch.num_rows() - written);
            group.write(&batch.slice(written, rows), &self.arrow)?;
            written += rows;
            if group.room(&self.properties) == 0 {
                self.end_row_group()?;
            }
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        let Some(group) = self.open.take() else {
            return Ok(());
        };
        let chunks = group.columns.into_iter().map(ArrowColumnWriter::close).collect::<Result<Vec<_>>>()?;
        let lengths = chunks.iter().map(|chunk| usize::try_from(chunk.close().bytes_written));
        // A chunk gives its bytes to the writer of a row group and to nobody else: so to one that is thrown away.
        let mut encoded = TrackedWrite::new(Chunks::new(lengths.collect::<std::result::Result<_, _>>()?));
        let mut staging =
            SerializedRowGroupWriter::new(Arc::clone(&self.schema), Arc::clone(&self.properties), &mut encoded, 0, None);
        let mut closed = Vec::with_capacity(chunks.len());
        for mut chunk in chunks {
            let bloom_filter = chunk.close_mut().bloom_filter.take();
            closed.push(ColumnCloseResult { bloom_filter, ..chunk.close().clone() });
            chunk.append_to_row_group(&mut staging)?;
        }
        drop(staging);
        let mut row_group = self.file.next_row_group()?;
        // Each chunk goes when its copy is made: a row group may be most of what memory there is.
        for (chunk, close) in encoded.into_inner()?.chunks.into_iter().zip(closed) {
            let (chunk, close) = with_checksums(&chunk.into(), close)?;
            row_group.append_column(&chunk, close)?;
        }
        row_group.close()?;
        Ok(())
    }

    /// What is encoded since the last call, to be written after all before.
    pub(super) fn take_encoded(&mut self) -> Bytes {
        std::mem::take(self.file.inner_mut()).into()
    }

    /// Bytes of the file so far, with an estimate for the row group that is open.
    pub(super) fn encoded_size(&self) -> usize {
        self.file.bytes_written() + self.open.as_ref().map_or(0, RowGroup::encoded_size)
    }

    /// Bytes of memory that the row group that is open takes.
    pub(super) fn memory_size(&self) -> usize {
        self.open.iter().flat_map(|group| &group.columns).map(ArrowColumnWriter::memory_size).sum()
    }

    /// Puts bytes behind the row groups that no reader of Parquet looks at, and into the file's metadata what `describe` makes of
    /// their offset and of the number of rows.
    pub(super) fn embed(
        &mut self,
        bytes: &[u8],
        describe: impl FnOnce(u64, i64) -> tarndb_catalog::Result<KeyValue>,
    ) -> tarndb_catalog::Result<()> {
        let unwritten = |e: ParquetError| tarndb_catalog::Error::internal("a Parquet file could not be written").with_source(e);
        self.end_row_group().map_err(unwritten)?;
        let rows = self.file.flushed_row_groups().iter().map(|group| group.num_rows()).sum();
        let pair = describe(self.file.bytes_written() as u64, rows)?;
        self.file.write_all(bytes).map_err(|e| unwritten(e.into()))?;
        self.file.append_key_value_metadata(pair);
        Ok(())
    }

    /// Ends the file. The rest of it is there to be taken.
    pub(super) fn finish(&mut self) -> Result<ParquetMetaData> {
        self.end_row_group()?;
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema};
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::properties::{WriterProperties, WriterVersion};

    use super::*;

    fn rows(start: i32, count: i32) -> RecordBatch {
        let ids: Int32Array = (start..start + count).collect();
        let few: StringArray = (start..start + count).map(|row| (row % 7 != 0).then(|| format!("word {}", row % 5))).collect();
        let many: StringArray = (start..start + count).map(|row| Some(format!("text {row}"))).collect();
        let lists = (start..start + count).map(|row| (row % 11 != 0).then(|| (0..row % 4).map(Some).collect::<Vec<_>>()));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        let fields = Fields::from(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)]);
        let nested = StructArray::new(fields, vec![Arc::new(ids.clone()), Arc::new(few.clone())], None);
        let nothing = StringArray::new_null(ids.len());
        let columns: [(&str, ArrayRef); 6] = [
            ("id", Arc::new(ids)),
            ("few", Arc::new(few)),
            ("many", Arc::new(many)),
            ("lists", Arc::new(lists)),
            ("nested", Arc::new(nested)),
            ("nothing", Arc::new(nothing)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn encode(batches: &[RecordBatch], properties: &WriterPropertiesPtr) -> (Bytes, ParquetMetaData) {
        let mut writer = ParquetFileWriter::try_new(batches[0].schema(), Arc::clone(properties)).unwrap();
        let mut file = Vec::new();
        for batch in batches {
            writer.write(batch).unwrap();
            file.extend(writer.take_encoded());
        }
        let footer = writer.finish().unwrap();
        file.extend(writer.take_encoded());
        assert_eq!(file.len(), writer.encoded_size());
        (file.into(), footer)
    }

    fn open(file: Bytes) -> ParquetRecordBatchReaderBuilder<Bytes> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap()
    }

    fn decode(builder: ParquetRecordBatchReaderBuilder<Bytes>, schema: &Arc<Schema>) -> arrow::error::Result<RecordBatch> {
        let batches = builder.with_batch_size(100).build()?.collect::<arrow::error::Result<Vec<_>>>()?;
        arrow::compute::concat_batches(schema, &batches)
    }

    /// Small pages and row groups, in both versions of pages.
    fn variants() -> Vec<WriterPropertiesPtr> {
        let mut variants = Vec::new();
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())] {
                for dictionary in [true, false] {
                    let properties = WriterProperties::builder()
                        .set_writer_version(version)
                        .set_compression(compression)
                        .set_dictionary_enabled(dictionary)
                        // Of the column `many` some pages have no dictionary any more.
                        .set_dictionary_page_size_limit(1000)
                        .set_bloom_filter_enabled(true)
                        .set_data_page_row_count_limit(50)
                        .set_write_batch_size(25)
                        .set_max_row_group_row_count(Some(300));
                    variants.push(Arc::new(properties.build()));
                }
            }
        }
        variants
    }

    #[test]
    fn rows_come_back_whole_and_by_pages() {
        let batches = [rows(0, 130), rows(130, 0), rows(130, 700), rows(830, 1)];
        let schema = batches[0].schema();
        let all = arrow::compute::concat_batches(&schema, &batches).unwrap();
        for properties in variants() {
            let (file, _) = encode(&batches, &properties);
            assert_eq!(decode(open(file.clone()), &schema).unwrap(), all);
            // Some rows far into the file: what is between is passed over by the places of the pages.
            let some = RowSelection::from(vec![RowSelector::skip(460), RowSelector::select(3), RowSelector::skip(368)]);
            assert_eq!(decode(open(file.clone()).with_row_selection(some), &schema).unwrap(), all.slice(460, 3));
            let filters = open(file);
            for (group, start) in (0..filters.metadata().num_row_groups()).zip([0, 300, 600]) {
                let id = filters.get_row_group_column_bloom_filter(group, 0).unwrap().unwrap();
                let many = filters.get_row_group_column_bloom_filter(group, 2).unwrap().unwrap();
                assert!((start..start + 231).all(|row| id.check(&row) && many.check(&format!("text {row}").as_str())));
            }
        }
    }

    #[test]
    fn a_changed_byte_of_a_page_is_an_error() {
        let batch = rows(0, 400);
        for properties in variants() {
            let (file, _) = encode(std::slice::from_ref(&batch), &properties);
            let reader = open(file.clone());
            let footer = reader.metadata();
            let mut pages = 0;
            for (group, places) in footer.row_groups().iter().zip(footer.offset_index().unwrap()) {
                for (column, places) in group.columns().iter().zip(places) {
                    let dictionary = column.dictionary_page_offset().map(|_| column.data_page_offset());
                    let ends = places.page_locations.iter().map(|page| page.offset + i64::from(page.compressed_page_size));
                    for end in dictionary.into_iter().chain(ends) {
                        let mut changed = file.to_vec();
                        changed[usize::try_from(end).unwrap() - 1] ^= 1;
                        let error = decode(open(changed.into()), &batch.schema()).unwrap_err();
                        // The dictionary of a column of NULLs has no content.
                        assert!(error.to_string().contains("CRC") || column.column_path().string() == "nothing", "{error}");
                        pages += 1;
                    }
                }
            }
            assert!(pages > 40, "{pages} pages");
        }
    }

    /// Row groups end where those of `ArrowWriter` end, and what is told of columns is the same but for the checksums.
    #[test]
    fn files_are_those_of_the_arrow_writer_with_checksums() {
        let batches: Vec<RecordBatch> = (0..40).map(|number| rows(number * 100, 100)).collect();
        let limits = [
            (Some(700), None),
            (Some(150), None),
            (None, Some(20_000)),
            (Some(900), Some(20_000)),
            (None, Some(1)),
            (None, None),
        ];
        for (row_count, bytes) in limits {
            let properties =
                WriterProperties::builder().set_max_row_group_row_count(row_count).set_max_row_group_bytes(bytes).build();
            let mut plain = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties.clone())).unwrap();
            batches.iter().for_each(|batch| plain.write(batch).unwrap());
            let plain = plain.finish().unwrap();
            let (_, ours) = encode(&batches, &Arc::new(properties));
            assert_eq!(plain.row_groups().len(), ours.row_groups().len(), "{row_count:?} {bytes:?}");
            for (theirs, ours) in plain.row_groups().iter().zip(ours.row_groups()) {
                assert_eq!(theirs.num_rows(), ours.num_rows());
                for (theirs, ours) in theirs.columns().iter().zip(ours.columns()) {
                    assert_eq!(theirs.statistics(), ours.statistics());
                    assert_eq!(theirs.page_encoding_stats(), ours.page_encoding_stats());
                    assert_eq!(theirs.num_values(), ours.num_values());
                    let growth = ours.compressed_size() - theirs.compressed_size();
                    assert!((1..=6 * 5).contains(&growth), "{growth}");
                    assert_eq!(ours.uncompressed_size() - theirs.uncompressed_size(), growth);
                }
            }
            assert_eq!(plain.column_index(), ours.column_index());
        }
    }
}
