//! The features of the fleet that pages are told; computed again only when a backend reports
//! others.

use std::sync::Arc;

use super::Fleet;
use crate::comfy::features::{AT_LEAST, in_common};
use crate::routing::placement::AdminState;

/// The features that were told last, and the backends that they are from.
#[derive(Debug)]
pub(super) struct Told {
    of: Vec<Arc<str>>,
    text: Arc<str>,
    edition: Edition,
}

/// Identifies a text of features: a socket that was told another one is told again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edition(u32);

impl Default for Told {
    fn default() -> Self {
        Self { of: Vec::new(), text: in_common([]).into(), edition: Edition(0) }
    }
}

impl Fleet {
    /// The features of every backend that a client may meet: those that have reported, except those
    /// that an operator has switched off.
    #[must_use]
    pub fn features(&self) -> (Edition, Arc<str>) {
        let known = self.iter().filter(|it| it.admin() != AdminState::Off);
        // A backend that reports no features has those of every server that is new enough.
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
