use std::collections::{BTreeMap, HashMap};

use iceberg::io::FileIO;
use iceberg::puffin::{Blob, CompressionCodec, DELETION_VECTOR_V1, PuffinWriter};
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat};
use tarndb_catalog::{Error, Result};

use super::DeletedRows;
use crate::positions::encode_positions;
use crate::table::Table;
use crate::transaction::WrittenFile;

/// Where the first blob of a Puffin file begins, in bytes: after its magic number.
const FIRST_BLOB: u64 = 4;

/// The field that deletion vectors are about, by the specification: positions.
const POSITION_FIELD: i32 = 2_147_483_645;

/// Writes a deletion vector for each data file, all into one Puffin file.
///
/// # Errors
/// The storage's, after which nothing stays.
pub(crate) async fn write_deletion_vectors(table: &Table, deleted: BTreeMap<String, DeletedRows>) -> Result<Vec<WrittenFile>> {
    if deleted.is_empty() {
        return Ok(Vec::new());
    }
    const NAME: &str = "vectors.puffin";
    let storage = &table.env().storage;
    let location = format!("{}/{}-deletes.puffin", table.data_folder(), storage.ids().uuid());
    let memory = FileIO::new_with_memory();
    let created_by = format!("tarndb {}", env!("CARGO_PKG_VERSION"));
    let properties = HashMap::from([("created-by".to_string(), created_by)]);
    let mut writer = PuffinWriter::new(&memory.new_output(NAME)?, properties, false).await?;
    let mut offset = FIRST_BLOB;
    let mut vectors = Vec::with_capacity(deleted.len());
    for (path, rows) in deleted {
        let content = encode_positions(&rows.positions)?;
        let (length, cardinality) = (content.len() as u64, rows.positions.len());
        let blob = Blob::builder()
            .r#type(DELETION_VECTOR_V1.to_string())
            .fields(vec![POSITION_FIELD])
            .snapshot_id(-1)
            .sequence_number(-1)
            .data(content)
            .properties(HashMap::from([
                ("referenced-data-file".to_string(), path.clone()),
                ("cardinality".to_string(), cardinality.to_string()),
            ]))
            .build();
        writer.add(blob, CompressionCodec::None).await?;
        vectors.push((path, rows, offset, length));
        offset += length;
    }
    writer.close().await?;
    let content = memory.new_input(NAME)?.read().await?;
    let size = content.len() as u64;
    let describe = |(path, rows, offset, length): (String, DeletedRows, u64, u64)| {
        let file = DataFileBuilder::default()
            .content(DataContentType::PositionDeletes)
            .file_path(location.clone())
            .file_format(DataFileFormat::Puffin)
            .partition(rows.partition)
            .partition_spec_id(rows.spec_id)
            .record_count(rows.positions.len())
            .file_size_in_bytes(size)
            .referenced_data_file(Some(path))
            .content_offset(i64::try_from(offset).ok())
            .content_size_in_bytes(i64::try_from(length).ok())
            .build();
        let file = file.map_err(|e| Error::internal("a deletion vector could not be described").with_source(e))?;
        Ok(WrittenFile { spec_id: rows.spec_id, file })
    };
    let files = vectors.into_iter().map(describe).collect::<Result<Vec<_>>>()?;
    storage.write(&location, content).await?;
    Ok(files)
}
