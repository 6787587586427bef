//! One binary for all tests that look at Mooring from outside: one link step, shared helpers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare test functions only, and these are the helpers of tests"
)]

mod daemon;
mod docs;
mod front;
mod many;
mod prompts;
mod races;
mod simulation;
mod strangers;
mod support;
mod tidy;
