//! What must hold of a table's files, whatever happened to it.

use std::collections::HashSet;

use futures::TryStreamExt;
use iceberg::spec::ManifestList;
use tarndb_catalog::Storage;
use tarndb_core::Table;

/// Every file that a snapshot of the table refers to, its metadata files included.
///
/// # Panics
/// When metadata cannot be read.
pub async fn referenced_files(storage: &Storage, table: &Table) -> HashSet<String> {
    let metadata = table.metadata();
    let mut files: HashSet<String> = HashSet::from([table.metadata_location().to_string()]);
    files.extend(metadata.metadata_log().iter().map(|log| log.metadata_file.clone()));
    for snapshot in metadata.snapshots() {
        files.insert(snapshot.manifest_list().to_string());
        let list = storage.read(snapshot.manifest_list()).await.unwrap();
        for manifest in ManifestList::parse_with_version(&list, metadata.format_version()).unwrap().consume_entries() {
            files.insert(manifest.manifest_path.clone());
            let loaded = manifest.load_manifest(&storage.file_io()).await.unwrap();
            files.extend(loaded.entries().iter().filter(|e| e.is_alive()).map(|e| e.file_path().to_string()));
        }
    }
    files
}

/// Every file that a live snapshot refers to exists.
///
/// # Panics
/// When one does not.
pub async fn assert_referenced_files_exist(storage: &Storage, table: &Table) {
    for file in referenced_files(storage, table).await {
        assert!(storage.size(&file).await.is_ok(), "{file} is referenced and missing");
    }
}

/// Nothing but what snapshots refer to is in the table's folder.
///
/// # Panics
/// When something is.
pub async fn assert_no_other_files(storage: &Storage, table: &Table) {
    let referenced = referenced_files(storage, table).await;
    let listed: Vec<_> = storage.list(table.location()).unwrap().try_collect().await.unwrap();
    for object in listed {
        assert!(referenced.contains(&object.location), "{} is in the table's folder and not referenced", object.location);
    }
}
