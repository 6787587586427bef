//! Keeps an open link alive: records when something last arrived, and when it must be checked.

use std::time::{Duration, Instant};

use crate::net::now;
use crate::ws::Channel;

/// How many frames arrive before acknowledgements are delayed anew. The system returns to immediate
/// acknowledgements whenever one was delayed for the maximum time.
const PUT_OFF_EVERY: u32 = 32;

/// The reading side of a link.
#[derive(Debug)]
pub struct Keepalive<'a> {
    pub channel: &'a mut Channel,
    pub ping_interval: Duration,
    heard: Instant,
    pinged: Instant,
    /// Frames since acknowledgements were last delayed.
    frames: u32,
}

impl<'a> Keepalive<'a> {
    #[must_use]
    pub fn new(channel: &'a mut Channel, ping_interval: Duration) -> Self {
        let now = now();
        Self { channel, ping_interval, heard: now, pinged: now, frames: 0 }
    }

    #[must_use]
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Something was received.
    pub fn came(&mut self) {
        self.heard = now();
        if self.frames == 0 {
            self.channel.put_off_acks();
        }
        self.frames = (self.frames + 1) % PUT_OFF_EVERY;
    }

    /// A ping was sent.
    pub fn pinged(&mut self) {
        self.pinged = now();
    }

    /// When to check the link if nothing arrives. A frame does not change this, so that frames cost
    /// no timer.
    #[must_use]
    pub fn due(&self) -> Instant {
        (self.pinged + self.ping_interval).min(self.heard + 2 * self.ping_interval)
    }

    #[must_use]
    pub fn is_ping_due(&self) -> bool {
        self.ping_interval <= now().duration_since(self.pinged)
    }

    /// Two pings were not answered.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        2 * self.ping_interval <= now().duration_since(self.heard)
    }
}
