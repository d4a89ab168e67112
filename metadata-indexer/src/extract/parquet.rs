use std::io::{BufReader, Read, Seek, SeekFrom};

use bytes::Bytes;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::{ChunkReader, Length};

use super::content::Content;
use super::media::PARQUET;
use super::{Annotation, Wrong};

/// A footer of more bytes is that of no file that somebody made on purpose.
const LONGEST_FOOTER: usize = 64 * 1024 * 1024;

impl Length for Content {
    fn len(&self) -> u64 {
        self.size()
    }
}

impl ChunkReader for Content {
    type T = BufReader<Self>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let mut content = self.clone();
        content.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(content))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        if length > LONGEST_FOOTER {
            return Err(ParquetError::General(format!("the footer has {length} bytes, and {LONGEST_FOOTER} are read")));
        }
        let mut bytes = Vec::with_capacity(length);
        self.get_read(start)?.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} go beyond the end of the file")));
        }
        Ok(bytes.into())
    }
}

/// Rows and columns of a Parquet file.
pub(super) fn learn(content: &Content, annotation: &mut Annotation) -> Result<(), Wrong> {
    if content.media_type() != Some(PARQUET) {
        return Ok(());
    }
    let metadata = ParquetMetaDataReader::new().parse_and_finish(content)?;
    let file = metadata.file_metadata();
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
    let columns = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string()));
    annotation.parquet_rows = Some(file.num_rows());
    annotation.parquet_columns = Some(columns.collect());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::super::content::tests::with;
    use super::*;

    fn learnt(bytes: &[u8]) -> (Result<Annotation, String>, usize) {
        with(bytes, |content| {
            let mut annotation = Annotation::default();
            learn(&content, &mut annotation).map_err(|e| e.to_string()).map(|()| annotation)
        })
    }

    #[test]
    fn rows_and_columns_of_a_file_of_which_only_the_ends_are_read() {
        let numbers: ArrayRef = Arc::new((0..200_000).map(|n: i64| n * 7_919 % 1_000_003).collect::<Int64Array>());
        let texts: ArrayRef =
            Arc::new((0..200_000).map(|n: i64| Some(format!("{}", n * 104_729 % 999_983))).collect::<StringArray>());
        let batch = RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        assert!(bytes.len() > 1024 * 1024);
        let (found, reads) = learnt(&bytes);
        let found = found.unwrap();
        assert_eq!(found.parquet_rows, Some(200_000));
        let columns = [("n", "Int64"), ("t", "Utf8")].map(|(name, kind)| (name.to_string(), kind.to_string()));
        assert_eq!(found.parquet_columns, Some(columns.into()));
        assert!(reads <= 3, "{reads}");

        assert_eq!(learnt(b"PARX").0.unwrap(), Annotation::default());
        assert!(learnt(b"PAR1PAR1").0.is_err());
        assert!(learnt(&bytes[..bytes.len() - 1]).0.is_err());
        // A footer that claims to be longer than all.
        let claims = [b"PAR1".to_vec(), vec![0; 100], u32::MAX.to_le_bytes().to_vec(), b"PAR1".to_vec()].concat();
        assert!(learnt(&claims).0.is_err());
    }
}
