//! One pass over JSON text for what a parser would let through and Python would not survive:
//! nesting without end, and numbers that become infinite.

/// The deepest nesting taken. Python's parser raises at about a thousand; no graph needs ten.
pub const DEPTH_MAX: usize = 128;

/// What was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsafe {
    #[error("the JSON is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("a number in the JSON is not finite")]
    NotFinite,
}

/// Looks through well-formed JSON.
///
/// # Errors
/// The first thing found that no backend should see.
pub fn scan(json: &[u8]) -> Result<(), Unsafe> {
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => after_string(after),
            b'{' | b'[' => {
                depth += 1;
                if DEPTH_MAX < depth {
                    return Err(Unsafe::TooDeep);
                }
                after
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                after
            }
            b'-' | b'0'..=b'9' => after_number(rest)?,
            _ => after,
        };
    }
    Ok(())
}

/// What follows the closing quote.
fn after_string(mut rest: &[u8]) -> &[u8] {
    loop {
        match memchr::memchr2(b'"', b'\\', rest) {
            None => return &[],
            Some(at) if rest[at] == b'"' => return &rest[at + 1..],
            Some(at) => rest = rest.get(at + 2..).unwrap_or(&[]),
        }
    }
}

/// What follows a number; an integer of any length is finite in Python.
fn after_number(rest: &[u8]) -> Result<&[u8], Unsafe> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let len = rest.iter().take_while(|byte| is_part(byte)).count();
    let (number, after) = rest.split_at(len);
    let is_integer = !number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    let is_finite = || {
        let text = std::str::from_utf8(number).ok()?;
        text.parse::<f64>().ok().map(f64::is_finite)
    };
    if is_integer || is_finite() == Some(true) { Ok(after) } else { Err(Unsafe::NotFinite) }
}

/// The same JSON with `null` for the numbers that JSON does not have and Python writes (`NaN`,
/// `Infinity`): one node's odd output must not make a whole history unreadable.
#[must_use]
pub fn without_nan(json: &[u8]) -> Vec<u8> {
    const ODD: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
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

    #[test]
    fn infinite_numbers_are_found_anywhere_but_in_strings() {
        assert_eq!(scan(br#"{"a":[1e999]}"#), Err(Unsafe::NotFinite));
        assert_eq!(scan(br#"{"a":-1E999}"#), Err(Unsafe::NotFinite));
        assert_eq!(scan(br#"{"a":"1e999 \" 1e999"}"#), Ok(()));
        assert_eq!(scan(format!("[{}]", "9".repeat(400)).as_bytes()), Ok(()));
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(nested(128).as_bytes()), Ok(()));
        assert_eq!(scan(nested(129).as_bytes()), Err(Unsafe::TooDeep));
    }

    #[test]
    fn numbers_that_json_does_not_have_become_null_outside_of_strings() {
        let python = br#"{"a": [NaN, -Infinity, Infinity, 1], "b\"NaN": "NaN \\"}"#;
        let clean = br#"{"a": [null, null, null, 1], "b\"NaN": "NaN \\"}"#;
        assert_eq!(without_nan(python), clean);
        assert_eq!(without_nan(br#""\"#), br#""\"#, "cut in the middle of an escape");
    }
}
