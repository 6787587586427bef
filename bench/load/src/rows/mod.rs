//! The rows: each one kind of work.

pub mod bind;
pub mod bodies;
pub mod cycle;
pub mod events;
pub mod get;
pub mod idle;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A prompt id that nobody has used: in form a UUID.
pub fn prompt_id() -> String {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    format!("{:08x}-{:04x}-4{:03x}-8000-{turn:012x}", now >> 32, now >> 16 & 0xffff, now & 0xfff)
}
