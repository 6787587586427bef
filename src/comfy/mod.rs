//! ComfyUI's protocol: its routes, bodies, events and frames.
//!
//! Pure, like [`crate::routing`]. Knowledge about ComfyUI's names and formats is only here.
//!
//! - [`endpoint`]: from method and raw path to the endpoint
//! - [`guard`]: which routes belong to operators; [`deny`]: which are refused to everybody
//! - [`spelling`]: in which ways a server may read a path
//! - [`pack_routes`]: whether a route is ComfyUI's or a node pack's
//! - [`query`]: parameters of a raw query; [`number`]: integers in them
//! - [`submission`]: the body of `POST /prompt`: read, refuse, normalise, give an id
//! - [`submitted`]: who submitted the entries of a queue
//! - [`graph`]: checks a graph's structure for what could break a server
//! - [`refused`]: what a backend lacks that another may have
//! - [`commands`]: the small bodies of routes that name prompts
//! - [`event`]: reads the few socket events that matter
//! - [`progress`]: how far a node is
//! - [`messages`]: events that Mooring itself sends
//! - [`features`]: the server features that a page is told
//! - [`files`]: names of files as clients write them, in views, graphs and masks
//! - [`file_inputs`]: inputs of nodes that take a file
//! - [`foreign`]: routes that ComfyUI itself does not have
//! - [`object_info`]: the lists of `/object_info`, of several servers as one
//! - [`parts`]: what a graph needs of a server and a server lacks
//! - [`names`]: names of files with their backends, on their way to clients and back
//! - [`needs`]: node classes, models and size of a graph
//! - `strings`: strings in outputs that name files
//! - [`model_files`]: the files of models of a server, and their sizes
//! - [`multipart`]: the bodies of uploads
//! - [`preview`]: binary frames; converts type 4 to type 1
//! - [`answers`]: reads backends' answers as far as needed
//! - [`devices`]: the GPUs of a server, and their memory
//! - [`lists`]: queues and histories of several backends as one
//! - [`jobs`]: the jobs API, also for servers that lack it or parts of it
//! - [`assets`]: assets and their tags
//! - [`redact`]: removes client ids from what others see
//! - [`reply`]: Mooring's own answers in ComfyUI's format

pub mod answers;
pub mod assets;
pub mod commands;
pub mod deny;
pub mod devices;
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
pub mod model_files;
pub mod multipart;
pub mod names;
pub mod needs;
pub mod number;
pub mod object_info;
pub mod pack_routes;
pub mod parts;
pub mod preview;
pub mod progress;
pub mod query;
mod raw;
pub mod redact;
pub mod refused;
pub mod reply;
pub mod scan;
pub mod spelling;
mod strings;
pub mod submission;
pub mod submitted;
pub mod users;
pub mod version;
mod walk;
