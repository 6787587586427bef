//! What is to be sent on a link. No channel of the runtime's: those of thousands of links that say
//! nothing would take 2 KB each.

use std::collections::VecDeque;

use tokio::sync::Notify;

use super::Frame;
use crate::lock::{Lock, rank};

/// Messages of a client that are not sent yet; ComfyUI has no use for more.
const FRAMES_MAX: usize = 8;

/// A short queue with one reader.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: Lock<VecDeque<Frame>, { rank::OUTBOX }>,
    has_some: Notify,
}

impl Outbox {
    /// Puts a message behind the others, if there is room.
    pub fn push(&self, frame: Frame) {
        let mut frames = self.frames.lock();
        if frames.len() < FRAMES_MAX {
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
}
