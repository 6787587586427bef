//! Tests of what an operator sees of the configuration: whole reports, and the result of merging
//! layers.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::keys::KEYS;
use super::{
    BackendConfig, Config, LogFormat, Nameless, Origin, Place, Problem, Problems, Sources,
    StatusCounts, load,
};

const TWO: &str = "[backends.gpu-a]\nurl = \"http://gpu-a:8188\"\n[backends.gpu-b]\n\
                   url = \"http://gpu-b:8188\"\n";

/// A file with this text, which is deleted when dropped.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads a file's text with an environment and flags; the file is called `FILE` in reports.
fn load_all(
    text: &str,
    env: &[(&str, &str)],
    backends: &[&str],
    flags: &[(&str, &str)],
) -> Result<Config, String> {
    let file = file(text);
    let sources = Sources {
        file: Some(file.path().to_owned()),
        env: pairs(env),
        flags: pairs(flags),
        backends: backends.iter().map(|url| (*url).to_owned()).collect(),
    };
    load(&sources)
        .map_err(|report| report.to_string().replace(&file.path().display().to_string(), "FILE"))
}

#[track_caller]
fn check_report(text: &str, expected: &str) {
    assert_eq!(load_all(text, &[], &[], &[]).unwrap_err(), expected);
}

#[test]
fn every_problem_is_reported_with_its_line_and_key() {
    check_report(
        r#"
[server]
listen = "nowhere"
workers = 2000
worker = 1
idle_timeout = 75
allow_manager = "yes"
trusted_proxies = [
    "10.0.0.0/8",
    "10.0.0.1/8",
    7,
]
allowed_origins = "https://app.example"

[affinty]
lease = "10m"

[prompts]
max_body = "1GiB"
max_bodies_total = "512MiB"
silent_after = 1.5

[log]
level = "inof"
format = "jsn"

[backends.a]
url = "http://gpu:8188"
[backends.b]
url = "http://GPU:8188/"
weight = 0
[backends.c]
url = "gpu-c:8188"
[backends.d]
"#,
        "\
17 problems in the configuration
  FILE:3: server.listen: `nowhere` is not an address IP:PORT, localhost:PORT or :PORT
  FILE:4: server.workers: 2000 is out of range, expected a whole number from 0 to 1024
  FILE:5: server.worker: unknown key, did you mean `server.workers`?
  FILE:6: server.idle_timeout: expected a duration from 1s to 1h, found the number 75
  FILE:7: server.allow_manager: expected `true` or `false`, found the text \"yes\"
  FILE:10: server.trusted_proxies: `10.0.0.1/8`: has bits set beyond its prefix; the network is \
`10.0.0.0/8`
  FILE:11: server.trusted_proxies: the entries of this list are texts in quotes
  FILE:13: server.allowed_origins: expected a list of origins such as \"https://app.example\", \
found the text \"https://app.example\"
  FILE:15: affinty: unknown section, did you mean `affinity`?
  FILE:20: prompts.max_bodies_total: `prompts.max_body` (1GiB) is larger than \
`prompts.max_bodies_total` (512MiB)
  FILE:21: prompts.silent_after: expected a duration from 1s to 1d, found a date or a fraction
  FILE:24: log.level: `inof` is not one of off, error, warn, info, debug, trace, did you mean \
`info`?
  FILE:25: log.format: `jsn` is not \"text\" or \"json\", did you mean \"json\"?
  FILE:30: backends.b.url: `gpu:8188` is listed twice, also as `backends.a`
  FILE:31: backends.b.weight: 0 is out of range, expected a whole number from 1 to 1000
  FILE:33: backends.c.url: `gpu-c:8188`: has no scheme, did you mean `http://gpu-c:8188`?
  FILE:34: backends.d.url: is missing",
    );
}

#[test]
fn a_slip_in_the_syntax_does_not_hide_other_problems() {
    check_report(
        "[server]\nlisten = \nworkers = 5000\n[backends.a]\nurl = \"http://a:1\"\n[x\n",
        "\
3 problems in the configuration
  FILE:2: string values must be quoted, expected literal string
  FILE:3: server.workers: 5000 is out of range, expected a whole number from 0 to 1024
  FILE:6: unclosed table, expected `]`",
    );
}

#[test]
fn a_file_from_windows_is_read() {
    let text = format!("\u{feff}[server]\nworkers = 3\n{TWO}").replace('\n', "\r\n");
    assert_eq!(load_all(&text, &[], &[], &[]).unwrap().server.workers, 3);
}

