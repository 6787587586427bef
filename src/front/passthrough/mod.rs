//! The lane: reads that are only passed on, as bytes from one connection to the other.
//!
//! Such a read and its answer need no map of headers and no task of their own. Their heads are
//! walked once: what ends at this hop is left out, what is ours is put in, all else is copied as
//! it came, and bodies are not looked at beyond their framing. Whatever is not such a read is
//! handed over with its connection ([`crate::server::hyper`]), and comes back when it is answered.
//!
//! - [`request`]: is it one that is only passed on, and how does it read then?
//! - [`answer`]: an answer's head, and how it reads for the client
//! - [`exchange`]: one request and its answer, on two connections
//! - [`route_cache`]: who asks, and where that goes
//! - [`connection`]: one request after the other
//!
//! What decides is pure: [`request`], [`answer`].

pub mod answer;
pub mod connection;
pub mod exchange;
pub mod request;
pub mod route_cache;
