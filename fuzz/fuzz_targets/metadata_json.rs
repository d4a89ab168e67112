#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tarndb_catalog::fuzz_metadata(bytes));
