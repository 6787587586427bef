//! The decisions about clients, prompts and backends: who serves a request.
//!
//! Pure: no I/O, no clock, no lock, no task, no randomness. `now` is an argument, and actions are
//! returned as values. It compiles without tokio, and a test checks that.
//!
//! - [`ids`]: ids, parsed once
//! - [`placement`]: which backend for a new binding, and why
//! - [`client`]: one client's binding and pending prompts
//! - [`effects`]: what has to be done after a transition of a client
//! - [`pending`]: one pending prompt, and when it has ended
//! - [`decision`]: what was decided about a client, and why
//! - [`placement_trace`]: which backends a placement compared
//! - [`health`]: probe results → up or down
//! - [`ledger`]: who made which prompt, and where
//! - [`owners`]: who owns which prompts
//! - [`realm`]: whose clients are whose, where users are asked for
//! - [`unclaimed`]: prompts on backends whose clients have not come yet
//! - [`state_change`]: the state that an operator set for a backend
//! - [`home`]: which backend keeps settings, workflows and the page
//! - [`servers`]: which server is meant, independent of its name
//! - [`given_names`]: the names of servers in file names
//! - [`user_folder`]: where a user's uploads are at backends
//! - [`files`]: which backend has the file of a name
//! - [`assets`]: which backend has an asset, and who owns it
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
pub mod realm;
pub mod servers;
pub mod shard;
pub mod state_change;
pub mod token_bucket;
pub mod unclaimed;
pub mod user_folder;
pub mod worker;
