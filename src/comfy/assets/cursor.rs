//! The cursor of a list of assets (ComfyUI 0.33 `app/assets/services/cursor.py`): base64url of
//! `{"s": field, "v": value, "id": id, "o": order}`.
//!
//! It says after which value the next page begins, and contains nothing about the server that made
//! it. So one cursor is valid for every backend, and so is one that is made here.

use serde::{Deserialize, Serialize};

use super::query::{Order, Sort};

/// The longest cursor that ComfyUI reads, in bytes.
const ENCODED_MAX: usize = 8_192;

/// The longest value and id that ComfyUI reads, in characters.
const VALUE_MAX: usize = 512;
const ID_MAX: usize = 128;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The position after which a page begins.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Cursor {
    s: String,
    /// A name, or a number as text: bytes, or microseconds since 1970.
    #[serde(rename = "v")]
    pub value: String,
    pub id: String,
    o: String,
}

impl Cursor {
    /// `None` for values that ComfyUI would not accept in a cursor.
    #[must_use]
    pub fn new(sort: Sort, order: Order, value: String, id: &str) -> Option<Self> {
        let fits =
            !id.is_empty() && id.chars().count() <= ID_MAX && value.chars().count() <= VALUE_MAX;
        let (s, o) = (sort.as_str().to_owned(), order.as_str().to_owned());
        fits.then(|| Self { s, value, id: id.to_owned(), o })
    }

    /// The cursor as text, for an answer.
    #[must_use]
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut text = String::with_capacity(json.len().div_ceil(3) * 4);
        for bytes in json.chunks(3) {
            let mut bits = 0_usize;
            for at in 0..3 {
                bits = bits << 8 | usize::from(bytes.get(at).copied().unwrap_or(0));
            }
            for at in 0..=bytes.len() {
                text.push(char::from(ALPHABET[bits >> (18 - 6 * at) & 63]));
            }
        }
        text
    }

    /// Parses a cursor for a list in this order.
    ///
    /// # Errors
    /// ComfyUI's own error text.
    pub fn decode(text: &str, sort: Sort, order: Order) -> Result<Self, String> {
        if ENCODED_MAX < text.len() {
            return Err("cursor exceeds maximum length".to_owned());
        }
        let json = bytes_of(text).ok_or("encoding: Incorrect padding")?;
        if json.is_empty() {
            return Err("payload: Expecting value: line 1 column 1 (char 0)".to_owned());
        }
        let cursor: Self = serde_json::from_slice(&json)
            .map_err(|_| "payload: missing or non-string s/v/id".to_owned())?;
        if cursor.id.is_empty() {
            return Err("missing id".to_owned());
        }
        if cursor.o != order.as_str() {
            let (found, asked) = (&cursor.o, order.as_str());
            return Err(format!("cursor order '{found}' does not match request order '{asked}'"));
        }
        if cursor.s != sort.as_str() {
            let (found, asked) = (&cursor.s, sort.as_str());
            return Err(format!(
                "cursor sort field '{found}' does not match request sort '{asked}'"
            ));
        }
        Ok(cursor)
    }
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let digit = match group.get(at) {
                Some(digit) => ALPHABET.iter().position(|it| it == digit)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(digit).ok()?;
        }
        let whole = bits.to_be_bytes();
        match group.len() {
            1 => return None,
            len => bytes.extend_from_slice(&whole[1..len]),
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_cursor_is_pythons() {
        let cursor = Cursor::new(Sort::Name, Order::Asc, "ä.png".to_owned(), "7-8").unwrap();
        // json.dumps(payload, separators=(",", ":"), ensure_ascii=False), urlsafe_b64encode.
        let text = "eyJzIjoibmFtZSIsInYiOiLDpC5wbmciLCJpZCI6IjctOCIsIm8iOiJhc2MifQ";
        assert_eq!(cursor.encode(), text);
        assert_eq!(Cursor::decode(text, Sort::Name, Order::Asc), Ok(cursor));
        for (text, sort, order) in [
            (text, Sort::Size, Order::Asc),
            (text, Sort::Name, Order::Desc),
            ("eyJz", Sort::Name, Order::Asc),
            ("!", Sort::Name, Order::Asc),
            ("", Sort::Name, Order::Asc),
        ] {
            assert!(Cursor::decode(text, sort, order).is_err(), "{text}");
        }
        let long = "x".repeat(VALUE_MAX + 1);
        assert_eq!(Cursor::new(Sort::Name, Order::Asc, long, "7"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in ".{0,40}", junk in any::<String>()) {
            let cursor = Cursor::new(Sort::Size, Order::Desc, value, "id").unwrap();
            let read = Cursor::decode(&cursor.encode(), Sort::Size, Order::Desc);
            prop_assert_eq!(read, Ok(cursor));
            let _ = Cursor::decode(&junk, Sort::Size, Order::Desc);
        }
    }
}