#[test]
fn what_is_no_table_is_told_how_to_be_one() {
    check_report(
        "backends = 3\nserver = \"x\"\nlisten = \"127.0.0.1:1\"\n",
        "\
3 problems in the configuration
  FILE:1: backends: is a section, write [backends]
  FILE:2: server: is a section, write [server]
  FILE:3: listen: unknown section, did you mean `server.listen`?",
    );
    check_report(
        "[[backends]]\nurl = \"http://a:1\"\n",
        "\
1 problem in the configuration
  FILE:1: backends: write a table for each, [backends.NAME], and not [[backends]]",
    );
    check_report(
        "[backends]\na = \"http://a:1\"\n[backends.gpu.b]\nurl = \"http://b:1\"\n\
         [backends.\"gpu c\"]\n",
        "\
4 problems in the configuration
  FILE:2: backends.a: is a table, write [backends.a]
  FILE:3: backends.gpu.b: unknown key; a name with a dot is quoted, [backends.\"gpu.b\"]
  FILE:3: backends.gpu.url: is missing
  FILE:5: backends.gpu c: the name of a backend has 1 to 63 letters, digits or `.`, `_`, `-`, `:`",
    );
}

#[test]
fn environment_and_flags_are_reported_by_their_names() {
    let report = load_all(
        TWO,
        &[
            ("MOORING_SERVER__WORKERS", "many"),
            ("MOORING_SERVER__WORKRES", "1"),
            ("MOORING_SERVER_LISTEN", "127.0.0.1:1"),
            ("MOORING_SERVICE_HOST", "10.0.0.1"),
            ("MOORING_AFFINITY__LEASE", "10"),
        ],
        &["ftp://gpu-c:8188", "http://gpu-a:8188", "http://me:secret@gpu-d:1"],
        &[("server.max_headers", "9"), ("sever.listen", "x"), ("server.home", "gpu-d")],
    )
    .unwrap_err();
    assert_eq!(
        report,
        "\
10 problems in the configuration
  MOORING_AFFINITY__LEASE: affinity.lease: `10` has no unit, expected a duration from 1s to 30d \
such as \"30s\"
  MOORING_SERVER_LISTEN: unknown key, did you mean `MOORING_SERVER__LISTEN`?
  MOORING_SERVER__WORKERS: server.workers: `many` is not a whole number from 0 to 1024
  MOORING_SERVER__WORKRES: unknown key, did you mean `MOORING_SERVER__WORKERS`?
  command line: --backend: `ftp://gpu-c:8188`: `ftp://` is not possible here, only `http://` and \
`https://`
  command line: --backend: a user or password in a URL is not possible
  command line: backends.gpu-1.url: `gpu-a:8188` is listed twice, also as `backends.gpu-a`
  command line: server.home: there is no backend `gpu-d`, did you mean `gpu-b`?
  command line: server.max_headers: 9 is out of range, expected a whole number from 16 to 1024
  command line: sever.listen: unknown section, did you mean `server`?"
    );
}

#[test]
fn what_cannot_be_together_is_refused() {
    let report = load_all(
        "[server]\nlisten = \"0.0.0.0:8181\"\n[admin]\ntoken = \"x\"\ntoken_file = \"/nowhere\"\n\
         [affinity]\nlease = \"20s\"\n[sockets]\nqueue_bytes = \"65MiB\"\n\
         [backends.us]\nurl = \"http://localhost:8181\"\n",
        &[],
        &[],
        &[],
    )
    .unwrap_err();
    assert_eq!(
        report,
        "\
6 problems in the configuration
  FILE:2: server.listen: both listeners would use 127.0.0.1:8181
  FILE:5: admin.token_file: `admin.token` and `admin.token_file` are both set, one is enough
  FILE:5: admin.token_file: `/nowhere` cannot be read: No such file or directory (os error 2)
  FILE:7: affinity.lease: `affinity.link_linger` (30s) is larger than `affinity.lease` (20s)
  FILE:9: sockets.queue_bytes: `sockets.queue_bytes` (65MiB) is larger than \
`sockets.queue_critical` (64MiB)
  FILE:11: backends.us.url: `localhost:8181` is this gateway itself (`admin.listen`)"
    );
    check_report(
        "[admin]\nlisten = \"0.0.0.0:8181\"\n[backends.a]\nurl = \"http://a:1\"\n",
        "\
1 problem in the configuration
  FILE:2: admin.listen: other hosts can connect to 0.0.0.0:8181: set `admin.token` or \
`admin.token_file`",
    );
}

#[test]
fn whoever_listens_for_others_has_said_who_may_come_in() {
    let of = |address: &str, env: &[(&str, &str)], flags: &[(&str, &str)]| {
        let text = format!("[server]\nlisten = \"{address}\"\n{TWO}");
        load_all(&text, env, &[], flags)
    };
    for others in ["0.0.0.0:8180", ":8180", "[::]:8180", "10.0.0.7:0", "[::ffff:10.0.0.7]:8180"] {
        let report = of(others, &[], &[]).unwrap_err();
        let told = "FILE:2: server.listen: other hosts can connect to ";
        assert!(report.contains(told) && report.contains("set `auth.mode`"), "{report}");
        assert!(of(others, &[("MOORING_AUTH__MODE", "off")], &[]).is_ok(), "{others}");
        assert!(of(others, &[], &[("--auth", "off")]).is_ok(), "{others}");
        assert!(of(others, &[], &[("auth.mode", "off")]).is_ok(), "{others}");
        let report = of(others, &[], &[("--auth", "of")]).unwrap_err();
        assert_eq!(report.lines().count(), 2, "one slip is one problem: {report}");
        assert!(report.contains("auth.mode: `of` is not"), "{report}");
    }
    for own in
        ["127.0.0.1:8180", "localhost:1", "[::1]:8180", "127.9.9.9:1", "[::ffff:127.0.0.1]:1"]
    {
        assert!(of(own, &[], &[]).is_ok(), "{own} is this host's alone");
    }
    // The admin listener is judged by the same rule.
    let admin = |listen: &str| load_all(TWO, &[], &[], &[("admin.listen", listen)]);
    assert!(admin("[::ffff:127.0.0.1]:8181").is_ok());
    assert!(admin("[::ffff:10.0.0.7]:8181").unwrap_err().contains("other hosts can connect"));
    let both = admin("[::ffff:127.0.0.1]:8180").unwrap_err();
    assert!(both.contains("both listeners would use"), "{both}");
}

#[test]
fn without_a_backend_nothing_can_be_served() {
    let report = load(&Sources::default()).unwrap_err();
    let what = "at least one is needed: write `[backends.NAME]` with a `url`, or `--backend URL`";
    let problem = Problem { origin: None, key: "backends".into(), what: what.into() };
    assert_eq!(report, Problems(vec![problem]));
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let sources = Sources { file: Some("/nowhere/mooring.toml".into()), ..Sources::default() };
    assert_eq!(
        load(&sources).unwrap_err().to_string(),
        "1 problem in the configuration\n  \
         /nowhere/mooring.toml: cannot be read: No such file or directory (os error 2)"
    );
    let file = file("");
    std::fs::write(file.path(), [b'#', 0xff]).unwrap();
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    let problems = load(&sources).unwrap_err().0;
    assert_eq!(problems[0].what, "is not UTF-8 text: byte 2 is invalid");
    assert!(matches!(problems[0].origin, Some(Origin::File { line: 0, .. })));
}

#[test]
fn the_environment_sets_keys_of_backends_that_flags_made() {
    let weights = |env: &[(&str, &str)], urls: &[&str], set: &[(&str, &str)]| {
        let config = load_all("", env, urls, set).unwrap();
        config.backends.iter().map(|it| format!("{}={}", it.name, it.weight)).collect::<Vec<_>>()
    };
    let nine = "http://10.0.0.9:8188";
    // Of `--backend`, of `--set`, of both.
    let one = ("MOORING_BACKENDS__GPU_1__WEIGHT", "2");
    let z = ("MOORING_BACKENDS__GPU_Z__WEIGHT", "3");
    let set = ("backends.gpu-z.url", "http://z:8188");
    assert_eq!(weights(&[one, z], &[nine], &[set]), ["gpu-1=2", "gpu-z=3"]);
    // A URL in the environment, whose backend a flag names; a flag overrides everything.
    let url = ("MOORING_BACKENDS__GPU_Z__URL", "http://z:8188");
    assert_eq!(weights(&[url, z], &[], &[("backends.gpu-z.weight", "7")]), ["gpu-z=7"]);
    // The environment's backend is called `gpu_1`, and no other has a similar name.
    let url = ("MOORING_BACKENDS__GPU_1__URL", "http://z:8188");
    assert_eq!(weights(&[url, one], &[nine], &[]), ["gpu-2=1", "gpu_1=2"]);
    // A flag's key belongs to the backend of that name that a URL makes.
    let twice = [nine, "http://10.0.0.8:8188"];
    let set = ("backends.gpu-2.weight", "4");
    assert_eq!(weights(&[one], &twice, &[set]), ["gpu-1=2", "gpu-2=4"]);
}

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let text = format!("[server]\nworkers = 2\nmax_headers = 20\nmax_connections = 5\n{TWO}");
    let config = load_all(
        &text,
        &[
            ("MOORING_SERVER__WORKERS", "3"),
            ("MOORING_SERVER__MAX_HEADERS", "30"),
            ("MOORING_SERVER__ALLOWED_ORIGINS", "https://a.example, https://B.example:443"),
            ("MOORING_BACKENDS__GPU_A__WEIGHT", "4"),
            ("MOORING_BACKENDS__GPU_C__URL", "http://[::1]:8188"),
            ("MOORING_ISOLATION__STATUS", "backend"),
        ],
        &["http://10.0.0.9:8188"],
        &[("server.workers", "4"), ("backends.gpu-b.max_pending", "7"), ("server.home", "gpu-b")],
    )
    .unwrap();
    assert_eq!(
        (config.server.workers, config.server.max_headers, config.server.max_connections),
        (4, 30, 5)
    );
    assert_eq!(config.server.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.isolation.status, StatusCounts::Backend);
    assert_eq!(config.server.home, "gpu-b");
    let backends: Vec<_> = config
        .backends
        .iter()
        .map(|it| {
            let max_pending = it.max_pending.map_or(0, |it| it.get());
            (it.name.as_str(), it.authority.as_str(), it.weight.get(), max_pending)
        })
        .collect();
    assert_eq!(
        backends,
        [
            ("gpu-1", "10.0.0.9:8188", 1, 0),
            ("gpu-a", "gpu-a:8188", 4, 0),
            ("gpu-b", "gpu-b:8188", 1, 7),
            ("gpu_c", "[::1]:8188", 1, 0),
        ]
    );
    assert_eq!(config.backends[3].host, "::1", "as `Network::connect` takes it");
}

