//! The passthrough: reads that are only passed on, as bytes from one connection to the other.
//!
//! Such a read and its answer need no map of headers and no task of their own. Their heads are
//! walked once: headers that end at this hop are left out, ours are added, and all others are
//! copied unchanged. Of bodies only the framing is read. Every other request is handed to hyper
//! with its connection ([`crate::server::hyper`]), which comes back when it is answered.
//!
//! - [`request`]: is a request only passed on, and what does its head become?
//! - [`answer`]: the head of an answer, and what it becomes
//! - [`exchange`]: one request and its answer, on two connections
//! - [`route_cache`]: who asks, and where that goes
//! - [`connection`]: one request after the other
//!
//! [`request`] and [`answer`] decide and are pure.

pub mod answer;
pub mod connection;
pub mod exchange;
pub mod request;
pub mod route_cache;
