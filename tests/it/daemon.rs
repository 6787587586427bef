//! What an operator sees of the executable: its exit codes and its words.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use mooring::net::now;

use crate::support::{PATIENCE, not_tested};

/// The executable in an empty folder, without the environment of the test.
fn mooring(folder: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
    command.args(arguments).current_dir(folder).env_clear();
    command
}

/// Exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it can be run");
    let text = |bytes| String::from_utf8(bytes).expect("it speaks UTF-8");
    (status.code().expect("no signal ended it"), text(stdout), text(stderr))
}

/// A folder with this as `mooring.toml`.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("mooring.toml"), text).expect("it can be written");
    folder
}

const GOOD: &str = "[backends.a]\nurl = \"http://127.0.0.1:9\"\n";

#[test]
fn check_of_a_good_file_says_what_it_comes_to_and_exits_with_0() {
    for told in [&["mooring.toml"][..], &["--config", "mooring.toml"], &[]] {
        let (code, out, err) = run(mooring(&folder(GOOD), &["check"]).args(told));
        assert_eq!((code, err.as_str()), (0, ""), "{told:?}");
        assert_eq!(
            out,
            "in order: 1 backend, clients on 127.0.0.1:8180, operators on 127.0.0.1:8181\n"
        );
    }
}

#[test]
fn check_of_a_bad_file_reports_every_problem_and_exits_with_78() {
    let folder = folder("[server]\nworker = 1\nlisten = \"x\"\n[backends.a]\nurl = \"a\"\n");
    let mut command = mooring(&folder, &["check", "mooring.toml"]);
    let (code, out, err) = run(command.env("MOORING_SERVER__WORKERS", "-1"));
    assert_eq!((code, out.as_str()), (78, ""));
    assert_eq!(
        err,
        "\
4 problems in the configuration
  mooring.toml:2: server.worker: unknown key, did you mean `server.workers`?
  mooring.toml:3: server.listen: `x` is not an address IP:PORT, localhost:PORT or :PORT
  mooring.toml:5: backends.a.url: `a`: has no scheme, did you mean `http://a`?
  MOORING_SERVER__WORKERS: server.workers: -1 is out of range, expected a whole number from 0 to \
1024
"
    );
}

#[test]
fn serve_refuses_a_bad_configuration_with_78() {
    let empty = tempfile::tempdir().unwrap();
    let (code, _, err) = run(&mut mooring(&empty, &["serve", "--backend", "ftp://a"]));
    assert_eq!(code, 78);
    assert_eq!(
        err,
        "1 problem in the configuration\n  command line: --backend: `ftp://a`: `ftp://` is not \
         possible here, only `http://` and `https://`\n"
    );
    let (code, _, err) = run(mooring(&empty, &["serve"]).env("MOORING_CONFIG", "gone.toml"));
    assert_eq!(code, 78);
    assert!(err.contains("gone.toml: cannot be read: No such file"), "{err}");
}

#[test]
fn an_audit_log_that_cannot_be_opened_is_a_configuration_error() {
    let empty = tempfile::tempdir().unwrap();
    for (given, what) in [
        ("none/audit.log", "log.audit: `none/audit.log` cannot be opened: No such file"),
        ("./", "log.audit: `./` cannot be opened: it is no file"),
        ("stderr", "log.audit: `stderr` is not \"off\", \"stdout\" or a path with a slash"),
    ] {
        let set = format!("log.audit={given}");
        let arguments = ["serve", "--backend", "http://127.0.0.1:9", "--set", &set];
        let (code, _, err) = run(&mut mooring(&empty, &arguments));
        assert_eq!(code, 78, "{err}");
        assert!(err.contains(what), "{err}");
    }
}

#[test]
fn the_file_in_the_folder_is_found_and_that_of_the_flag_goes_over_it() {
    let folder = folder("[server]\nlisten = \"here\"\n");
    let (code, _, err) = run(&mut mooring(&folder, &["check"]));
    assert_eq!(code, 78);
    assert!(err.contains("mooring.toml:2: server.listen"), "{err}");
    fs::write(folder.path().join("other.toml"), GOOD).unwrap();
    let (code, ..) = run(mooring(&folder, &["check"]).env("MOORING_CONFIG", "other.toml"));
    assert_eq!(code, 0);
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    let empty = tempfile::tempdir().unwrap();
    for wrong in [&["serv"][..], &["explain"], &["release"], &["status", "--token", "s3 cret"]] {
        let (code, out, err) = run(&mut mooring(&empty, wrong));
        assert_eq!((code, out.as_str()), (2, ""), "{wrong:?}");
        assert!(!err.is_empty() && !err.contains("s3"), "{err}");
    }
    for right in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let (code, out, _) = run(&mut mooring(&empty, right));
        assert!(code == 0 && out.to_lowercase().contains("mooring"), "{right:?}");
    }
}

