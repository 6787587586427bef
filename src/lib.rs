//! Mooring: a sticky gateway that makes many ComfyUI servers look like one.
//!
//! Each client is bound to one backend on first contact and stays there until its map of pending
//! prompts drains. `ARCHITECTURE.md` has the map; the modules below are in reading order.

pub mod routing;

pub mod comfy;

pub mod client;
pub mod fleet;
pub mod front;
pub mod gateway;
pub mod journal;
pub mod lock;
pub mod operate;
pub mod report;
pub mod tunnels;

pub mod admin;
pub mod metrics;

pub mod config;
pub mod run;
pub mod server;
pub mod telemetry;

pub mod body;
pub mod cache;
pub mod error;
pub mod heartbeat;
pub mod masked;
pub mod net;
pub mod seldom;
pub mod tap;
pub mod tasks;
pub mod watched;
pub mod ws;

pub mod cli;
pub mod demo;
pub mod sim;
