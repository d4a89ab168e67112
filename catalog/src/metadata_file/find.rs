use futures::TryStreamExt;

use super::version_of;
use crate::{Error, ErrorKind, Result, Storage};

/// The metadata file that is current in a table's folder, by `version-hint.text` and by the names in `metadata/`.
///
/// Names are `vN.metadata.json` (Hadoop's tables, whose commit is the creation of the next number) and
/// `NNNNN-<uuid>.metadata.json` (those of catalogs), each also compressed, as `….gz.metadata.json` or
/// `….metadata.json.gz`. The hint counts, but a Hadoop table may be ahead of it. Without a hint the highest version is
/// taken, the newest file where two writers made the same one.
///
/// # Errors
/// `NotFound` when there is no metadata file; the storage's.
pub(crate) async fn find(storage: &Storage, folder: &str) -> Result<String> {
    let folder = format!("{}/metadata", folder.trim_end_matches('/'));
    let mut files: Vec<Candidate> =
        storage.list(&folder)?.map_ok(Candidate::of).try_filter_map(async |c| Ok(c)).try_collect().await?;
    files.sort();
    let hint = hint(storage, &format!("{folder}/version-hint.text")).await?;
    let hinted = hint.and_then(|hint| {
        let mut version = files.iter().any(|file| file.version == hint).then_some(hint)?;
        while files.iter().any(|file| file.version == version.saturating_add(1) && file.version > version && file.is_hadoop) {
            version += 1;
        }
        files.iter().rfind(|file| file.version == version)
    });
    let newest = hinted.or(files.last());
    newest.map(|file| file.location.clone()).ok_or_else(|| {
        Error::not_found(format!(
            "there is no Iceberg table at `{}`: `metadata/` has no metadata file",
            folder.trim_end_matches("/metadata")
        ))
    })
}

/// The version that the hint names; `None` where there is no hint, or none that can be read.
async fn hint(storage: &Storage, location: &str) -> Result<Option<u64>> {
    match storage.read(location).await {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            let text = text.trim();
            Ok(text.parse().ok().or_else(|| version_of(&format!("{text}."))))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    version: u64,
    last_modified_ms: i64,
    location: String,
    is_hadoop: bool,
}

impl Candidate {
    fn of(object: crate::ObjectInfo) -> Option<Self> {
        let name = object.location.rsplit('/').next()?;
        let is_metadata = [".metadata.json", ".metadata.json.gz"].iter().any(|suffix| name.ends_with(suffix));
        let version = version_of(name).filter(|_| is_metadata)?;
        let is_hadoop = name.starts_with('v');
        Some(Self { version, last_modified_ms: object.last_modified_ms, location: object.location, is_hadoop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Location;

    async fn found(files: &[&str], hint: Option<&str>) -> Result<String> {
        let storage = Storage::new(Location::parse("memory://").unwrap());
        let folder = format!("{}/t", storage.root());
        for name in files {
            storage.write(&format!("{folder}/metadata/{name}"), "{}".into()).await.unwrap();
        }
        if let Some(hint) = hint {
            storage.write(&format!("{folder}/metadata/version-hint.text"), hint.to_string().into()).await.unwrap();
        }
        let location = find(&storage, &folder).await?;
        Ok(location.rsplit('/').next().unwrap().to_string())
    }

    #[tokio::test]
    async fn the_current_file_under_any_name() {
        let hadoop = ["v1.metadata.json", "v2.gz.metadata.json", "v10.metadata.json.gz", "v3.metadata.json"];
        assert_eq!(found(&hadoop, None).await.unwrap(), "v10.metadata.json.gz");
        // The table may be ahead of its hint, by versions that follow it without a gap.
        assert_eq!(found(&hadoop, Some("1")).await.unwrap(), "v3.metadata.json");
        assert_eq!(found(&hadoop, Some("10\n")).await.unwrap(), "v10.metadata.json.gz");
        assert_eq!(found(&hadoop, Some("v2.metadata.json")).await.unwrap(), "v3.metadata.json");
        assert_eq!(found(&hadoop, Some("77")).await.unwrap(), "v10.metadata.json.gz");
        let catalog = ["00000-a.metadata.json", "00001-b.metadata.json", "00002-c.gz.metadata.json", "snap-9.avro", "x.json"];
        assert_eq!(found(&catalog, None).await.unwrap(), "00002-c.gz.metadata.json");
        // What a catalog's table has beyond its hint may never have been committed.
        assert_eq!(found(&catalog, Some("1")).await.unwrap(), "00001-b.metadata.json");
        let error = found(&["snap-9.avro"], None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
