//! The executable as a process of its own, over one simulated backend.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use mooring::sim::Sim;
use tempfile::TempDir;

use crate::support::send;

/// The executable over one simulated backend.
pub(crate) struct Daemon {
    child: Child,
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

    fn run(mut command: Command, sim: &Sim, folder: &TempDir, more: &[&str]) -> Self {
        let state = format!("state.dir={}", folder.path().join("state").display());
        command.args(["serve", "--backend", &sim.url(), "--workers", "1", "--set", &state]);
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(more);
        command.current_dir(folder).env_clear().stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let ready = log.find(|line| line.contains("Gateway ready.")).expect("it starts");
        std::thread::spawn(move || log.for_each(drop));
        let address = |key: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(key));
            found.unwrap().trim_matches('"').parse().unwrap()
        };
        Self { child, front: address("front="), admin: address("admin=") }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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
