//! The executable as a process of its own, over one simulated backend.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use mooring::sim::Sim;
use tempfile::TempDir;

use crate::support::{NAMES, PATIENCE, send};

/// The executable over one simulated backend.
pub(crate) struct Daemon {
    child: Child,
    log: Option<mpsc::Receiver<String>>,
    pub(crate) front: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Daemon {
    /// Starts it, with its journal in `folder`, and waits until it is ready.
    pub(crate) fn start(sim: &Sim, folder: &TempDir) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_mooring")), sim, folder, &[])
    }

    /// The same where no file may grow beyond so many blocks of 512 bytes: as on a full disk.
    pub(crate) fn start_on_a_full_disk(
        sim: &Sim,
        folder: &TempDir,
        blocks: u32,
        more: &[&str],
    ) -> Self {
        let mut shell = Command::new("sh");
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_mooring")]);
        Self::run(shell, sim, folder, more)
    }

    /// The same where it may have so many file descriptors, by the soft and the hard limit.
    pub(crate) fn start_with_descriptors(
        sim: &Sim,
        folder: &TempDir,
        (soft, hard): (u32, u32),
    ) -> Self {
        let mut shell = Command::new("sh");
        let limited = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_mooring")]);
        Self::run(shell, sim, folder, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(sim: &Sim, folder: &TempDir, more: &[&str]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_mooring")), sim, folder, more)
    }

    /// The same with a listening socket that was handed over, as systemd does.
    pub(crate) fn start_on_socket(sim: &Sim, folder: &TempDir, socket: &TcpListener) -> Self {
        let mut shell = Command::new("sh");
        let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_mooring")]);
        shell.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
        let address = socket.local_addr().unwrap().to_string();
        Self::run(shell, sim, folder, &["--listen", &address, "--set", "server.drain_delay=0s"])
    }

    /// The same with these variables for it, as `NAME=VALUE`.
    pub(crate) fn start_in(
        sim: &Sim,
        folder: &TempDir,
        variables: &[String],
        more: &[&str],
    ) -> Self {
        let mut shell = Command::new("sh");
        let exported: String = variables.iter().map(|it| format!("export {it}; ")).collect();
        let script = format!("{exported}exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_mooring")]);
        Self::run(shell, sim, folder, more)
    }

    /// Starts what will not be ready; its child process, whose log nobody reads.
    pub(crate) fn attempt(sim: &Sim, folder: &TempDir, more: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
        Self::set_up(&mut command, sim, folder, more);
        command.spawn().unwrap()
    }

    fn run(mut command: Command, sim: &Sim, folder: &TempDir, more: &[&str]) -> Self {
        Self::set_up(&mut command, sim, folder, more);
        Self::of(command.spawn().unwrap())
    }

    fn set_up(command: &mut Command, sim: &Sim, folder: &TempDir, more: &[&str]) {
        command.args(["serve", "--backend", &sim.url(), "--workers", "1"]);
        if !more.iter().any(|it| it.starts_with("replicas.store=")) {
            let state = format!("state.dir={}", folder.path().join("state").display());
            command.args(["--set", &state]);
        }
        let hosts = format!("server.hosts={}", NAMES.join(","));
        command.args(["--set", &hosts]).args(more);
        if !more.contains(&"--admin-listen") {
            command.args(["--admin-listen", "127.0.0.1:0"]);
        }
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.current_dir(folder).env_clear().stderr(Stdio::piped());
    }

    /// Waits until it is ready.
    pub(crate) fn of(mut child: Child) -> Self {
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let ready = log.find(|line| line.contains("Gateway ready.")).expect("it starts");
        let (lines, said) = mpsc::channel();
        // Reads to the end, so that the executable never waits for its log to be read.
        // When nobody listens to it any more, it closes the pipe.
        std::thread::spawn(move || {
            let mut log = log;
            log.all(|line| lines.send(line).is_ok())
        });
        let address = |key: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(key));
            found.unwrap().trim_matches('"').parse().unwrap()
        };
        Self { child, log: Some(said), front: address("front="), admin: address("admin=") }
    }

    pub(crate) fn signal(&self, name: &str) {
        Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
    }

    /// Waits for a line of the log with these words.
    pub(crate) fn says(&self, words: &str) -> String {
        loop {
            let log = self.log.as_ref().expect("it is still read");
            let line = log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{words}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// All that it says to its end.
    pub(crate) fn rest_of_log(&self) -> String {
        let log = self.log.as_ref().expect("it is still read");
        let lines = std::iter::from_fn(|| log.recv_timeout(PATIENCE).ok());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Reads its log no more: soon its lines find a broken pipe.
    pub(crate) fn stop_reading_its_log(&mut self) {
        self.log = None;
    }

    /// Waits for its end; the exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A line of what the system says of its memory, in bytes.
    pub(crate) fn memory(&self, line: &str) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        found.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// How many prompts are pending.
    pub(crate) async fn pending(&self) -> usize {
        self.metric("mooring_prompts_pending").await
    }

    pub(crate) async fn metric(&self, name: &str) -> usize {
        let answer = send(self.admin, http::Method::GET, "/metrics", &[], "").await;
        let text = answer.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
