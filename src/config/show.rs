//! Shows the configuration in effect, and the source of each value.

use std::fmt::Write;

use serde_json::{Value, json};

use super::keys::{BACKENDS, DISCOVERY, KEYS, Key, is_named};
use super::problems::{Origin, Seen};
use super::{Config, StateDir, shown};

/// Every key with its effective value and where it was written. Secrets are hidden.
#[derive(Clone, Debug)]
pub struct Effective {
    keys: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    key: &'static Key,
    /// The name of its table, if its section has several.
    table: Option<String>,
    value: Value,
    origin: Option<Origin>,
    /// What a default means, if that depends on other keys.
    meaning: Option<String>,
}

impl Effective {
    /// Built from what was seen while `config` was checked.
    pub(super) fn new(seen: &Seen, config: &Config) -> Self {
        let mut keys = Vec::new();
        for key in KEYS.iter().filter(|key| !is_named(key.section)) {
            keys.extend(line(key, None, seen, config));
        }
        let backends = config.backends.iter().map(|it| (BACKENDS, &it.name));
        let places = config.discovery.iter().map(|it| (DISCOVERY, &it.name));
        for (section, name) in backends.chain(places) {
            for key in KEYS.iter().filter(|key| key.section == section) {
                keys.extend(line(key, Some(name), seen, config));
            }
        }
        Self { keys }
    }

    /// As a file with the same meaning. The source of each value is at the end of its line.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut table = String::new();
        for line in &self.keys {
            let header = line.table();
            if header != table {
                let gap = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}{header}");
                table = header;
            }
            let value = shown::toml(&line.value);
            let remark = if line.is_only_told() { "# " } else { "" };
            let _ = writeln!(text, "{remark}{} = {value}  # {}", line.key.name, line.comment());
        }
        text
    }

    /// For programs: `{"keys": [{"key", "value", "from"}]}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let keys: Vec<Value> = self.keys.iter().map(Line::to_json).collect();
        json!({ "keys": keys })
    }
}

fn line(key: &'static Key, table: Option<&str>, seen: &Seen, config: &Config) -> Option<Line> {
    let name = key.name_for(table);
    let (value, origin) = seen.get(&name)?.clone();
    let meaning = if value == "" { meaning(&name, config) } else { None };
    Some(Line { key, table: table.map(str::to_owned), value, origin, meaning })
}

fn meaning(name: &str, config: &Config) -> Option<String> {
    match (name, &config.state.dir) {
        // With several backends it may be the one that the journal remembers: `mooring check` looks
        // there.
        ("server.home", _) if config.backends.len() == 1 => Some(config.backends[0].name.clone()),
        ("state.dir", StateDir::Written(path) | StateDir::Default(path)) => {
            Some(path.display().to_string())
        }
        ("state.dir", StateDir::Unset | StateDir::Nowhere) => Some("none".to_owned()),
        _other => None,
    }
}

impl Line {
    /// True for a key that counts as a statement of the operator once it is written. The printed
    /// file must not make that statement for an operator who did not.
    fn is_only_told(&self) -> bool {
        self.origin.is_none() && self.key.full_name() == "auth.mode"
    }

    fn table(&self) -> String {
        match &self.table {
            Some(table) => format!("[{}.{}]", self.key.section, shown::key(table)),
            None => format!("[{}]", self.key.section),
        }
    }

    fn comment(&self) -> String {
        let source = match &self.origin {
            None => "default".to_owned(),
            Some(Origin::Env { name }) => format!("environment variable {name}"),
            Some(Origin::Flag { option }) => (*option).to_owned(),
            Some(origin @ Origin::Request) => origin.to_string(),
            Some(origin @ Origin::File { .. }) => origin.to_string(),
        };
        let meaning = self.meaning.as_ref().map_or_else(String::new, |it| format!(", now {it}"));
        // A line break would end the comment.
        format!("{source}{meaning}").replace(char::is_control, "\u{fffd}")
    }

