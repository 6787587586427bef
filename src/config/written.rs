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

/// Reads `--backend URL` into the newest layer.
pub(super) fn backends(urls: &[String], layers: &mut Layers, notes: &mut Notes) {
    for text in urls {
        let address = match url::backend(text) {
            Ok(address) => address,
            Err(bad) => {
                notes.report_at(Some(Origin::Flag), "--backend", bad.about(text));
                continue;
            }
        };
        let name = format!("{}:{}", address.host, address.port);
        if names::check_backend_name(&name).is_err() {
            let what = format!(
                "`{name}` is too long for a name, write `--set {BACKENDS}.NAME.url={text}`"
            );
            notes.report_at(Some(Origin::Flag), "--backend", what);
        } else if layers.backend_names().any(|it| it == name) {
            notes.report_at(Some(Origin::Flag), "--backend", format!("`{name}` is listed twice"));
        } else {
            let path = Path { section: BACKENDS, backend: Some(name), key: "url" };
            let item = Item::Text(text.clone());
            layers.set(&path, Written { item, origin: Origin::Flag });
        }
    }
}
