//! `mooring top`: the fleet, its clients and their prompts in a terminal, as they change.
//!
//! `rows` says what the views show, `model` what keys do, and `draw` how it looks; all of them are
//! pure. Here are the terminal and the gateway. What the screen was before is put back on every way
//! out: by a key, a signal, an error, a panic.

mod draw;
mod model;
mod rows;

use std::io::{self, IsTerminal as _, Stdout};
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use crossterm::cursor::Show;
use crossterm::event::{Event, EventStream, KeyEventKind};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use futures_util::StreamExt as _;
use http::Method;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::admin::{self, Failure};
use super::args::{AdminArgs, TopArgs};
use super::say;
use super::table::Colours;
use crate::net::sleep;
use model::{Action, Line, Model, Wish};

/// The pause before a gateway that went away is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// So much of an event is kept at most: a fleet of thousands has less.
const EVENT_MAX: usize = 64 << 20;

/// `mooring top`.
pub(super) async fn top(args: &TopArgs) -> ExitCode {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if args.admin.json {
        return say::failure("top has no form as JSON: use `mooring status --watch -o json`");
    }
    if !is_terminal || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return say::failure(
            "top needs a terminal for its input and its output: for a script use `mooring \
             status`, also with --watch and -o json",
        );
    }
    // What is wrong from the beginning is told as by every other verb.
    if let Err(failure) = admin::get(&args.admin, "/api/v1/backends".into()).await {
        return failure.exit();
    }
    let shown = match Screen::open() {
        Ok(mut screen) => {
            let shown = run(&args.admin, &mut screen).await;
            drop(screen);
            shown
        }
        Err(error) => Err(error),
    };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::lose(&error);
            ExitCode::SUCCESS
        }
    }
}

/// The terminal while it shows this. Dropped, it is as it was.
struct Screen {
    /// Never dropped: it would print to a standard error that may be gone, which panics.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Screen {
    fn open() -> io::Result<Self> {
        // A panic is to be read after it, and not on a screen that goes away.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            put_back();
            before(panic);
        }));
        enable_raw_mode()?;
        let opened = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match opened {
            Ok(terminal) => Ok(Self { terminal: ManuallyDrop::new(terminal) }),
            Err(error) => {
                put_back();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put_back();
    }
}

/// The terminal may be gone; then there is nothing to put back.
fn put_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// What the gateway tells.
enum News {
    Nothing,
    Snapshot(Value),
    Away(String),
}

type Acting<'a> = Pin<Box<dyn Future<Output = String> + 'a>>;

/// Shows it until somebody leaves.
async fn run(admin: &AdminArgs, screen: &mut Screen) -> io::Result<()> {
    let mut ends = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
        signal(SignalKind::interrupt())?,
    ];
    let (tell, mut told) = watch::channel(News::Nothing);
    let mut following = Box::pin(follow(admin, &tell));
    let mut keys = EventStream::new();
    let mut acting: Option<Acting<'_>> = None;
    let (mut model, colours) = (Model::default(), say::look().colours);
    loop {
        draw(screen, &model, colours)?;
        tokio::select! {
            biased;
            () = any_of(&mut ends) => return Ok(()),
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    match model.key(key) {
                        Wish::Leave => return Ok(()),
                        Wish::Act(_) if acting.is_some() => {
                            let text = "Wait until the last action has ended.";
                            model.line = Line::Told(text.to_owned());
                        }
                        Wish::Act(action) => {
                            model.line = Line::Told("…".to_owned());
                            acting = Some(Box::pin(act(admin, action)));
                        }
                        Wish::Nothing => {}
                    }
                }
                Some(Ok(_resized)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            said = done(&mut acting) => {
                acting = None;
                model.line = Line::Told(said);
            }
            changed = told.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                match &*told.borrow_and_update() {
                    News::Nothing => {}
                    News::Snapshot(snapshot) => model.take(snapshot.clone()),
                    News::Away(why) => model.away = Some(why.clone()),
                }
            }
            () = &mut following => return Ok(()),
        }
    }
}

fn draw(screen: &mut Screen, model: &Model, colours: Colours) -> io::Result<()> {
    screen.terminal.draw(|frame| draw::draw(frame, model, colours)).map(drop)
}

async fn any_of([one, two, three]: &mut [Signal; 3]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = two.recv() => {}
        _ = three.recv() => {}
    }
}

/// Waits for the action that is under way, if there is one.
async fn done(acting: &mut Option<Acting<'_>>) -> String {
    match acting {
        Some(acting) => acting.await,
        None => std::future::pending().await,
    }
}

async fn act(admin: &AdminArgs, Action { path, body, .. }: Action) -> String {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = admin::send(admin, Method::POST, path, body).await;
    match answer.and_then(|answer| admin::read(&answer)) {
        Ok(_done) => "Done.".to_owned(),
        Err(failure) => failure.to_string(),
    }
}

/// Follows what the gateway tells, for ever.
async fn follow(admin: &AdminArgs, tell: &watch::Sender<News>) {
    loop {
        let mut events = Events::default();
        let ended = admin::follow(admin, "/api/v1/live", |part| {
            // Who draws slowly gets the newest.
            if let Some(snapshot) = events.take(&part) {
                tell.send_replace(News::Snapshot(snapshot));
            }
        });
        let why = ended.await.err().map_or_else(gone, |failure: Failure| failure.to_string());
        tell.send_replace(News::Away(why));
        sleep(AGAIN_AFTER).await;
    }
}

fn gone() -> String {
    "the gateway has ended the stream".to_owned()
}

/// Takes server-sent events apart (the HTML standard, section 9.2), as the gateway writes them.
#[derive(Default)]
struct Events(Vec<u8>);

impl Events {
    /// The newest snapshot that is complete with this part.
    fn take(&mut self, part: &Bytes) -> Option<Value> {
        if EVENT_MAX < self.0.len() + part.len() {
            self.0.clear();
        }
        self.0.extend_from_slice(part);
        let mut newest = None;
        while let Some(end) = memchr::memmem::find(&self.0, b"\n\n") {
            let event: Vec<u8> = self.0.drain(..end + 2).collect();
            let data = event.split(|it| *it == b'\n').find_map(|it| it.strip_prefix(b"data: "));
            newest = data.and_then(|data| serde_json::from_slice(data).ok()).or(newest);
        }
        newest
    }
}

#[cfg(test)]
mod tests;