#[test]
fn serve_says_when_it_is_ready_and_a_sigterm_drains_it() {
    let empty = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--backend", "http://127.0.0.1:9", "--set", "server.drain_delay=0s"];
    let doors = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--workers", "1"];
    let mut command = mooring(&empty, &[&arguments[..], &doors].concat());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    log.find(|line| line.contains("Gateway ready.")).expect("says when it is ready");
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    log.find(|line| line.contains("Drained.")).expect("says when it is drained");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_drain_does_not_wait_for_connections_that_are_only_kept() {
    let empty = tempfile::tempdir().unwrap();
    // Its backends are in the same process and keep their connections for longer than a drain.
    let doors = ["demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut child = mooring(&empty, &doors).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    log.find(|line| line.contains("Gateway ready.")).expect("says when it is ready");
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    log.find(|line| line.contains("Drained.")).expect("drains before its deadline");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts it and stops it; the lines of its log until it was ready.
fn log_of_a_start(command: &mut Command) -> Vec<String> {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        lines.push(line);
        if lines.last().is_some_and(|line| line.contains("Gateway ready.")) {
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{lines:?}");
    lines
}

#[test]
fn a_start_without_a_word_about_it_keeps_a_journal_or_says_that_there_is_none() {
    let (empty, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let arguments = ["serve", "--backend", "http://127.0.0.1:9", "--set", "server.drain_delay=0s"];
    let listen = format!("localhost:{port}");
    let doors = ["--listen", &listen, "--admin-listen", "off", "--workers", "1"];
    let start = || mooring(&empty, &[&arguments[..], &doors].concat());
    let said = |lines: &[String], words: &str| lines.iter().any(|line| line.contains(words));

    let lines = log_of_a_start(start().env("HOME", home.path()));
    assert!(said(&lines, "The journal is kept here."), "{lines:?}");
    assert!(said(&lines, &format!("open=\"http://127.0.0.1:{port}/\"")), "{lines:?}");
    let state = home.path().join(format!(".local/state/mooring/{port}/journal.redb"));
    assert!(state.exists());

    let lines = log_of_a_start(start().args(["--set", "server.base_path=/comfy"]));
    assert!(said(&lines, "There is no journal: a restart forgets"), "{lines:?}");
    assert!(said(&lines, &format!("open=\"http://127.0.0.1:{port}/comfy/\"")), "{lines:?}");
    assert!(!said(&lines, "Restored the content of the journal"), "{lines:?}");

    // A home that cannot be written to is no reason not to start.
    let lines = log_of_a_start(start().env("HOME", "/proc/none"));
    assert!(said(&lines, "There is no journal: a restart forgets"), "{lines:?}");

    let none = ["--set", "state.dir=none"];
    let lines = log_of_a_start(start().env("HOME", home.path()).args(none));
    assert!(said(&lines, "as configured"), "{lines:?}");
    assert!(!said(&lines, "There is no journal: a restart forgets"), "{lines:?}");
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a gateway while `look` looks at it.
fn while_it_runs(command: &mut Command, look: impl FnOnce()) {
    let mut child = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    log.find(|line| line.contains("Gateway ready.")).expect("says when it is ready");
    let rest = thread::spawn(move || log.count());
    look();
    drop(child);
    rest.join().unwrap();
}

#[test]
fn commands_find_the_gateway_by_its_configuration() {
    let (front, admin) = (free_port(), free_port());
    let folder = folder(&format!(
        "[server]\nlisten = \":{front}\"\ndrain_delay = \"0s\"\nworkers = 1\n\
         [auth]\nmode = \"off\"\n\
         [admin]\nlisten = \"localhost:{admin}\"\ntoken = \"a-token-of-the-file\"\n{GOOD}"
    ));
    let serve = || mooring(&folder, &["serve", "--set", "state.dir=none"]);
    while_it_runs(&mut serve(), || {
        let (code, out, err) = run(&mut mooring(&folder, &["status"]));
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.starts_with("ready    no"), "{out}");
        let (code, out, err) = run(&mut mooring(&folder, &["backends", "a"]));
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.starts_with("name             a\n"), "{out}");
        let (code, _, err) = run(&mut mooring(&folder, &["backends", "b"]));
        assert_eq!((code, err.as_str()), (1, "mooring: there is no backend `b`; there are: a\n"));
        // No backend is up: healthy it is not, and says why.
        let (code, _, err) = run(&mut mooring(&folder, &["healthcheck"]));
        assert_eq!(code, 1);
        assert!(err.starts_with("mooring: not ready: a: cannot connect"), "{err}");
        let (code, out, _) = run(&mut mooring(&folder, &["healthcheck", "--json"]));
        assert_eq!(code, 1);
        assert!(out.contains("\"ready\":false"), "{out}");
        let elsewhere = format!("http://127.0.0.1:{admin}");
        let (code, _, err) = run(&mut mooring(&folder, &["status", "--admin", &elsewhere]));
        assert_eq!(code, 1, "the token of the file is not sent there");
        assert!(err.contains("requires its token"), "{err}");
    });
    let off = ("MOORING_ADMIN__LISTEN", "off");
    while_it_runs(serve().env(off.0, off.1), || {
        let (code, _, err) = run(mooring(&folder, &["healthcheck"]).env(off.0, off.1));
        assert_eq!((code, err.as_str()), (1, "mooring: not ready: {\"ready\":false}\n"));
        let (code, _, err) = run(mooring(&folder, &["status"]).env(off.0, off.1));
        assert_eq!(code, 1);
        assert!(err.contains("the admin listener is off"), "{err}");
    });
    let below = ("MOORING_SERVER__BASE_PATH", "/comfy/");
    while_it_runs(serve().envs([off, below]), || {
        let (code, _, err) = run(mooring(&folder, &["healthcheck"]).envs([off, below]));
        assert_eq!((code, err.as_str()), (1, "mooring: not ready: {\"ready\":false}\n"));
    });
}

#[test]
fn serve_on_a_port_that_is_taken_says_so_and_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let empty = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--backend", "http://127.0.0.1:9", "--admin-listen", "off"];
    let (code, _, err) = run(mooring(&empty, &arguments).args(["--listen", &listen]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&format!("cannot listen on {listen}")), "{err}");
}

/// A server that gives each request the answer of its path, for this many requests. Returns its
/// port, and the heads of the requests when it is joined.
fn server(answers: &[(&str, &str)], requests: usize) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its port").port();
    let answers: Vec<(String, String)> =
        answers.iter().map(|(path, body)| ((*path).into(), (*body).into())).collect();
    let serve = move || (0..requests).map(|_| answer(&listener, &answers)).collect();
    (port, thread::spawn(serve))
}

fn answer(listener: &TcpListener, answers: &[(String, String)]) -> String {
    let (stream, _) = listener.accept().expect("a connection");
    let (head, body) = read_request(&stream);
    let path = head.split(' ').nth(1).expect("a path");
    let found = answers.iter().find(|(it, _)| it == path);
    let (status, answer) = found.map_or(("404 Not Found", "{}"), |(_, it)| ("200 OK", it));
    let (status, answer) = answer.split_once('|').unwrap_or((status, answer));
    let length = answer.len();
    write!(&stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{answer}")
        .expect("it listens");
    head + &body
}

fn read_request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("a line"), 0, "the head is whole");
    }
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("its body");
    (head, String::from_utf8(body).expect("text"))
}

