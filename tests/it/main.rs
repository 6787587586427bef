//! One binary for all tests that look at Mooring from outside: one link step, shared helpers.

mod backends;
mod daemon;
mod docs;
mod ends;
mod front;
mod many;
mod prompts;
mod races;
mod simulation;
mod sockets;
mod strangers;
mod support;
mod tidy;
