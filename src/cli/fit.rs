//! Checks whether servers fit into one fleet: how they were started and installed. It reports
//! differences that matter, and resources that they share but should not.
//!
//! Pure. Their nodes and models are compared by [`super::inventory`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What one server reports about itself. What it does not report is `None` and is not compared.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Setup {
    /// Its host, without the port.
    pub(super) host: String,
    pub(super) version: Option<String>,
    /// The flags of `GET /features` that are on, by their paths.
    pub(super) flags: Option<BTreeSet<String>>,
    pub(super) is_multi_user: Option<bool>,
    /// The first folder of its node packs, which is different for each installation.
    pub(super) packs: Option<String>,
    /// Its command line.
    pub(super) arguments: Vec<String>,
}

impl Setup {
    /// Reads the answers of `GET /system_stats`, `/features`, `/users` and
    /// `/internal/folder_paths`. Some servers have only the first of them.
    pub(super) fn read(
        host: &str,
        stats: &Value,
        features: Option<&Value>,
        users: Option<&Value>,
        folders: Option<&Value>,
    ) -> Self {
        let system = &stats["system"];
        let words = system["argv"].as_array().into_iter().flatten();
        Self {
            host: host.to_owned(),
            version: system["comfyui_version"].as_str().map(str::to_owned),
            flags: features.and_then(Value::as_object).map(|_| {
                let mut found = BTreeSet::new();
                flags(features.unwrap_or(&Value::Null), "", &mut found);
                found
            }),
            // With several users the answer lists them. With one it only says whether the settings
            // were migrated.
            is_multi_user: users.and_then(Value::as_object).map(|it| it.contains_key("users")),
            packs: folders.and_then(|it| it["custom_nodes"][0].as_str()).map(str::to_owned),
            arguments: words.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// The value of a long option, written `--name value` or `--name=value`.
    fn option(&self, name: &str) -> Option<&str> {
        let mut words = self.arguments.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if word == name {
                return words.next();
            }
            if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value);
            }
        }
        None
    }
}

/// The paths of all flags that are on. Numbers and texts are not flags.
fn flags(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Bool(true) => {
            found.insert(path.to_owned());
        }
        Value::Object(object) => {
            for (name, value) in object {
                let dot = if path.is_empty() { "" } else { "." };
                flags(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Bool(false)
        | Value::Null
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_) => {}
    }
}

/// What does not fit together, one line each. Empty if everything fits.
pub(super) fn warnings(servers: &[(&str, &Setup)]) -> Vec<String> {
    let mut lines = Vec::new();
    let versions = by(servers, |it| it.version.clone());
    lines.extend(differ("versions", &versions, "a client may meet any of them"));
    lines.extend(of_flags(servers));
    let users =
        by(servers, |it| it.is_multi_user.map(|many| if many { "on" } else { "off" }.to_owned()));
    lines.extend(differ("`--multi-user`", &users, "a user of one is unknown to the others"));
    if users.contains_key("on") && 1 < servers.len() {
        lines.push(
            "`--multi-user`: each server gives its users its own ids; the page shows the users \
             of the home"
                .to_owned(),
        );
    }
    let packs = by(servers, |it| it.packs.clone());
    let why = "the ids of blueprints depend on this path";
    lines.extend(differ("install folders", &packs, why));
    lines.extend(shared(servers));
    lines
}

/// The names of the servers with each value.
fn by<'a>(
    servers: &[(&'a str, &Setup)],
    of: impl Fn(&Setup) -> Option<String>,
) -> BTreeMap<String, Vec<&'a str>> {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, setup) in servers {
        if let Some(value) = of(setup) {
            groups.entry(value).or_default().push(name);
        }
    }
    groups
}

fn differ(what: &str, groups: &BTreeMap<String, Vec<&str>>, why: &str) -> Option<String> {
    let told: Vec<String> =
        groups.iter().map(|(value, names)| format!("{value} on {}", names.join(", "))).collect();
    (1 < told.len()).then(|| format!("{what} differ: {}; {why}", told.join("; ")))
}

fn of_flags(servers: &[(&str, &Setup)]) -> Vec<String> {
    let sets: Vec<(&str, &BTreeSet<String>)> =
        servers.iter().filter_map(|(name, it)| Some((*name, it.flags.as_ref()?))).collect();
    let all: BTreeSet<&String> = sets.iter().flat_map(|(_, flags)| *flags).collect();
    let lacking = |flag: &String| -> Vec<&str> {
        sets.iter().filter(|(_, flags)| !flags.contains(flag)).map(|(name, _)| *name).collect()
    };
    let line = |flag: &String| {
        let names = lacking(flag);
        (!names.is_empty()).then(|| {
            let names = names.join(", ");
            format!("flag `{flag}` is off on {names}: no page gets it while they are up")
        })
    };
    all.into_iter().filter_map(line).collect()
}

