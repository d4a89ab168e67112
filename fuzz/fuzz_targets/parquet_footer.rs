#![no_main]

// Panics of Parquet's reader are caught where it is called; libFuzzer's hook would abort before. Others still end the run.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| tarndb_core::fuzzing::parquet_footer(bytes));
