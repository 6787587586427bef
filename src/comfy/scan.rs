//! One pass over JSON text. It finds input that a parser would accept but Python would not survive,
//! and numbers that Python writes although JSON does not have them.

use std::borrow::Cow;
use std::ops::Range;

use super::walk::text_at;

/// The deepest nesting allowed. Python's parser fails at about a thousand; no graph needs ten.
pub const DEPTH_MAX: usize = 128;

/// The longest integer that Python reads (`sys.int_info.default_max_str_digits`, 3.11).
const DIGITS_MAX: usize = 4_300;

/// Why a text must not be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsafe {
    #[error("the JSON is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("a number in the JSON is not finite")]
    NotFinite,
    #[error("an integer in the JSON has more than {DIGITS_MAX} digits")]
    TooLong,
}

/// The body of a submission with `null` for each `NaN`, `Infinity` and `-Infinity` in its graph and
/// its `extra_data`. Python reads and writes these, so graphs from pictures contain them, and other
/// parsers then refuse its answers. Elsewhere in a body they are left, and a parser refuses them,
/// as it refuses what Python does not accept either. `1e999` is refused: digits are meant as a
/// number, and Python would read infinity.
///
/// # Errors
/// The first thing that no backend should get.
pub fn normal(json: &[u8]) -> Result<Cow<'_, [u8]>, Unsafe> {
    let mut normal = Vec::new();
    let mut place = Place::default();
    let (mut at, mut copied) = (0, 0);
    while let Some(&byte) = json.get(at) {
        let mut after = at + 1;
        match byte {
            b'"' => {
                after = after_string(json, at);
                place.string(json, at..after);
            }
            b'{' | b'[' => place.open()?,
            b'}' | b']' => place.depth = place.depth.saturating_sub(1),
            b',' => place.is_key_next |= place.depth == 1,
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let (len, is_odd) = number(json, at)?;
                after = at + len;
                if is_odd && place.is_mended {
                    normal.extend_from_slice(&json[copied..at]);
                    normal.extend_from_slice(b"null");
                    copied = after;
                }
            }
            _ => {}
        }
        at = after;
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(json));
    }
    normal.extend_from_slice(&json[copied..]);
    Ok(Cow::Owned(normal))
}

/// A position in a body.
#[derive(Debug, Default)]
struct Place {
    depth: usize,
    /// The next string is a key of the top level.
    is_key_next: bool,
    /// It is in the graph or in `extra_data`, where such numbers are replaced.
    is_mended: bool,
}

impl Place {
    fn open(&mut self) -> Result<(), Unsafe> {
        self.depth += 1;
        self.is_key_next |= self.depth == 1;
        if DEPTH_MAX < self.depth { Err(Unsafe::TooDeep) } else { Ok(()) }
    }

    fn string(&mut self, json: &[u8], at: Range<usize>) {
        if self.depth == 1 && std::mem::take(&mut self.is_key_next) {
            let key = text_at(json, at);
            self.is_mended = matches!(key.as_deref(), Some("prompt" | "extra_data"));
        }
    }
}

/// The position after the string that begins at `open`.
fn after_string(json: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

/// The length of a possible number, and whether it is a word that JSON does not have. An integer of
/// any length is finite in Python.
fn number(json: &[u8], at: usize) -> Result<(usize, bool), Unsafe> {
    let rest = json.get(at..).unwrap_or(&[]);
    if let Some(odd) = ODD.iter().find(|odd| rest.starts_with(odd)) {
        return Ok((odd.len(), true));
    }
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let len = rest.iter().take_while(|byte| is_part(byte)).count();
    let written = &rest[..len];
    if !written.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        let digits = written.iter().filter(|byte| byte.is_ascii_digit()).count();
        return if DIGITS_MAX < digits { Err(Unsafe::TooLong) } else { Ok((len.max(1), false)) };
    }
    let number = std::str::from_utf8(written).ok().and_then(|text| text.parse::<f64>().ok());
    match number.is_none_or(f64::is_finite) {
        true => Ok((len, false)),
        false => Err(Unsafe::NotFinite),
    }
}

