//! The demo: simulated backends and the gateway in one process, and the page that shows them.

pub mod page;

use std::sync::Arc;

use http::Method;

use crate::error::GatewayError;
use crate::front::Answer;
use crate::gateway::Gateway;

/// What the demo's page may do to the simulated backends.
#[derive(Debug)]
pub struct Demo;

impl Demo {
    /// Answers a path below `/-/demo/`.
    ///
    /// # Errors
    /// Nothing is there.
    pub async fn answer(&self, _gateway: &Arc<Gateway>, _method: &Method, _path: &str) -> Answer {
        Err(GatewayError::NotFound)
    }
}
