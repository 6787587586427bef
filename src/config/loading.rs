//! Loads the configuration: its sources, and their order.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::layers::Layers;
use super::problems::Notes;
use super::raw::RawConfig;
use super::{
    AdminConfig, BasePath, Config, Effective, Problem, Problems, file, place, rules, written,
};

/// The listeners of a gateway, and the token that its operators need.
#[derive(Clone, Debug, PartialEq)]
pub struct Doors {
    pub front: SocketAddr,
    /// The certificate that is shown there; `None` for plain HTTP.
    pub front_cert: Option<PathBuf>,
    /// The path below which the front answers.
    pub base_path: BasePath,
    pub admin: AdminConfig,
    pub admin_cert: Option<PathBuf>,
}

/// The sources of a configuration, the lowest layer first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file, or a folder whose `*.toml` files are read one after the other.
    pub file: Option<PathBuf>,
    /// Names and values of the environment. Variables of other programs are ignored.
    pub env: Vec<(String, String)>,
    /// URLs of backends, which are named `gpu-1`, `gpu-2`, … in their order.
    pub backends: Vec<String>,
    /// Keys in dotted notation and their values. They override everything else.
    pub flags: Vec<(String, String)>,
}

/// The result of reading a configuration, with warnings.
#[derive(Debug)]
pub struct Checked {
    /// The configuration, or all problems.
    pub config: Result<Config, Problems>,
    /// Facts that are not problems, but may not be intended.
    pub warnings: Vec<Problem>,
    /// The files and folders that were read, or could not be read: those of the configuration and
    /// of its secrets. A change of any of them may change the configuration.
    pub files: Vec<PathBuf>,
}

/// Reads and checks a configuration. Reads its files and those of its secrets, and nothing else. It
/// can be called again with the same sources, and then returns their current content.
///
/// # Errors
/// All problems.
pub fn load(sources: &Sources) -> Result<Config, Problems> {
    check(sources).config
}

/// Like [`load`], with warnings and with the files that were read.
#[must_use]
pub fn check(sources: &Sources) -> Checked {
    let (config, mut notes) = noted(sources);
    let warnings = std::mem::take(&mut notes.warnings);
    let files = std::mem::take(&mut notes.files);
    Checked { config: notes.finish(config), warnings, files }
}

/// The files and folders of a configuration, including those of its secrets.
#[must_use]
pub fn files(sources: &Sources) -> Vec<PathBuf> {
    check(sources).files
}

/// The configuration in effect, and the source of each value.
///
/// # Errors
/// All problems.
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
    let env = if config.replicas.store.is_some() { &[][..] } else { &sources.env };
    place::fill_in(&mut config.state, config.server.listen.port(), env);
    (config, notes)
}

/// Finds the listeners of the gateway with this configuration. Errors elsewhere in it do not
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

/// The users file that a configuration names. Errors elsewhere in it do not matter.
///
/// # Errors
/// What is wrong with that key.
pub fn users_file(sources: &Sources) -> Result<Option<PathBuf>, Problems> {
    let raw = read(sources, &mut Notes::default());
    let mut notes = Notes::default();
    let file = raw.auth.users_file.check(&mut notes);
    notes.finish(file)
}

/// Reads all layers and merges them.
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
