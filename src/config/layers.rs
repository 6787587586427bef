//! What goes over what? The file, then the environment, then flags.
//!
//! Names are checked before a value comes here, because only its reader knows how they were
//! written. The layers are merged by the `config` crate. It would lay tables into one another and
//! forget where they came from, so its values are numbers into a list of ours.
//!
//! Defaults are no layer: an unwritten key stays unwritten until it is checked.

use std::collections::BTreeMap;

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::keys::{self, BACKENDS, RawConfig};
use super::problems::{Notes, Origin};
use super::raw::{RawNamed, Section, Written};

/// A key as it is written. Invariant: it exists, and `backend` is there if and only if the
/// section is that of backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Path {
    pub(super) section: &'static str,
    pub(super) backend: Option<String>,
    pub(super) key: &'static str,
}

impl Path {
    pub(super) fn full_name(&self) -> String {
        match &self.backend {
            Some(backend) => format!("{BACKENDS}.{backend}.{}", self.key),
            None => format!("{}.{}", self.section, self.key),
        }
    }
}

/// All layers, lowest first.
#[derive(Debug, Default)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    written: Vec<Written>,
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

    /// Where a backend was written first.
    pub(super) fn backend_origin(&self, name: &str) -> Option<&Origin> {
        self.backends.get(name)
    }

    /// Where a key of the newest layer was written.
    pub(super) fn origin(&self, path: &Path) -> Option<&Origin> {
        let value = self.layers.last()?.0.get(&path.full_name())?;
        Some(&self.written.get(index(value.clone())?)?.origin)
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
        if let Some(backend) = &path.backend {
            self.add_backend(backend, &written.origin);
        }
        let name = path.full_name();
        let index = u64::try_from(self.written.len()).unwrap_or(u64::MAX);
        self.written.push(written);
        if let Some(layer) = self.layers.last_mut() {
            layer.0.insert(name, Value::new(None, ValueKind::U64(index)));
        }
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
        let mut section: Section = merged
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name, self.written.get(index(value)?)?.clone())))
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

/// Which of all that was written a value of the crate stands for; each does for one.
fn index(value: Value) -> Option<usize> {
    usize::try_from(value.into_uint().ok()?).ok()
}
