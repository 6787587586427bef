//! One binary for all tests that look at Mooring from outside: one link step, shared helpers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare test functions only, and these are the helpers of tests"
)]

mod added;
mod adopted;
mod assets;
mod backends;
mod base_path;
mod bodies;
mod certificates;
mod codings;
mod commands;
mod configuration;
mod corpora;
mod crowd;
mod daemon;
mod dials;
mod differential;
mod discovery;
mod dns_server;
mod docs;
mod doors;
mod empty;
mod ends;
mod faults;
mod files;
mod frames;
mod framing;
mod front;
mod growing;
mod holdback;
mod home_away;
mod home_saves;
mod hosts;
mod http2;
mod journal;
mod kept_files;
mod keys;
mod kills;
mod kubernetes;
mod kubernetes_api;
mod late;
mod leftovers;
mod listings;
mod lists;
mod login;
mod many;
mod meanings;
mod membership;
mod mixed;
mod named_by_proxy;
mod own;
mod owners;
mod packs;
mod page;
mod panics;
mod passthrough;
mod pictures;
mod places;
mod process;
mod prompts;
mod races;
mod readme;
mod reconnects;
mod recordings;
mod refusals;
mod reload;
mod restart;
mod rooms;
mod schemas;
mod secrets;
mod shared;
mod sim;
mod simulation;
mod skeleton;
mod sockets;
mod spellings;
mod starts;
mod stop;
mod strangers;
mod support;
mod tidy;
mod tls;
mod tls_backends;
mod told;
mod tunnels;
mod turmoil;
#[cfg(debug_assertions)]
mod ways;
mod whose;
mod wild;
mod words;
mod workers;