/// Numbers that Python writes and JSON does not have.
const ODD: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// The same JSON with `null` for the numbers that Python writes and JSON does not have (`NaN`,
/// `Infinity`): one node's odd output must not make a whole history unreadable.
#[must_use]
pub fn without_nan(json: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(json.len());
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = json.get(at) {
        let rest = &json[at..];
        let odd = ODD.iter().find(|odd| !in_string && rest.starts_with(odd));
        match (odd, byte) {
            (Some(odd), _) => {
                clean.extend_from_slice(b"null");
                at += odd.len();
            }
            (None, b'\\') if in_string => {
                clean.extend_from_slice(&rest[..rest.len().min(2)]);
                at += 2;
            }
            (None, _) => {
                in_string ^= byte == b'"';
                clean.push(byte);
                at += 1;
            }
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal_text(json: &str) -> Result<String, Unsafe> {
        normal(json.as_bytes()).map(|it| String::from_utf8(it.into_owned()).unwrap())
    }

    /// Checks a text in the graph only.
    #[track_caller]
    fn check(json: &str, expected: &str) {
        for key in ["prompt", "extra_data", "p\\u0072ompt"] {
            let body = |json: &str| format!(r#"{{"a": {{"b": 1}}, "{key}": {json}, "c": "d"}}"#);
            assert_eq!(normal_text(&body(json)), Ok(body(expected)));
        }
    }

    #[test]
    fn what_is_no_number_becomes_null_anywhere_but_in_strings() {
        check(r#"{"a":[{"b":[NaN]}]}"#, r#"{"a":[{"b":[null]}]}"#);
        check(r#"{"a":-Infinity,"b":-1.5e2}"#, r#"{"a":null,"b":-1.5e2}"#);
        check(
            r#"[NaN,-Infinity, {"NaN": Infinity}, "NaN \" Infinity"]"#,
            r#"[null,null, {"NaN": null}, "NaN \" Infinity"]"#,
        );
        check("NaN", "null");
        let long = format!("[{}]", "9".repeat(400));
        check(&long, &long);
        let same = r#"{"prompt":"1e999 \" 1e999", "b": [0.5, -3, true]}"#;
        assert!(matches!(normal(same.as_bytes()), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn elsewhere_it_is_not_taken() {
        for same in [
            r#"{"prompt": {}, "number": NaN}"#,
            r#"{"a": "prompt", "x": {"prompt": NaN}}"#,
            r#"[{"prompt": NaN}]"#,
            "NaN",
        ] {
            assert_eq!(normal_text(same).as_deref(), Ok(same));
        }
    }

    #[test]
    fn what_python_does_not_take_is_no_json_afterwards() {
        for odd in ["-NaN", "nan", "NAN", "inf", "+Infinity", "NaNs", "1NaN", "{NaN: 1}", "Inf"] {
            let body = format!(r#"{{"prompt": {odd}}}"#);
            let normal = normal(body.as_bytes()).unwrap().into_owned();
            assert!(serde_json::from_slice::<serde_json::Value>(&normal).is_err(), "{odd}");
        }
    }

    #[test]
    fn digits_that_python_reads_as_infinite_are_found() {
        for json in [r#"{"prompt": {"a": [1e999]}}"#, "[-1E999]", "1.0e+400"] {
            assert_eq!(normal_text(json), Err(Unsafe::NotFinite), "{json}");
        }
    }

    #[test]
    fn an_integer_that_python_does_not_read_is_found() {
        assert_eq!(normal(format!("[-{}]", "9".repeat(4_301)).as_bytes()), Err(Unsafe::TooLong));
        let longest = "9".repeat(4_300);
        check(&longest, &longest);
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(normal_text(&nested(128)), Ok(nested(128)));
        assert_eq!(normal(nested(129).as_bytes()), Err(Unsafe::TooDeep));
    }

    #[test]
    fn numbers_that_json_does_not_have_become_null_outside_of_strings() {
        let python = br#"{"a": [NaN, -Infinity, Infinity, 1], "b\"NaN": "NaN \\"}"#;
        let clean = br#"{"a": [null, null, null, 1], "b\"NaN": "NaN \\"}"#;
        assert_eq!(without_nan(python), clean);
        assert_eq!(without_nan(br#""\"#), br#""\"#, "cut in the middle of an escape");
    }
}
