//! Storage: confinement and durability.

use bytes::Bytes;
use futures::TryStreamExt;
use tarndb_catalog::{ErrorKind, Location, Storage};

fn local(folder: &std::path::Path) -> Storage {
    Storage::new(Location::parse(folder.to_str().unwrap()).unwrap())
}

#[tokio::test]
async fn objects_are_written_listed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    for storage in [local(folder.path()), Storage::new(Location::parse("memory://").unwrap())] {
        // Names are taken as they are: nothing is decoded or encoded on the way.
        let names = ["a/b/c.txt", "a/with space", "a/per%20cent", "a/ü=1"];
        for name in names {
            storage.write(&format!("{}/{name}", storage.root()), Bytes::from(name)).await.unwrap();
        }
        for name in names {
            assert_eq!(storage.read(&format!("{}/{name}", storage.root())).await.unwrap(), Bytes::from(name));
        }
        let listed: Vec<_> = storage.list(&format!("{}/a", storage.root())).unwrap().try_collect().await.unwrap();
        let mut found: Vec<String> = listed.into_iter().map(|object| object.location).collect();
        found.sort();
        let mut expected: Vec<String> = names.iter().map(|name| format!("{}/{name}", storage.root())).collect();
        expected.sort();
        assert_eq!(found, expected);
        storage.delete(&expected[0]).await.unwrap();
        storage.delete(&expected[0]).await.unwrap();
        assert_eq!(storage.read(&expected[0]).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn nothing_outside_the_lake_can_be_reached() {
    let folder = tempfile::tempdir().unwrap();
    let storage = local(&folder.path().join("lake"));
    let outside = format!("file://{}/secret", folder.path().display());
    std::fs::write(folder.path().join("secret"), "x").unwrap();
    let sneaky = format!("{}/../secret", storage.root());
    let sibling = format!("{}-other/secret", storage.root());
    for location in [outside.as_str(), sneaky.as_str(), sibling.as_str(), "s3://bucket/x", "relative"] {
        assert!(storage.read(location).await.is_err(), "{location} was read");
        assert!(storage.write(location, Bytes::new()).await.is_err(), "{location} was written");
        assert!(storage.delete(location).await.is_err(), "{location} was deleted");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("secret")).unwrap(), "x");
    // The catalog can vouch for a folder elsewhere.
    storage.allow(&format!("file://{}", folder.path().display()));
    assert!(storage.read(&outside).await.is_ok());
}

/// What a writer that was killed has left is listed and can be deleted.
#[tokio::test]
async fn unfinished_files_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lake");
    std::fs::create_dir_all(root.join("t/data")).unwrap();
    for name in ["whole.parquet", "cut.parquet#1", "cut.parquet#12"] {
        std::fs::write(root.join("t/data").join(name), b"x").unwrap();
    }
    let storage = Storage::new(Location::parse(root.to_str().unwrap()).unwrap());
    let location = format!("{}/t", storage.root());
    let listed: Vec<_> = storage.list(&location).unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len(), 3);
    let failed = storage.delete_all(listed.into_iter().map(|object| object.location)).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(std::fs::read_dir(root.join("t/data")).unwrap().count(), 0);
}
