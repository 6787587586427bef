//! Prints for the verbs: answers on standard output, reports on standard error.
//!
//! The print macros are not used: they panic when the reader is gone, as in `mooring clients | head
//! -1`.

use std::io::{self, Write};
use std::process::ExitCode;

use super::EXIT_FAILURE;

/// Prints a line of the answer. If the reader is gone, that is not an error.
pub(super) fn line(text: &str) {
    let _ = needed(text);
}

/// Prints a line that must reach its reader.
pub(super) fn needed(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// How many columns a line may have. There is no limit if the output is not a terminal, because
/// programs expect one row per line.
pub(super) fn width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(usize::MAX, |(width, _)| width.0.into())
}

/// Prints a line for people, on standard error.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints what failed, as the last output of a verb.
pub(super) fn failure(text: &str) -> ExitCode {
    note(&format!("mooring: {text}"));
    ExitCode::from(EXIT_FAILURE)
}

/// Removes control characters from foreign text, so that it is safe for a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}
