//! Frames that wait to be written to one browser socket (promise S4). Pure.
//!
//! Links are always read at full speed, so the frames of a slow browser collect here, where they
//! are bounded. Previews are dropped first, the oldest first. Then progress is reduced to its
//! newest value, and the texts of each node to the newest. Starts, outputs and ends are never
//! dropped. A socket that is too slow even for those is closed, and gets a replay when it returns.
//!
//! # Invariants
//!
//! - Frames leave in the order in which they came.
//! - Droppable bytes never exceed [`Bounds::droppable`] plus one frame; the others never exceed
//!   [`Bounds::lasting`].
//! - While all queues together hold more than they may, none grows beyond [`SCARCE`].

use crate::metrics::Dropped;
use std::collections::{HashSet, VecDeque};

use super::budget::{QueueBudget, Weight};
use crate::comfy::preview;
use crate::ws::Frame;

/// How a frame may be treated when its reader is slow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Starts, outputs, ends, and all unknown frames.
    Lasting,
    /// Only the newest counts.
    Progress,
    /// Only the newest of each node counts (type 3).
    Text,
    /// Optional.
    Preview,
}

/// Limits of one queue, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub droppable: usize,
    pub lasting: usize,
}

/// The limits of each queue while all queues together exceed their limit. A browser that reads has
/// less than this waiting, so only slow ones are affected.
pub const SCARCE: Bounds = Bounds { droppable: 64 << 10, lasting: 1 << 20 };

/// The socket reads too slowly for frames that must not be dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the socket is too slow: {waiting} bytes wait")]
pub struct TooSlow {
    pub waiting: usize,
}

/// The frames of one browser socket.
#[derive(Debug)]
pub struct SendQueue {
    frames: VecDeque<(Class, Frame)>,
    droppable: usize,
    lasting: usize,
    bounds: Bounds,
    dropped: Dropped,
    budget: QueueBudget,
    /// The bytes of both, counted in the total of all queues.
    weight: Weight,
}

impl SendQueue {
    #[must_use]
    pub fn new(bounds: Bounds, budget: &QueueBudget) -> Self {
        Self {
            frames: VecDeque::new(),
            droppable: 0,
            lasting: 0,
            bounds,
            dropped: Dropped::default(),
            budget: budget.clone(),
            weight: budget.share(),
        }
    }

    /// The current limits.
    fn bounds(&self) -> Bounds {
        if self.budget.is_exceeded() {
            Bounds {
                droppable: self.bounds.droppable.min(SCARCE.droppable),
                lasting: self.bounds.lasting.min(SCARCE.lasting),
            }
        } else {
            self.bounds
        }
    }

    fn weigh(&mut self) {
        self.weight.set(self.droppable + self.lasting);
    }

    /// Adds a frame, and drops droppable frames to stay within the limits.
    ///
    /// # Errors
    /// The frame may not be dropped and does not fit: the socket has to be closed.
    pub fn push(&mut self, class: Class, frame: Frame) -> Result<(), TooSlow> {
        self.push_within(self.bounds(), class, frame)
    }

