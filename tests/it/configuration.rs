//! What an operator and an editor are told of the configuration: `config show`, `config schema`,
//! `config init`, `check --json`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mooring::config::keys::{KEYS, Key};
use mooring::config::{self, Shape, Sources};
use proptest::prelude::*;
use serde_json::Value;

use crate::schemas::validate;

const GOOD: &str = "[backends.a]\nurl = \"http://127.0.0.1:9\"\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The executable in a folder, without the environment of the test: exit code and both outputs.
fn mooring(folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
    command.args(arguments).current_dir(folder).env_clear().envs(env.iter().copied());
    let Output { status, stdout, stderr } = command.output().expect("it can be run");
    let text = |bytes| String::from_utf8(bytes).expect("it speaks UTF-8");
    (status.code().expect("no signal ended it"), text(stdout), text(stderr))
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("it can be written");
    }
    folder
}

#[test]
fn config_show_says_where_each_value_comes_from_and_can_be_loaded_again() {
    let text = format!("[admin]\ntoken = \"s3cret\"\n{GOOD}");
    let folder = folder(&[("mooring.toml", &text)]);
    let env = [("MOORING_SERVER__WORKERS", "2")];
    let arguments =
        ["config", "show", "--set", "affinity.lease=1h", "--listen", ":1", "--auth", "off"];
    let (code, out, err) = mooring(folder.path(), &arguments, &env);
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "listen = \":1\"  # --listen",
        "mode = \"off\"  # --auth",
        "workers = 2  # environment variable MOORING_SERVER__WORKERS",
        "token = \"(hidden)\"  # mooring.toml:2",
        "lease = \"1h\"  # --set",
        "url = \"http://127.0.0.1:9\"  # mooring.toml:4",
    ] {
        assert!(out.lines().any(|it| it == line), "no `{line}` in {out}");
    }
    // It listens for others under names that nobody has listed.
    let is_of_names = |err: &str| err.lines().count() == 1 && err.contains("DNS rebinding");
    let bare: Vec<&str> = out.lines().filter_map(|it| it.split("  # ").next()).collect();
    fs::write(folder.path().join("again.toml"), bare.join("\n")).unwrap();
    let (code, _, err) = mooring(folder.path(), &["check", "again.toml"], &[]);
    assert!(code == 0 && is_of_names(&err), "{err} {out}");
    let json = ["config", "show", "--json", "--config", "mooring.toml"];
    let (code, out, _) = mooring(folder.path(), &json, &[]);
    let told: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!((code, told["keys"][0]["key"].as_str()), (0, Some("server.listen")));
    assert!(!out.contains("s3cret"), "{out}");
}

