//! One binary for all tests that look at Mooring from outside: one link step, shared helpers.

mod simulation;
mod tidy;