    /// Adds a frame of a replay. The log holds it as well, so it takes no additional memory. A
    /// socket that returns gets the whole replay even while the total limit is exceeded.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn push_again(&mut self, frame: Frame) -> Result<(), TooSlow> {
        self.push_within(self.bounds, Class::Lasting, frame)
    }

    fn push_within(&mut self, bounds: Bounds, class: Class, frame: Frame) -> Result<(), TooSlow> {
        let len = frame.payload.len();
        match class {
            Class::Lasting => {
                // A frame that is larger than the limit passes if nothing else waits.
                if 0 < self.lasting && bounds.lasting < self.lasting + len {
                    return Err(TooSlow { waiting: self.lasting });
                }
                self.lasting += len;
            }
            Class::Progress | Class::Text | Class::Preview => {
                self.make_room(&frame, len, bounds);
                self.droppable += len;
            }
        }
        self.frames.push_back((class, frame));
        self.weigh();
        Ok(())
    }

    /// Takes the next frame to write.
    pub fn pop(&mut self) -> Option<Frame> {
        let (class, frame) = self.frames.pop_front()?;
        *self.waiting_of(class) -= frame.payload.len();
        self.weigh();
        if self.frames.is_empty() {
            // A burst must not leave an idle socket with much memory.
            self.frames.shrink_to(SPARE_FRAMES);
        }
        Some(frame)
    }

    /// True if it holds more than the limits that apply while the total limit is exceeded.
    #[must_use]
    pub fn has_more_than_its_part(&self) -> bool {
        SCARCE.droppable < self.droppable || SCARCE.lasting < self.lasting
    }

    /// Nothing is written any more: waiting frames are dropped.
    pub fn clear(&mut self) {
        self.frames = VecDeque::new();
        (self.droppable, self.lasting) = (0, 0);
        self.weigh();
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Drops droppable frames until `len` more bytes fit, the least valuable first.
    fn make_room(&mut self, next: &Frame, len: usize, bounds: Bounds) {
        let is_full = |queue: &Self| bounds.droppable < queue.droppable + len;
        for class in [Class::Preview, Class::Progress] {
            if is_full(self) {
                self.drop_class(class);
            }
        }
        if is_full(self) {
            self.drop_old_texts(next);
        }
        if is_full(self) {
            self.drop_class(Class::Text);
        }
    }

    /// Drops all frames of a droppable class: a full queue is far behind, and its next frame is
    /// newer than all of them.
    fn drop_class(&mut self, class: Class) {
        self.drop_where(class, |_any| true);
    }

    /// Keeps only the newest text of each node; `next` is newer than all.
    fn drop_old_texts(&mut self, next: &Frame) {
        let heads = |frame: &Frame| preview::text_head(&frame.payload).map(<[u8]>::to_vec);
        let mut newer: HashSet<Vec<u8>> = heads(next).into_iter().collect();
        let mut stale = Vec::new();
        for (class, frame) in self.frames.iter().rev() {
            if *class == Class::Text {
                stale.push(heads(frame).is_some_and(|head| !newer.insert(head)));
            }
        }
        self.drop_where(Class::Text, |_any| stale.pop().unwrap_or(false));
    }

    fn drop_where(&mut self, class: Class, mut is_meant: impl FnMut(&Frame) -> bool) {
        let mut freed = 0;
        let mut count = 0;
        self.frames.retain(|(kind, frame)| {
            let goes = *kind == class && is_meant(frame);
            if goes {
                freed += frame.payload.len();
                count += 1;
            }
            !goes
        });
        self.droppable -= freed;
        match class {
            Class::Preview => self.dropped.previews += count,
            Class::Progress | Class::Text => self.dropped.progress += count,
            Class::Lasting => debug_assert!(false, "lasting frames are never dropped"),
        }
    }

    fn waiting_of(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Lasting => &mut self.lasting,
            Class::Progress | Class::Text | Class::Preview => &mut self.droppable,
        }
    }
}

