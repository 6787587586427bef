//! How do verbs speak? Answers on standard output, reports on standard error.
//!
//! Not the print macros: they panic when the reader has left, as in `mooring clients | head -1`.

use std::io::{self, Write};
use std::process::ExitCode;

use super::EXIT_FAILURE;

/// A line of the answer. A reader that has left wants no more, which is no failure.
pub(super) fn line(text: &str) {
    let _ = needed(text);
}

/// A line that must reach its reader.
pub(super) fn needed(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// How many columns a line may have; no limit where nobody looks at a terminal, because programs
/// read a row as a line.
pub(super) fn width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(usize::MAX, |(width, _)| width.0.into())
}

/// A line for people beside the answer.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says what failed, as the last words of a verb.
pub(super) fn failure(text: &str) -> ExitCode {
    note(&format!("mooring: {text}"));
    ExitCode::from(EXIT_FAILURE)
}

/// Text of others, safe for a terminal: no control characters.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}
