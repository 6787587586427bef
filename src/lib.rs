//! Mooring: a sticky gateway that makes many ComfyUI servers look like one.
//!
//! Each client is bound to one backend on first contact and stays there until its map of pending
//! prompts drains. `ARCHITECTURE.md` has the map; the modules below are in reading order.

pub mod routing;

pub mod comfy;

pub mod queue;

pub mod auth;

pub mod fleet;
pub mod front;
pub mod journal;
pub mod limits;
pub mod lock;
mod records;
mod report;
pub mod session;
pub mod shared;
pub mod store;
pub mod tunnels;

mod admin;
mod audit;
pub mod discovery;
pub mod lines;
pub mod metrics;
pub mod reload;

pub mod config;
pub mod run;
pub mod server;
mod telemetry;

mod body;
pub mod cache;
mod lazy_poll;
pub mod masked;
pub mod net;
mod ordered_watch;
pub mod tasks;
pub mod ws;

pub mod cli;
mod demo;
pub mod sim;
