//! What the README tells to copy is copied, line by line.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use http::Method;
use tempfile::{TempDir, tempdir};

use crate::daemon::free_port;
use crate::support::send;

/// Whose shell has the program where `cargo install` puts it, and free ports in place of the usual.
struct Reader {
    home: TempDir,
    ports: Vec<(&'static str, u16)>,
}

/// What a shell has begun, with all that it has begun itself.
struct Begun(Child);

impl Drop for Begun {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        Command::new("kill").args(["--", &group]).status().unwrap();
        self.0.wait().unwrap();
    }
}

impl Reader {
    fn new() -> Self {
        let home = tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_mooring"), home.path().join("mooring")).unwrap();
        let ports = ["8180", "8181", "8188", "8189"].map(|usual| (usual, free_port()));
        Self { home, ports: ports.to_vec() }
    }

    fn port(&self, usual: &str) -> u16 {
        self.ports.iter().find(|(it, _)| *it == usual).unwrap().1
    }

    fn shell(&self, text: &str) -> Command {
        let ports = self.ports.iter();
        let text = ports
            .fold(text.to_owned(), |text, (usual, free)| text.replace(usual, &free.to_string()));
        let mut shell = Command::new("bash");
        let path = format!("{}:/usr/bin:/bin", self.home.path().display());
        shell.args(["-c", &text]).current_dir(&self.home).env_clear();
        shell.env("PATH", path).env("HOME", self.home.path());
        let at = |usual| format!("127.0.0.1:{}", self.port(usual));
        shell.env("MOORING_SERVER__LISTEN", at("8180")).env("MOORING_ADMIN__LISTEN", at("8181"));
        shell
    }
}

/// Nothing but what stands there, from a checkout: no name that nobody has, no command that is not
/// installed, no line that fails.
#[tokio::test]
async fn the_readmes_first_minute_works_by_copying_it() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.unwrap();
    let minute = readme.split("## The first minute").nth(1).unwrap();
    let blocks: Vec<&str> = minute.split("```").skip(1).step_by(2).take(2).collect();
    let (installs, start) = blocks[0].trim_start_matches("sh\n").split_once('\n').unwrap();
    // The program of this build stands for what that line makes.
    assert!(installs.starts_with("cargo install --locked --path . "), "{installs}");

    let reader = Reader::new();
    let mut shell = reader.shell(start);
    shell.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut begun = Begun(shell.spawn().unwrap());
    let mut log = BufReader::new(begun.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    let is_ready = log.any(|line| {
        let is_it = line.contains("Gateway ready.");
        said.push(line);
        is_it
    });
    assert!(is_ready, "{said:#?}");
    std::thread::spawn(move || log.for_each(drop));
    let front = ([127, 0, 0, 1], reader.port("8180")).into();
    let read = send(front, Method::GET, "/system_stats?clientId=tab", &[], "").await;
    assert_eq!((read.status, read.backend().starts_with("gpu-")), (200, true));
    assert!(reader.home.path().join(".local/state/mooring").is_dir(), "where it says");

    for line in blocks[1].trim_start_matches("sh\n").lines() {
        let line = line.replace("ID ", "tab ");
        let done = reader.shell(&format!("set -o pipefail; {line}")).output().unwrap();
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        let trouble = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && !told.is_empty(), "{line}: {told} {trouble}");
    }
    drop(begun);
}
