//! The front as a service: the passthrough answers plain reads, and hyper all other requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;

use super::access;
use super::error::GatewayError;
use super::passthrough::connection::PassthroughConnection;
use super::unavailable::Asker;
use super::{Front, failed_for};
use crate::body::ResponseBody;
use crate::comfy::endpoint::RequestClass;
use crate::config::OnOff;
use crate::limits::LimitReached;
use crate::limits::held::Held;
use crate::server::{ConnectionEvent, ConnectionLimits, Refusal, Service};

/// Serves a front's connections.
#[derive(Clone, Debug)]
pub struct FrontService(pub Arc<Front>);

impl Service for FrontService {
    type Passthrough = PassthroughConnection;

    async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response<ResponseBody> {
        super::answer(Arc::clone(&self.0), peer, request).await
    }

    fn refused(&self, peer: IpAddr, refusal: Refusal, read: &[u8]) -> Response<ResponseBody> {
        // How much of the head has arrived depends on timing; the form of the answer must not.
        let asker = if refusal.is_of_size() { Asker::of_bytes(read) } else { Asker::program() };
        let error = GatewayError::BadRequest(refusal);
        let response = failed_for(&self.0.shared, &error, asker);
        let metrics = &self.0.shared.metrics;
        metrics.answered(RequestClass::Unread, response.status(), Duration::ZERO);
        if access::is_recorded(&self.0.shared) {
            let record = access::Record::of_bytes(&self.0.shared, peer, read);
            record.write(&access::Answer::of(&response, Duration::ZERO));
        }
        response
    }

    fn is_leaving(&self) -> bool {
        self.0.shared.is_leaving()
    }

    fn hold(&self, peer: IpAddr) -> Result<Option<Held>, LimitReached> {
        let shared = &self.0.shared;
        let held = self.0.limits.connection(&shared.config(), peer);
        held.inspect_err(|reached| shared.metrics.limits.reached(reached.name))
    }

    fn note(&self, event: ConnectionEvent) {
        let metrics = &self.0.shared.metrics;
        match event {
            ConnectionEvent::Open(count) => {
                metrics.connections.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            ConnectionEvent::Refused => {
                metrics.connections_refused.inc();
            }
            ConnectionEvent::Panicked => {
                metrics.panics.inc();
            }
        }
    }

    fn passthrough(&self, peer: IpAddr, limits: ConnectionLimits) -> Option<PassthroughConnection> {
        let passthrough = self.0.shared.config().server.passthrough;
        match passthrough {
            OnOff::On => Some(PassthroughConnection::new(Arc::clone(&self.0), peer, limits)),
            OnOff::Off => None,
        }
    }
}
