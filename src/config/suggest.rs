//! Suggests the name that was probably meant.

/// The least likeness for a suggestion. 0.7 accepts a dropped or swapped letter in short names and
/// rejects words that merely share an ending.
const LIKENESS_MIN: f64 = 0.7;

/// The candidate that is most like `text`, if any is similar enough.
pub(super) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|it| (strsim::normalized_damerau_levenshtein(&text, &it.to_ascii_lowercase()), it))
        .filter(|(likeness, _)| LIKENESS_MIN <= *likeness)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_seen_through_and_another_word_is_not() {
        let keys = ["listen", "workers", "idle_timeout", "body_timeout"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("worker", keys), Some("workers"));
        assert_eq!(nearest("IDLE_TIMEOUT", keys), Some("idle_timeout"));
        assert_eq!(nearest("ilde_timeout", keys), Some("idle_timeout"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
