//! Tells the service manager how the process is (sd_notify(3)): `Type=notify` of systemd, and other
//! managers that speak the same protocol.
//!
//! The manager names a datagram socket in `NOTIFY_SOCKET`, and in `WATCHDOG_USEC` how long it
//! accepts silence. Each message opens a socket of its own: there are few, and a manager that was
//! executed again may have a new socket at the same name. The crate `sd-notify` is not used,
//! because it does not know abstract names.
//!
//! # Invariants
//!
//! - What lasts is owed until it was sent, and is sent in its order: a manager that never hears of
//!   the end of a start or a reload ends the process. That the process is alive is not owed: the
//!   next message says it again.
//! - After the stop was told, nothing but being alive is told.
//! - Nobody waits for the manager.

use std::collections::VecDeque;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::{info, warn};

use crate::lock::{Lock, rank};

/// What a manager is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// The start or a reload is finished.
    Ready,
    /// A reload has begun at this time of `CLOCK_MONOTONIC`, in microseconds.
    Reloading { since_us: u64 },
    /// The stop has begun.
    Stopping,
    /// The process is still alive.
    Alive,
}

impl State {
    /// A reload that begins now.
    #[must_use]
    pub fn reloading() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let part = |number: i64| u64::try_from(number).unwrap_or_default();
        let since_us = part(now.tv_sec).saturating_mul(1_000_000) + part(now.tv_nsec) / 1_000;
        Self::Reloading { since_us }
    }

    fn text(self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            // Without the time, systemd 253 takes the reload for one of before its request.
            Self::Reloading { since_us } => format!("RELOADING=1\nMONOTONIC_USEC={since_us}\n"),
            Self::Stopping => "STOPPING=1\n".to_owned(),
            Self::Alive => "WATCHDOG=1\n".to_owned(),
        }
    }
}

/// The manager of this process; nobody is told anything if there is none. Its clones are one.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager {
    socket: Option<String>,
    silence_max: Option<Duration>,
    owed: Arc<Lock<Owed, { rank::SERVICE_MANAGER }>>,
}

/// What the manager has still to be told.
#[derive(Debug, Default)]
struct Owed {
    /// Each a state that lasts, with its line. Invariant: at most three.
    messages: VecDeque<(State, String)>,
    /// The stop was told, or is owed.
    is_stopping: bool,
    /// The last message could not be sent.
    has_failed: bool,
}

impl ServiceManager {
    /// Reads the environment of the process with this number.
    #[must_use]
    pub fn of(env: &[(String, String)], process: u32) -> Self {
        let variable = |name: &str| {
            let found = env.iter().find(|(it, _)| it == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let socket = variable("NOTIFY_SOCKET").map(str::to_owned);
        // A parent that was watched itself may have left its own number (sd_watchdog_enabled(3)).
        let is_meant = variable("WATCHDOG_PID").is_none_or(|number| number.parse() == Ok(process));
        let micros = variable("WATCHDOG_USEC").filter(|_| is_meant && socket.is_some());
        let micros = micros.and_then(|it| it.parse().ok()).filter(|micros: &u64| 0 < *micros);
        Self { socket, silence_max: micros.map(Duration::from_micros), owed: Arc::default() }
    }

    /// True if there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// The longest silence that it accepts, if it watches the process.
    #[must_use]
    pub fn silence_max(&self) -> Option<Duration> {
        self.silence_max
    }

    /// Tells it a state that lasts, with a line for people. If that cannot be sent now, the log
    /// says so, and it is owed until [`Self::repeat`] can send it.
    pub fn tell(&self, state: State, line: &str) {
        let Some(socket) = &self.socket else { return };
        let mut owed = self.owed.lock();
        owed.add(state, line);
        owed.settle(socket);
    }

    /// Tells it a line for people. False if that cannot be sent now, or not any more.
    pub fn tell_line(&self, line: &str) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut owed = self.owed.lock();
        !owed.is_stopping && owed.settle(socket) && owed.send(socket, &message(None, line))
    }

    /// Tells it that the process is alive.
    pub fn tell_alive(&self) {
        let Some(socket) = &self.socket else { return };
        let mut owed = self.owed.lock();
        if owed.settle(socket) {
            owed.send(socket, &message(Some(State::Alive), ""));
        }
    }

    /// Sends what is owed. True if nothing is owed any more.
    pub fn repeat(&self) -> bool {
        self.socket.as_ref().is_none_or(|socket| self.owed.lock().settle(socket))
    }
}

impl Owed {
    /// A state comes after those that are owed. It replaces those that mean nothing any more.
    fn add(&mut self, state: State, line: &str) {
        if self.is_stopping {
            return;
        }
        match state {
            State::Stopping => {
                self.is_stopping = true;
                self.messages.clear();
            }
            // An earlier reload is over. The end of the start is not: systemd takes no reload of a
            // process that starts.
            State::Reloading { .. } => {
                let starts = matches!(self.messages.front(), Some((State::Ready, _)));
                self.messages.truncate(usize::from(starts));
            }
            State::Ready | State::Alive => {}
        }
        self.messages.push_back((state, line.to_owned()));
    }

