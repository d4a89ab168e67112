#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tarndb_core::fuzzing::name_mapping(bytes));