const SPARE_FRAMES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> SendQueue {
        SendQueue::new(Bounds { droppable: 10, lasting: 10 }, &QueueBudget::new(usize::MAX))
    }

    /// Pushes frames given as class letter and text, `L`asting, pro`G`ress, `P`review, and renders
    /// what is left.
    #[track_caller]
    fn check(pushed: &str, expected: &str) {
        let mut queue = queue();
        for word in pushed.split_whitespace() {
            let class = match &word[..1] {
                "L" => Class::Lasting,
                "G" => Class::Progress,
                _ => Class::Preview,
            };
            queue.push(class, Frame::text(&word[1..])).unwrap();
        }
        let left: Vec<String> =
            std::iter::from_fn(|| queue.pop()).map(|frame| frame.as_text().to_owned()).collect();
        assert_eq!(left.join(" "), expected, "pushed {pushed}");
        assert_eq!((queue.droppable, queue.lasting), (0, 0), "nothing waits in an empty queue");
    }

    #[test]
    fn a_fast_reader_gets_everything_in_order() {
        check("Lstart Gone Pxx Ltwo", "start one xx two");
    }

    #[test]
    fn previews_go_first_then_progress_and_nothing_that_lasts() {
        check("Lstart Paaaa Gbbbb Pcccc", "start bbbb cccc");
        check("Gaaaaaa Gbbbbbb Lend", "bbbbbb end");
        check("La Lb Pcccccccc Gdddddddddd", "a b dddddddddd");
    }

    #[test]
    fn of_the_texts_of_a_node_the_newest_stays() {
        let text = |node: &str, text: &str| {
            let length = u32::try_from(node.len()).unwrap().to_be_bytes();
            let parts = [&3_u32.to_be_bytes()[..], &length, node.as_bytes(), text.as_bytes()];
            Frame::binary(parts.concat())
        };
        let bounds = Bounds { droppable: 40, lasting: 10 };
        let mut queue = SendQueue::new(bounds, &QueueBudget::new(usize::MAX));
        queue.push(Class::Progress, Frame::text("12345")).unwrap();
        for (node, said) in [("a", "one"), ("b", "one"), ("a", "two"), ("a", "three")] {
            queue.push(Class::Text, text(node, said)).unwrap();
        }
        let left: Vec<Frame> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(left, [text("b", "one"), text("a", "three")]);
        queue.push(Class::Text, text("a", &"x".repeat(20))).unwrap();
        queue.push(Class::Text, text("b", &"x".repeat(20))).unwrap();
        assert_eq!(queue.pop(), Some(text("b", &"x".repeat(20))), "no room even for the newest");
        assert_eq!((queue.pop(), queue.droppable, queue.dropped().progress), (None, 0, 4));
    }

    #[test]
    fn a_reader_too_slow_for_what_lasts_is_given_up() {
        let mut queue = queue();
        queue.push(Class::Lasting, Frame::text("123456")).unwrap();
        let refused = queue.push(Class::Lasting, Frame::text("78901"));
        assert_eq!(refused, Err(TooSlow { waiting: 6 }));
    }

    #[test]
    fn while_all_have_too_much_each_may_have_little() {
        let budget = QueueBudget::new(8 << 20);
        let bounds = Bounds { droppable: 4 << 20, lasting: 64 << 20 };
        let (mut hog, mut reader) =
            (SendQueue::new(bounds, &budget), SendQueue::new(bounds, &budget));
        let frame = Frame::text("x".repeat(1 << 20));
        let mut kept = 0;
        while hog.push(Class::Lasting, frame.clone()).is_ok() {
            kept += 1;
        }
        assert_eq!(kept, 9, "what makes it too much is the last");
        let preview = Frame::text("x".repeat(60 << 10));
        for _ in 0..3 {
            hog.push(Class::Preview, preview.clone()).unwrap();
            reader.push(Class::Preview, preview.clone()).unwrap();
        }
        assert_eq!((hog.dropped().previews, reader.dropped().previews), (2, 2));
        reader.push(Class::Lasting, frame.clone()).unwrap();
        assert!(reader.push(Class::Lasting, frame.clone()).is_err(), "it does not read");
        while reader.pop().is_some() {}
        reader.push(Class::Lasting, frame.clone()).unwrap();
        reader.push_again(frame.clone()).unwrap();
        hog.clear();
        assert_eq!(budget.used(), 2 << 20);
        reader.push(Class::Lasting, frame).unwrap();
        drop(reader);
        assert_eq!(budget.used(), 0, "what is gone weighs nothing");
    }

    #[test]
    fn one_frame_larger_than_the_bound_passes_alone() {
        let mut queue = queue();
        queue.push(Class::Lasting, Frame::text("x".repeat(99))).unwrap();
        assert_eq!(queue.pop().map(|frame| frame.payload.len()), Some(99));
    }
}
