//! tarndb-testkit
