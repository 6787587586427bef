//! What a debug build remembers of the locks that a thread takes, so that a test can say how many
//! a request costs, which they are, and for whom each was taken.
//!
//! The runtime of a test has one thread, so the trace of that thread is all that a gateway does. A
//! task is known by the line that started it: the work of a request is told from that of links and
//! of the sweep, which go on meanwhile.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;

use super::rank;

thread_local! {
    static TRACE: RefCell<Option<Vec<Taken>>> = const { RefCell::new(None) };
    /// Where the task was started that this thread works on.
    static TASK: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

/// A lock that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The name of its rank.
    pub name: &'static str,
    /// It is everybody's, so that whoever holds it keeps all others waiting.
    pub is_shared: bool,
    /// Where it was taken.
    pub at: &'static Location<'static>,
    /// Where the task was started that took it; `None` for what [`crate::tasks`] did not start.
    pub task: Option<&'static Location<'static>>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = if self.is_shared { ", everybody's" } else { "" };
        write!(f, "{}{scope} at {}:{}", self.name, self.at.file(), self.at.line())?;
        match self.task {
            Some(task) => write!(f, " in the task of {}:{}", task.file(), task.line()),
            None => Ok(()),
        }
    }
}

/// Begins the trace of this thread, in place of one that it may have.
pub fn begin() {
    TRACE.set(Some(Vec::new()));
}

/// Ends it, and returns what was taken since, in its order.
#[must_use]
pub fn end() -> Vec<Taken> {
    TRACE.take().unwrap_or_default()
}

pub(super) fn note(place: u8, at: &'static Location<'static>) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            let (name, _, scope) = rank::ALL[usize::from(place)];
            let is_shared = scope == super::Scope::Shared;
            trace.push(Taken { name, is_shared, at, task: TASK.get() });
        }
    });
}

/// While it lives, this thread works on the task that was started there.
#[derive(Debug)]
pub struct Working {
    before: Option<&'static Location<'static>>,
}

impl Working {
    #[must_use]
    pub fn on(task: &'static Location<'static>) -> Self {
        Self { before: TASK.replace(Some(task)) }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        TASK.set(self.before);
    }
}
