//! tarndb-benches
