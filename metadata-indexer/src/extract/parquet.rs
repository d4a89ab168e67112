use std::io::{Read, Seek, SeekFrom};

use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::FooterTail;
use tarndb_core::decode_parquet_footer;

use super::content::Content;
use super::media::PARQUET;
use super::{Annotation, Wrong};

/// A footer of more bytes is that of no file that somebody made on purpose.
const LONGEST_FOOTER: usize = 64 * 1024 * 1024;

/// The length of the footer, and the magic number.
const END: usize = 8;

/// Rows and columns of a Parquet file.
pub(super) fn learn(content: &Content, annotation: &mut Annotation) -> Result<(), Wrong> {
    if content.media_type() != Some(PARQUET) {
        return Ok(());
    }
    let mut file = content.clone();
    let mut end = [0; END];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut end)?;
    let end = FooterTail::try_from(end.as_slice())?;
    if end.is_encrypted_footer() {
        return Err("the footer is encrypted".into());
    }
    let length = end.metadata_length();
    let start = content.size().checked_sub((length + END) as u64).ok_or("the footer is longer than the file")?;
    if length > LONGEST_FOOTER {
        return Err(format!("the footer has {length} bytes, and {LONGEST_FOOTER} are read").into());
    }
    let mut footer = vec![0; length];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut footer)?;
    let metadata = decode_parquet_footer(&footer, content.size()).map_err(|e| e.report())?;
    let schema = parquet_to_arrow_schema(metadata.file_metadata().schema_descr(), None)?;
    let columns = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string()));
    annotation.parquet_rows = Some(metadata.file_metadata().num_rows());
    annotation.parquet_columns = Some(columns.collect());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::super::content::tests::learnt_by;
    use super::*;

    fn learnt(bytes: &[u8]) -> (Result<Annotation, String>, usize) {
        learnt_by(learn, bytes)
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
