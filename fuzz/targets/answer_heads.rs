//! See `src/answer_heads.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mooring_fuzz::answer_heads::check(data));
