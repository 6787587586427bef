//! What a backend has reported about itself.

use std::sync::Arc;

use super::Backend;
use crate::comfy::version::Version;

/// What a server reports about itself.
#[derive(Clone, Debug)]
pub struct SaidOfItself {
    pub version: Version,
    pub frontend: Arc<str>,
}

impl Backend {
    /// Stores what it reported when the watch link opened.
    pub fn learned(&self, said: SaidOfItself, features: Option<Arc<str>>) {
        let mut state = self.state();
        state.version = Some(said.version);
        state.frontend = Some(said.frontend);
        if features.is_some() {
            state.features = features;
        }
    }

    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.state().version.clone()
    }

    /// The version of its frontend; two backends with the same version serve the same page. `None`
    /// if it was never asked.
    #[must_use]
    pub fn frontend(&self) -> Option<Arc<str>> {
        self.state().frontend.clone()
    }

    #[must_use]
    pub fn features(&self) -> Option<Arc<str>> {
        self.state().features.clone()
    }
}
