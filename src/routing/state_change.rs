//! The state that an operator set for a backend: who set it, when and why (promise V5).
//!
//! The journal keeps it under the backend's address, so that it survives a restart: a server that
//! was turned off because it is broken must not get work after one.

use std::sync::Arc;

use crate::routing::placement::AdminState;

/// The most characters of an operator's name, and of a reason.
pub const BY_MAX: usize = 100;
pub const WHY_MAX: usize = 500;

/// A state with its author and reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateChange {
    pub state: AdminState,
    /// Who set it, as far as known, and from which address.
    pub by: Arc<str>,
    pub why: Option<Arc<str>>,
    /// Milliseconds since 1970, because another process may read it.
    pub at: u64,
}

/// A name or a reason that cannot be shown in one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{what}` may have at most {max} characters and no control characters")]
pub struct BadText {
    what: &'static str,
    max: usize,
}

/// Parses an optional text of a request: `None` if it is absent or blank.
///
/// # Errors
/// It is too long or has control characters.
pub fn text<'a>(
    what: &'static str,
    text: Option<&'a str>,
    max: usize,
) -> Result<Option<&'a str>, BadText> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let is_plain = !text.chars().any(char::is_control) && text.chars().count() <= max;
    if is_plain { Ok(Some(text)) } else { Err(BadText { what, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_of_bounded_length_or_none() {
        assert_eq!(text("why", None, 3), Ok(None));
        assert_eq!(text("why", Some("  "), 3), Ok(None));
        assert_eq!(text("why", Some(" fan "), 3), Ok(Some("fan")));
        assert_eq!(text("why", Some("ööö"), 3), Ok(Some("ööö")));
        for bad in ["four", "a\nb", "\u{1b}[1"] {
            assert!(text("why", Some(bad), 3).is_err(), "{bad:?}");
        }
    }
}
