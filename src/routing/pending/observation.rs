//! What a backend says about a prompt when it is asked.

use std::time::Instant;

use super::End;

/// What the backend answered when it was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Observation {
    Queued,
    Running,
    InHistory(End),
    /// In neither queue nor history, which were read in this order.
    Absent(Process),
}

/// Whether the backend's process was replaced since the prompt was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Process {
    /// It is a new process: the old one's memory is gone.
    Restarted,
    /// There is no sign of a new process.
    MaybeSame,
}

/// Whether the process was replaced, from when the prompt was sent and when the process is known to
/// have been new.
#[must_use]
pub fn process_since(sent: Instant, restarted: Option<Instant>) -> Process {
    match restarted {
        Some(restarted) if sent < restarted => Process::Restarted,
        Some(_) | None => Process::MaybeSame,
    }
}
