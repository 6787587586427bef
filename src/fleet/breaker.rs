//! A circuit breaker for a backend that takes no new connections (promise B4).
//!
//! A backend that is half dead keeps its open sockets, answers on them, and accepts no new
//! connection. Its watch link then reports that all is well, and its queue is the shortest because
//! no client gets through. So every failed dial and link counts, and an answer on a new connection
//! resets the count. From time to time a connection is opened only for this check. While the
//! breaker is tripped, the backend gets no new work; its running work continues.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::backend::Backend;
use super::dial_limiter::DialLimiter;
use super::names::Names;
use crate::config::LiveConfig;
use crate::lock::{Guard, Lock, rank};
use crate::net::sleep;
use crate::routing::health::{Change, Health, Probe, Thresholds};

/// The state of a backend's new connections.
#[derive(Debug)]
pub struct Breaker {
    names: Arc<Names>,
    live: LiveConfig,
    /// A copy of a field of [`State`], for views without a lock.
    shut: AtomicBool,
    /// Nothing has failed lately, so another success changes nothing.
    well: AtomicBool,
    state: Lock<State, { rank::BREAKER }>,
    turned: Notify,
    /// Limits the dials of links.
    pub dial_limiter: DialLimiter,
}

#[derive(Debug)]
struct State {
    health: Health,
    trouble: Option<String>,
}

impl Breaker {
    #[must_use]
    pub fn new(names: Arc<Names>, live: LiveConfig) -> Self {
        Self {
            names,
            live,
            shut: AtomicBool::new(false),
            well: AtomicBool::new(true),
            state: Lock::new(State { health: Health::Up { failures: 0 }, trouble: None }),
            turned: Notify::new(),
            dial_limiter: DialLimiter::default(),
        }
    }

    #[must_use]
    pub fn is_tripped(&self) -> bool {
        self.shut.load(Ordering::Relaxed)
    }

    /// Why the breaker is tripped.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        let trouble = state.trouble.as_deref().filter(|_| !state.health.is_up());
        trouble.map(|trouble| format!("takes no new connection: {trouble}"))
    }

    /// An answer came on a new connection.
    pub fn passed(&self) {
        if !self.well.load(Ordering::Relaxed) {
            self.observe(Probe::Pass, None);
        }
    }

    /// A new connection failed, and why.
    pub fn failed(&self, trouble: String) {
        self.observe(Probe::Fail, Some(trouble));
    }

    fn observe(&self, probe: Probe, trouble: Option<String>) {
        // One answer proves that it accepts connections.
        let thresholds = Thresholds { rise: NonZeroU32::MIN, ..self.live.get().fleet.thresholds() };
        let mut state = self.state();
        let (health, change) = state.health.observe(probe, thresholds);
        state.health = health;
        state.trouble = trouble;
        self.shut.store(!health.is_up(), Ordering::Relaxed);
        self.well.store(health == Health::Up { failures: 0 }, Ordering::Relaxed);
        let trouble = state.trouble.clone().unwrap_or_default();
        drop(state);
        let backend = &self.names.get().name;
        match change {
            Some(Change::WentUp) => info!(%backend, "Backend takes new connections again."),
            Some(Change::WentDown) => {
                warn!(%backend, trouble, "Backend takes no new connection: it gets no new work.");
                self.turned.notify_one();
            }
            None => {}
        }
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn state(&self) -> Guard<'_, State, { rank::BREAKER }> {
        self.state.lock()
    }
}

/// Tries new connections to a backend until it leaves: at long intervals while the breaker is
/// closed, and at each probe interval while it is tripped.
pub async fn probe(backend: Arc<Backend>, live: LiveConfig) {
    let probing = async {
        loop {
            pause(&backend.breaker, &live).await;
            // The watch link already dials a backend that is down.
            if !backend.is_up() {
                continue;
            }
            let limit = live.get().fleet.probe_timeout;
            match backend.answers_anew(limit).await {
                Ok(()) => backend.breaker.passed(),
                Err(error) => backend.breaker.failed(error.to_string()),
            }
        }
    };
    tokio::select! {
        biased;
        () = probing => {}
        () = backend.leaves() => {}
    }
}

async fn pause(breaker: &Breaker, live: &LiveConfig) {
    let (seldom, often) = {
        let config = live.get();
        (config.fleet.dial_interval, config.fleet.probe_interval)
    };
    if !breaker.is_tripped() {
        tokio::select! {
            biased;
            () = breaker.turned.notified() => {}
            () = sleep(seldom.max(often)) => return,
        }
    }
    sleep(often).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn doors_are_shut_by_failures_in_a_row_and_opened_by_one_answer() {
        // Two failures in a row are the default of `fleet.fall`.
        let config = Config::for_backends(&[("a", "http://gpu:1")]).unwrap();
        let breaker = Breaker::new(Arc::new(Names::new("a")), LiveConfig::new(config));
        assert!(!breaker.is_tripped() && breaker.trouble().is_none());
        breaker.failed("refused".to_owned());
        breaker.passed();
        breaker.failed("refused".to_owned());
        assert!(!breaker.is_tripped() && breaker.trouble().is_none(), "one may be chance");
        breaker.failed("no answer".to_owned());
        assert!(breaker.is_tripped());
        assert_eq!(breaker.trouble().unwrap(), "takes no new connection: no answer");
        breaker.passed();
        assert!(!breaker.is_tripped() && breaker.trouble().is_none());
    }
}
