//! `isolation.nameless`: what somebody may do who does not say who he is.

use super::Config;
use super::kinds::{Kind, Shape};
use super::values::choose;

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

#[derive(Debug)]
pub(super) struct NamelessMay;

impl Kind for NamelessMay {
    type Value = Option<Nameless>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Option<Nameless>, String> {
        let known = [
            ("auto", None),
            ("by_id", Some(Nameless::ById)),
            ("none", Some(Nameless::None)),
            ("all", Some(Nameless::All)),
        ];
        choose(text, &known)
    }

    fn takes(&self) -> String {
        "\"auto\", \"by_id\", \"none\" or \"all\"".to_owned()
    }
}
