//! Other spellings by which file systems find the folder of a user.

/// What stands before the number in a short name of Windows: the begin of the name.
const SHORT: &[u8] = b"moorin";

/// Where many names begin alike, only so much of it, and then four digits made of the name.
const SHORTER: &[u8] = b"mo";
const DIGITS: usize = 4;

/// The length of a short name (8.3) of such a folder at the begin of a text, up to its number.
pub(super) fn short_name(text: &[u8]) -> Option<usize> {
    let begins =
        |with: &[u8]| text.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    let is_hashed = || {
        let digits = text.get(SHORTER.len()..SHORTER.len() + DIGITS);
        begins(SHORTER) && digits.is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    };
    if !begins(SHORT) && !is_hashed() {
        return None;
    }
    let is_numbered = matches!(text.get(SHORT.len()..), Some([b'~', b'0'..=b'9', ..]));
    is_numbered.then_some(SHORT.len() + 2)
}

/// The text without the characters that HFS+ and ext4 ignore in names; `None` if it has none.
pub(super) fn without_ignored(text: &str) -> Option<String> {
    if text.is_ascii() || !text.contains(is_ignored) {
        return None;
    }
    Some(text.chars().filter(|it| !is_ignored(*it)).collect())
}

/// `Default_Ignorable_Code_Point` of Unicode 16.
fn is_ignored(it: char) -> bool {
    matches!(it,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_those_that_windows_makes() {
        for (text, length) in [
            ("MOORIN~1", Some(8)),
            ("moorin~12/a.png", Some(8)),
            ("MO4F2A~3", Some(8)),
            ("moorin~", None),
            ("moorin~b", None),
            ("mooring~1", None),
            ("mocha1~1", None),
            ("mo", None),
        ] {
            assert_eq!(short_name(text.as_bytes()), length, "{text}");
        }
        assert_eq!(without_ignored("a\u{200d}b").as_deref(), Some("ab"));
        assert!(without_ignored("abc").is_none() && without_ignored("\u{e4}").is_none());
    }
}
