use std::sync::Arc;

use iceberg::TableIdent;

use crate::metadata_file::{self, ParsedMetadata};
use crate::{Error, LoadedTable, Result, Storage};

/// Properties by which a table has files beside its folder.
const PATHS: [&str; 4] = ["write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path"];

/// A table that is opened by its path, without a catalog.
#[derive(Debug, Clone)]
pub struct PathTable {
    /// The table, named after its folder.
    pub loaded: LoadedTable,
    /// The table's files: they are found in its folder when that was moved since the metadata was written.
    pub storage: Storage,
}

impl PathTable {
    /// Opens the table in a folder, at the version that is current there, or by one of its metadata files. `lake` gives clock
    /// and ids, and the memory in which `memory:` locations are.
    ///
    /// # Errors
    /// `NotFound` when there is no table; `DataInvalid` when its metadata cannot be read; `Unsupported` for locations of
    /// other stores than the local file system.
    pub async fn open(lake: &Storage, path: &str) -> Result<Self> {
        let is_file = path.ends_with(".json") || path.ends_with(".json.gz");
        let folder = if is_file { folder_of(path)? } else { path };
        let folder = lake.location().folder(folder)?;
        let here = lake.of_table(folder.clone(), folder.url());
        let metadata_location = if is_file {
            let name = path.get(path.rfind('/').map_or(0, |slash| slash + 1)..).unwrap_or_default();
            let in_metadata = path.rsplit('/').nth(1) == Some("metadata");
            format!("{}/{}{name}", folder.url(), if in_metadata { "metadata/" } else { "" })
        } else {
            metadata_file::find(&here, folder.url()).await?
        };
        let ParsedMetadata { metadata, unsupported_types } = metadata_file::read(&here, &metadata_location).await?;
        let name = folder.url().rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("table");
        let ident = TableIdent::from_strs(["path", name])?;
        let storage = lake.of_table(folder, metadata.location());
        // Where the table says that it keeps its files, as a whole, and not what single manifests name.
        for path in PATHS.iter().filter_map(|property| metadata.properties().get(*property)) {
            storage.allow(path);
        }
        let loaded = LoadedTable { ident, metadata_location, metadata: Arc::clone(&metadata), unsupported_types };
        Ok(Self { loaded, storage })
    }
}

/// The table's folder, from the location of a metadata file.
fn folder_of(path: &str) -> Result<&str> {
    let (folder, _) = path.rsplit_once('/').unwrap_or((".", path));
    let folder = if folder == "metadata" { "." } else { folder.strip_suffix("/metadata").unwrap_or(folder) };
    if folder.is_empty() {
        return Err(Error::invalid_input(format!("`{path}` lies in no folder of a table")));
    }
    Ok(folder)
}
