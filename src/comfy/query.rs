//! Parameters of a raw query, read as aiohttp reads them: percent-decoded, `+` is a space.

/// The first value of a parameter.
#[must_use]
pub fn parameter(raw_query: &str, name: &str) -> Option<String> {
    raw_query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

/// The client that a query names.
#[must_use]
pub fn client_id(raw_query: &str) -> Option<String> {
    // The most frequent queries have none; decoding every key of those would be waste.
    if !raw_query.contains("lient") && !raw_query.contains('%') {
        return None;
    }
    parameter(raw_query, "clientId")
}

/// The same query with another value for a parameter: at the first place where it stands, else at
/// the end.
#[must_use]
pub fn with_parameter(raw_query: &str, name: &str, value: &str) -> String {
    let mut is_done = false;
    let pairs = raw_query.split('&').map(|pair| {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        if is_done || decode(key) != name {
            return pair.to_owned();
        }
        is_done = true;
        format!("{key}={}", encode(value))
    });
    let mut pairs: Vec<String> = pairs.collect();
    if !is_done {
        pairs.push(format!("{name}={}", encode(value)));
    }
    pairs.join("&")
}

/// A value as it stands in a query.
#[must_use]
pub fn encode(value: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(value, KEPT).to_string()
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts_and_escapes_are_read() {
        assert_eq!(client_id("a=1&clientId=x%20y+z&clientId=2").as_deref(), Some("x y z"));
        assert_eq!(client_id("%63lientId=x").as_deref(), Some("x"));
        assert_eq!(client_id("clientId").as_deref(), Some(""));
        assert_eq!(client_id("filename=a.png&type=output"), None);
    }
}
