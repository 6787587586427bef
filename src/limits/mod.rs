//! Limits of what one user or one address may do, and all together (`[limits]`).
//!
//! Three kinds of things are counted: what happens ([`rates`]), what lasts ([`held`]), and what is
//! used up ([`days`]). The front decides which limit applies to which request.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

pub mod days;
pub mod held;
pub mod rates;

/// Whose things are counted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Counted {
    /// A user who was let in.
    User(Arc<str>),
    /// Where nobody is asked who he is, an address is a user.
    Anybody(IpAddr),
    /// An address, whoever is there.
    Address(IpAddr),
    /// A trusted proxy that does not say for whom it speaks, or a prompt of which nothing says from
    /// where it came. It counts only for all together.
    Unknown,
}

impl Counted {
    /// The limit of each that applies to it.
    fn own(&self, each: Option<Bound>) -> Option<Bound> {
        match self {
            Self::User(_) | Self::Anybody(_) | Self::Address(_) => each,
            Self::Unknown => None,
        }
    }
}

/// A limit with its name, which is that of its key in `[limits]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bound {
    pub name: &'static str,
    pub max: NonZeroU64,
}

impl Bound {
    /// `None` is no limit.
    #[must_use]
    pub fn of(name: &'static str, max: Option<impl Into<NonZeroU64>>) -> Option<Self> {
        max.map(|max| Self { name, max: max.into() })
    }

    fn reached(self, wait: Duration) -> LimitReached {
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        LimitReached { name: self.name, max: self.max.get(), seconds }
    }
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the limit `limits.{name}` of {max} is reached")]
pub struct LimitReached {
    pub name: &'static str,
    pub max: u64,
    /// After how many seconds asking again makes sense.
    pub seconds: u32,
}
