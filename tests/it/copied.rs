//! What the pages tell to copy is copied: every command in a block of the documentation is run over
//! simulated servers, or stands in a list here with the reason why it cannot be. And the program
//! understands every command of its own that any text of ours shows.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use mooring::cli::args::Cli;
use tempfile::TempDir;

use crate::pages::{ours, prose};
use crate::support::not_tested;

/// How a command begins that is not run, and why.
const NOT_RUN: [(&str, &str); 12] = [
    ("sudo", "needs root, and systemd"),
    ("helm install", "needs a cluster; `make deploy-check` renders the chart"),
    ("kubectl", "needs a cluster"),
    ("docker", "needs a container engine"),
    ("make demo", "`mooring demo` is run by tests/browser"),
    ("make test", "this is a part of it"),
    ("make bench", "takes an hour"),
    ("ROUNDS=1 SECONDS=1 WRITE=0 make bench", "takes minutes"),
    ("ROWS=get,events WRITE=0 bench/run", "takes minutes"),
    ("SECONDS=0.5 make bench", "takes minutes"),
    ("mooring doctor https://comfy", "shows a proxy that is wrong; tests/it/doctor.rs has them"),
    ("curl -H \"Authorization: Bearer $TOKEN\"", "needs a login server; tests/it/jwt.rs has one"),
];

/// The part of the README that tests/it/readme.rs runs.
const FIRST_MINUTE: &str = "## The first minute";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages for those who run it, by their paths from the root.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages.sort();
    pages
}

fn text(page: &str) -> String {
    let text = fs::read_to_string(root().join(page)).unwrap();
    match text.split_once(FIRST_MINUTE) {
        None => text,
        Some((before, minute)) => format!("{before}{}", minute.split_once("\n## ").unwrap().1),
    }
}

/// The contents of blocks, each with its language.
fn blocks(markdown: &str) -> Vec<(&str, &str)> {
    let fenced = markdown.split("\n```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).collect()
}

/// The commands of a block: one each, without comments alone on a line, and without what a command
/// of `$ …` answers.
fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let shows_answers = joined.starts_with("$ ");
    let lines = joined.lines().filter_map(|line| match line.strip_prefix("$ ") {
        Some(command) => Some(command),
        None if shows_answers || line.starts_with('#') || line.trim().is_empty() => None,
        None => Some(line.trim()),
    });
    // A line that begins with its comment goes on with that of the line before.
    lines.filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect()
}

fn shell_commands(page: &str) -> Vec<String> {
    commands_of(&text(page))
}

fn commands_of(markdown: &str) -> Vec<String> {
    let blocks = blocks(markdown);
    let shells = blocks.iter().filter(|(language, _)| matches!(*language, "sh" | "console"));
    shells.flat_map(|(_, block)| commands(block)).collect()
}

/// Otherwise a block of commands could be called something else, and not be run.
#[test]
fn every_block_says_what_it_is() {
    // tests/it/store.rs types what is `sql`.
    let known =
        ["sh", "console", "toml", "json", "text", "nginx", "haproxy", "caddyfile", "yaml", "sql"];
    for page in pages() {
        let markdown = fs::read_to_string(root().join(&page)).unwrap();
        for (language, block) in blocks(&markdown) {
            assert!(known.contains(&language), "{page}: {language:?} above\n{block}");
            assert!(language != "sql" || page == "docs/replicas.md", "{page}:\n{block}");
            let has_commands = block.lines().any(|line| line.starts_with("$ "));
            assert_eq!(has_commands, language == "console", "{page}: {language:?} above\n{block}");
        }
    }
}

fn reason(command: &str) -> Option<&'static (&'static str, &'static str)> {
    NOT_RUN.iter().find(|(begins, _)| command.starts_with(begins))
}

/// What a page needs beyond three servers and a gateway: lines of its configuration.
fn settings(page: &str) -> &'static str {
    match page {
        "docs/daily.md" => "[admin]\ntoken_file = \"admin-token\"\n",
        "docs/tls.md" => {
            "[server]\nlisten = \"127.0.0.1:8443\"\nhosts = [\"gw.lan\"]\n\
             [server.tls]\ncert = \"gw.crt\"\nkey = \"gw.key\"\n\
             [admin.tls]\ncert = \"gw.crt\"\nkey = \"gw.key\"\n"
        }
        _ => "",
    }
}

/// Where the commands of one page are typed: a folder in place of `/etc/mooring` and of those of
/// executables, and three simulated servers. All ports are the usual ones, at a loopback address
/// that nothing else has.
struct Place {
    page: String,
    folder: TempDir,
    address: String,
    running: Vec<Begun>,
    gateway: Option<(Begun, String)>,
    key: String,
}

/// What was begun, with all that it has begun itself.
struct Begun(Child);

