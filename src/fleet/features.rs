//! The features of the fleet that pages are told; computed again only when a backend reports
//! others.

use std::sync::Arc;

use super::Fleet;
use crate::comfy::features::{AT_LEAST, in_common, without_assets};
use crate::routing::placement::AdminState;

/// The features that were told last, and the backends that they are from.
#[derive(Debug)]
pub(super) struct Told {
    of: Vec<Arc<str>>,
    features: ToldFeatures,
}

/// The features of the fleet, for those who ask.
#[derive(Clone, Debug)]
pub struct ToldFeatures {
    pub edition: Edition,
    everybodys: Arc<str>,
    /// Without assets: users do not have them (`front/assets`).
    users: Arc<str>,
}

impl ToldFeatures {
    fn new(text: String, edition: Edition) -> Self {
        let everybodys: Arc<str> = text.into();
        let users = without_assets(&everybodys).map_or_else(|| Arc::clone(&everybodys), Arc::from);
        Self { edition, everybodys, users }
    }

    /// What this user is told, or everybody where users are not asked for.
    #[must_use]
    pub fn told(&self, user: Option<&str>) -> &str {
        if user.is_some() { &self.users } else { &self.everybodys }
    }
}

/// Identifies a text of features: a socket that was told another one is told again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edition(u32);

impl Default for Told {
    fn default() -> Self {
        Self { of: Vec::new(), features: ToldFeatures::new(in_common([]), Edition(0)) }
    }
}

impl Fleet {
    /// The features of every backend that a client may meet: those that have reported, except those
    /// that an operator has switched off.
    #[must_use]
    pub fn features(&self) -> ToldFeatures {
        let known = self.iter().filter(|it| it.admin() != AdminState::Off);
        // A backend that reports no features has those of every server that is new enough.
        let of: Vec<Arc<str>> = known
            .filter_map(|it| it.features().or_else(|| it.version().map(|_| AT_LEAST.into())))
            .collect();
        let mut told = self.told.lock();
        if told.of != of {
            let text = in_common(of.iter().map(AsRef::as_ref));
            told.of = of;
            if *told.features.everybodys != *text {
                let edition = Edition(told.features.edition.0.wrapping_add(1));
                told.features = ToldFeatures::new(text, edition);
            }
        }
        told.features.clone()
    }
}
