//! Reads keys from the environment and from flags, where everything is text.

use super::keys::BACKENDS;
use super::layers::{Layers, Path};
use super::names::{self, Variable};
use super::problems::{Notes, Origin};
use super::raw::{Item, Written};
use super::url;

/// The key that makes a backend.
const URL: &str = "url";

/// Which variables are read in this turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// Those that may make a backend: its URL.
    Urls,
    Others,
}

/// Reads the variables that are our keys into the newest layer.
///
/// Names in the environment have no hyphens, dots or lower case letters, so which backend a
/// variable means depends on which backends exist. Hence the turns. Backends of the file, of
/// `--set`, and with a URL of their own are known before a `--backend` is named, and all are known
/// before the rest is read.
pub(super) fn environment(
    env: &[(String, String)],
    turn: Turn,
    layers: &mut Layers,
    notes: &mut Notes,
) {
    let is_url = |name: &str| name.to_ascii_lowercase().ends_with("__url");
    for (name, value) in env.iter().filter(|(name, _)| is_url(name) == (turn == Turn::Urls)) {
        let origin = Origin::Env { name: name.clone() };
        match names::variable(name, |section| layers.names(section).collect()) {
            Ok(Variable::Other) => {}
            Ok(Variable::Key(path)) => {
                layers.set(&path, Written { item: Item::Text(value.clone()), origin });
            }
            Err(bad) => notes.report_at(Some(origin), "", bad.to_string()),
        }
    }
}

/// Options that set one key, and that key.
const OPTIONS: &[(&str, &str)] = &[
    ("--listen", "server.listen"),
    ("--admin-listen", "admin.listen"),
    ("--auth", "auth.mode"),
    ("--workers", "server.workers"),
];

const SET: Origin = Origin::Flag { option: "--set" };
const BACKEND: Origin = Origin::Flag { option: "--backend" };

/// Reads `--set section.key=value` and similar options into the newest layer. An option that sets
/// one key appears under its own name.
pub(super) fn flags(flags: &[(String, String)], layers: &mut Layers, notes: &mut Notes) {
    for (name, value) in flags {
        let option = OPTIONS.iter().find(|(option, _)| option == name);
        let (origin, name) = match option {
            Some((option, key)) => (Origin::Flag { option }, *key),
            None => (SET, name.as_str()),
        };
        match names::dotted(name) {
            Ok(path) => layers.set(&path, Written { item: Item::Text(value.clone()), origin }),
            Err(bad) => notes.report_at(Some(origin), name, bad.to_string()),
        }
    }
}

/// Records the backends that `--set` names, so that the environment can name them too. Returns
/// those without a URL there; `--backend` may make them.
pub(super) fn names_of_flags(flags: &[(String, String)], layers: &mut Layers) -> Vec<String> {
    // Invalid names are reported when the flags are read.
    let paths: Vec<Path> = flags.iter().filter_map(|(name, _)| names::dotted(name).ok()).collect();
    let has_url = |backend: &str| {
        let mut of_backends = paths.iter().filter(|path| path.section == BACKENDS);
        of_backends.any(|path| path.table.as_deref() == Some(backend) && path.key == URL)
    };
    let mut without = Vec::new();
    for path in &paths {
        let Some(name) = path.table.as_deref() else { continue };
        let is_new = || !layers.names(path.section).any(|it| it == name);
        if path.section == BACKENDS && !has_url(name) && is_new() {
            without.push(name.to_owned());
        }
        layers.add_table(path.section, name, &SET);
    }
    without
}

/// Names each `--backend URL` `gpu-1`, `gpu-2`, … in their order, and records it. Returns the URLs
/// by name. Clients see and keep these names, so they contain no host and port.
///
/// `unmade` are backends of `--set` without a URL there.
pub(super) fn named(
    urls: &[String],
    unmade: &[String],
    layers: &mut Layers,
    notes: &mut Notes,
) -> Vec<(String, String)> {
    let unmade: Vec<&String> = unmade.iter().filter(|it| !layers.has(it, URL)).collect();
    let mut taken: Vec<String> = layers.names(BACKENDS).map(names::folded).collect();
    taken.retain(|it| !unmade.iter().any(|name| names::folded(name) == *it));
    let mut named = Vec::new();
    for text in urls {
        if let Err(bad) = url::backend(text) {
            notes.report_at(Some(BACKEND), "--backend", bad.about(text));
            continue;
        }
        let name = free_name(&taken);
        layers.add_table(BACKENDS, &name, &BACKEND);
        taken.push(names::folded(&name));
        named.push((name, text.clone()));
    }
    named
}

/// Sets the URLs of `--backend` in the newest layer.
pub(super) fn backends(named: Vec<(String, String)>, layers: &mut Layers) {
    for (name, url) in named {
        let path = Path { section: BACKENDS, table: Some(name), key: URL };
        layers.set(&path, Written { item: Item::Text(url), origin: BACKEND });
    }
}

/// The first of `gpu-1`, `gpu-2`, … that is free. Names that the environment cannot tell apart
/// count as the same.
fn free_name(taken: &[String]) -> String {
    let is_free = |name: &String| !taken.contains(&names::folded(name));
    // Only finitely many names are taken.
    (1_u64..).map(|number| format!("gpu-{number}")).find(is_free).unwrap_or_default()
}
