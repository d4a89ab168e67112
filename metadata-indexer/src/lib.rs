//! tarndb-metadata-indexer
