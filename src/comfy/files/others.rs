//! Keeps names of other users' files out of a submission.

use std::ops::Range;

use bytes::Bytes;

use super::super::walk::{Level, Visit, quote, text_at, walk};
use super::{VALUE_MAX, with_renamed, without_annotation};
use crate::routing::user_folder::UserFolder;

/// The submission with nobody's folder in the place of another user's, in every string: its server
/// then says itself that there is no such file.
///
/// A string that is too long to be looked up, but says in which folder it is, names nothing either.
#[must_use]
pub fn without_others(body: Bytes, user: &UserFolder) -> Bytes {
    let mut others = Others { body: &body, user, parts: Vec::new() };
    walk(&body, &mut others);
    let parts = others.parts;
    with_renamed(body, &parts)
}

struct Others<'a> {
    body: &'a [u8],
    user: &'a UserFolder,
    parts: Vec<(Range<usize>, String)>,
}

impl Visit for Others<'_> {
    fn text(&mut self, _levels: &[Level<'_>], at: Range<usize>) {
        let Some(text) = text_at(self.body, at.clone()) else { return };
        if VALUE_MAX < at.len() && without_annotation(&text).1.is_some() {
            self.parts.push((at, quote(&self.user.nowhere("too-long"))));
        } else if self.user.names_another(&text) {
            self.parts.push((at, quote(&self.user.without_others(&text))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(body: &str) -> String {
        let body = without_others(body.to_owned().into(), &UserFolder::of("bob"));
        String::from_utf8(body.into()).unwrap()
    }

    #[test]
    fn another_users_folder_is_in_no_string_however_it_is_written() {
        let ada = UserFolder::of("ada").path("a.png");
        let escaped = ada.replacen('m', "\\u006d", 1);
        for name in [ada.as_str(), &escaped, &ada.to_uppercase(), &format!("x/../{ada}")] {
            for body in [
                format!(r#"{{"prompt": {{"1": {{"inputs": {{"image": "{name}"}}}}}}}}"#),
                format!(r#"{{"\u0070rompt": {{"1": {{"inputs": {{"x": [["{name}"]]}}}}}}}}"#),
            ] {
                let without = without(&body);
                assert!(without.contains("mooring-nobody-"), "{without}");
                assert!(!UserFolder::of("bob").names_another(&without), "{without}");
            }
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        let own = UserFolder::of("bob").path("a.png");
        let text = "many words ".repeat(VALUE_MAX);
        for name in [own.as_str(), "a.png", "mooring", &text, "mooring-off"] {
            let body = format!(r#"{{"prompt": {{"1": {{"inputs": {{"image": "{name}"}}}}}}}}"#);
            assert_eq!(without(&body), body);
        }
        let long = format!("{}a.png [output]", "./".repeat(VALUE_MAX));
        let body = format!(r#"{{"prompt": {{"1": {{"inputs": {{"image": "{long}"}}}}}}}}"#);
        assert!(!without(&body).contains("a.png"));
    }
}
