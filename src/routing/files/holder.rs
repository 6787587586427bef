//! Who made a file, and where it lies: what is known of a name on one backend.

use core::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::ids::{BackendId, ClientId, Located};

/// How many makers of one file are remembered, the latest. Backends give a cached picture to
/// everyone who asks for it.
const MAKERS_MAX: usize = 16;

/// Who made a file: a client, or whoever uploaded it from an address without a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Maker {
    Client(ClientId),
    /// A browser, by its page cookie: all its tabs, also those that are closed.
    Browser(u128),
    Address(IpAddr),
}

/// Where a file lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    Backend(BackendId),
    /// A server that is not there any more, as `ServerKey` writes it. It keeps its names.
    Gone(Arc<str>),
}

/// A backend that has a file of some name.
#[derive(Clone, Debug)]
pub struct Holder {
    pub place: Place,
    /// The latest last; none if it was found there.
    pub makers: SmallVec<[Maker; 1]>,
    /// When it was learned of, among all of them.
    pub order: u64,
    /// When it was last written through us, among all of them; `None` if it was only seen.
    pub written: Option<u64>,
    /// Where the same bytes lie as well.
    pub(super) copies: Vec<Located>,
}

/// Whether something was new.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Learned {
    New,
    Known,
}

impl Holder {
    #[must_use]
    pub fn new(place: Place, order: u64) -> Self {
        Self { place, makers: SmallVec::new(), order, written: None, copies: Vec::new() }
    }

    /// These copies are not the same any more.
    pub(super) fn drop_copies(
        &mut self,
        is_gone: impl Fn(&Located) -> bool,
        gone: &mut Vec<Located>,
    ) {
        gone.extend(self.copies.iter().filter(|copy| is_gone(copy)).cloned());
        self.copies.retain(|copy| !is_gone(copy));
    }

    /// What was written is newer than what was only seen, whenever that was.
    pub(super) fn recency(&self) -> (Option<u64>, u64) {
        (self.written, self.order)
    }

    /// These made it too.
    pub fn made_by(&mut self, makers: &[Maker]) -> Learned {
        let mut learned = Learned::Known;
        for maker in makers {
            if self.makers.contains(maker) {
                continue;
            }
            if self.makers.len() == MAKERS_MAX {
                self.makers.remove(0);
            }
            self.makers.push(maker.clone());
            learned = Learned::New;
        }
        learned
    }
}
