//! A buffer to read into, one for each thread, so that idle connections hold none.

use std::cell::RefCell;

/// What one read may bring, in bytes.
const READ_MAX: usize = 64 << 10;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX].into());
}

/// Lends the thread's buffer for the length of one poll. Its old bytes mean nothing, and whoever
/// is called meanwhile may not ask for it again.
pub fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    READ.with_borrow_mut(|buffer| work(buffer))
}