#[test]
fn backends_without_a_name_are_numbered_and_a_name_that_is_taken_is_left_out() {
    let text = "[backends.gpu-2]\nurl = \"http://other:8188\"\n";
    let urls = ["http://10.0.0.9:8188", "http://10.0.0.8:8188"];
    let config = load_all(text, &[], &urls, &[("backends.gpu-3.weight", "2")]).unwrap();
    let named = |it: &BackendConfig| (it.name.clone(), it.authority.clone(), it.weight.get());
    let backends: Vec<_> = config.backends.iter().map(named).collect();
    let expected =
        [("gpu-1", "10.0.0.9:8188", 1), ("gpu-2", "other:8188", 1), ("gpu-3", "10.0.0.8:8188", 2)];
    assert_eq!(backends, expected.map(|(name, at, weight)| (name.into(), at.into(), weight)));
}

#[test]
fn a_token_opens_the_admin_door_to_others_and_is_never_shown() {
    let token = file("  s3cret-token\n");
    let path = token.path().display().to_string();
    let flags = [("admin.listen", "0.0.0.0:8181"), ("admin.token_file", path.as_str())];
    let config = load_all(TWO, &[], &[], &flags).unwrap();
    assert_eq!(config.admin.token.as_ref().unwrap().reveal(), "s3cret-token");
    assert!(!format!("{config:?}").contains("s3cret"));

    let report = load_all(TWO, &[("MOORING_ADMIN__TOKEN", "s3cret token")], &[], &[]).unwrap_err();
    assert!(report.contains("admin.token") && !report.contains("s3cret"), "{report}");
    let report = load_all(&format!("[admin]\ntoken = 12345\n{TWO}"), &[], &[], &[]).unwrap_err();
    assert!(report.contains("admin.token") && !report.contains("12345"), "{report}");
}