/// Servers of one installation on one host share the temp folder and the database, unless their
/// options say otherwise.
fn shared(servers: &[(&str, &Setup)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, (name, one)) in servers.iter().enumerate() {
        for (other_name, other) in &servers[index + 1..] {
            let same = |of: fn(&Setup) -> Option<&str>| of(one) == of(other);
            let is_one_folder = one.packs.is_some() && one.packs == other.packs;
            if one.host != other.host || !is_one_folder {
                continue;
            }
            let base = same(|it| it.option("--base-directory"));
            if base && same(|it| it.option("--temp-directory")) {
                lines.push(format!(
                    "{name} and {other_name} share a temp folder, and each empties it when it \
                     starts: give each its own `--temp-directory`"
                ));
            }
            if same(|it| it.option("--database-url")) {
                lines.push(format!(
                    "{name} and {other_name} share a database: with `--enable-assets` the second \
                     of them does not start; give each its own `--database-url`"
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn setup(version: &str, packs: &str, flags: &[&str], arguments: &[&str]) -> Setup {
        let features: serde_json::Map<String, Value> =
            flags.iter().map(|flag| ((*flag).to_owned(), json!(true))).collect();
        let stats = json!({"system": {"comfyui_version": version, "argv": arguments}});
        let users = json!({"storage": "server", "migrated": true});
        let folders = json!({"custom_nodes": [packs, "/elsewhere"]});
        let features = Value::Object(features);
        Setup::read("10.0.0.1", &stats, Some(&features), Some(&users), Some(&folders))
    }

    #[test]
    fn alike_servers_of_their_own_folders_need_no_word_but_of_the_folders() {
        let one = setup("0.33.0", "/a/custom_nodes", &["assets"], &["main.py"]);
        let two = Setup { host: "10.0.0.2".into(), ..one.clone() };
        assert!(warnings(&[("a", &one), ("b", &two)]).is_empty());
        assert!(warnings(&[("a", &one)]).is_empty());
        let two = setup("0.33.0", "/b/custom_nodes", &["assets"], &["main.py"]);
        let lines = warnings(&[("a", &one), ("b", &two)]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("install folders differ: /a/custom_nodes on a; /b/"));
    }

    #[test]
    fn what_differs_is_named_with_what_follows() {
        let one = setup("0.33.0", "/x", &["assets", "node_replacements"], &[]);
        let mut two = setup("0.8.0", "/x", &["node_replacements"], &[]);
        two.host = "10.0.0.2".into();
        two.is_multi_user = Some(true);
        let silent = Setup { host: "10.0.0.3".into(), ..Setup::default() };
        assert_eq!(
            warnings(&[("a", &one), ("b", &two), ("c", &silent)]),
            [
                "versions differ: 0.33.0 on a; 0.8.0 on b; a client may meet any of them",
                "flag `assets` is off on b: no page gets it while they are up",
                "`--multi-user` differ: off on a; on on b; a user of one is unknown to the others",
                "`--multi-user`: each server gives its users its own ids; the page shows the users \
                 of the home",
            ]
        );
    }

    #[test]
    fn what_two_servers_of_one_folder_share_is_said() {
        let alone = ["--temp-directory", "/t1", "--database-url=sqlite:///one.db"];
        let one = setup("0.33.0", "/x", &[], &["main.py", "--port", "8188"]);
        let two = setup("0.33.0", "/x", &[], &["main.py", "--port", "8189"]);
        let lines = warnings(&[("a", &one), ("b", &two)]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("a and b share a temp folder"), "{lines:?}");
        assert!(lines[1].starts_with("a and b share a database"), "{lines:?}");
        let apart = setup("0.33.0", "/x", &[], &alone);
        assert!(warnings(&[("a", &one), ("b", &apart)]).is_empty());
        let based = setup("0.33.0", "/x", &[], &["--base-directory", "/other"]);
        let lines = warnings(&[("a", &one), ("b", &based)]);
        assert!(lines.iter().all(|line| line.contains("database")), "{lines:?}");
    }

    #[test]
    fn flags_within_flags_are_found_and_limits_are_none() {
        let features = json!({"a": true, "b": false, "max": 5, "extension": {"m": {"v4": true}}});
        let read = Setup::read("h", &json!({}), Some(&features), None, None);
        let flags: Vec<_> = read.flags.unwrap().into_iter().collect();
        assert_eq!(flags, ["a", "extension.m.v4"]);
        assert_eq!(read.is_multi_user, None);
        let many = Setup::read("h", &json!({}), None, Some(&json!({"users": {}})), None);
        assert_eq!((many.is_multi_user, many.flags), (Some(true), None));
    }
}
