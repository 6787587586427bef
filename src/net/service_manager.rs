//! Tells the service manager how the process is (sd_notify(3)): `Type=notify` of systemd, and other
//! managers that speak the same protocol.
//!
//! The manager names a datagram socket in `NOTIFY_SOCKET`, and in `WATCHDOG_USEC` how long it
//! accepts silence. Each message opens a socket of its own: there are few, and a manager that was
//! executed again may have a new socket at the same name. The crate `sd-notify` is not used,
//! because it does not know abstract names.

use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use super::within;

/// How long a manager whose queue is full is waited for.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

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

/// The manager of this process; nobody is told anything if there is none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServiceManager {
    socket: Option<String>,
    silence_max: Option<Duration>,
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
        Self { socket, silence_max: micros.map(Duration::from_micros) }
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

    /// Tells it these states, and a line for people unless it is empty. If that fails, the log says
    /// so, and the process goes on.
    pub async fn tell(&self, states: &[State], line: &str) {
        let Some(socket) = &self.socket else { return };
        let message = message(states, line);
        // Boxed, because it is rare and must not make the futures that wait for it larger.
        if let Err(error) = Box::pin(within(TOLD_WITHIN, send(socket, &message))).await {
            warn!(socket, %error, "The service manager was not told.");
        }
    }
}

/// The states in one message, which the manager takes as one.
fn message(states: &[State], line: &str) -> String {
    let states: String = states.iter().map(|state| state.text()).collect();
    let line = line.replace(char::is_control, " ");
    if line.is_empty() { states } else { format!("{states}STATUS={line}\n") }
}

async fn send(name: &str, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(name)?)?;
    socket.set_nonblocking(true)?;
    // A datagram is sent as a whole or not at all.
    tokio::net::UnixDatagram::from_std(socket)?.send(message.as_bytes()).await.map(|_sent| ())
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
        assert_eq!(read(&[]), ServiceManager::default());
        assert_eq!(read(&[("NOTIFY_SOCKET", "")]), ServiceManager::default());
        // Nobody could be told.
        assert_eq!(read(&[("WATCHDOG_USEC", "1000")]), ServiceManager::default());
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
        assert_eq!(message(&[State::Ready, State::Alive], ""), "READY=1\nWATCHDOG=1\n");
        assert_eq!(message(&[State::Stopping], "a\nREADY=1"), "STOPPING=1\nSTATUS=a READY=1\n");
        let State::Reloading { since_us } = State::reloading() else { panic!("it is that") };
        assert!(0 < since_us);
        let reloading = State::Reloading { since_us: 42 };
        assert_eq!(message(&[reloading], ""), "RELOADING=1\nMONOTONIC_USEC=42\n");
    }

    #[tokio::test]
    async fn a_socket_is_told_by_its_path_and_by_its_abstract_name() {
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
            manager.tell(&[State::Ready], "all is well").await;
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=all is well\n", "{name}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_had_is_an_error_and_no_end() {
        for (name, why) in [
            ("/nowhere/notify", "No such file"),
            ("vsock:2:9", "neither an absolute path nor an abstract name"),
            ("notify", "neither an absolute path nor an abstract name"),
            ("/a\0b", "null"),
        ] {
            let error = send(name, "READY=1\n").await.unwrap_err().to_string();
            assert!(error.contains(why), "{name:?}: {error}");
            ServiceManager::of(&env(&[("NOTIFY_SOCKET", name)]), 7).tell(&[State::Ready], "").await;
        }
    }
}
