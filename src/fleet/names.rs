//! The name of a backend, which an operator may change while everything runs.

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;

/// A name, and values that are derived from it once.
#[derive(Debug)]
pub struct Named {
    pub name: Arc<str>,
    pub header: HeaderValue,
    /// Its form in file names, once that was needed.
    pub given: OnceLock<Arc<str>>,
}

/// The current name of a backend.
#[derive(Debug)]
pub struct Names(ArcSwap<Named>);

impl Names {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(ArcSwap::from_pointee(Named::new(name)))
    }

    pub fn set(&self, name: &str) {
        self.0.store(Arc::new(Named::new(name)));
    }

    #[must_use]
    pub fn get(&self) -> Guard<Arc<Named>> {
        self.0.load()
    }
}

impl Named {
    fn new(name: &str) -> Self {
        Self { name: name.into(), header: header(name), given: OnceLock::new() }
    }
}

/// A text of the configuration as the value of a header; it was checked to be valid.
pub(super) fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
}
