//! `mooring status`: once, or again and again.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::admin::{Failure, get, send};
use super::args::{AdminArgs, Form, StatusArgs};
use super::table::Look;
use super::{answer, say, table};
use crate::net::sleep;

/// Puts the cursor into the first column of the first line.
const HOME: &str = "\x1b[H";

/// Clears the rest of the line, and the rest of the screen (ECMA-48: EL, ED).
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// `mooring status`.
pub(super) async fn status(args: &StatusArgs) -> ExitCode {
    let form = answer::form(args.output, &args.admin);
    if let Some(pause) = args.watch {
        return watch(&args.admin, form, pause).await;
    }
    match status_of(&args.admin).await {
        Ok(status) => {
            match text(&status, form, say::look()) {
                none if none.is_empty() => {}
                text => say::line(&text),
            }
            ExitCode::SUCCESS
        }
        Err(failure) => failure.exit(),
    }
}

async fn status_of(admin: &AdminArgs) -> Result<Value, Failure> {
    let ready = send(admin, Method::GET, "/readyz".into(), String::new()).await?.status;
    let backends = get(admin, "/api/v1/backends".into()).await?;
    let clients = get(admin, "/api/v1/clients".into()).await?;
    let (backends, clients) = (&backends["backends"], &clients["clients"]);
    Ok(json!({"ready": ready.is_success(), "backends": backends, "clients": clients}))
}

fn text(status: &Value, form: Form, look: Look) -> String {
    let backends = answer::text(&status["backends"], form, look);
    match form {
        Form::Table | Form::Wide => {
            let ready = if status["ready"] == json!(true) { "yes" } else { "no" };
            let clients = table::list(&status["clients"]).map_or(0, Vec::len);
            format!("ready    {ready}\nclients  {clients}\n\n{backends}")
        }
        Form::Json => answer::text(status, form, look),
        Form::Name => backends,
    }
}

/// Shows it until Ctrl-C, or until nobody reads it any more. A gateway that does not answer later
/// may come back, and is waited for.
async fn watch(admin: &AdminArgs, form: Form, pause: Duration) -> ExitCode {
    let mut interrupt = match signal(SignalKind::interrupt()) {
        Ok(interrupt) => interrupt,
        Err(error) => return say::failure(&format!("cannot listen for Ctrl-C: {error}")),
    };
    tokio::select! {
        biased;
        _ = interrupt.recv() => ExitCode::SUCCESS,
        // It is noticed here while there is nothing to be shown.
        () = say::unread() => ExitCode::SUCCESS,
        ended = rounds(admin, form, pause) => ended,
    }
}

/// Shows it again and again, until that fails.
async fn rounds(admin: &AdminArgs, form: Form, pause: Duration) -> ExitCode {
    // Before all answers but the first.
    let mut gap = None;
    loop {
        let shown = match status_of(admin).await {
            Ok(status) => show(&status, form, gap.unwrap_or_default()),
            Err(Failure::Ask { admin, source }) if gap.is_some() => {
                miss(&Failure::Ask { admin, source }.to_string())
            }
            Err(failure) => return failure.exit(),
        };
        gap = Some("\n");
        if let Err(error) = shown {
            say::lose(&error);
            return ExitCode::SUCCESS;
        }
        sleep(pause).await;
    }
}

fn show(status: &Value, form: Form, gap: &str) -> io::Result<()> {
    match (form, io::stdout().is_terminal()) {
        // A program reads one answer from each line.
        (Form::Json, _) => say::needed(&status.to_string()),
        (_, true) => say::raw(&screen(&text(status, form, say::look()), say::height())),
        (Form::Name, false) => match text(status, form, say::look()) {
            none if none.is_empty() => Ok(()),
            names => say::needed(&names),
        },
        (Form::Table | Form::Wide, false) => {
            say::needed(&format!("{gap}{}", text(status, form, say::look())))
        }
    }
}

/// Says that an answer is missing: in place of the old one, which would be taken for true.
fn miss(why: &str) -> io::Result<()> {
    if io::stdout().is_terminal() {
        return say::raw(&screen(why, say::height()));
    }
    say::note(&format!("mooring: {why}"));
    Ok(())
}

/// Draws the text over what is on the screen. Lines that do not fit are left out, because they
/// would move the others away.
fn screen(text: &str, height: usize) -> String {
    let all = text.lines().count();
    let fit = if height <= all { height.saturating_sub(2).max(1) } else { all };
    let mut drawn = HOME.to_owned();
    for line in text.lines().take(fit) {
        drawn += &format!("{line}{CLEAR_LINE}\n");
    }
    if fit < all {
        drawn += &format!("… and {} more lines{CLEAR_LINE}\n", all - fit);
    }
    drawn + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_drawn_over_the_one_before_and_never_scrolls() {
        assert_eq!(screen("a\n\nb", 24), "\x1b[Ha\x1b[K\n\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(screen("a\nb\nc", 4).matches('\n').count(), 3);
        let cut = screen("a\nb\nc\nd\ne", 4);
        assert_eq!(cut, "\x1b[Ha\x1b[K\nb\x1b[K\n… and 3 more lines\x1b[K\n\x1b[J");
        assert_eq!(screen("a\nb", 1).matches('\n').count(), 2);
    }

    #[test]
    fn a_status_in_each_form() {
        let look = Look { width: usize::MAX, colours: table::Colours::Off };
        let status = json!({
            "ready": true, "clients": [{"client_id": "ada"}],
            "backends": [{"name": "gpu-a", "up": true}, {"name": "gpu-b", "up": false}],
        });
        let table = "ready    yes\nclients  1\n\nNAME   UP\ngpu-a  yes\ngpu-b  no";
        assert_eq!(text(&status, Form::Table, look), table);
        assert_eq!(text(&status, Form::Wide, look), table);
        assert_eq!(text(&status, Form::Name, look), "gpu-a\ngpu-b");
        let json: Value = serde_json::from_str(&text(&status, Form::Json, look)).unwrap();
        assert_eq!(json, status);
    }
}
