//! tarndb-repl