#[test]
fn the_token_that_may_only_look_is_another_one() {
    let both = |acts: &str, looks: &str| {
        let flags = [("admin.token", acts), ("admin.read_token", looks)];
        load_all(TWO, &[], &[], &flags)
    };
    let config = both("s3cret", "another").unwrap();
    assert_eq!(config.admin.read_token.unwrap().reveal(), "another");
    let report = both("s3cret", "s3cret").unwrap_err();
    assert!(report.contains("admin.read_token: the same as `admin.token`"), "{report}");
    assert!(!report.contains("s3cret"), "{report}");
    // It is told that this has no effect; the gateway starts.
    assert!(both("", "another").unwrap().admin.token.is_none());
}

#[test]
fn the_admin_door_can_be_shut() {
    assert_eq!(load_all(TWO, &[], &[], &[("admin.listen", "off")]).unwrap().admin.listen, None);
}

#[test]
fn who_says_no_name_may_act_by_ids_from_this_machine_only() {
    let off = ("auth.mode", "off");
    let listen =
        |address: &str| load_all(TWO, &[], &[], &[("server.listen", address), off]).unwrap();
    for (address, from, expected) in [
        ("127.0.0.1:8180", Place::ThisMachine, Nameless::ById),
        ("[::1]:8180", Place::ThisMachine, Nameless::ById),
        ("127.0.0.1:8180", Place::Elsewhere, Nameless::None),
        ("0.0.0.0:8180", Place::ThisMachine, Nameless::None),
        ("0.0.0.0:8180", Place::Elsewhere, Nameless::None),
    ] {
        assert_eq!(listen(address).nameless(from), expected, "{address} {from:?}");
    }
}

