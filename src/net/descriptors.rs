//! How many file descriptors the process may have, and how many clients they are enough for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not for clients: listeners, the journal, the admin listener's connections,
/// watch links, the log.
const KEPT: u64 = 64;

/// A client's connection, and the one to a backend on its behalf.
const EACH: u64 = 2;

/// Raises the soft limit of descriptors to the hard one (getrlimit(2)), as daemons do: the usual
/// soft limit of 1024 is for programs that call `select`. Returns how many there may be; `None` if
/// there is no limit.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // Some systems refuse a soft limit without bound.
        Err(_) => limit.current,
    }
}

/// Of so many connections of clients as are wanted, those that so many descriptors are enough for.
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
