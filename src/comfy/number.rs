//! Parses numbers in queries as Python's `int` does.

/// An integer: space around it, a sign, and single underscores between digits are allowed.
/// One that is out of range counts as the largest or smallest that there is.
#[must_use]
pub fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_digits = |group: &str| !group.is_empty() && group.bytes().all(|it| it.is_ascii_digit());
    if !digits.split('_').all(is_digits) {
        return None;
    }
    let values = digits.bytes().filter(u8::is_ascii_digit).map(|digit| i64::from(digit - b'0'));
    let sign = if is_negative { -1 } else { 1 };
    let step = |sum: i64, digit: i64| sum.saturating_mul(10).saturating_add(sign * digit);
    Some(values.fold(0, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_what_python_takes_for_one() {
        let cases = [("64", 64), (" +7\n", 7), ("-1", -1), ("1_000", 1_000), ("-0", 0)];
        for (text, number) in cases {
            assert_eq!(integer(text), Some(number), "{text:?}");
        }
        for text in ["", "-", "+-1", "1__0", "_1", "1_", "1.0", "1e3", "0x1", "ten", "- 1"] {
            assert_eq!(integer(text), None, "{text:?}");
        }
        assert_eq!(integer(&"9".repeat(30)), Some(i64::MAX));
        assert_eq!(integer(&format!("-{}", "9".repeat(30))), Some(i64::MIN));
    }
}
