//! Headers for everything that is said to one backend: what it asks for before it answers at all.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::kinds::{Faults, Kind, Shape};
use super::problems::Origin;
use super::raw::{Item, Written};
use super::values::text_in_list;

/// At most so many for one backend, and so many bytes in one value: it has to fit a head.
pub(super) const HEADERS_MAX: usize = 32;
pub(super) const VALUE_MAX: usize = 4096;

/// Names that are the gateway's to set, or that change what an answer means.
const OURS: [&str; 16] = [
    "accept-encoding",
    "comfy-client-id",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const OUR_PREFIXES: [&str; 3] = ["if-", "mooring-", "sec-"];

/// The headers of one backend. What they say is never shown.
#[derive(Clone, Default, PartialEq)]
pub struct BackendHeaders(HeaderMap);

impl fmt::Debug for BackendHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl BackendHeaders {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if one of them has this name, whatever its case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    #[must_use]
    pub fn as_map(&self) -> &HeaderMap {
        &self.0
    }

    /// Puts them into a request, in place of others of their names.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// Adds one, as it is written: `Name: value`.
    ///
    /// # Errors
    /// What is wrong with it, without showing its value.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let Some((name, value)) = text.split_once(':') else {
            return Err("an entry is written `Name: value`".to_owned());
        };
        let (name, value) = (name.trim(), value.trim());
        let header: HeaderName = name
            .parse()
            .map_err(|_| "what stands before the first colon is no name of a header".to_owned())?;
        let lower = header.as_str();
        if OURS.contains(&lower) || OUR_PREFIXES.iter().any(|it| lower.starts_with(it)) {
            return Err(format!("`{name}` is set by the gateway itself"));
        }
        if value.is_empty() || VALUE_MAX < value.len() {
            let length = value.len();
            return Err(format!("`{name}` has {length} bytes, expected 1 to {VALUE_MAX}"));
        }
        let is_plain = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let value = HeaderValue::from_str(value).ok().filter(|_| is_plain);
        let Some(mut value) = value else {
            return Err(format!("`{name}` has a byte that is not visible ASCII"));
        };
        if self.0.contains_key(&header) {
            return Err(format!("`{name}` is given twice"));
        }
        if HEADERS_MAX <= self.0.len() {
            return Err(format!("there are more than {HEADERS_MAX}"));
        }
        value.set_sensitive(true);
        self.0.insert(header, value);
        Ok(())
    }

    /// Reads them from the text of a file: one in each line, `#` begins a remark.
    ///
    /// # Errors
    /// What is wrong with the first wrong line, and its number.
    pub(super) fn add_lines(&mut self, text: &str) -> Result<(), String> {
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.add(line).map_err(|what| format!("line {number}: {what}"))?;
            }
        }
        Ok(())
    }
}

/// Headers, such as `Authorization: Bearer …`. No report shows one.
#[derive(Debug)]
pub(super) struct Headers;

impl Kind for Headers {
    type Value = BackendHeaders;
    const SHAPE: Shape = Shape::List;

    /// One in each line: a value may have commas.
    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        let mut headers = BackendHeaders::default();
        headers.add_lines(text)?;
        Ok(headers)
    }

    fn takes(&self) -> String {
        "a list of headers such as \"Authorization: Bearer ...\"".to_owned()
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        let Item::List(list) = &written.item else {
            // In a file it is a list; elsewhere it is text.
            let text = self.text(written).and_then(|text| self.parse(&text));
            return text.map_err(|what| vec![(written.origin.clone(), what)]);
        };
        let (mut headers, mut faults) = (BackendHeaders::default(), Faults::new());
        for entry in list {
            let added = text_in_list(entry).and_then(|text| headers.add(&text));
            if let Err(what) = added {
                faults.push((entry.origin.clone(), what));
            }
        }
        if faults.is_empty() { Ok(headers) } else { Err(faults) }
    }

    /// Not the standard one, whose report shows what was found.
    fn text(&self, written: &Written) -> Result<String, String> {
        match &written.item {
            Item::Text(text) if !matches!(written.origin, Origin::File { .. }) => Ok(text.clone()),
            Item::Text(_) | Item::Number(_) | Item::Other | Item::Switch(_) | Item::List(_) => {
                Err(format!("expected {}", self.takes()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_never_shown() {
        let mut headers = BackendHeaders::default();
        headers.add("Authorization: Bearer s3cret:with=more, of it").unwrap();
        headers.add_lines("# from the vault\n\nX-Key:  hidden \r\n").unwrap();
        assert!(headers.has("AUTHORIZATION") && headers.has("x-key") && !headers.has("cookie"));
        assert_eq!(headers.as_map()["authorization"], "Bearer s3cret:with=more, of it");
        assert_eq!(headers.as_map()["x-key"], "hidden");
        let shown = format!("{headers:?} {:?}", headers.as_map());
        assert!(!shown.contains("s3cret") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_showing_it() {
        let mut headers = BackendHeaders::default();
        headers.add("X-Key: first").unwrap();
        for (text, expected) in [
            ("s3cret", "written `Name: value`"),
            ("a b: s3cret", "no name of a header"),
            ("Host: s3cret", "set by the gateway"),
            ("content-length: s3cret", "set by the gateway"),
            ("Sec-WebSocket-Key: s3cret", "set by the gateway"),
            ("Mooring-Backend: s3cret", "set by the gateway"),
            ("x-key: s3cret", "given twice"),
            ("X-Empty:", "has 0 bytes"),
            ("X-Split: s3cret\r\nX-Other: y", "not visible ASCII"),
            ("X-Umlaut: s3cret\u{e4}", "not visible ASCII"),
        ] {
            let what = headers.add(text).unwrap_err();
            assert!(what.contains(expected), "{text}: {what}");
            assert!(!what.contains("s3cret"), "{what}");
        }
        let what = headers.add_lines("X-A: b\ns3cret\n").unwrap_err();
        assert!(what.starts_with("line 2: ") && !what.contains("s3cret"), "{what}");
    }
}
