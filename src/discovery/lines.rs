//! Splits a stream into lines. Pure.

/// Longer than any object of a watch: an endpoint slice has at most 1,000 endpoints.
const LINE_MAX: usize = 8 << 20;

/// The part of a line that has arrived.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

/// A line is too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooLong;

impl Lines {
    /// Takes a piece and returns the lines that are complete now, without empty ones.
    ///
    /// # Errors
    /// A line is too long.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut whole = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if LINE_MAX < self.0.len() + part.len() {
                return Err(TooLong);
            }
            self.0.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.0);
                let line = line.trim_ascii().to_vec();
                whole.extend(Some(line).filter(|line| !line.is_empty()));
            }
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_line_that_never_ends_is_not_kept() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&vec![b'x'; LINE_MAX]), Ok(vec![]));
        assert_eq!(lines.push(b"x"), Err(TooLong));
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_come(
            all in vec("[a-z]{1,5}", 0..6),
            cuts in vec(0..40_usize, 0..6),
        ) {
            let text: String = all.iter().map(|line| format!("{line}\r\n\n")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for cut in cuts.windows(2) {
                found.extend(lines.push(&text.as_bytes()[cut[0]..cut[1]]).unwrap());
            }
            let found: Result<Vec<_>, _> = found.into_iter().map(String::from_utf8).collect();
            prop_assert_eq!(found.unwrap(), all);
        }
    }
}
