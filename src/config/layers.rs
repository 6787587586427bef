//! What goes over what? The file, then the environment, then flags.
//!
//! Names are checked before a value comes here, because only its reader knows how they were
//! written. The layers are merged by the `config` crate, which keeps for each value where it came
//! from; it keeps that as text, so ours is a number into a list of [`Origin`]s.
//!
//! Defaults are no layer: an unwritten key stays unwritten until it is checked.

use std::collections::BTreeMap;

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::keys::{self, BACKENDS, RawConfig};
use super::problems::{Notes, Origin};
use super::raw::{Item, RawNamed, Section, Written};

/// A key as it is written. Invariant: it exists, and `backend` is there if and only if the
/// section is that of backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Path {
    pub(super) section: &'static str,
    pub(super) backend: Option<String>,
    pub(super) key: &'static str,
}

/// All layers, lowest first.
#[derive(Debug, Default)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    origins: Vec<Origin>,
    /// Where each `[backends.NAME]` was written first, empty ones included.
    backends: BTreeMap<String, Origin>,
}

/// One layer as the `config` crate takes it: flat, by full names.
#[derive(Clone, Debug, Default)]
struct Layer(Map<String, Value>);

/// The crate reads top names as paths (`a.b`, `a[0]`) and inner ones as they are. Everything of
/// ours is inside, so that a backend may be called `gpu.a`.
const ROOT: &str = "mooring";

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(Map::from([(ROOT.to_owned(), Value::new(None, self.0.clone()))]))
    }
}

impl Layers {
    /// Begins a layer that goes over all before.
    pub(super) fn begin(&mut self) {
        self.layers.push(Layer::default());
    }

    /// The names of the backends so far.
    pub(super) fn backend_names(&self) -> impl Iterator<Item = &str> {
        self.backends.keys().map(String::as_str)
    }

    /// Says that a backend is there, even if nothing more is written of it.
    pub(super) fn add_backend(&mut self, name: &str, origin: &Origin) {
        self.backends.entry(name.to_owned()).or_insert_with(|| origin.clone());
    }

    /// True if that key of a backend is set in some layer.
    pub(super) fn has(&self, backend: &str, key: &str) -> bool {
        let name = format!("{BACKENDS}.{backend}.{key}");
        self.layers.iter().any(|layer| layer.0.contains_key(&name))
    }

    /// Sets a key in the newest layer.
    pub(super) fn set(&mut self, path: &Path, written: Written) {
        let name = match &path.backend {
            Some(backend) => {
                self.add_backend(backend, &written.origin);
                format!("{BACKENDS}.{backend}.{}", path.key)
            }
            None => format!("{}.{}", path.section, path.key),
        };
        let value = self.value(written);
        if let Some(layer) = self.layers.last_mut() {
            layer.0.insert(name, value);
        }
    }

    fn value(&mut self, written: Written) -> Value {
        let index = self.origins.len().to_string();
        self.origins.push(written.origin);
        let kind = match written.item {
            Item::Text(text) => ValueKind::String(text),
            Item::Number(number) => ValueKind::I128(number),
            Item::Switch(value) => ValueKind::Boolean(value),
            Item::List(list) => {
                ValueKind::Array(list.into_iter().map(|entry| self.value(entry)).collect())
            }
            Item::Other => ValueKind::Nil,
        };
        Value::new(Some(&index), kind)
    }

    /// Lays the layers over one another.
    pub(super) fn merge(self, notes: &mut Notes) -> RawConfig {
        let mut builder = config::Config::builder();
        for layer in self.layers {
            builder = builder.add_source(layer);
        }
        let merged = match builder.build().and_then(|it| it.cache.into_table()) {
            Ok(mut root) => root.remove(ROOT).and_then(|it| it.into_table().ok()),
            // Flat tables, which the crate cannot fail to merge.
            Err(error) => {
                notes.report_at(None, "", error.to_string());
                None
            }
        };
        let origins = &self.origins;
        let mut section: Section = merged
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name, written(value, origins)?)))
            .collect();
        RawConfig {
            server: keys::server("server", &mut section),
            admin: keys::admin("admin", &mut section),
            affinity: keys::affinity("affinity", &mut section),
            fleet: keys::fleet("fleet", &mut section),
            prompts: keys::prompts("prompts", &mut section),
            files: keys::files("files", &mut section),
            sockets: keys::sockets("sockets", &mut section),
            isolation: keys::isolation("isolation", &mut section),
            state: keys::state("state", &mut section),
            log: keys::log("log", &mut section),
            backends: named(self.backends, &mut section),
        }
    }
}

fn named(backends: BTreeMap<String, Origin>, section: &mut Section) -> Vec<RawNamed> {
    let read = |(name, origin): (String, Origin)| {
        let backend = keys::backend(&format!("{BACKENDS}.{name}"), section);
        RawNamed { name, origin, backend }
    };
    backends.into_iter().map(read).collect()
}

/// A merged value with its place; `None` for one that has none, which no layer makes.
fn written(value: Value, origins: &[Origin]) -> Option<Written> {
    let origin = origins.get(value.origin()?.parse::<usize>().ok()?)?.clone();
    let item = match value.kind {
        ValueKind::String(text) => Item::Text(text),
        ValueKind::Boolean(value) => Item::Switch(value),
        ValueKind::I128(number) => Item::Number(number),
        ValueKind::I64(number) => Item::Number(number.into()),
        ValueKind::U64(number) => Item::Number(number.into()),
        ValueKind::Array(list) => {
            Item::List(list.into_iter().filter_map(|entry| written(entry, origins)).collect())
        }
        ValueKind::Nil | ValueKind::Float(_) | ValueKind::Table(_) | ValueKind::U128(_) => {
            Item::Other
        }
    };
    Some(Written { item, origin })
}