#[test]
fn a_probe_tells_backends_that_differ_and_one_that_is_not_there() {
    let stats = r#"{"system": {"comfyui_version": "0.3.45"}}"#;
    let a = server(&[("/system_stats", stats), ("/object_info", r#"{"KSampler": {}}"#)], 2);
    let b = server(&[("/system_stats", stats), ("/object_info", "{}")], 2);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[backends.a]\nurl = \"http://127.0.0.1:{}\"\n[backends.b]\nurl = \"http://127.0.0.1:{}\"\n\
         [backends.c]\nurl = \"http://127.0.0.1:{gone}\"\n",
        a.0, b.0
    );
    let (code, out, _) = run(&mut mooring(&folder(&text), &["check", "mooring.toml", "--probe"]));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("no, cannot connect: Connection refused"), "{out}");
    assert!(out.ends_with("missing on b: 1 node: KSampler\n"), "{out}");
    a.1.join().unwrap();
    b.1.join().unwrap();
}

#[test]
fn a_probe_of_servers_that_are_alike_exits_with_0() {
    let stats = r#"{"system": {"comfyui_version": "0.8.0"}}"#;
    let info = r#"{"L": {"input": {"required": {"ckpt_name": [["a.safetensors"]]}}}}"#;
    let a = server(&[("/system_stats", stats), ("/object_info", info)], 2);
    let b = server(&[("/system_stats", stats), ("/object_info", info)], 2);
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let empty = tempfile::tempdir().unwrap();
    let arguments = ["check", "--probe", "--backend", &url(a.0), "--backend", &url(b.0)];
    let (code, out, err) = run(&mut mooring(&empty, &arguments));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("no differences in nodes and models\n"), "{out}");
    a.1.join().unwrap();
    b.1.join().unwrap();
}

