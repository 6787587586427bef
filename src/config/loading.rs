//! From where is the configuration read, and in which order?

use std::net::SocketAddr;
use std::path::PathBuf;

use super::keys::RawConfig;
use super::layers::Layers;
use super::problems::Notes;
use super::{AdminConfig, Config, Effective, Problem, Problems, file, place, rules, written};

/// Where a gateway listens, and what its operators need to be let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Doors {
    pub front: SocketAddr,
    pub admin: AdminConfig,
}

/// Where a configuration comes from, lowest layer first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file, or a folder whose `*.toml` are read one after the other.
    pub file: Option<PathBuf>,
    /// Names and values of the environment; those that are not ours are left alone.
    pub env: Vec<(String, String)>,
    /// URLs of backends that are named `gpu-1`, `gpu-2`, … in their order.
    pub backends: Vec<String>,
    /// Keys in dotted notation and their values, which go over all else.
    pub flags: Vec<(String, String)>,
}

/// What was read, with what deserves a word of it.
#[derive(Debug)]
pub struct Checked {
    /// The configuration, or every problem there is.
    pub config: Result<Config, Problems>,
    /// What is no problem, but may not be meant.
    pub warnings: Vec<Problem>,
    /// The files and folders that were read, or could not be: that of the configuration, and those
    /// of its secrets. What happens to one of them may be another configuration.
    pub files: Vec<PathBuf>,
}

/// Reads and checks a configuration. Reads its files and those of its secrets, and nothing else. It
/// can be called again with the same sources: it then says what they have become.
///
/// # Errors
/// Every problem there is.
pub fn load(sources: &Sources) -> Result<Config, Problems> {
    check(sources).config
}

/// As [`load`], with warnings and with the files that were read.
#[must_use]
pub fn check(sources: &Sources) -> Checked {
    let (config, mut notes) = noted(sources);
    let warnings = std::mem::take(&mut notes.warnings);
    let files = std::mem::take(&mut notes.files);
    Checked { config: notes.finish(config), warnings, files }
}

/// The files and folders that make up a configuration, those of its secrets too.
#[must_use]
pub fn files(sources: &Sources) -> Vec<PathBuf> {
    check(sources).files
}

/// What is in effect, and where each value comes from.
///
/// # Errors
/// Every problem there is.
pub fn effective(sources: &Sources) -> Result<Effective, Problems> {
    let (config, notes) = noted(sources);
    let effective = Effective::new(notes.seen(), &config);
    notes.finish(effective)
}

fn noted(sources: &Sources) -> (Config, Notes) {
    let mut notes = Notes::default();
    let raw = read(sources, &mut notes);
    let mut config = super::check::check(raw, &mut notes);
    rules::check(&mut config, &mut notes);
    place::fill_in(&mut config.state, config.server.listen.port(), &sources.env);
    (config, notes)
}

/// Where the gateway that has this configuration is found. What is wrong elsewhere in it does not
/// matter: it may have been changed since the gateway was started.
///
/// # Errors
/// What is wrong with its listeners or its token.
pub fn doors(sources: &Sources) -> Result<Doors, Problems> {
    let raw = read(sources, &mut Notes::default());
    let mut notes = Notes::default();
    let doors = super::check::doors(raw, &mut notes);
    notes.finish(doors)
}

/// The file of users that a configuration names. What is wrong elsewhere in it does not matter.
///
/// # Errors
/// What is wrong with that key.
pub fn users_file(sources: &Sources) -> Result<Option<PathBuf>, Problems> {
    let raw = read(sources, &mut Notes::default());
    let mut notes = Notes::default();
    let file = raw.auth.users_file.check(&mut notes);
    notes.finish(file)
}

/// The layers, one over the other.
fn read(sources: &Sources, notes: &mut Notes) -> RawConfig {
    let mut layers = Layers::default();
    layers.begin();
    if let Some(path) = &sources.file {
        file::read(path, &mut layers, notes);
    }
    let unmade = written::names_of_flags(&sources.flags, &mut layers);
    layers.begin();
    written::environment(&sources.env, written::Turn::Urls, &mut layers, notes);
    let named = written::named(&sources.backends, &unmade, &mut layers, notes);
    written::environment(&sources.env, written::Turn::Others, &mut layers, notes);
    layers.begin();
    written::backends(named, &mut layers);
    written::flags(&sources.flags, &mut layers, notes);
    layers.merge(notes)
}
