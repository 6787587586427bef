//! Client messages that wait to be sent on a link. This is not a channel of the runtime: an idle
//! one takes 2 KB, and there are thousands of idle links.

use std::collections::VecDeque;

use tokio::sync::Notify;

use super::Frame;
use crate::lock::{Lock, rank};

/// The most messages that wait; ComfyUI has no use for more.
const FRAMES_MAX: usize = 8;

/// The most bytes that they may have together; a single message may be larger. Messages of a page
/// are short. A client that sends 2 MiB at a time faster than a backend reads would fill the memory
/// that all clients share.
const BYTES_MAX: usize = 256 << 10;

/// A short queue with one reader.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: Lock<VecDeque<Frame>, { rank::OUTBOX }>,
    has_some: Notify,
}

impl Outbox {
    /// Appends a message, if there is room.
    pub fn push(&self, frame: Frame) {
        let mut frames = self.frames.lock();
        let bytes: usize = frames.iter().map(|frame| frame.payload.len()).sum();
        let has_room = frames.len() < FRAMES_MAX && bytes + frame.payload.len() <= BYTES_MAX;
        if frames.is_empty() || has_room {
            frames.push_back(frame);
            self.has_some.notify_one();
        }
    }

    /// Waits for the next message. Cancel safe.
    pub async fn next(&self) -> Frame {
        loop {
            let next = self.frames.lock().pop_front();
            match next {
                Some(frame) => return frame,
                None => self.has_some.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_pushed_comes_out_in_order_and_no_more_than_there_is_room_for() {
        let outbox = Outbox::default();
        let push = async {
            tokio::task::yield_now().await;
            (0..10).for_each(|number| outbox.push(Frame::text(number.to_string())));
        };
        let (first, ()) = tokio::join!(outbox.next(), push);
        assert_eq!(first.as_text(), "0");
        for number in 1..8 {
            assert_eq!(outbox.next().await.as_text(), number.to_string());
        }
        outbox.push(Frame::text("last"));
        assert_eq!(outbox.next().await.as_text(), "last");
    }

    #[tokio::test]
    async fn large_messages_wait_one_at_a_time() {
        let outbox = Outbox::default();
        let large = "x".repeat(BYTES_MAX + 1);
        for _ in 0..3 {
            outbox.push(Frame::text(large.clone()));
            outbox.push(Frame::text("behind it"));
        }
        assert_eq!(outbox.next().await.as_text(), large, "alone it is passed on");
        outbox.push(Frame::text("last"));
        assert_eq!(outbox.next().await.as_text(), "last", "nothing waited behind it");
    }
}