impl Drop for Begun {
    fn drop(&mut self) {
        self.signal("-KILL");
        self.0.wait().unwrap();
    }
}

impl Begun {
    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.0.id());
        Command::new("kill").args([signal, "--", &group]).status().unwrap();
    }

    /// Waits until it has said all of this in its log, which is read on to its end.
    fn says(&mut self, all: &[&str]) {
        let mut log = BufReader::new(self.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        let (mut said, mut waited_for) = (Vec::new(), all.to_vec());
        while !waited_for.is_empty() {
            let line = log.next().unwrap_or_else(|| panic!("it ended: {said:#?}"));
            if let Some(at) = waited_for.iter().position(|what| line.contains(what)) {
                waited_for.remove(at);
            }
            said.push(line);
        }
        thread::spawn(move || log.for_each(drop));
    }
}

impl Place {
    fn new(page: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        static PLACES: AtomicU32 = AtomicU32::new(1);
        let (process, place) = (std::process::id(), PLACES.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.{}.{}.{place}", 1 + process / 256 % 250, process % 256);
        let mut place = Self {
            page: page.to_owned(),
            folder,
            address,
            running: Vec::new(),
            gateway: None,
            key: String::new(),
        };
        place.furnish();
        for (name, port) in [("gpu-a", "8188"), ("gpu-b", "8189"), ("gpu-d", "8190")] {
            let mut sim = Command::new(env!("CARGO_BIN_EXE_mooring"));
            sim.args(["sim", "--name", name, "--port", port, "--listen-host", &place.address]);
            place.running.push(place.begin(sim, &["Simulated ComfyUI ready."]));
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The files that the pages speak of.
    fn furnish(&self) {
        fs::create_dir(self.path("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_mooring"), self.path("bin/mooring")).unwrap();
        let script = |name: &str, text: &str| {
            fs::write(self.path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o755)).unwrap();
        };
        // The service manager does what was asked after the line.
        script("bin/systemctl", "echo \"$1\" >>systemctl");
        // An answer of a server that is an error is an error of the command.
        script("bin/curl", "exec /usr/bin/curl --fail-with-body --silent --show-error \"$@\"");
        let another = format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_mooring"));
        script("mooring-new", &another);
        script("mooring-old", &another);
        for (name, token) in [("admin-token", "old"), ("old-token", "old"), ("new-token", "new")] {
            fs::write(self.path(name), token).unwrap();
        }
        let backends = "[backends.gpu-a]\nurl = \"http://gpu-a:8188\"\n[backends.gpu-b]\n\
                        url = \"http://gpu-b:8188\"\n";
        let settings = format!("{}{backends}", settings(&self.page));
        fs::write(self.path("mooring.toml"), self.here(&settings)).unwrap();
    }

    /// A command as it is typed here, where no server has a name.
    fn here(&self, text: &str) -> String {
        let text = [
            ("10.0.0.7:8188", "127.0.0.1:8189"),
            ("gpu-a:8188", "127.0.0.1:8188"),
            ("gpu-b:8188", "127.0.0.1:8189"),
            ("gpu-d:8188", "127.0.0.1:8190"),
            ("https://gw.lan:8181", "https://127.0.0.1:8181"),
            ("IP:192.0.2.7", "IP:127.0.0.1"),
            ("127.0.0.1", &self.address),
            ("/etc/mooring/", ""),
            ("/usr/local/bin/", "bin/"),
        ]
        .iter()
        .fold(text.to_owned(), |text, (usual, ours)| text.replace(usual, ours));
        text.replace("mooring doctor ", "mooring doctor --idle 0s ")
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -o pipefail; {command}")]);
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        shell.env_clear().env("PATH", path).env("HOME", self.folder.path());
        shell.env("EDITOR", "true").env("KEY", &self.key).current_dir(self.folder.path());
        if !settings(&self.page).contains("[server]") {
            shell.env("MOORING_SERVER__LISTEN", self.here("127.0.0.1:8180"));
        }
        shell.env("MOORING_ADMIN__LISTEN", self.here("127.0.0.1:8181"));
        shell
    }

    fn begin(&self, mut command: Command, says: &[&str]) -> Begun {
        command.current_dir(self.folder.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut begun = Begun(command.spawn().unwrap());
        begun.says(says);
        begun
    }

    /// Starts the gateway in place of one that runs, until it is of use. A script has a client
    /// then, as the pages have it.
    fn serve(&mut self, command: &str) {
        self.gateway = None;
        // Who names backends in the command has no file yet.
        let (file, later) = (self.path("mooring.toml"), self.path("later.toml"));
        let has_file = !command.contains("--backend");
        if !has_file {
            fs::rename(&file, &later).unwrap();
        }
        let says = ["Gateway ready.", "Backend is up.", "Backend is up."];
        let begun = self.begin(self.shell(&format!("exec {command}")), &says);
        if !has_file {
            fs::rename(&later, &file).unwrap();
        }
        self.gateway = Some((begun, command.to_owned()));
        if settings(&self.page).is_empty() && !command.contains("--auth keys") {
            let come = self.here("curl '127.0.0.1:8180/system_stats?clientId=script-1'");
            assert!(self.shell(&come).output().unwrap().status.success());
        }
    }

    /// Types a command, and does what its service manager would.
    fn run(&mut self, command: &str) {
        let typed = self.here(command);
        if command.starts_with("mooring serve") {
            self.serve(&typed);
            return;
        }
        let needs_none = ["mooring users", "openssl req", "mooring check"];
        if self.gateway.is_none() && !needs_none.iter().any(|begins| command.starts_with(begins)) {
            self.serve("mooring serve --config mooring.toml");
        }
        let mut shell = self.shell(&typed);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        // Whoever asks for a password gets one; others do not read it.
        let _not_read = child.stdin.take().unwrap().write_all(b"a-long-password\n");
        let done = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        let trouble = String::from_utf8_lossy(&done.stderr);
        let page = &self.page;
        assert!(done.status.success(), "{page}: {command}\ntyped: {typed}\n{told}{trouble}");
        if command.starts_with("mooring users add") {
            told.split_whitespace().last().unwrap_or_default().clone_into(&mut self.key);
        }
        if command.starts_with("openssl req") {
            // The page goes on with files of another authority; this one does as well.
            for (made, named) in [("crt", "gw-ca.pem"), ("crt", "ops.crt"), ("key", "ops.key")] {
                fs::copy(self.path(&format!("gw.{made}")), self.path(named)).unwrap();
            }
        }
        self.manage();
    }

    fn manage(&mut self) {
        let Ok(asked) = fs::read_to_string(self.path("systemctl")) else { return };
        fs::remove_file(self.path("systemctl")).unwrap();
        let (gateway, command) = self.gateway.take().unwrap();
        match asked.trim() {
            "reload" => {
                gateway.signal("-HUP");
                self.gateway = Some((gateway, command));
            }
            "restart" => {
                drop(gateway);
                self.serve(&command);
            }
            other => panic!("{}: systemctl {other}", self.page),
        }
    }
}

/// In order, each page in a place of its own.
#[test]
fn every_command_of_the_pages_works_by_copying_it() {
    let pages: Vec<(String, Vec<String>)> = pages()
        .into_iter()
        .map(|page| {
            let all = shell_commands(&page).into_iter();
            let run = all.filter(|command| reason(command).is_none()).collect();
            (page, run)
        })
        .collect();
    let run: usize = pages.iter().map(|(_, commands)| commands.len()).sum();
    assert!(30 < run, "only {run} commands are run");
    let has_openssl = Command::new("openssl").arg("version").output().is_ok();
    if !has_openssl {
        not_tested("there is no openssl for docs/tls.md");
    }
    thread::scope(|scope| {
        for (page, commands) in &pages {
            if !commands.is_empty() && (has_openssl || page != "docs/tls.md") {
                scope.spawn(move || {
                    let mut place = Place::new(page);
                    commands.iter().for_each(|command| place.run(command));
                });
            }
        }
    });
}

#[test]
fn every_command_that_is_not_run_is_in_a_page() {
    let all: Vec<String> = pages().iter().flat_map(|page| shell_commands(page)).collect();
    for (begins, why) in NOT_RUN {
        let is_used = all.iter().any(|command| command.starts_with(begins));
        assert!(is_used && !why.is_empty(), "{begins}: no page has it any more");
    }
}

/// Whole, or a part to which a backend is added; the files that it names need not be here.
#[test]
fn every_configuration_that_a_page_shows_is_in_order() {
    let mut shown = 0;
    for page in pages() {
        let markdown = fs::read_to_string(root().join(&page)).unwrap();
        for (_, block) in blocks(&markdown).iter().filter(|(language, _)| *language == "toml") {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("shown.toml"), format!("{block}\n")).unwrap();
            let mut check = Command::new(env!("CARGO_BIN_EXE_mooring"));
            check.args(["check", "shown.toml"]).current_dir(&folder).env_clear();
            if !block.contains("[backends.") && !block.contains("[discovery.") {
                check.args(["--backend", "http://127.0.0.1:9"]);
            }
            if !block.contains("mode = ") {
                check.args(["--auth", "off"]);
            }
            let done = check.output().unwrap();
            let told = String::from_utf8_lossy(&done.stderr);
            let problems = told.lines().filter(|line| line.starts_with("  "));
            let mut wrong = problems.filter(|line| !line.contains("cannot be read: No such file"));
            assert_eq!(wrong.next(), None, "{page}:\n{block}");
            assert!(matches!(done.status.code(), Some(0 | 78)), "{page}: {told}");
            shown += 1;
        }
    }
    assert!(10 < shown, "only {shown} were seen");
}

/// What stands in a text for what a person types.
const STANDS_FOR: [(&str, &str); 9] = [
    ("URL", "http://a:1"),
    ("STATE", "ready"),
    ("TIME", "10m"),
    ("ROLE", "viewer"),
    ("SHELL", "bash"),
    ("TEXT", "why"),
    ("FILE", "file"),
    ("NAME", "name"),
    ("ID", "id"),
];

/// The words of each command of a line, as a shell reads them; redirections are left out.
fn words(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words) = (Vec::new(), Vec::new());
    let (mut word, mut is_word, mut quote) = (String::new(), false, None);
    for it in line.chars().chain([' ']) {
        match (quote, it) {
            (Some(end), _) if it == end => quote = None,
            (None, '"' | '\'') => (quote, is_word) = (Some(it), true),
            (None, ' ' | '&' | '|' | ';' | '<' | '>' | '#') if it != '#' || !is_word => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                    is_word = false;
                }
                match it {
                    ' ' => {}
                    '#' => break,
                    _ => commands.push(std::mem::take(&mut words)),
                }
            }
            _ => {
                word.push(it);
                is_word = true;
            }
        }
    }
    commands.push(words);
    commands
}

