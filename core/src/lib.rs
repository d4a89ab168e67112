//! tarndb-core