#[test]
fn the_admin_verbs_ask_the_gateway_and_show_its_answer() {
    let (port, requests) = server(
        &[
            ("/api/v1/clients", r#"{"clients": [{"client_id": "ada", "pending": 2}]}"#),
            ("/api/v1/clients/a%2Fb/release?force=true", r#"{"released": true}"#),
            (
                "/api/v1/clients/c/release",
                r#"409 Conflict|{"error": {"message": "2 are pending"}}"#,
            ),
            ("/api/v1/backends/gpu-a/state", ""),
            ("/readyz", "503 Busy|no backend is up"),
        ],
        5,
    );
    let empty = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let ask = |arguments: &[&str]| {
        let mut command = mooring(&empty, arguments);
        run(command.env("MOORING_ADMIN_URL", &url).env("MOORING_ADMIN__TOKEN", "t0ken"))
    };
    let (code, out, _) = ask(&["clients"]);
    assert_eq!((code, out.as_str()), (0, "CLIENT_ID  PENDING\nada        2\n"));
    let (code, out, _) = ask(&["release", "a/b", "--force", "--json"]);
    assert_eq!((code, out.as_str()), (0, "{\n  \"released\": true\n}\n"));
    let (code, out, err) = ask(&["release", "c"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "mooring: the gateway refused: 2 are pending (409 Conflict)\n");
    let (code, out, _) = ask(&["backends", "gpu-a", "draining"]);
    assert_eq!((code, out.as_str()), (0, "done\n"));
    let (code, _, err) = ask(&["healthcheck"]);
    assert_eq!((code, err.as_str()), (1, "mooring: not ready: no backend is up\n"));

    let requests = requests.join().unwrap();
    assert!(requests.iter().all(|it| it.contains("authorization: Bearer t0ken")), "{requests:?}");
    assert!(requests[3].contains(r#"{"state":"draining","force":false,"#), "{requests:?}");
}

#[test]
fn an_admin_verb_without_a_gateway_says_where_it_looked() {
    let empty = tempfile::tempdir().unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{gone}");
    let (code, out, err) = run(&mut mooring(&empty, &["healthcheck", "--admin", &url]));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with(&format!("mooring: the gateway at {url} does not answer:")), "{err}");
}

const BACKENDS: &str = r#"{"backends": [{"name": "gpu-a", "up": true, "state": "ready",
    "url": "http://gpu-a.render.example.org:8188", "trouble": null, "version": "0.33.0",
    "labels": ["big", "slow"], "weight": 2, "load": 3, "queue_remaining": 2, "held_clients": 1},
    {"name": "gpu-b", "up": false, "state": "off", "url": "http://gpu-b.render.example.org:8188",
    "trouble": "cannot connect: Connection refused (os error 111)", "weight": 1, "load": 0}]}"#;

/// A gateway with two backends, which answers until it is dropped.
struct Gateway {
    address: std::net::SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// It answers so many requests, and then it wants a token.
    fn start(requests: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever was interrupted does not wait for an answer.
                let status = if number < requests { "200 OK" } else { "401 Unauthorized" };
                let _ = Self::answer(&stream.unwrap(), status);
            }
        });
        Self { address, is_over, thread: Some(thread) }
    }

    fn answer(mut stream: &TcpStream, status: &str) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let line = lines.next().unwrap_or(Ok(String::new()))?;
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let body = match line.split(' ').nth(1).unwrap_or_default() {
            "/api/v1/backends" => BACKENDS,
            "/api/v1/clients" => r#"{"clients": [{"client_id": "ada", "pending": 2}]}"#,
            _ => "yes",
        };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn a_listing_is_printed_in_the_form_that_is_asked_for() {
    let gateway = Gateway::start(usize::MAX);
    let url = gateway.url();
    let empty = tempfile::tempdir().unwrap();
    let ask = |arguments: &[&str]| {
        let (code, out, err) =
            run(mooring(&empty, arguments).env("MOORING_ADMIN_URL", &url).env("TERM", "xterm"));
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
        // No terminal: no colour, and one row on each line.
        assert!(!out.contains('\u{1b}'), "{out:?}");
        out
    };
    assert_eq!(ask(&["status", "-o", "name"]), "gpu-a\ngpu-b\n");
    assert!(ask(&["status", "-o", "json"]).contains("\"ready\": true"));
    assert_eq!(ask(&["backends", "-o", "wide"]).lines().count(), 3);
    assert_eq!(ask(&["clients", "--output=name"]), "ada\n");
    assert_eq!(ask(&["backends", "gpu-b", "-o", "name"]), "gpu-b\n");
    let (code, _, err) = run(&mut mooring(&empty, &["clients", "-o", "yaml"]));
    assert_eq!(code, 2);
    assert!(err.contains("[possible values: table, wide, json, name]"), "{err}");
}

