//! See `src/request_heads.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mooring_fuzz::request_heads::check(data));