    /// Sends what is owed, in its order. True if nothing is owed any more.
    fn settle(&mut self, socket: &str) -> bool {
        while let Some((state, line)) = self.messages.front() {
            let message = message(Some(*state), line);
            if !self.send(socket, &message) {
                return false;
            }
            self.messages.pop_front();
        }
        true
    }

    fn send(&mut self, socket: &str, message: &str) -> bool {
        let sent = send(socket, message);
        match &sent {
            Ok(()) if self.has_failed => info!(socket, "The service manager is told again."),
            Ok(()) => {}
            Err(_) if self.has_failed => {}
            Err(error) => {
                warn!(socket, %error, "The service manager was not told; it will be told later.");
            }
        }
        self.has_failed = sent.is_err();
        sent.is_ok()
    }
}

/// A state and a line in one message, which the manager takes as one.
fn message(state: Option<State>, line: &str) -> String {
    let state = state.map(State::text).unwrap_or_default();
    let line = line.replace(char::is_control, " ");
    if line.is_empty() { state } else { format!("{state}STATUS={line}\n") }
}

/// Never waits: if the queue of the manager is full, that is an error.
fn send(name: &str, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(name)?)?;
    socket.set_nonblocking(true)?;
    // A datagram is sent as a whole or not at all.
    socket.send(message.as_bytes()).map(|_sent| ())
}

