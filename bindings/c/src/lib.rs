//! tarndb-c
