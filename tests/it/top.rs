//! `mooring top` in a terminal of its own: it starts, shows the fleet, and leaves the terminal as
//! it was, by a key and by a signal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::support::{World, until};

/// What a terminal was told to leave the other screen with (xterm's control sequences).
const LEFT: &str = "\u{1b}[?1049l";

/// A terminal with the command in it.
struct Terminal {
    keys: File,
    /// Its other side, which stays open.
    inside: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    fn running(admin: SocketAddr) -> Self {
        let (outside, inside) = pair();
        let side = || Stdio::from(inside.try_clone().unwrap());
        let child = top(admin).stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (mut read, into) = (File::from(outside.try_clone().unwrap()), Arc::clone(&shown));
        // It ends with an error once nobody has the other side any more.
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count) = read.read(&mut part) {
                into.lock().unwrap().extend_from_slice(&part[..count]);
            }
        });
        Self { keys: File::from(outside), inside, shown, child }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits for its end, and checks that the terminal is as it was.
    async fn ended(mut self, modes: impl Fn(&OwnedFd) -> String, before: &str) {
        let mut status = None;
        until("it has left", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success(), "{}", self.text());
        until("the screen is left", || self.text().contains(LEFT)).await;
        assert_eq!(modes(&self.inside), before);
    }
}

fn top(admin: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
    command.args(["top", "--admin", &format!("http://{admin}")]).env("TERM", "xterm-256color");
    command.env_remove("MOORING_CONFIG").current_dir(std::env::temp_dir());
    command
}

fn modes(terminal: &OwnedFd) -> String {
    let modes = tcgetattr(terminal).unwrap();
    format!("{:?} {:?}", modes.local_modes, modes.input_modes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_the_fleet_and_puts_the_terminal_back() {
    let world = World::new(1).await;
    world.all_up().await;
    let quit = |terminal: &mut Terminal| terminal.keys.write_all(b"q").unwrap();
    let stop = |terminal: &mut Terminal| {
        let pid = Pid::from_child(&terminal.child);
        kill_process(pid, Signal::TERM).unwrap();
    };
    for leave in [&quit as &dyn Fn(&mut Terminal), &stop] {
        let mut terminal = Terminal::running(world.admin);
        let shows = |text: &str| terminal.text().contains(text);
        until("the fleet is shown", || shows("live") && shows("ready")).await;
        let raw = modes(&terminal.inside);
        assert!(!raw.contains("ICANON"), "{raw}");
        leave(&mut terminal);
        let (_outside, fresh) = pair();
        let before = modes(&fresh);
        terminal.ended(modes, &before).await;
    }
}

/// Both sides of a new terminal: the outside, and the one for a command.
fn pair() -> (OwnedFd, OwnedFd) {
    // A command that had the outside too would keep its own terminal open.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let outside = openpt(flags).unwrap();
    grantpt(&outside).unwrap();
    unlockpt(&outside).unwrap();
    let name = ptsname(&outside, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inside = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&inside, size).unwrap();
    (outside, inside)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_without_a_panic_when_its_terminal_goes_away() {
    let world = World::new(1).await;
    world.all_up().await;
    let (outside, inside) = pair();
    let side = || Stdio::from(inside.try_clone().unwrap());
    let mut command = top(world.admin);
    let mut child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
    // The command keeps its sides.
    drop((command, inside));
    let (mut outside, mut shown, mut part) = (File::from(outside), String::new(), [0; 4096]);
    while !shown.contains("live") {
        let count = outside.read(&mut part).unwrap();
        shown.push_str(&String::from_utf8_lossy(&part[..count]));
    }
    drop(outside);
    let mut status = None;
    until("it has left", || {
        status = child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(matches!(status.unwrap().code(), Some(0 | 1)), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_it_says_what_to_use_instead() {
    let world = World::new(1).await;
    let done = top(world.admin).stdin(Stdio::null()).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(told.contains("needs a terminal") && told.contains("mooring status"), "{told}");
    assert!(done.stdout.is_empty());
}
