//! Merges the layers of the configuration: the file, then the environment, then flags.
//!
//! Names are checked before a value comes here, because only its reader knows how they were
//! written. The layers are merged by the `config` crate. It would merge nested tables and forget
//! their origins, so the values that it gets are indexes into a list of ours.
//!
//! Defaults are not a layer: an unwritten key stays unwritten until it is checked.

use std::collections::BTreeMap;

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::keys::{self, BACKENDS, DISCOVERY};
use super::problems::{Notes, Origin};
use super::raw::{RawConfig, RawNamed, RawPlace, Section, Written};

/// A key as it is written. Invariant: the key exists, and `table` is set exactly if the section
/// consists of named tables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Path {
    pub(super) section: &'static str,
    pub(super) table: Option<String>,
    pub(super) key: &'static str,
}

impl Path {
    pub(super) fn full_name(&self) -> String {
        match &self.table {
            Some(table) => format!("{}.{table}.{}", self.section, self.key),
            None => format!("{}.{}", self.section, self.key),
        }
    }
}

/// All layers, the lowest first.
#[derive(Debug, Default)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    written: Vec<Written>,
    /// All named tables, such as `[backends.NAME]`, including empty ones.
    tables: Tables,
}

/// One layer as the `config` crate takes it: flat, by full names.
#[derive(Clone, Debug, Default)]
struct Layer(Map<String, Value>);

/// The crate reads top-level names as paths (`a.b`, `a[0]`) and nested ones literally. All our
/// names are nested, so that a backend may be called `gpu.a`.
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
    /// Begins a new layer above all others.
    pub(super) fn begin(&mut self) {
        self.layers.push(Layer::default());
    }

    /// The names of the tables of a section so far.
    pub(super) fn names<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a str> {
        let of_section = self.tables.keys().filter(move |(it, _)| *it == section);
        of_section.map(|(_, name)| name.as_str())
    }

    /// Where a named table was first written.
    pub(super) fn table_origin(&self, section: &'static str, name: &str) -> Option<&Origin> {
        self.tables.get(&(section, name.to_owned()))
    }

    /// Where a key of the newest layer was written.
    pub(super) fn origin(&self, path: &Path) -> Option<&Origin> {
        let value = self.layers.last()?.0.get(&path.full_name())?;
        Some(&self.written.get(index(value.clone())?)?.origin)
    }

    /// Records that a named table exists, even if it is empty.
    pub(super) fn add_table(&mut self, section: &'static str, name: &str, origin: &Origin) {
        self.tables.entry((section, name.to_owned())).or_insert_with(|| origin.clone());
    }

    /// True if any layer sets that key of a backend.
    pub(super) fn has(&self, backend: &str, key: &str) -> bool {
        let name = format!("{BACKENDS}.{backend}.{key}");
        self.layers.iter().any(|layer| layer.0.contains_key(&name))
    }

    /// Sets a key in the newest layer.
    pub(super) fn set(&mut self, path: &Path, written: Written) {
        if let Some(table) = &path.table {
            self.add_table(path.section, table, &written.origin);
        }
        let name = path.full_name();
        let index = u64::try_from(self.written.len()).unwrap_or(u64::MAX);
        self.written.push(written);
        if let Some(layer) = self.layers.last_mut() {
            layer.0.insert(name, Value::new(None, ValueKind::U64(index)));
        }
    }

    /// Merges the layers.
    pub(super) fn merge(self, notes: &mut Notes) -> RawConfig {
        let mut builder = config::Config::builder();
        for layer in self.layers {
            builder = builder.add_source(layer);
        }
        let merged = match builder.build().and_then(|it| it.cache.into_table()) {
            Ok(mut root) => root.remove(ROOT).and_then(|it| it.into_table().ok()),
            // Merging flat tables cannot fail.
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
            server_tls: keys::server_tls("server.tls", &mut section),
            admin: keys::admin("admin", &mut section),
            admin_tls: keys::admin_tls("admin.tls", &mut section),
            auth: keys::auth("auth", &mut section),
            auth_jwt: keys::auth_jwt("auth.jwt", &mut section),
            affinity: keys::affinity("affinity", &mut section),
            fleet: keys::fleet("fleet", &mut section),
            prompts: keys::prompts("prompts", &mut section),
            files: keys::files("files", &mut section),
            sockets: keys::sockets("sockets", &mut section),
            isolation: keys::isolation("isolation", &mut section),
            state: keys::state("state", &mut section),
            replicas: keys::replicas("replicas", &mut section),
            log: keys::log("log", &mut section),
            queue: keys::queue("queue", &mut section),
            limits: keys::limits("limits", &mut section),
            backends: backends(&self.tables, &mut section),
            discovery: places(&self.tables, &mut section),
        }
    }
}

/// Where each named table was first written, by its section and its name.
type Tables = BTreeMap<(&'static str, String), Origin>;

fn named<'a>(
    tables: &'a Tables,
    section: &'static str,
) -> impl Iterator<Item = (String, Origin, String)> + 'a {
    let of_section = tables.iter().filter(move |((it, _), _)| *it == section);
    of_section
        .map(move |((_, name), origin)| (name.clone(), origin.clone(), format!("{section}.{name}")))
}

fn backends(tables: &Tables, section: &mut Section) -> Vec<RawNamed> {
    let read = |(name, origin, prefix): (String, Origin, String)| {
        let backend = keys::backend(&prefix, section);
        RawNamed { name, origin, backend }
    };
    named(tables, BACKENDS).map(read).collect()
}

fn places(tables: &Tables, section: &mut Section) -> Vec<RawPlace> {
    let read = |(name, origin, prefix): (String, Origin, String)| {
        let place = keys::discovery(&prefix, section);
        RawPlace { name, origin, place }
    };
    named(tables, DISCOVERY).map(read).collect()
}

/// The index of a written value that a value of the crate stands for.
fn index(value: Value) -> Option<usize> {
    usize::try_from(value.into_uint().ok()?).ok()
}
