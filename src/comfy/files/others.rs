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
///
/// # Errors
/// A string of it cannot be read, but its server might read a name in it.
pub fn without_others(body: Bytes, user: &UserFolder) -> Result<Bytes, Unreadable> {
    let mut others = Others { body: &body, user, parts: Vec::new(), unreadable: None };
    walk(&body, &mut others);
    if let Some(why) = others.unreadable {
        return Err(why);
    }
    let parts = others.parts;
    Ok(with_renamed(body, &parts))
}

/// Why a submission is refused: what it names is not known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unreadable {
    #[error("a string in the body is no text: half of a surrogate pair stands in it")]
    NoText,
    #[error("the body is nested too deeply: at most 64 levels")]
    TooDeep,
}

struct Others<'a> {
    body: &'a [u8],
    user: &'a UserFolder,
    parts: Vec<(Range<usize>, String)>,
    unreadable: Option<Unreadable>,
}

impl Visit for Others<'_> {
    fn too_deep(&mut self) {
        self.unreadable.get_or_insert(Unreadable::TooDeep);
    }

    fn text(&mut self, _levels: &[Level<'_>], at: Range<usize>) {
        let Some(text) = text_at(self.body, at.clone()) else {
            self.unreadable.get_or_insert(Unreadable::NoText);
            return;
        };
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
        let body = without_others(body.to_owned().into(), &UserFolder::of("bob")).unwrap();
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

    /// Python keeps half of a pair as a character, and ComfyUI cuts it off with the folder.
    #[test]
    fn what_cannot_be_read_is_refused() {
        let deep = format!("{{\"prompt\": {}\"x\"{}}}", "[".repeat(64), "]".repeat(64));
        for (body, why) in [
            (r#"{"prompt": {"1": ["a.png\ud800[input]"]}}"#, Unreadable::NoText),
            (r#"{"extra_data": "\udc00"}"#, Unreadable::NoText),
            (deep.as_str(), Unreadable::TooDeep),
        ] {
            let body = Bytes::copy_from_slice(body.as_bytes());
            assert_eq!(without_others(body, &UserFolder::of("bob")), Err(why));
        }
        assert!(without(r#"{"prompt": "\ud83d\ude00"}"#).contains("ude00"));
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
