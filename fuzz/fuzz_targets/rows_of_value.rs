#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tarndb_core::fuzzing::rows_of_value(bytes));
