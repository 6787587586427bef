//! Listening sockets that were inherited from the process that started us (systemd socket
//! activation, sd_listen_fds(3)). They outlive the process, so that a restart refuses no
//! connection.
//!
//! A socket is identified by its address, which must be one of the configuration. Its number or its
//! name is not used: a unit that lists its sockets in another order would then open the admin
//! listener to clients.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;

use super::tcp::{self, Tcp};
use super::{Boxed, Listener, Network, Stream};

use crate::lock::{Guard, Lock, rank};

/// The real network, with listeners that exist already.
#[derive(Debug, Default)]
pub struct Inherited {
    listeners: Lock<Vec<TcpListener>, { rank::INHERITED }>,
}

/// Why an inherited socket is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Unasked {
    #[error(
        "a socket for {address} was handed over, which is neither server.listen nor \
             admin.listen"
    )]
    Address { address: SocketAddr },
    #[error("an inherited descriptor is not a listening TCP socket: {0}")]
    NotListening(#[source] io::Error),
}

impl Inherited {
    /// Takes the listeners that the environment announces (`LISTEN_FDS`, `LISTEN_PID`). Each must
    /// have one of these addresses. This is called once, before there is a second thread, because
    /// it removes the variables from the environment.
    ///
    /// # Errors
    /// A socket has another address, or is not a listening TCP socket.
    pub fn take(asked: &[SocketAddr]) -> Result<Self, Unasked> {
        let mut handed = ListenFd::from_env();
        let mut listeners = Vec::new();
        for index in 0..handed.len() {
            let found = handed.take_tcp_listener(index).map_err(Unasked::NotListening)?;
            let Some(listener) = found else { continue };
            let address = listener.local_addr().map_err(Unasked::NotListening)?;
            if !asked.contains(&address) {
                return Err(Unasked::Address { address });
            }
            listeners.push(listener);
        }
        Ok(Self { listeners: Lock::new(listeners) })
    }

    fn listener(&self, address: SocketAddr) -> Option<TcpListener> {
        // A duplicate, because the parent process keeps the socket open: its address cannot be
        // bound again, and a listener that was moved away may come back.
        let listeners = self.listeners();
        let is_it = |it: &&TcpListener| it.local_addr().is_ok_and(|local| local == address);
        listeners.iter().find(is_it)?.try_clone().ok()
    }

    fn listeners(&self) -> Guard<'_, Vec<TcpListener>, { rank::INHERITED }> {
        self.listeners.lock()
    }
}

impl Network for Inherited {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Stream>> {
        Tcp.connect(host, port)
    }

    fn connect_within<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        limit: Duration,
    ) -> Boxed<'a, io::Result<Stream>> {
        Tcp.connect_within(host, port, limit)
    }

    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
        match self.listener(address) {
            Some(listener) => Box::pin(async move { tcp::adopt(listener) }),
            None => Box::pin(async move { Tcp.listen(address).await }),
        }
    }
}
