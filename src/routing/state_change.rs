//! The state that an operator gave a backend: who did it, when and why (promise V5).
//!
//! The journal keeps it under the backend's address, so that it outlives the process: a server that
//! was turned off because it is broken must not get work because the gateway was restarted.

use std::sync::Arc;

use crate::routing::placement::AdminState;

/// The longest name of who said it, and the longest reason, in characters.
pub const BY_MAX: usize = 100;
pub const WHY_MAX: usize = 500;

/// An operator's word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateChange {
    pub state: AdminState,
    /// Who said it, as far as that was told, and from which address.
    pub by: Arc<str>,
    pub why: Option<Arc<str>>,
    /// Milliseconds since 1970: it is told by another process than the one that heard it.
    pub at: u64,
}

/// A name or a reason that cannot be shown in one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{what}` may have at most {max} characters and no control characters")]
pub struct BadText {
    what: &'static str,
    max: usize,
}

/// Reads a text of a request: `None` for none, and for one of blanks.
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
