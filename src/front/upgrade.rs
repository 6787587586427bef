//! `/ws`: accepted at once (promise S6). The client's link is the connection to the backend.

use std::sync::Arc;

use http::{HeaderValue, Request};
use hyper::body::Incoming;

use super::Front;
use super::browsers::Spot;
use super::caller::Caller;
use super::error::GatewayError;
use super::{Answer, headers, limits};
use crate::auth::Pass;
use crate::body::ResponseBody;
use crate::net::{new_id, now};
use crate::routing::ids::ClientId;
use crate::routing::realm::ClientName;
use crate::server::Seat;
use crate::session::registry::{admit, with_client};
use crate::session::socket;
use crate::ws;

/// Accepts a browser socket: the 101 is sent now, and everything else happens afterwards.
///
/// # Errors
/// It is not an opening handshake, it comes from this gateway itself, the table of clients is full,
/// or there are too many sockets.
pub fn upgrade(front: &Arc<Front>, caller: &Caller, mut request: Request<Incoming>) -> Answer {
    let (response, promised) = ws::accept(&mut request)?;
    if caller.named.as_ref().is_some_and(|id| front.shared.fleet.is_own_watch(id)) {
        return Err(GatewayError::Ourselves);
    }
    // The first socket of ComfyUI's page has no name. The page takes the name from the first
    // status.
    let id = caller.named.clone().unwrap_or_else(|| caller.realm.client(mint()));
    let open = front.limits.socket(front, caller)?;
    limits::meet(front, caller, &id)?;
    caller.is(front, &id);
    // Checked before the 101 is sent.
    admit(&front.sessions, &id)?.may_open_socket(&front.sessions.shared)?;
    let sizes = socket::limits(&front.shared.config().sockets);
    // The socket continues the connection, and counts as one until it ends.
    let seat = request.extensions_mut().remove::<Seat>();
    let pass = request.extensions_mut().remove::<Pass>();
    let barred = front.admission.until_socket_over(pass);
    let spot = caller.spot();
    let task = {
        let front = Arc::clone(front);
        async move {
            let Some(channel) = promised.channel(sizes).await else { return };
            let opened =
                with_client(&front.sessions, &id, |client| client.open_socket(&front.sessions));
            if let Ok((client, key)) = opened {
                let _here = Here::new(&front, spot, &id);
                socket::serve(Arc::clone(&front.sessions), client, key, channel, barred).await;
            }
            drop((seat, open));
        }
    };
    front.shared.tasks.spawn(task);
    let mut response = response.map(|()| ResponseBody::empty());
    response.headers_mut().insert(headers::PLACEMENT, HeaderValue::from_static("socket"));
    Ok(response)
}

/// An open socket from an address.
struct Here {
    front: Arc<Front>,
    spot: Spot,
    client: ClientId,
}

impl Here {
    fn new(front: &Arc<Front>, spot: Spot, client: &ClientId) -> Self {
        front.browsers.socket_opened(&spot, client);
        Self { front: Arc::clone(front), spot, client: client.clone() }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.front.browsers.socket_closed(&self.spot, &self.client, now());
    }
}

/// The name of a new client: 128 random bits, in the form that ComfyUI uses.
#[must_use]
pub fn mint() -> ClientName {
    let text = new_id().simple().to_string();
    ClientName::parse(&text).expect("32 hexadecimal digits are a name")
}