/// Whatever begins to listen: it is `check` that says the same before.
#[test]
fn who_listens_for_others_and_says_no_mode_does_not_start() {
    let text = format!("[server]\nlisten = \"0.0.0.0:0\"\n{GOOD}");
    let folder = folder(&[("mooring.toml", &text)]);
    let what = "other hosts can connect to 0.0.0.0:0: set `auth.mode`";
    let checked = mooring(folder.path(), &["check"], &[]);
    assert_eq!(checked.0, 78);
    assert!(checked.2.contains(&format!("mooring.toml:2: server.listen: {what}")), "{}", checked.2);
    for arguments in [&["serve"][..], &["demo", "--listen", "0.0.0.0:0"]] {
        let (code, _, err) = mooring(folder.path(), arguments, &[]);
        assert_eq!(code, 78, "{arguments:?}: {err}");
        assert!(err.contains(what), "{arguments:?}: {err}");
    }
    let json = mooring(folder.path(), &["check", "--json"], &[]);
    assert!(json.1.contains("server.listen") && json.1.contains(what), "{}", json.1);
    let names = ("MOORING_SERVER__HOSTS", "gw");
    for told in [("MOORING_AUTH__MODE", "off"), ("MOORING_SERVER__LISTEN", "127.0.0.1:0")] {
        let (code, _, err) = mooring(folder.path(), &["check"], &[told, names]);
        assert_eq!((code, err.as_str()), (0, ""), "{told:?}");
    }
    let (code, _, err) = mooring(folder.path(), &["check", "--auth", "off"], &[names]);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn config_show_of_a_bad_configuration_is_what_check_says() {
    let folder = folder(&[("mooring.toml", "[server]\nworker = 1\n[admin]\ntoken = 7\n")]);
    let checked = mooring(folder.path(), &["check"], &[]);
    for arguments in [&["config", "show"][..], &["config", "show", "--json"]] {
        assert_eq!(mooring(folder.path(), arguments, &[]), checked, "{arguments:?}");
    }
    assert_eq!(checked.0, 78);
    assert!(checked.2.contains("mooring.toml:2: server.worker: unknown key"), "{}", checked.2);
}

#[test]
fn check_tells_programs_each_problem_and_each_warning() {
    let folder = folder(&[("one.toml", GOOD), ("bad.toml", "[server]\nworkres = 1\n[x\n")]);
    let json = |arguments: &[&str], env: &[(&str, &str)]| {
        let (code, out, err) = mooring(folder.path(), arguments, env);
        assert_eq!(err, "", "all is in the answer");
        (code, serde_json::from_str::<Value>(&out).expect("it is JSON"))
    };
    let home = serde_json::json!({ "backend": "a", "why": "only" });
    let copies = serde_json::json!({ "kept": "disk", "folder": "/state/copies" });
    let good = serde_json::json!({
        "ok": true, "problems": [], "warnings": [], "home": home, "copies": copies,
    });
    let env = [("MOORING_STATE__DIR", "/state")];
    assert_eq!(json(&["check", "one.toml", "--json"], &env), (0, good));
    let env = [("MOORING_STATE__COPIES", "1MiB"), ("MOORING_SERVER__STALE_CACHE", "0")];
    let (code, told) = json(&["check", "one.toml", "--json"], &env);
    assert_eq!((code, told["copies"]["kept"].as_str()), (0, Some("nowhere")));
    let warned = told["warnings"][0]["problem"].as_str().unwrap();
    assert_eq!(warned, "there are no copies on the disk: `server.stale_cache` is 0");
    let env = [("MOORING_SERVER__MAX_HEADERS", "9")];
    let (code, told) = json(&["check", "bad.toml", "--json"], &env);
    assert_eq!((code, told["ok"].as_bool()), (78, Some(false)));
    let expected = serde_json::json!([
        { "file": "bad.toml", "line": 2, "key": "server.workres", "problem": "unknown key",
          "hint": "did you mean `server.workers`?" },
        { "file": "bad.toml", "line": 3, "key": null, "problem": "unclosed table, expected `]`" },
        { "file": null, "line": null, "key": "server.max_headers",
          "problem": "9 is out of range, expected a whole number from 16 to 1024",
          "source": "MOORING_SERVER__MAX_HEADERS" },
    ]);
    assert_eq!(told["problems"], expected);

    let twice = folder.path().join("twice");
    fs::create_dir(&twice).unwrap();
    fs::write(twice.join("1.toml"), format!("[log]\nlevel = \"info\"\n{GOOD}")).unwrap();
    fs::write(twice.join("2.toml"), "[log]\nlevel = \"warn\"\n").unwrap();
    let (code, told) = json(&["check", "twice", "--json"], &[]);
    assert_eq!((code, told["ok"].as_bool()), (0, Some(true)), "a warning is no problem");
    assert_eq!(told["warnings"][0]["file"], "twice/2.toml");
    assert_eq!(told["warnings"][0]["problem"], "overrides twice/1.toml:2");
    let (code, out, err) = mooring(folder.path(), &["check", "twice"], &[]);
    assert!(code == 0 && out.starts_with("in order: 1 backend"), "{out}");
    assert!(err.starts_with("warning: twice/2.toml:2: log.level: overrides"), "{err}");

    let (code, told) = json(&["check", "one.toml", "--json", "--probe"], &[]);
    assert_eq!((code, told["ok"].as_bool()), (1, Some(false)), "nobody listens there");
    assert!(told["probe"].as_array().is_some_and(|lines| !lines.is_empty()), "{told}");
}

#[test]
fn config_init_writes_a_file_that_is_in_order_and_never_over_another() {
    let folder = folder(&[]);
    let (code, printed, _) = mooring(folder.path(), &["config", "init"], &[]);
    assert_eq!(code, 0);
    assert_eq!(mooring(folder.path(), &["config", "init", "-"], &[]).1, printed);
    let (code, out, _) = mooring(folder.path(), &["config", "init", "mooring.toml"], &[]);
    assert_eq!((code, out.as_str()), (0, ""));
    let path = folder.path().join("mooring.toml");
    assert_eq!(fs::read_to_string(&path).unwrap(), printed);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, _, err) = mooring(folder.path(), &["check"], &[]);
    assert_eq!((code, err.as_str()), (0, ""));

    fs::write(&path, "mine").unwrap();
    let (code, _, err) = mooring(folder.path(), &["config", "init", "mooring.toml"], &[]);
    let expected = "mooring: mooring.toml exists already and was not changed; --force \
                    overwrites it\n";
    assert_eq!((code, err.as_str()), (1, expected));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    let (code, ..) = mooring(folder.path(), &["config", "init", "mooring.toml", "--force"], &[]);
    assert_eq!((code, fs::read_to_string(&path).unwrap()), (0, printed));
    let (code, _, err) = mooring(folder.path(), &["config", "init", "gone/mooring.toml"], &[]);
    assert!(code == 1 && err.contains("cannot write gone/mooring.toml: No such file"), "{err}");
}

