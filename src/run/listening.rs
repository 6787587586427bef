//! The listeners: where they are, and how connections are taken there.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::config::url::Scheme;
use crate::config::{Config, ListenerTls};
use crate::net::Network;
use crate::server::{ConnectionLimits, Terms};
use crate::shared::Shared;

/// How a connection is taken that is accepted now.
pub(super) fn terms_of(
    shared: &Arc<Shared>,
    tls: fn(&Config) -> &ListenerTls,
) -> impl Fn() -> Terms + Send + use<> {
    let shared = Arc::clone(shared);
    move || {
        let config = shared.config();
        Terms { limits: ConnectionLimits::of(&config.server), tls: tls(&config).server().cloned() }
    }
}

/// # Errors
/// The address cannot be had, and what an operator can do about it.
pub(super) async fn bind(
    network: &Arc<dyn Network>,
    address: SocketAddr,
) -> io::Result<Arc<dyn crate::net::Listener>> {
    let listener = network.listen(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{}", hint(&error)))
    })?;
    Ok(Arc::from(listener))
}

/// What an operator can do about an address that cannot be had.
fn hint(error: &io::Error) -> &'static str {
    const HINTS: [(io::ErrorKind, &str); 3] = [
        (
            io::ErrorKind::AddrInUse,
            "; another process has it. Choose another with --listen or --admin-listen IP:PORT",
        ),
        (io::ErrorKind::PermissionDenied, "; ports below 1024 need a privilege"),
        (io::ErrorKind::AddrNotAvailable, "; this machine has no such address"),
    ];
    HINTS.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, hint)| hint)
}

/// What somebody on this host opens for the front at this address.
pub(super) fn opened(config: &Config, front: SocketAddr) -> String {
    let is_secured = config.server_tls.server().is_some();
    let scheme = if is_secured { Scheme::Https } else { Scheme::Http };
    format!("{}://{}{}", scheme.as_str(), dialled(front), config.server.base_path)
}

/// The address that somebody on this host opens for what listens there.
fn dialled(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        let v4 = listen.is_ipv4();
        listen.set_ip(if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    listen
}
