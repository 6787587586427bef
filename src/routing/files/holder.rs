//! What is known of a file name on one backend: who made the file, and where it is.

use core::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::ids::{BackendId, ClientId, Located};
use super::super::user_folder::UserFolder;

/// The most makers that are remembered for one file: the latest ones. Backends give a cached
/// picture to everyone who asks for it.
const MAKERS_MAX: usize = 16;

/// Who made a file: a client, a browser, an address from which an unnamed caller uploaded it, or a
/// user who named no client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Maker {
    Client(ClientId),
    /// A browser, by its page cookie. It includes all its tabs, also closed ones.
    Browser(u128),
    Address(IpAddr),
    User(Arc<str>),
}

impl Maker {
    /// The user that it is, or whose client it is, where users are asked for.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Client(client) => client.user(),
            Self::User(user) => Some(user),
            Self::Browser(_) | Self::Address(_) => None,
        }
    }
}

/// The user that somebody is who asks as these.
#[must_use]
pub fn user_of(askers: &[Maker]) -> Option<&str> {
    askers.iter().find_map(Maker::user)
}

/// Where a file is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    Backend(BackendId),
    /// A server that is gone, as `ServerKey` writes it. It keeps its names.
    Gone(Arc<str>),
}

/// A backend that has a file of some name.
#[derive(Clone, Debug)]
pub struct Holder {
    pub place: Place,
    /// The latest last; empty if it was only found there.
    pub makers: SmallVec<[Maker; 1]>,
    /// Its place in the order in which all holders were learned.
    pub order: u64,
    /// When it was last written through Mooring, in the order of all facts; `None` if it was only
    /// seen.
    pub written: Option<u64>,
    /// It was stored without leave to overwrite another. The plain name means an older file of the
    /// same maker, if he has one.
    pub yields: bool,
    /// Other places with the same content.
    pub(super) copies: Vec<Located>,
}

/// Whether a fact was new.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Learned {
    New,
    Known,
}

impl Learned {
    /// New if either was.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::New { self } else { other }
    }
}

impl Holder {
    #[must_use]
    pub fn new(place: Place, order: u64) -> Self {
        Self {
            place,
            makers: SmallVec::new(),
            order,
            written: None,
            yields: false,
            copies: Vec::new(),
        }
    }

    /// False for a file of other users: to this one it does not exist. What no user made is
    /// everybody's, and so is all where users are not asked for. What lies in a user's folder is
    /// his, whoever is said to have made it.
    #[must_use]
    pub fn is_for(&self, path: &str, user: Option<&str>) -> bool {
        let Some(user) = user else { return true };
        if UserFolder::is_in(path) {
            return UserFolder::of(user).strip(path).is_some();
        }
        let mut owners = self.makers.iter().filter_map(Maker::user).peekable();
        owners.peek().is_none() || owners.any(|it| it == user)
    }

    /// These copies no longer have the same content.
    pub(super) fn drop_copies(
        &mut self,
        is_gone: impl Fn(&Located) -> bool,
        gone: &mut Vec<Located>,
    ) {
        gone.extend(self.copies.iter().filter(|copy| is_gone(copy)).cloned());
        self.copies.retain(|copy| !is_gone(copy));
    }

    /// A file that was written is newer than any that was only seen.
    pub(super) fn recency(&self) -> (Option<u64>, u64) {
        (self.written, self.order)
    }

    /// Which maker is forgotten first: the oldest whose user has a later one, so that nobody loses
    /// his file to the many clients of another. The first user is never forgotten.
    fn least_needed(&self) -> usize {
        let later = |at: usize| &self.makers[at + 1..];
        let is_twice = |(at, maker): (usize, &Maker)| {
            later(at).iter().any(|it| it.user() == maker.user()).then_some(at)
        };
        self.makers.iter().enumerate().find_map(is_twice).unwrap_or(1)
    }

    /// Adds makers.
    pub fn made_by(&mut self, makers: &[Maker]) -> Learned {
        let mut learned = Learned::Known;
        for maker in makers {
            let is_his = |it: &Maker| it.user().is_some() && it.user() == maker.user();
            let is_said = matches!(maker, Maker::User(_)) && self.makers.iter().any(is_his);
            if self.makers.contains(maker) || is_said {
                continue;
            }
            if self.makers.len() == MAKERS_MAX {
                self.makers.remove(self.least_needed());
            }
            self.makers.push(maker.clone());
            learned = Learned::New;
        }
        learned
    }
}
