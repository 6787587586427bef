//! Decides which backend answers for the home while it is away and there is no copy (promise R9).
//!
//! The page and its files must be of the same version of the frontend; otherwise the page asks for
//! scripts that do not exist. Two pages are of the same version if their text is equal, because it
//! contains the names of the page's scripts with their hashes. So the page comes from a backend
//! with the same page as the home's, which is remembered over a restart. If the home's page is not
//! known, it comes from any backend, and after that from the same one or from one with an equal
//! page, until the home is back.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::Response;
use http::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::conditional::Whole;
use super::forward::Target;
use super::stale_cache::CacheKey;
use super::{Answer, Front, failover, headers};
use crate::body::ResponseBody;
use crate::routing::decision::Reason;
use crate::routing::ids::BackendId;

/// The name of the home backend, in answers that another backend or a copy gives for it.
pub const HOME: HeaderName = HeaderName::from_static("mooring-home");

/// How many backends are asked for the home's page.
const PAGES_MAX: usize = 16;

/// Which backend last gave the page in place of the home.
#[derive(Debug, Default)]
pub struct StandIn(ArcSwapOption<Given>);

#[derive(Debug)]
struct Given {
    by: BackendId,
    page: String,
}

/// How well a page fits the open tabs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fit {
    /// It has another version than the home's page and the last one that was given.
    Other,
    /// It has the version that was given last, which is not the home's.
    AsBefore,
    /// It has the home's version, or that version is not known.
    Same,
}

/// Compares a page with the home's and with the one that was given last.
#[must_use]
pub fn fit(page: &str, home: Option<&str>, before: Option<&str>) -> Fit {
    match (home, before) {
        (Some(home), _) if home == page => Fit::Same,
        (None, None) => Fit::Same,
        (None, Some(before)) if before == page => Fit::Same,
        (Some(_), Some(before)) if before == page => Fit::AsBefore,
        (Some(_) | None, _) => Fit::Other,
    }
}

impl StandIn {
    /// The home is back.
    pub fn is_over(&self) {
        if self.0.load().is_some() {
            self.0.store(None);
        }
    }

    /// Checks the page of a backend that is not the home.
    #[must_use]
    pub fn fit(&self, front: &Front, page: &str) -> Fit {
        let before = self.0.load();
        let before = before.as_ref().map(|it| it.page.as_str());
        fit(page, front.shared.records.home_page().as_deref(), before)
    }

    /// Notes that this page was given.
    pub fn gave(&self, by: BackendId, page: String) {
        self.0.store(Some(Arc::new(Given { by, page })));
    }
}

/// The mark that distinguishes pages.
#[must_use]
pub fn digest(page: &[u8]) -> String {
    let digest = Sha256::digest(page);
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The home sent a complete answer. If it is its page, it is remembered.
pub fn saw_page(front: &Front, home: BackendId, key: &CacheKey, whole: &Whole) {
    let is_plain = whole.headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    if key.path() == "/" && is_plain {
        front.shared.records.saw_home_page(home, &digest(&whole.body));
    }
}

/// The backends that may answer for the home. The one that gave its page comes first.
#[must_use]
pub fn others(front: &Front) -> Vec<Target> {
    let home = front.shared.home().map(|home| home.id);
    let mut others = failover::others_up_to(&front.shared, home, PAGES_MAX);
    let by = front.stand_in.0.load().as_ref().map(|it| it.by);
    others.sort_by_key(|it| Some(it.backend.id) != by);
    others
}

/// The answer of another backend to a read that belongs to the home.
pub async fn answer(front: &Front, parts: &Parts) -> Option<Response<ResponseBody>> {
    let mut others = others(front);
    others.truncate(failover::OTHERS_MAX);
    failover::ask(&front.shared, others, (parts, None)).await
}

/// The same answer, with a mark if it is not from the home.
///
/// # Errors
/// The answer was an error.
pub fn marked(front: &Front, answer: Answer) -> Answer {
    let mut response = answer?;
    let headers = response.headers();
    let is_others =
        headers.get(headers::PLACEMENT).is_some_and(|it| it == Reason::StandIn.as_str());
    if !is_others && !headers.contains_key(headers::STALE) {
        return Ok(response);
    }
    let name = front.shared.records.home_name();
    let value = name.and_then(|name| HeaderValue::try_from(format!("{name} (stands in)")).ok());
    if let Some(value) = value {
        response.headers_mut().insert(HOME, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_homes_or_the_one_that_tabs_have() {
        for (page, home, before, expected) in [
            ("1", Some("1"), None, Fit::Same),
            ("1", Some("1"), Some("2"), Fit::Same),
            ("1", None, None, Fit::Same),
            ("1", None, Some("1"), Fit::Same),
            ("2", None, Some("1"), Fit::Other),
            ("2", Some("1"), None, Fit::Other),
            ("2", Some("1"), Some("2"), Fit::AsBefore),
            ("3", Some("1"), Some("2"), Fit::Other),
        ] {
            assert_eq!(fit(page, home, before), expected, "{page} {home:?} {before:?}");
        }
        assert!(Fit::Other < Fit::AsBefore && Fit::AsBefore < Fit::Same);
    }

    #[test]
    fn a_digest_is_the_same_in_another_process() {
        assert_eq!(digest(b"<html>"), "b7d082ee12e91b756ea22e8513b8594e");
    }
}
