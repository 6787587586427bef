//! The demo: simulated backends and the gateway in one process, and the page that shows them.

pub mod page;