#[test]
fn defaults_are_those_of_the_product() {
    let config = Config::for_backends(&[("b", "http://b:1"), ("a", "http://a:1")]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8180");
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:8181");
    assert_eq!(config.server.home, "", "chosen at the start, and remembered");
    assert_eq!(config.affinity.lease, Duration::from_secs(600));
    // Longer than a proxy in front keeps a connection: Traefik and cloudflared 90 s, Caddy 120 s.
    assert_eq!(config.server.idle_timeout, Duration::from_secs(180));
    assert_eq!(config.sockets.max_per_client, 16);
    assert_eq!(config.prompts.max_body, 100 << 20);
    assert_eq!(config.prompts.ledger_age, Duration::from_secs(7 * 86_400));
    assert_eq!(config.sockets.output_classes, ["SaveImageWebsocket", "ETN_SendImageWebSocket"]);
    assert_eq!(config.isolation.status, StatusCounts::Own);
    assert_eq!(config.log.format, LogFormat::Text);
    assert!(config.server.allowed_origins.is_empty() && config.admin.token.is_none());
}

/// The keys in `config/mooring.toml`: `key = value`, commented out or not.
fn keys_in(reference: &str) -> BTreeSet<(String, String)> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in reference.lines() {
        // Discoveries and `auth` are commented out, because writing them is a statement.
        let is_remark = line.starts_with("# [")
            || section == "discovery"
            || (section == "auth" && line.starts_with("# mode = "));
        let line = line.strip_prefix("# ").filter(|_| is_remark).unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            let is_section = KEYS.iter().any(|key| key.section == name);
            section = if is_section { name } else { name.split('.').next().unwrap() }.to_owned();
        } else if let Some((key, value)) = line.split_once(" = ") {
            let full_name = KEYS
                .iter()
                .find(|it| it.section == section && it.name == key)
                .unwrap_or_else(|| panic!("`{section}.{key}` in the file is no key"))
                .full_name();
            keys.insert((full_name, value.split("  #").next().unwrap().trim().to_owned()));
        }
    }
    keys
}

#[test]
fn the_reference_file_shows_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/mooring.toml");
    let loaded = load(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap();
    let urls: Vec<(String, String)> = loaded
        .backends
        .iter()
        .map(|it| (it.name.clone(), format!("http://{}", it.authority)))
        .collect();
    let urls: Vec<(&str, &str)> = urls.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(loaded, Config::for_backends(&urls).unwrap(), "it changes nothing");

    let shown = keys_in(&std::fs::read_to_string(path).unwrap());
    for key in KEYS.iter().filter(|key| key.has_default()) {
        let line = (key.full_name(), key.default_in_toml());
        assert!(shown.contains(&line), "config/mooring.toml lacks {line:?}");
    }
}