/// A path, or `@` and an abstract name (unix(7)).
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddr::from_abstract_name(name),
        _ if name.starts_with('/') => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "NOTIFY_SOCKET is neither an absolute path nor an abstract name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_environment_says_whether_somebody_listens_and_watches() {
        let read = |variables: &[(&str, &str)]| ServiceManager::of(&env(variables), 7);
        // With a number of microseconds alone nobody could be told.
        for nobody in [&[][..], &[("NOTIFY_SOCKET", "")], &[("WATCHDOG_USEC", "1000")]] {
            let manager = read(nobody);
            assert_eq!((manager.is_there(), manager.silence_max()), (false, None), "{nobody:?}");
        }
        let socket = ("NOTIFY_SOCKET", "/run/notify");
        assert!(read(&[socket]).is_there());
        let silence = |variables: &[(&str, &str)]| {
            let all = [&[socket], variables].concat();
            ServiceManager::of(&env(&all), 7).silence_max()
        };
        let usec = ("WATCHDOG_USEC", "3000000");
        assert_eq!(silence(&[usec]), Some(Duration::from_secs(3)));
        assert_eq!(silence(&[usec, ("WATCHDOG_PID", "7")]), Some(Duration::from_secs(3)));
        for other in ["8", "-7", "x"] {
            assert_eq!(silence(&[usec, ("WATCHDOG_PID", other)]), None, "{other}");
        }
        for bad in ["0", "-1", "3s", "99999999999999999999"] {
            assert_eq!(silence(&[("WATCHDOG_USEC", bad)]), None, "{bad}");
        }
    }

    #[test]
    fn a_message_has_one_assignment_on_each_line() {
        let message = |state: State, line| message(Some(state), line);
        assert_eq!(message(State::Ready, ""), "READY=1\n");
        assert_eq!(message(State::Stopping, "a\nREADY=1"), "STOPPING=1\nSTATUS=a READY=1\n");
        let State::Reloading { since_us } = State::reloading() else { panic!("it is that") };
        assert!(0 < since_us);
        let reloading = State::Reloading { since_us: 42 };
        assert_eq!(message(reloading, ""), "RELOADING=1\nMONOTONIC_USEC=42\n");
    }

    /// The messages that wait at a socket.
    fn waiting(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        let next = || {
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        };
        std::iter::from_fn(next).collect()
    }

    /// A manager whose queue is full. Returns how many messages are in it.
    fn full(manager: &ServiceManager) -> usize {
        (0..100_000).find(|_| !manager.tell_line("x")).expect("its queue has an end")
    }

    #[test]
    fn what_a_manager_with_a_full_queue_was_not_told_is_told_later_and_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").display().to_string();
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::of(&env(&[("NOTIFY_SOCKET", &path)]), 7);
        let before = full(&manager);
        let reloading = |since_us| State::Reloading { since_us };
        manager.tell(State::Ready, "started");
        for round in 1..=3 {
            manager.tell(reloading(round), "");
            manager.tell(State::Ready, "reloaded");
        }
        manager.tell_alive();
        assert!(!manager.repeat() && !manager.tell_line("not yet"));
        assert_eq!(waiting(&socket).len(), before);
        assert!(manager.repeat());
        assert_eq!(
            waiting(&socket),
            [
                "READY=1\nSTATUS=started\n",
                "RELOADING=1\nMONOTONIC_USEC=3\n",
                "READY=1\nSTATUS=reloaded\n"
            ]
        );
        assert!(manager.repeat());
        assert!(waiting(&socket).is_empty(), "each of them once");
    }

    #[test]
    fn once_a_stop_was_told_nothing_else_is_told_but_being_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").display().to_string();
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::of(&env(&[("NOTIFY_SOCKET", &path)]), 7);
        full(&manager);
        manager.tell(State::Ready, "reloaded");
        manager.clone().tell(State::Stopping, "draining");
        manager.tell(State::Ready, "late");
        waiting(&socket);
        assert!(!manager.tell_line("late"));
        manager.tell_alive();
        assert_eq!(waiting(&socket), ["STOPPING=1\nSTATUS=draining\n", "WATCHDOG=1\n"]);
    }

    #[test]
    fn a_socket_is_told_by_its_path_and_by_its_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("mooring-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let sockets = [
            (path.display().to_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{abstract_name}"), UnixDatagram::bind_addr(&by_name).unwrap()),
        ];
        for (name, socket) in sockets {
            let manager = ServiceManager::of(&env(&[("NOTIFY_SOCKET", &name)]), 7);
            manager.tell(State::Ready, "all is well");
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=all is well\n", "{name}");
        }
    }

    #[test]
    fn a_socket_that_cannot_be_had_is_an_error_and_no_end() {
        for (name, why) in [
            ("/nowhere/notify", "No such file"),
            ("vsock:2:9", "neither an absolute path nor an abstract name"),
            ("notify", "neither an absolute path nor an abstract name"),
            ("/a\0b", "null"),
        ] {
            let error = send(name, "READY=1\n").unwrap_err().to_string();
            assert!(error.contains(why), "{name:?}: {error}");
            let manager = ServiceManager::of(&env(&[("NOTIFY_SOCKET", name)]), 7);
            manager.tell(State::Ready, "");
            assert!(!manager.repeat(), "{name:?}: it is owed");
        }
    }
}
