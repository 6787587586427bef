//! Who serves this? The decisions about clients, prompts and backends.
//!
//! Pure: no I/O, no clock, no lock, no task, no randomness. `now` is an argument, and what must
//! be done is returned, never done. It compiles without tokio, and a test keeps it so.
//!
//! - [`ids`]: names, parsed once
//! - [`placement`]: which backend for a new binding, and why
//! - [`client`]: one client's binding and pending prompts
//! - [`effects`]: what a transition of a client leaves to be done
//! - [`pending`]: one pending prompt, and when it has ended
//! - [`decision`]: what was decided about a client, and why
//! - [`placement_trace`]: between which backends a placement chose
//! - [`health`]: probe results → up or down
//! - [`ledger`]: who made which prompt, and where
//! - [`owners`]: whose prompts are whose
//! - [`unclaimed`]: prompts that backends have, until their clients come
//! - [`state_change`]: what an operator said of a backend
//! - [`home`]: which backend keeps settings, workflows and the page
//! - [`servers`]: which server is meant, whatever it is called
//! - [`given_names`]: the names of servers that stand in names of files
//! - [`files`]: which backend made the file of a name
//! - [`assets`]: which backend has an asset, and whose it is
//! - [`shard`]: how a ledger is divided

pub mod assets;
pub mod client;
pub mod decision;
pub mod effects;
pub mod end;
pub mod files;
pub mod given_names;
pub mod health;
pub mod home;
pub mod ids;
pub mod ledger;
pub mod owners;
pub mod pending;
pub mod placement;
pub mod placement_trace;
pub mod servers;
pub mod shard;
pub mod state_change;
pub mod token_bucket;
pub mod unclaimed;
pub mod worker;
