//! `isolation.nameless`: what somebody may do who does not say who he is.

use super::Config;

/// What somebody may do who does not say who he is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Nameless {
    /// Act on the prompts whose ids he names.
    ById,
    /// Nothing.
    None,
    /// Everything, to everybody's prompts.
    All,
}

/// From where somebody comes, as far as that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    ThisMachine,
    /// Also by way of a proxy on this machine, if that says so.
    Elsewhere,
}

impl Config {
    /// What somebody may do who does not say who he is, but comes from there.
    #[must_use]
    pub fn nameless(&self, from: Place) -> Nameless {
        let by_place = match from {
            Place::ThisMachine if self.server.listen.ip().is_loopback() => Nameless::ById,
            Place::ThisMachine | Place::Elsewhere => Nameless::None,
        };
        self.isolation.nameless.unwrap_or(by_place)
    }
}
