//! tarndb