/// What a person would type for a word.
fn meant(word: &str) -> &str {
    STANDS_FOR.iter().find(|(name, _)| *name == word).map_or(word, |(_, typed)| typed)
}

/// How a text shows a command: whole, or only named, and then what the verb needs may be missing.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Shown {
    Whole,
    Named,
}

/// Why the program does not understand a command, if it is one of its own.
fn misunderstood(words: &[String], shown: Shown) -> Option<String> {
    let words = words.iter().map(String::as_str);
    let is_before = |word: &&str| *word == "sudo" || word.starts_with("MOORING_");
    let words: Vec<&str> = words.skip_while(is_before).collect();
    if words.first() != Some(&"mooring") {
        return None;
    }
    let error = Cli::try_parse_from(words.iter().map(|word| meant(word))).err()?;
    let is_named = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let is_help = error.kind() == ErrorKind::DisplayHelp;
    let is_fine = is_help || (is_named && shown == Shown::Named);
    (!is_fine).then(|| format!("{}: {error}", words.join(" ")))
}

/// The ways to read a text in which `[…]` may be left out.
fn readings(span: &str) -> [String; 2] {
    let with: String = span.chars().filter(|it| !['[', ']'].contains(it)).collect();
    let mut without = String::new();
    let mut is_out = false;
    for it in span.chars() {
        is_out |= it == '[';
        if !is_out {
            without.push(it);
        }
        is_out &= it != ']';
    }
    [with, without]
}

