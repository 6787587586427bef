//! Prints for the verbs: answers on standard output, reports on standard error.
//!
//! The print macros are not used: they panic when the reader is gone, as in `mooring clients | head
//! -1`. That is no error, and the verb ends quietly. An answer that is lost in any other way, as on
//! a full disk, is a failure of the verb ([`finished`]).

use std::env;
use std::future::pending;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::OnceLock;

use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

use super::EXIT_FAILURE;
use super::table::{Colours, Look};

/// Why a part of the answer could not be printed: the first reason.
static LOST: OnceLock<String> = OnceLock::new();

/// Prints a line of the answer.
pub(super) fn line(text: &str) {
    if let Err(error) = needed(text) {
        lose(&error);
    }
}

/// A part of the answer could not be printed. If its reader is gone, nobody misses it.
pub(super) fn lose(error: &io::Error) {
    if error.kind() != ErrorKind::BrokenPipe {
        LOST.get_or_init(|| error.to_string());
    }
}

/// The exit code of a verb that ends with this one. It has failed if its answer was lost.
pub(super) fn finished(code: ExitCode) -> ExitCode {
    match LOST.get() {
        Some(why) => failure(&format!("the answer could not be printed: {why}")),
        None => code,
    }
}

/// Waits until nobody reads standard output any more. Files and terminals are always read.
pub(super) async fn unread() {
    let out = io::stdout().as_fd().try_clone_to_owned();
    // A file cannot be watched.
    let Ok(watched) = out.and_then(Sender::from_owned_fd_unchecked) else {
        return pending().await;
    };
    if watched.ready(Interest::ERROR).await.is_err() {
        pending::<()>().await;
    }
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