#[test]
fn a_folder_is_taken_wherever_a_file_is() {
    let conf = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:7\"\n";
    let folder = folder(&[("1.toml", conf), ("2.toml", GOOD)]);
    let at = folder.path().display().to_string();
    for arguments in [&["check", &at][..], &["config", "show", "--config", &at]] {
        let (code, _, err) = mooring(Path::new("/"), arguments, &[]);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    }
    let (code, _, err) = mooring(Path::new("/"), &["status"], &[("MOORING_CONFIG", &at)]);
    assert!(code == 1 && err.contains("127.0.0.1:7"), "where its listener is: {err}");
}

#[test]
fn the_schema_that_is_shipped_is_the_one_that_is_printed() {
    let (code, out, _) = mooring(root(), &["config", "schema"], &[]);
    let shipped = fs::read_to_string(root().join("config/mooring.schema.json")).unwrap();
    assert_eq!(code, 0);
    assert!(out == shipped, "write it anew: mooring config schema > config/mooring.schema.json");
    let example = fs::read_to_string(root().join("config/mooring.toml")).unwrap();
    assert_eq!(example.lines().next(), Some("#:schema ./mooring.schema.json"));
}

/// A file's text as an editor hands it to the schema.
fn as_json(text: &str) -> Value {
    toml::from_str(text).expect("it is TOML")
}

fn loads(text: &str) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    config::load(&sources).map(drop).map_err(|problems| problems.to_string())
}

/// A file that sets one key to what stands there, and has a backend.
fn file_with(key: &Key, value: &str) -> String {
    match (key.section, key.name) {
        ("backends", "url") => format!("[backends.a]\nurl = {value}\n"),
        ("backends", name) => format!("{GOOD}{name} = {value}\n"),
        ("discovery", name) if !key.has_default() => {
            format!("{GOOD}[discovery.a]\n{name} = {value}\n")
        }
        ("discovery", name) => format!("{GOOD}[discovery.a]\ndns = \"d:1\"\n{name} = {value}\n"),
        (section, name) => format!("[{section}]\n{name} = {value}\n{GOOD}"),
    }
}

