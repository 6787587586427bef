//! See `src/chunks.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mooring_fuzz::chunks::check(data));
