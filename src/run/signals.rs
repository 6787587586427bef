//! The signals of a daemon.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// The signals that end the gateway, and those that would end it if nobody caught them.
///
/// Installing is a step of its own, because until it is done a SIGTERM kills the process without
/// a drain. Install first, say "ready" after.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// What daemons are sent to reload.
    hangup: Signal,
    /// What they are sent to reopen their logs or to tell of themselves. The default
    /// action of each is to end the process at once (signal(7)), with all its sockets.
    harmless: Vec<(&'static str, Signal)>,
}

impl Signals {
    /// # Errors
    /// The system refuses a handler.
    pub fn install() -> io::Result<Self> {
        let harmless =
            [("SIGUSR1", SignalKind::user_defined1()), ("SIGUSR2", SignalKind::user_defined2())];
        let caught = |(name, kind)| Ok((name, signal(kind)?));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            harmless: harmless.into_iter().map(caught).collect::<io::Result<_>>()?,
        })
    }

    /// Waits for the next one that ends the process; its name. For each that asks for a reload
    /// `reload` is called. Cancel safe.
    pub async fn next(&mut self, mut reload: impl FnMut()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => reload(),
                signal = Self::harmless(&mut self.harmless) => {
                    info!(signal, "This signal changes nothing.");
                }
            }
        }
    }

    /// Waits for one that ends nothing; its name. Cancel safe.
    async fn harmless(signals: &mut [(&'static str, Signal)]) -> &'static str {
        poll_fn(|context| {
            let came = |(name, signal): &mut (&'static str, Signal)| {
                signal.poll_recv(context).is_ready().then_some(*name)
            };
            signals.iter_mut().find_map(came).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