fn has(problems: &mut Vec<String>, place: &str, line: &str, shown: Shown) {
    let found = words(line).into_iter().filter_map(|words| misunderstood(&words, shown));
    problems.extend(found.map(|problem| format!("{place}: {problem}")));
}

#[test]
fn the_program_understands_every_command_that_a_block_shows() {
    let mut problems = Vec::new();
    let mut shown = 0;
    for page in pages() {
        for command in commands_of(&fs::read_to_string(root().join(&page)).unwrap()) {
            shown += 1;
            has(&mut problems, &page, &command, Shown::Whole);
        }
    }
    let cli = Cli::command();
    let with_its_own = |verb| [verb].into_iter().chain(clap::Command::get_subcommands(verb));
    for verb in cli.get_subcommands().flat_map(with_its_own) {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
            shown += 1;
            has(&mut problems, &format!("{} --help", verb.get_name()), line, Shown::Whole);
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(100 < shown, "only {shown} commands were seen");
}

/// In the code marks of a sentence, a comment or a message.
#[test]
fn the_program_understands_every_command_that_a_text_names() {
    let mut problems = Vec::new();
    let mut named = 0;
    for (path, text) in ours("") {
        let is_page = path.extension().is_some_and(|it| it == "md");
        let lines = if is_page {
            vec![prose(&text).collect::<Vec<_>>().join(" ")]
        } else {
            text.lines().map(ToOwned::to_owned).collect()
        };
        for line in lines {
            for span in line.split('`').skip(1).step_by(2) {
                // What a program puts in is not known here, nor how the next line goes on.
                let is_whole = !span.contains(['{', '…']) && !span.ends_with('\\');
                if span.starts_with("mooring ") && is_whole {
                    named += 1;
                    for reading in readings(span) {
                        has(&mut problems, &path.display().to_string(), &reading, Shown::Named);
                    }
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(100 < named, "only {named} commands were seen");
}
