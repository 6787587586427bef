//! Fills in our own small pages.

/// The page with its placeholders replaced, each once. Inserted text is not searched again.
#[must_use]
pub fn filled(page: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(page.len() + 1024);
    let mut rest = page;
    while let Some((before, gap)) = rest.split_once("{{") {
        text.push_str(before);
        let (name, after) = gap.split_once("}}").unwrap_or((gap, ""));
        text.push_str(values.iter().find(|(it, _)| *it == name).map_or("", |(_, value)| value));
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Adds a capital at the beginning and a full stop at the end.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

/// Escapes a text for an element, whatever it contains.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}
