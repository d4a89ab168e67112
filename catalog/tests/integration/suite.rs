//! What every catalog has to do. Each function takes an empty catalog.

use std::collections::HashMap;
use std::sync::Arc;

use futures::TryStreamExt;
use iceberg::spec::{FormatVersion, NestedField, PrimitiveType, Schema, TableMetadata, TableMetadataBuilder, Type};
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};
use tarndb_catalog::{Catalog, CommitOutcome, ErrorKind, TableCommit};

fn namespace(name: &str) -> NamespaceIdent {
    NamespaceIdent::from_strs(name.split('.')).unwrap()
}

fn ident(namespace_name: &str, table: &str) -> TableIdent {
    TableIdent::new(namespace(namespace_name), table.to_string())
}

fn metadata(catalog: &dyn Catalog, table: &TableIdent) -> TableMetadata {
    let field = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
    let creation = TableCreation::builder()
        .name(table.name().to_string())
        .location(format!("{}/{}", catalog.storage().root(), table.name()))
        .schema(Schema::builder().with_fields(vec![field.into()]).build().unwrap())
        .format_version(FormatVersion::V2)
        .build();
    TableMetadataBuilder::from_table_creation(creation).unwrap().build().unwrap().metadata
}

async fn create(catalog: &dyn Catalog, table: &TableIdent) {
    catalog.create_table(table, metadata(catalog, table), Vec::new()).await.unwrap();
}

fn set(table: &TableIdent, key: &str, value: &str, requirements: Vec<TableRequirement>) -> TableCommit {
    let updates = vec![TableUpdate::SetProperties { updates: HashMap::from([(key.to_string(), value.to_string())]) }];
    TableCommit { ident: table.clone(), base_metadata_location: None, requirements, updates, files: Vec::new() }
}

