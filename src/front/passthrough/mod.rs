//! The passthrough: plain reads, passed on as bytes from one connection to the other.
//!
//! A plain read and its answer need no map of headers and no task of their own. Their heads are
//! walked once: headers of this hop are left out, ours are added, and all others are copied
//! unchanged. In bodies only the framing is read. Every other request is handed to hyper with its
//! connection ([`crate::server::hyper`]), which comes back after the answer.
//!
//! - [`request`]: decides whether a request is a plain read, and writes its head for the backend
//! - [`answer`]: reads the head of an answer, and writes it for the client
//! - [`exchange`]: one request and its answer, on two connections
//! - `passed`: what is known of a request when it goes
//! - [`route_cache`]: the caller and the target of a connection's requests
//! - [`connection`]: one request after the other; [`after`]: what becomes of it after one
//!
//! [`request`] and [`answer`] decide and are pure.

pub mod after;
pub mod answer;
pub mod connection;
pub mod exchange;
mod passed;
pub mod request;
pub mod route_cache;
