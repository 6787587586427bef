//! Who serves this? The decisions about clients, prompts and backends.
//!
//! Pure: no I/O, no clock, no lock, no task, no randomness. `now` is an argument, and what must
//! be done is returned, never done. It compiles without tokio, and a test keeps it so.

pub mod ids;
