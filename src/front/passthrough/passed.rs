//! A plain read that is passed on as bytes: what is known of it when it goes.

use std::time::{Duration, Instant};

use super::after::After;
use crate::auth::Pass;
use crate::comfy::endpoint::RequestClass;
use crate::config::BasePath;
use crate::front::access;
use crate::front::error::GatewayError;
use crate::front::forward::Target;

/// A request that is being passed on.
pub(super) struct PassedRequest {
    pub(super) bytes: usize,
    pub(super) is_head: bool,
    pub(super) closes: bool,
    pub(super) may_be_repeated: bool,
    pub(super) class: RequestClass,
    pub(super) target: Result<Target, GatewayError>,
    /// The base path that was removed from its path and must be added to the answer, even if the
    /// configuration changes. `None` if there was none.
    pub(super) base: Option<BasePath>,
    pub(super) came: Instant,
    /// How long an answer may take to begin, and how long its body may make no progress.
    pub(super) answer_timeout: Duration,
    pub(super) body_timeout: Duration,
    /// Only created if access records are logged.
    pub(super) recorded: Option<access::Record>,
    /// The user who was let in. `None` if everybody may come in.
    pub(super) pass: Option<Pass>,
}

impl PassedRequest {
    /// Leaves it, and its line in the access log, to hyper's way.
    pub(super) fn is_answered_elsewhere(&self) -> After {
        if let Some(record) = &self.recorded {
            record.leave();
        }
        After::Elsewhere
    }
}
