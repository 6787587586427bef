//! A connection with TLS, as a part of [`Stream`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::explain;
use crate::net::{Buffered, Stream};

/// A connection with TLS.
///
/// Written data is encrypted at once, but the TCP connection may not accept all of it at that time.
/// The rest is sent when this connection is polled again, for whatever purpose. So a writer that
/// does not flush, as on a plain connection, only has to go on and read. Everybody who waits for an
/// answer does that.
#[derive(Debug)]
pub(in crate::net) struct Secured(TlsStream<Buffered>);

impl Secured {
    pub(in crate::net) fn new(stream: TlsStream<Buffered>) -> Self {
        Self(stream)
    }

    /// The protocol that both ends have agreed on (RFC 7301).
    pub(in crate::net) fn protocol(&self) -> Option<&[u8]> {
        self.0.get_ref().1.alpn_protocol()
    }

    /// The connection that carries the TLS records.
    pub(in crate::net) fn below(&self) -> &Stream {
        &self.0.get_ref().0.stream
    }

    /// Sends data that is encrypted and not sent yet.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.get_ref().1.wants_write() {
            return Pin::new(&mut self.0).poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // If this fails, the next write fails too. Data that has arrived is still read.
        let _ = this.poll_rest(cx);
        let read = Pin::new(&mut this.0).poll_read(cx, buf);
        match &this.0 {
            TlsStream::Client(_) => read.map_err(explain::later),
            TlsStream::Server(_) => read,
        }
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        Pin::new(&mut this.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        Pin::new(&mut this.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
