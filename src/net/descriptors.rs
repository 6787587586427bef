//! The number of file descriptors that the process may use, and how many clients that allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are kept for other purposes than clients: listeners, the journal, connections
/// to the admin listener, watch links, the log.
const KEPT: u64 = 64;

/// For each client: its connection, and the connection to a backend on its behalf.
const EACH: u64 = 2;

/// Raises the soft limit of descriptors to the hard one (getrlimit(2)), as daemons do. The usual
/// soft limit of 1024 is for programs that call `select`. Returns the new limit; `None` if there is
/// none.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // Some systems refuse an infinite soft limit.
        Err(_) => limit.current,
    }
}

/// The number of client connections that are possible with this many descriptors, at most `wanted`.
#[must_use]
pub fn connections_for(descriptors: u64, wanted: usize) -> usize {
    let enough = descriptors.saturating_sub(KEPT) / EACH;
    wanted.min(usize::try_from(enough).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_connections_than_descriptors_are_enough_for() {
        assert_eq!(connections_for(1024, 10_000), 480);
        assert_eq!(connections_for(1 << 20, 10_000), 10_000);
        assert_eq!(connections_for(10, 10_000), 1);
    }
}