#[test]
fn every_good_file_is_good_to_the_schema() {
    let schema = config::schema();
    let mut good: Vec<String> = Vec::new();
    for folder in
        ["config", "deploy/compose", "deploy/kubernetes/fleet", "deploy/kubernetes/sidecar"]
    {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "toml") {
                good.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    assert!(3 < good.len());
    let template = config::template();
    good.push(template.clone());
    good.push(
        template
            .lines()
            .map(|it| {
                let key = it.strip_prefix('#').filter(|key| !key.starts_with(' '));
                format!("{}\n", key.unwrap_or(it))
            })
            .collect(),
    );
    for key in KEYS.iter().filter(|key| key.has_default()) {
        let text = file_with(key, &key.default_in_toml());
        loads(&text).unwrap();
        good.push(text);
    }
    good.push(format!(
        "{GOOD}[backends.a.headers]\nX-Key = \"a\"\nX-File.file = \"/run/secrets/x\"\n"
    ));
    good.push(format!(
        "{GOOD}headers = [\"X-Key: a\"]\n[backends.\"gpu.a:1\"]\nurl = \"HTTP://b\"\n"
    ));
    for place in [
        "dns = \"comfyui.example.:8188\"\nresolver = \"127.0.0.1:5353\"",
        "srv = \"_comfyui._tcp.example\"\nweight = 2",
        "kubernetes = { namespace = \"a\", service = \"b\", port = 8188 }",
        "kubernetes = { service = \"b\", port = \"http\" }",
        "kubernetes = \"a/b:8188\"",
    ] {
        let text = format!("[discovery.gpus]\n{place}\n");
        loads(&text).unwrap();
        good.push(text);
    }
    // The URL may come from the environment.
    good.push("[backends.a]\nweight = 2\n".to_owned());
    for text in good {
        assert_eq!(validate(&schema, &as_json(&text)), Ok(()), "{text}");
    }
}

#[test]
fn a_file_with_a_wrong_type_range_or_name_is_bad_to_the_schema() {
    let schema = config::schema();
    let wrong = [
        "[server]\nworker = 1\n",
        "[sever]\nworkers = 1\n",
        "server = 1\n",
        "[server]\nworkers = 2000\n",
        "[server]\nworkers = -1\n",
        "[server]\nworkers = \"4\"\n",
        "[server]\nworkers = 1.5\n",
        "[server]\nlisten = \"nowhere\"\n",
        "[server]\nlisten = 8180\n",
        "[server]\nidle_timeout = 75\n",
        "[server]\nidle_timeout = \"75\"\n",
        "[server]\nidle_timeout = \"3 weeks\"\n",
        "[server]\nallow_manager = \"yes\"\n",
        "[server]\nallowed_origins = \"https://app.example\"\n",
        "[server]\ntrusted_proxies = [7]\n",
        "[server]\nmax_header_bytes = 1\n",
        "[server]\nmax_header_bytes = \"64 lots\"\n",
        "[server]\npassthrough = true\n",
        "[log]\nformat = \"jsn\"\n",
        "[admin]\ntoken = 12345\n",
        "[admin]\ntoken = \"s3 cret\"\n",
        "[backends]\na = \"http://a:1\"\n",
        "[[backends]]\nurl = \"http://a:1\"\n",
        "[backends.\"gpu c\"]\nurl = \"http://a:1\"\n",
        "[backends.a]\nurl = \"gpu-c:8188\"\n",
        "[backends.a]\nurl = \"ftp://a:1\"\n",
        "[backends.a]\nurl = \"http://me:secret@a:1\"\n",
        "[backends.a]\nurl = \"http://a:1\"\nweight = 0\n",
        "[backends.a]\nurl = \"http://a:1\"\ncolour = 0\n",
        "[backends.a]\nurl = \"http://a:1\"\nheaders = \"X-Key: a\"\n",
        "[backends.a]\nurl = \"http://a:1\"\nheaders = { X-Key = 7 }\n",
        "[backends.a]\nurl = \"http://a:1\"\nheaders = { X-Key = { fil = \"/x\" } }\n",
    ];
    for text in wrong {
        assert!(validate(&schema, &as_json(text)).is_err(), "{text}");
        assert!(loads(text).is_err(), "{text}");
    }
}

/// A value in the form of a file, right or wrong.
fn a_value(key: Key) -> BoxedStrategy<String> {
    let spans =
        "[ ]?[0-9]{1,3}(\\.[0-9]{1,2})?[ ]?(d|h|hours|m|min|s|secs|ms|x|)[ ]?([0-9]{1,2}(s|ms))?";
    let sizes = "[0-9]{1,4}(\\.5)?[ ]?(|b|B|bytes|k|K|kB|KiB|mib|MB|m|G|GiB|tib|x)";
    let quoted = |text: String| Value::from(text).to_string();
    let texts = prop_oneof![
        spans.prop_map(quoted),
        sizes.prop_map(quoted),
        "(localhost|127\\.0\\.0\\.1|\\[::1\\]| |):[0-9]{1,5}".prop_map(quoted),
        "[a-z:=,/.]{0,12}".prop_map(quoted),
        "(http|HTTP|https)://[a-z0-9.:@/-]{1,9}".prop_map(quoted),
        Just(quoted(key.default.to_owned())),
    ];
    let numbers = prop_oneof![
        (-2_i64..3000).prop_map(|it| it.to_string()),
        any::<i64>().prop_map(|it| it.to_string())
    ];
    match key.shape {
        Shape::List => prop_oneof![
            proptest::collection::vec("[A-Za-z]{1,5}: ?[a-z]{1,5}|[0-9.]{7,9}/8|[a-z]{1,9}", 0..3)
                .prop_map(|list| Value::from(list).to_string()),
            texts,
        ]
        .boxed(),
        Shape::Text | Shape::Number | Shape::TextOrNumber | Shape::Switch => {
            prop_oneof![texts, numbers, Just("true".to_owned())].boxed()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// The schema is never stricter than the loader.
    #[test]
    fn what_is_loaded_is_good_to_the_schema(
        (index, value) in (0..KEYS.len()).prop_flat_map(|at| (Just(at), a_value(KEYS[at])))
    ) {
        let text = file_with(&KEYS[index], &value);
        if loads(&text).is_ok() {
            prop_assert_eq!(validate(&config::schema(), &as_json(&text)), Ok(()), "{}", text);
        }
    }
}