#[test]
fn a_watched_status_ends_by_an_interrupt_and_when_nobody_reads_it() {
    for ends_by_signal in [true, false] {
        let gateway = Gateway::start(usize::MAX);
        let (url, empty) = (gateway.url(), tempfile::tempdir().unwrap());
        let watch = ["status", "--watch=200ms", "--admin", &url, "-o", "json"];
        let mut child = mooring(&empty, &watch).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            assert!(line.starts_with(r#"{"ready":true,"#) && line.ends_with('}'), "{line}");
        }
        if ends_by_signal {
            Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
            lines.by_ref().for_each(drop);
        }
        drop(lines);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{ends_by_signal}");
    }
}

/// Waits for the end of a child, and ends it if that does not come.
fn ended_by_itself(mut child: Child) -> Option<i32> {
    let began = now();
    while now().duration_since(began) < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

#[test]
fn a_watched_status_that_nobody_reads_ends_while_the_gateway_is_away() {
    let gateway = Gateway::start(usize::MAX);
    let (url, empty) = (gateway.url(), tempfile::tempdir().unwrap());
    let watch = ["status", "--watch=200ms", "--admin", &url, "-o", "json"];
    let mut command = mooring(&empty, &watch);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    answers.next().unwrap().unwrap();
    drop(gateway);
    let mut reports = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(reports.next().unwrap().starts_with("mooring: "));
    drop(answers);
    assert_eq!(ended_by_itself(child), Some(0));
    let rest: Vec<String> = reports.collect();
    assert!(rest.iter().all(|line| line.starts_with("mooring: cannot ")), "{rest:?}");
}

#[test]
fn an_answer_without_a_place_is_a_failure_and_one_without_a_reader_is_not() {
    let gateway = Gateway::start(usize::MAX);
    let (url, empty) = (gateway.url(), tempfile::tempdir().unwrap());
    let asked: [&[&str]; 6] = [
        &["config", "schema"],
        &["completions", "bash"],
        &["--help"],
        &["status", "--admin", &url],
        &["clients", "--admin", &url, "-o", "name"],
        &["status", "--watch=1h", "--admin", &url],
    ];
    for arguments in asked {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = mooring(&empty, arguments);
        let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("No space left on device"), "{arguments:?}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&stderr), "", "{arguments:?}");
    }
}

#[test]
fn a_terminal_is_redrawn_in_colours_unless_they_are_not_wanted() {
    if Command::new("script").arg("--version").output().is_err() {
        return not_tested("there is no `script`, which gives a program a terminal");
    }
    let empty = tempfile::tempdir().unwrap();
    let in_terminal = |command: &str, no_color: &str| {
        // Three times a status, and then a failure that ends a watch.
        let gateway = Gateway::start(9);
        let (program, url) = (env!("CARGO_BIN_EXE_mooring"), gateway.url());
        let command = format!("stty rows 24 cols 80; exec {program} {command} --admin {url}");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
        script.current_dir(&empty).stdin(Stdio::null());
        script.env("TERM", "xterm").env("NO_COLOR", no_color).env("SHELL", "/bin/sh");
        let (_, out, err) = run(&mut script);
        assert_eq!(err, "");
        out.replace('\r', "")
    };
    let screens = in_terminal("status --watch=200ms", "");
    assert!(screens.starts_with("\u{1b}[Hready    yes\u{1b}[K\n"), "{screens:?}");
    assert_eq!(screens.matches("\u{1b}[H").count(), 3, "{screens:?}");
    assert!(screens.ends_with(
        "requires its token, or the key of an operator: give --token or MOORING_ADMIN__TOKEN\n"
    ));
    assert!(screens.contains("\u{1b}[31moff"), "{screens:?}");
    let plain = in_terminal("backends", "1");
    assert!(plain.contains("gpu-b") && !plain.contains('\u{1b}'), "{plain:?}");
    assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
    assert!(plain.contains("trouble cannot connect: Connection refused"), "{plain}");
    let wide = in_terminal("backends -o wide", "1");
    assert_eq!(wide.lines().count(), 3, "{wide}");
}
