//! One read buffer for each thread, so that idle connections need no buffer.

use std::cell::RefCell;

/// How many bytes one read may return.
const READ_MAX: usize = 64 << 10;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX].into());
}

/// Lends the thread's buffer for one poll. Its content is undefined. `work` must not call this
/// again.
pub fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    READ.with_borrow_mut(|buffer| work(buffer))
}
