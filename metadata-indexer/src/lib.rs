//! The metadata index: object-change events kept as ordinary Iceberg tables.
//!
//! This crate plugs into the engine through [`tarndb_core::Extension`]. The index itself is not there yet: its statements
//! are recognised and refused, so that nobody takes a wrong word for a missing feature.

use async_trait::async_trait;
use tarndb_core::{Error, Extension, Lakehouse, QueryResult, Result};

/// The extension that will own `CREATE METADATA INDEX`, `DROP METADATA INDEX` and `SHOW METADATA INDEXES`.
#[derive(Debug, Default, Clone, Copy)]
pub struct MetadataIndexer;

#[async_trait]
impl Extension for MetadataIndexer {
    fn name(&self) -> &'static str {
        "metadata index"
    }

    async fn execute(&self, _lake: &Lakehouse, statement: &str) -> Result<Option<QueryResult>> {
        let mut words = statement.split_whitespace().map(str::to_ascii_uppercase);
        let verb = words.next().unwrap_or_default();
        let is_own = matches!(verb.as_str(), "CREATE" | "DROP" | "SHOW") && words.next().as_deref() == Some("METADATA");
        if is_own {
            return Err(Error::unsupported(format!("{verb} METADATA INDEX is not supported yet")));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tarndb_core::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn its_statements_are_refused_by_name_and_others_run() {
        let lake = Lakehouse::builder("memory://").with_extension(Arc::new(MetadataIndexer)).build().await.unwrap();
        let error = lake.sql("create metadata index docs on './x'").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("CREATE METADATA INDEX"));
        assert!(lake.sql("SHOW TABLES").await.is_ok());
    }
}