pub(crate) async fn namespaces_are_created_listed_and_dropped(catalog: Arc<dyn Catalog>) {
    for name in ["b", "a.x", "a"] {
        catalog.create_namespace(&namespace(name), HashMap::new()).await.unwrap();
    }
    assert_eq!(catalog.list_namespaces().await.unwrap(), vec![namespace("a"), namespace("a.x"), namespace("b")]);
    let error = catalog.create_namespace(&namespace("a"), HashMap::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    catalog.drop_namespace(&namespace("b")).await.unwrap();
    assert!(!catalog.namespace_exists(&namespace("b")).await.unwrap());
    assert_eq!(catalog.drop_namespace(&namespace("b")).await.unwrap_err().kind(), ErrorKind::NotFound);
    create(catalog.as_ref(), &ident("a.x", "t")).await;
    assert_eq!(catalog.drop_namespace(&namespace("a.x")).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(catalog.list_tables(&namespace("none")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

pub(crate) async fn tables_are_created_loaded_renamed_and_dropped(catalog: Arc<dyn Catalog>) {
    let catalog = catalog.as_ref();
    let (first, second) = (ident("n", "first"), ident("m", "second"));
    let missing = catalog.create_table(&first, metadata(catalog, &first), Vec::new()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    for name in ["n", "m"] {
        catalog.create_namespace(&namespace(name), HashMap::new()).await.unwrap();
    }
    create(catalog, &first).await;
    let loaded = catalog.load_table(&first).await.unwrap();
    assert_eq!(loaded.metadata.current_schema().field_by_id(1).unwrap().name, "id");
    assert!(loaded.metadata_location.ends_with(".metadata.json"));
    let again = catalog.create_table(&first, metadata(catalog, &first), Vec::new()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);

    catalog.rename_table(&first, &second).await.unwrap();
    assert_eq!(catalog.load_table(&first).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(catalog.load_table(&second).await.unwrap().metadata.uuid(), loaded.metadata.uuid());
    create(catalog, &first).await;
    assert_eq!(catalog.rename_table(&first, &second).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(catalog.rename_table(&ident("n", "none"), &ident("n", "x")).await.unwrap_err().kind(), ErrorKind::NotFound);

    assert_eq!(catalog.metadata_location(&second).await.unwrap(), loaded.metadata_location);
    let other = catalog.load_table(&first).await.unwrap().metadata.uuid();
    assert_eq!(catalog.drop_table(&second, Some(other)).await.unwrap_err().kind(), ErrorKind::CommitConflict);
    assert!(catalog.table_exists(&second).await.unwrap());
    catalog.drop_table(&second, Some(loaded.metadata.uuid())).await.unwrap();
    assert!(!catalog.table_exists(&second).await.unwrap());
    assert_eq!(catalog.drop_table(&second, None).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(catalog.list_tables(&namespace("n")).await.unwrap(), vec![first]);
}

pub(crate) async fn requirements_are_checked(catalog: Arc<dyn Catalog>) {
    let catalog = catalog.as_ref();
    catalog.create_namespace(&namespace("n"), HashMap::new()).await.unwrap();
    let table = ident("n", "t");
    create(catalog, &table).await;
    let wrong = TableRequirement::CurrentSchemaIdMatch { current_schema_id: 77 };
    let outcome = catalog.commit(vec![set(&table, "k", "v", vec![wrong])]).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Conflict { ident, .. } if ident == table));
    assert!(catalog.load_table(&table).await.unwrap().metadata.properties().is_empty());

    let right = TableRequirement::UuidMatch { uuid: catalog.load_table(&table).await.unwrap().metadata.uuid() };
    let outcome = catalog.commit(vec![set(&table, "k", "v", vec![right])]).await.unwrap();
    let CommitOutcome::Committed(tables) = outcome else { panic!("not committed") };
    assert_eq!(tables[0].metadata.properties()["k"], "v");
    let loaded = catalog.load_table(&table).await.unwrap();
    assert_eq!(loaded.metadata.properties()["k"], "v");
    assert_eq!(loaded.metadata.metadata_log().len(), 1);
    let mut stale = set(&table, "k", "stale", Vec::new());
    stale.base_metadata_location = Some("file:///elsewhere/metadata/00000-x.metadata.json".to_string());
    let outcome = catalog.commit(vec![stale]).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Conflict { .. }), "a commit made from another state");
    let gone = catalog.commit(vec![set(&ident("n", "none"), "k", "v", Vec::new())]).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

pub(crate) async fn old_metadata_files_go_when_the_table_asks(catalog: Arc<dyn Catalog>) {
    let catalog = catalog.as_ref();
    catalog.create_namespace(&namespace("n"), HashMap::new()).await.unwrap();
    for (name, enabled, files) in [("keeps", "false", 8), ("forgets", "true", 4)] {
        let table = ident("n", name);
        create(catalog, &table).await;
        for (key, value) in
            [("write.metadata.previous-versions-max", "3"), ("write.metadata.delete-after-commit.enabled", enabled)]
        {
            catalog.commit(vec![set(&table, key, value, Vec::new())]).await.unwrap();
        }
        for commit in 0..5 {
            catalog.commit(vec![set(&table, "k", &commit.to_string(), Vec::new())]).await.unwrap();
        }
        let loaded = catalog.load_table(&table).await.unwrap();
        assert_eq!(loaded.metadata.metadata_log().len(), 3);
        let folder = format!("{}/metadata", loaded.metadata.location());
        let found: Vec<_> = catalog.storage().list(&folder).unwrap().try_collect().await.unwrap();
        assert_eq!(found.len(), files, "{name}: {found:?}");
        for entry in loaded.metadata.metadata_log() {
            assert!(found.iter().any(|file| file.location == entry.metadata_file), "{name}: {entry:?}");
        }
    }
}

pub(crate) async fn several_tables_commit_together_or_not_at_all(catalog: Arc<dyn Catalog>) {
    let catalog = catalog.as_ref();
    catalog.create_namespace(&namespace("n"), HashMap::new()).await.unwrap();
    let (a, b) = (ident("n", "a"), ident("n", "b"));
    create(catalog, &a).await;
    create(catalog, &b).await;
    let wrong = TableRequirement::CurrentSchemaIdMatch { current_schema_id: 77 };
    let outcome = catalog.commit(vec![set(&a, "k", "v", Vec::new()), set(&b, "k", "v", vec![wrong])]).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Conflict { ident, .. } if ident == b));
    assert!(catalog.load_table(&a).await.unwrap().metadata.properties().is_empty());
    let outcome = catalog.commit(vec![set(&a, "k", "v", Vec::new()), set(&b, "k", "v", Vec::new())]).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(tables) if tables.len() == 2));
    for table in [&a, &b] {
        assert_eq!(catalog.load_table(table).await.unwrap().metadata.properties()["k"], "v");
    }
    let twice = catalog.commit(vec![set(&a, "x", "1", Vec::new()), set(&a, "y", "2", Vec::new())]).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InvalidInput);
}

pub(crate) async fn concurrent_commits_lose_nothing(catalog: Arc<dyn Catalog>) {
    contend(vec![Arc::clone(&catalog), catalog]).await;
}

const WRITERS: usize = 8;
const COMMITS: usize = 5;

/// Many writers set a property each, trying again on conflict; in the end all are there.
pub(crate) async fn contend(catalogs: Vec<Arc<dyn Catalog>>) {
    prepare_contention(catalogs[0].as_ref()).await;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let catalog = Arc::clone(&catalogs[writer % catalogs.len()]);
        writers.push(tokio::spawn(async move { write_in_contention(catalog.as_ref(), writer, COMMITS).await }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(commits_in_contention(catalogs[0].as_ref()).await, WRITERS * COMMITS);
}

/// Creates the table of the contention tests.
pub(crate) async fn prepare_contention(catalog: &dyn Catalog) {
    catalog.create_namespace(&namespace("n"), HashMap::new()).await.unwrap();
    create(catalog, &ident("n", "t")).await;
}

/// Commits `commits` times, trying again on conflict.
pub(crate) async fn write_in_contention(catalog: &dyn Catalog, writer: usize, commits: usize) {
    let table = ident("n", "t");
    for commit in 0..commits {
        loop {
            match catalog.commit(vec![set(&table, &format!("{writer}-{commit}"), "v", Vec::new())]).await.unwrap() {
                CommitOutcome::Committed(_) => break,
                CommitOutcome::Conflict { .. } => {}
                CommitOutcome::Unknown(error) => panic!("{error:?}"),
            }
        }
    }
}

/// How many of the contending commits are in the table.
pub(crate) async fn commits_in_contention(catalog: &dyn Catalog) -> usize {
    catalog.load_table(&ident("n", "t")).await.unwrap().metadata.properties().len()
}
