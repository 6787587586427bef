//! The features that pages are told the fleet has; computed again only when a backend reports
//! others.

use std::sync::Arc;

use super::Fleet;
use crate::comfy::features::{AT_LEAST, in_common};
use crate::routing::placement::AdminState;

/// What was told last, and of whom.
#[derive(Debug)]
pub(super) struct Told {
    of: Vec<Arc<str>>,
    text: Arc<str>,
    edition: Edition,
}

/// Which of the texts that were told: a socket that was told another is told again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edition(u32);

impl Default for Told {
    fn default() -> Self {
        Self { of: Vec::new(), text: in_common([]).into(), edition: Edition(0) }
    }
}

impl Fleet {
    /// What every backend can do that a client may meet: those that ever said what they are, but
    /// for those that an operator has switched off.
    #[must_use]
    pub fn features(&self) -> (Edition, Arc<str>) {
        let known = self.iter().filter(|it| it.admin() != AdminState::Off);
        // One that gives no features has what every server has that is new enough.
        let of: Vec<Arc<str>> = known
            .filter_map(|it| it.features().or_else(|| it.version().map(|_| AT_LEAST.into())))
            .collect();
        let mut told = self.told.lock();
        if told.of != of {
            let text = in_common(of.iter().map(AsRef::as_ref));
            told.of = of;
            if *told.text != *text {
                told.text = text.into();
                told.edition = Edition(told.edition.0.wrapping_add(1));
            }
        }
        (told.edition, Arc::clone(&told.text))
    }
}
