//! What is this? ComfyUI's language: its routes, bodies, events and frames.
//!
//! Pure, like [`crate::routing`]. Whatever ComfyUI renames next is renamed here and nowhere else.
//!
//! - [`endpoint`]: method + raw path → what is asked
//! - [`guard`]: which routes are the operator's
//! - [`pack_routes`]: whose a route is, ComfyUI's or a node pack's
//! - [`query`]: parameters of a raw query; [`number`]: integers in them
//! - [`submission`]: the body of `POST /prompt`: read, refuse, normalise, give an id
//! - [`submitted`]: who submitted what a queue has
//! - [`graph`]: the skeleton of a graph: what of it could break a server
//! - [`refused`]: what a backend lacks that another may have
//! - [`commands`]: the small bodies of routes that name prompts
//! - [`event`]: the few socket events that are read; all others pass unread
//! - [`messages`]: events that Mooring itself says
//! - [`features`]: what a page is told that its server can do
//! - [`files`]: files as clients name them, in views, graphs and masks
//! - [`file_inputs`]: inputs of nodes that take a file
//! - [`foreign`]: routes that ComfyUI itself does not have
//! - [`object_info`]: the lists of `/object_info`, of several servers as one
//! - [`names`]: names of files with their backends, on their way to clients and back
//! - `strings`: strings of outputs that name files
//! - [`multipart`]: the bodies of uploads
//! - [`preview`]: binary frames; type 4 → 1
//! - [`answers`]: backends' answers, as far as they are read
//! - [`lists`]: queues and histories of several backends as one
//! - [`jobs`]: the jobs API, also for servers that lack it or parts of it
//! - [`assets`]: assets and their tags
//! - [`redact`]: what of a prompt is told to nobody
//! - [`reply`]: answers of ours in ComfyUI's shapes

pub mod answers;
pub mod assets;
pub mod commands;
pub mod endpoint;
pub mod event;
pub mod features;
pub mod file_inputs;
pub mod files;
pub mod foreign;
pub mod graph;
pub mod guard;
pub mod jobs;
pub mod labels;
pub mod lists;
pub mod messages;
pub mod multipart;
pub mod names;
pub mod number;
pub mod object_info;
pub mod pack_routes;
pub mod preview;
pub mod query;
mod raw;
pub mod redact;
pub mod refused;
pub mod reply;
pub mod scan;
mod strings;
pub mod submission;
pub mod submitted;
pub mod version;
mod walk;
