//! One binary for all tests that look at Mooring from outside: one link step, shared helpers.

mod daemon;
mod prompts;
mod simulation;
mod strangers;
mod support;
mod tidy;
