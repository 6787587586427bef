//! Whether a backend is still the process that it was.

use std::net::IpAddr;
use std::time::Instant;

use super::Backend;
use crate::routing::pending::Shut;

impl Backend {
    /// Its port is closed: no process listens there.
    pub fn refused(&self, now: Instant) {
        let mut state = self.state();
        (state.refused, state.replaced) = (Some(now), Some(now));
        state.refused_since.get_or_insert(now);
        drop(state);
        self.worker_is_new();
    }

    /// When its process was last known to be gone.
    #[must_use]
    pub fn restarted(&self) -> Option<Instant> {
        self.state().refused
    }

    /// When its port was closed, the last time that it was.
    #[must_use]
    pub fn shut(&self) -> Option<Shut> {
        let state = self.state();
        let last = state.refused?;
        Some(Shut { since: state.refused_since.unwrap_or(last), last })
    }

    /// Its port is open.
    pub fn answered(&self) {
        self.state().refused_since = None;
    }

    /// When it was last seen that another process may be there.
    #[must_use]
    pub fn replaced(&self) -> Option<Instant> {
        self.state().replaced
    }

    /// The watch link has reached a machine.
    pub fn reached(&self, machine: IpAddr, now: Instant) {
        let mut state = self.state();
        if is_another(state.reached.replace(machine), machine) {
            state.replaced = Some(now);
        }
    }

    /// Its watch link is open again. A server that had work and has none now counts as a new
    /// process.
    pub fn reopened(&self, queue_remaining: u32) {
        if queue_remaining == 0 && 0 < self.load.queue_remaining() {
            self.worker_is_new();
        }
    }
}

/// True if another machine is behind the name, as when a pod was replaced. Addresses of different
/// families may be those of one machine.
fn is_another(before: Option<IpAddr>, now: IpAddr) -> bool {
    before.is_some_and(|before| before != now && before.is_ipv4() == now.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_of_a_family_is_another_machine() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let cases = [
            (None, "10.0.0.1", false),
            (Some("10.0.0.1"), "10.0.0.1", false),
            (Some("10.0.0.1"), "10.0.0.2", true),
            (Some("fd00::1"), "10.0.0.2", false),
            (Some("fd00::1"), "fd00::2", true),
        ];
        for (before, now, expected) in cases {
            assert_eq!(is_another(before.map(ip), ip(now)), expected, "{before:?} {now}");
        }
    }
}
