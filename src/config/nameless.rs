//! `isolation.nameless`: what callers may do who do not say who they are.

use super::Config;

/// What a caller may do who does not say who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Nameless {
    /// Act on the prompts whose ids the request names.
    ById,
    /// Nothing.
    None,
    /// Everything, with everybody's prompts.
    All,
}

/// Where a request comes from, as far as that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    ThisMachine,
    /// Also through a proxy on this machine, if the proxy says so.
    Elsewhere,
}

impl Config {
    /// What a caller from this place may do who does not say who they are.
    #[must_use]
    pub fn nameless(&self, from: Place) -> Nameless {
        let listens = self.server.listen.ip().to_canonical();
        let by_place = match from {
            Place::ThisMachine if listens.is_loopback() => Nameless::ById,
            Place::ThisMachine | Place::Elsewhere => Nameless::None,
        };
        self.isolation.nameless.unwrap_or(by_place)
    }
}
