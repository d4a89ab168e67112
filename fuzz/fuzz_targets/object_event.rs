#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tarndb_metadata_indexer::fuzzing::object_event(bytes));
