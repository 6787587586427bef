//! What stands in the environment and in flags? Text without types.

use super::keys::BACKENDS;
use super::layers::{Layers, Path};
use super::names::{self, Variable};
use super::problems::{Notes, Origin};
use super::raw::{Item, Written};
use super::url;

/// Reads the variables that are keys of ours into the newest layer.
pub(super) fn environment(env: &[(String, String)], layers: &mut Layers, notes: &mut Notes) {
    for (name, value) in env {
        let origin = Origin::Env { name: name.clone() };
        match names::variable(name, layers.backend_names()) {
            Ok(Variable::Other) => {}
            Ok(Variable::Key(path)) => {
                layers.set(&path, Written { item: Item::Text(value.clone()), origin });
            }
            Err(bad) => notes.report_at(Some(origin), "", bad.to_string()),
        }
    }
}

/// Reads `--set section.key=value` and its like into the newest layer.
pub(super) fn flags(flags: &[(String, String)], layers: &mut Layers, notes: &mut Notes) {
    for (name, value) in flags {
        match names::dotted(name) {
            Ok(path) => {
                let item = Item::Text(value.clone());
                layers.set(&path, Written { item, origin: Origin::Flag });
            }
            Err(bad) => notes.report_at(Some(Origin::Flag), name, bad.to_string()),
        }
    }
}

/// Reads `--backend URL` into the newest layer. Each is named `gpu-1`, `gpu-2`, … in their order:
/// names stand in what clients are told and keep, where no host and port belong.
pub(super) fn backends(urls: &[String], layers: &mut Layers, notes: &mut Notes) {
    for text in urls {
        if let Err(bad) = url::backend(text) {
            notes.report_at(Some(Origin::Flag), "--backend", bad.about(text));
            continue;
        }
        let name = free_name(layers);
        let path = Path { section: BACKENDS, backend: Some(name), key: "url" };
        let item = Item::Text(text.clone());
        layers.set(&path, Written { item, origin: Origin::Flag });
    }
}

/// The first of `gpu-1`, `gpu-2`, … that no backend has.
fn free_name(layers: &Layers) -> String {
    let is_free = |name: &String| !layers.backend_names().any(|it| it == name);
    // There are finitely many names that are taken.
    (1_u64..).map(|number| format!("gpu-{number}")).find(is_free).unwrap_or_default()
}
