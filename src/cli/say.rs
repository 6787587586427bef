//! Prints for the verbs: answers on standard output, reports on standard error.
//!
//! The print macros are not used: they panic when the reader is gone, as in `mooring clients | head
//! -1`.

use std::env;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use super::EXIT_FAILURE;
use super::table::{Colours, Look};

/// Prints a line of the answer. If the reader is gone, that is not an error.
pub(super) fn line(text: &str) {
    let _ = needed(text);
}

/// Prints a line that must reach its reader.
pub(super) fn needed(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Prints text that is drawn on a terminal, as it is.
pub(super) fn raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// How tables look on standard output.
pub(super) fn look() -> Look {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    // https://no-color.org: any text that is not empty.
    let coloured = io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb;
    Look { width: width(), colours: if coloured { Colours::On } else { Colours::Off } }
}

/// How many lines a screen has; no limit if the output is not a terminal.
pub(super) fn height() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(usize::MAX, |(_, height)| height.0.into())
}

/// How many columns a line may have. There is no limit if the output is not a terminal, because
/// programs expect one row per line.
fn width() -> usize {
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