/// An operator who starts from that file and moves the listener has not said that everybody may
/// come in.
#[test]
fn the_reference_file_and_what_is_shown_open_the_fleet_to_nobody() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/mooring.toml");
    let reference = std::fs::read_to_string(&path).unwrap();
    let sources = Sources { file: Some(path), ..Sources::default() };
    let shown = super::effective(&sources).unwrap().to_toml();
    for text in [reference, shown] {
        let moved = text.replacen("listen = \"127.0.0.1:8180\"", "listen = \"0.0.0.0:8180\"", 1);
        assert_ne!(moved, text);
        let report = load_all(&moved, &[], &[], &[]).unwrap_err().to_string();
        assert!(report.contains("set `auth.mode`"), "{report}");
    }
}

#[test]
fn every_key_is_documented_with_default_and_range() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    for key in KEYS {
        let default = match key.has_default() {
            true => format!("`{}`", key.default_in_toml()),
            false if key.name == "url" => "needed".to_owned(),
            false => "one of three".to_owned(),
        };
        let row = format!("| `{}` | {default} | {} |", key.full_name(), key.takes());
        assert!(text.contains(&row), "docs/configuration.md lacks the row\n{row} {} |", key.why());
    }
}

proptest! {
    /// Any text gives a result and no panic, and each problem is one line.
    #[test]
    fn any_text_is_answered(text: String, name: String, value: String) {
        let sources = Sources {
            file: Some(file(&text).path().to_owned()),
            env: vec![(format!("MOORING_{name}"), value.clone())],
            backends: vec![value.clone()],
            flags: vec![(name, value)],
        };
        let problems = load(&sources).unwrap_err();
        prop_assert!(problems.0.iter().all(|it| !it.what.contains('\n')), "{problems}");
    }

    /// The value of a key can be anything, too.
    #[test]
    fn any_value_is_answered(index in 0..KEYS.len(), value in ".*|[0-9]{1,20}[a-zA-Z]{0,3}") {
        let name = KEYS[index].full_name().replace("NAME", "gpu-a");
        let flags = vec![("backends.gpu-a.url".to_owned(), "http://a:1".to_owned()), (name, value)];
        let _ = load(&Sources { flags, ..Sources::default() });
    }

    /// The printed default of each key is accepted in every layer.
    #[test]
    fn a_printed_default_means_the_default(index in 0..KEYS.len()) {
        let key = KEYS[index];
        prop_assume!(key.has_default());
        let line = format!("{} = {}\n", key.name, key.default_in_toml());
        let place = "[discovery.gpu-a]\ndns = \"d:1\"\n";
        let (base, text) = match key.section {
            "backends" => (TWO.to_owned(), format!("{TWO}{line}")),
            "discovery" => (format!("{TWO}{place}"), format!("{TWO}{place}{line}")),
            section => (TWO.to_owned(), format!("[{section}]\n{line}{TWO}")),
        };
        let defaults = load_all(&base, &[], &[], &[]).unwrap();
        prop_assert_eq!(load_all(&text, &[], &[], &[]), Ok(defaults.clone()));
        let name = key.full_name().replace("NAME", "gpu-a");
        prop_assert_eq!(load_all(&base, &[], &[], &[(&name, key.default)]), Ok(defaults));
    }
}

#[test]
fn a_listener_is_recognised_in_every_spelling_of_its_address() {
    let at = |url: &str, listen: &str| {
        let config = Config::for_backends(&[("a", url)]).unwrap();
        super::rules::is_at(&config.backends[0], listen.parse().unwrap())
    };
    for (url, listen) in [
        ("http://127.0.0.1:9180", "127.0.0.1:9180"),
        ("http://localhost:9180", "127.0.0.1:9180"),
        ("http://0.0.0.0:9180", "127.0.0.1:9180"),
        ("http://[::ffff:127.0.0.1]:9180", "127.0.0.1:9180"),
        ("http://127.0.0.9:9180", "0.0.0.0:9180"),
        ("http://[::1]:9180", "[::]:9180"),
        ("http://127.0.0.1:9180", "[::]:9180"),
        ("http://10.0.0.7:9180", "[::ffff:10.0.0.7]:9180"),
    ] {
        assert!(at(url, listen), "{url} is {listen}");
    }
    for (url, listen) in [
        ("http://127.0.0.1:9181", "127.0.0.1:9180"),
        ("http://127.0.0.9:9180", "127.0.0.1:9180"),
        ("http://10.0.0.7:9180", "0.0.0.0:9180"),
        ("http://gpu:9180", "127.0.0.1:9180"),
    ] {
        assert!(!at(url, listen), "{url} is not seen to be {listen}");
    }
}