    fn to_json(&self) -> Value {
        let from = match &self.origin {
            None => json!({ "kind": "default" }),
            Some(Origin::File { path, line }) => {
                json!({ "kind": "file", "file": path, "line": line })
            }
            Some(Origin::Env { name }) => json!({ "kind": "environment", "variable": name }),
            Some(Origin::Flag { option }) => json!({ "kind": "flag", "flag": option }),
            Some(Origin::Request) => json!({ "kind": "request" }),
        };
        let key = self.key.name_for(self.table.as_deref());
        let mut shown = json!({ "key": key, "value": self.value, "from": from });
        if let Some(meaning) = &self.meaning {
            shown["means"] = meaning.as_str().into();
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, effective, load};

    const TEXT: &str = r#"
[server]
listen = ":8180"
max_header_bytes = 16384
allowed_origins = [ "https://app.example", "null" ]
allow_logs = true
[admin]
token = "s3cret-token"
[affinity]
lease = "1h 30m"
[log]
level = "info,hyper=warn"
[backends."gpu.a:1"]
url = "http://gpu-a:8188"
max_pending = 7
headers = ["Authorization: Bearer s3cret-a", "X-Pod: s3cret-b"]
[backends.gpu-b]
url = "http://GPU-B"
[backends.gpu-b.headers]
"X.Odd" = "s3cret-c"
X-File = { file = "SECRET" }
"#;

    struct Given {
        sources: Sources,
        file: tempfile::NamedTempFile,
        _secret: tempfile::NamedTempFile,
    }

    fn given() -> Given {
        let [file, secret] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        std::fs::write(secret.path(), "s3cret-d\n").unwrap();
        let text = TEXT.replace("SECRET", &secret.path().display().to_string());
        std::fs::write(file.path(), text).unwrap();
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let sources = Sources {
            file: Some(file.path().to_owned()),
            env: pairs(&[
                ("MOORING_SERVER__WORKERS", " 03 "),
                ("MOORING_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
                ("MOORING_SERVER__ALLOW_FREE", "Yes"),
                ("MOORING_BACKENDS__GPU_1__WEIGHT", "2"),
                ("MOORING_BACKENDS__GPU_1__HEADERS", "X-Env: s3cret-e\n# no\nX-Two: s3cret-f"),
            ]),
            backends: vec!["http://10.0.0.9:8188".to_owned()],
            flags: pairs(&[
                ("--admin-listen", "0.0.0.0:8181"),
                ("--auth", "off"),
                ("prompts.max_body", "1 MiB"),
                ("sockets.output_classes", ""),
            ]),
        };
        Given { sources, file, _secret: secret }
    }

    #[test]
    fn each_value_is_shown_with_where_it_comes_from() {
        let given = given();
        let shown = effective(&given.sources).unwrap().to_toml();
        let shown = shown.replace(&given.file.path().display().to_string(), "FILE");
        for line in [
            "[server]",
            "listen = \":8180\"  # FILE:3",
            "workers = 3  # environment variable MOORING_SERVER__WORKERS",
            "max_connections = 10000  # default",
            "max_header_bytes = 16384  # FILE:4",
            "allowed_origins = [\"https://app.example\", \"null\"]  # FILE:5",
            "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]  # environment variable \
             MOORING_SERVER__TRUSTED_PROXIES",
            "allow_free = true  # environment variable MOORING_SERVER__ALLOW_FREE",
            "home = \"\"  # default",
            "listen = \"0.0.0.0:8181\"  # --admin-listen",
            "token = \"(hidden)\"  # FILE:8",
            "token_file = \"\"  # default",
            "mode = \"off\"  # --auth",
            "max_body = \"1 MiB\"  # --set",
            "output_classes = []  # --set",
            "[backends.\"gpu.a:1\"]",
            "headers = [\"Authorization: (hidden)\", \"X-Pod: (hidden)\"]  # FILE:16",
            "[backends.gpu-1]",
            "url = \"http://10.0.0.9:8188\"  # --backend",
            "headers = [\"X-Env: (hidden)\", \"X-Two: (hidden)\"]  # environment variable \
             MOORING_BACKENDS__GPU_1__HEADERS",
        ] {
            assert!(shown.lines().any(|it| it == line), "no line `{line}` in\n{shown}");
        }
        let file = shown.lines().find(|it| it.contains("X-File")).unwrap();
        assert!(file.contains("X-File = { file = \"/"), "{file}");
        assert!(file.contains("\"X.Odd\" = \"(hidden)\""), "{file}");
    }

    #[test]
    fn what_is_shown_can_be_loaded_and_is_the_same_but_for_secrets() {
        let given = given();
        let meant = load(&given.sources).unwrap();
        let shown = effective(&given.sources).unwrap();
        let again = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(again.path(), shown.to_toml()).unwrap();
        let file = Some(again.path().to_owned());
        let mut loaded = load(&Sources { file, ..Sources::default() }).unwrap();
        assert!(loaded.admin.token.is_some(), "a secret that is there is shown as one");
        loaded.admin.token = meant.admin.token.clone();
        for (shown, meant) in loaded.backends.iter_mut().zip(&meant.backends) {
            let names = |it: &crate::config::BackendHeaders| -> Vec<String> {
                it.as_map().keys().map(ToString::to_string).collect()
            };
            assert_eq!(names(&shown.headers).len(), names(&meant.headers).len());
            shown.headers = meant.headers.clone();
        }
        assert_eq!(loaded, meant);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let given = given();
        let shown = effective(&given.sources).unwrap();
        let all = format!("{}{}{shown:?}", shown.to_toml(), shown.to_json());
        assert!(!all.contains("s3cret"), "{all}");
    }

    #[test]
    fn programs_are_told_the_same() {
        let given = given();
        let told = effective(&given.sources).unwrap().to_json();
        let of = |key: &str| {
            let keys = told["keys"].as_array().unwrap();
            keys.iter().find(|it| it["key"] == key).unwrap().clone()
        };
        let env = json!({ "kind": "environment", "variable": "MOORING_SERVER__WORKERS" });
        assert_eq!(
            of("server.workers"),
            json!({ "key": "server.workers", "value": 3, "from": env })
        );
        assert_eq!(of("affinity.lease")["from"]["line"], 10);
        assert_eq!(of("backends.gpu-1.url")["from"]["flag"], "--backend");
        assert_eq!(of("server.max_headers")["from"], json!({ "kind": "default" }));
        assert!(of("server.home").get("means").is_none(), "the journal may remember another");
        let count = KEYS.iter().filter(|key| !is_named(key.section)).count();
        let each = KEYS.iter().filter(|key| key.section == BACKENDS).count();
        assert_eq!(told["keys"].as_array().unwrap().len(), count + 3 * each, "every key");
    }

    #[test]
    fn no_name_ends_the_comment_that_it_stands_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a\nb.toml");
        std::fs::write(&path, "[backends.a]\nurl = \"http://a:1\"\n").unwrap();
        let shown = effective(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap();
        std::fs::write(&path, shown.to_toml()).unwrap();
        assert!(load(&Sources { file: Some(path), ..Sources::default() }).is_ok());
    }
}
