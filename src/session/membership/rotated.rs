//! Reads secrets in files again at a reload, for backends that are not in the configuration. (Those
//! of configured backends are read with it.)

use std::collections::BTreeMap;
use std::sync::Arc;

use super::CONFIGURATION;
use crate::config::{
    BackendConfig, BackendSecrets, BackendTls, Config, ListedBy, SecretFiles, kept_backend,
};
use crate::fleet::diff::{BadDiff, Diff};
use crate::fleet::wanted::Wanted;
use crate::session::Sessions;

/// The current content of a backend's files.
#[derive(Debug)]
pub struct Rotated {
    before: BackendConfig,
    secrets: BackendSecrets,
}

/// The result of reading them.
#[derive(Debug, Default)]
pub struct ReadAgain {
    pub rotated: Vec<Rotated>,
    /// Files that cannot be used: their earlier content stays in use.
    pub problems: Vec<String>,
}

impl Sessions {
    /// Reads the files of backends that operators added, of those that are kept for now, and of
    /// those that drain; `config` says which may be read. May block on a disk.
    #[must_use]
    pub fn read_secrets_again(&self, config: &Config) -> ReadAgain {
        let added = {
            let wanted = self.wanted.lock();
            wanted.added().into_iter().chain(wanted.kept().iter().cloned()).collect::<Vec<_>>()
        };
        let members = self.shared.fleet.iter().filter(|it| it.going_since().is_some());
        let going: Vec<BackendConfig> = members.map(|it| it.settings()).collect();
        let mut again = ReadAgain::default();
        for before in added.into_iter().chain(going) {
            let secrets = match read_again(config, &before) {
                Ok(secrets) => secrets.filter(|it| *it != before.secrets()),
                Err(problems) => {
                    again.problems.extend(problems);
                    None
                }
            };
            again.rotated.extend(secrets.map(|secrets| Rotated { before, secrets }));
        }
        again
    }

    /// Gives those backends the current content of their files. What an operator changed meanwhile
    /// stays.
    pub fn rotate(self: &Arc<Self>, rotated: &[Rotated]) {
        if rotated.is_empty() {
            return;
        }
        let is_of = |it: &BackendConfig, rotated: &Rotated| {
            it.authority == rotated.before.authority && it.secrets() == rotated.before.secrets()
        };
        self.set_secrets(|it| {
            rotated.iter().find(|rotated| is_of(it, rotated)).map(|it| it.secrets.clone())
        });
    }

    /// Gives backends that were discovered the headers of the configuration, without waiting for
    /// the next answer of their discovery.
    pub fn reconfigure_found(self: &Arc<Self>) {
        let config = self.shared.config_kept();
        self.set_secrets(|it| {
            let ListedBy::Discovery(place) = &it.listed_by else { return None };
            let place = config.discovery.iter().find(|discovery| discovery.name == *place)?;
            let secrets = BackendSecrets { headers: place.headers.clone(), tls: it.tls.clone() };
            (place.headers != it.headers).then_some(secrets)
        });
    }

    /// Replaces the secrets of the backends for which `secrets` returns some, both wanted ones and
    /// those that drain.
    fn set_secrets(self: &Arc<Self>, secrets: impl Fn(&BackendConfig) -> Option<BackendSecrets>) {
        let applied = {
            let mut wanted = self.wanted.lock();
            let next = |now: Wanted| Ok::<_, BadDiff>((now.with_secrets(&secrets), ()));
            let applied = self.want(&mut wanted, CONFIGURATION, next).unwrap_or_default().0;
            let going = self.shared.fleet.iter().filter(|it| it.going_since().is_some());
            let adjust = going.filter_map(|it| {
                let settings = it.settings();
                let secrets = secrets(&settings)?;
                Some((it.id, settings.with_secrets(secrets)))
            });
            let diff = Diff { adjust: adjust.collect(), ..Diff::default() };
            // No backend leaves while the lock is held, and new settings alone are always valid.
            self.shared.fleet.apply(&diff).map(|it| drop(self.noted(it))).unwrap_or_default();
            applied
        };
        self.take_up(applied);
    }

    /// The backends that would be a listener of this gateway, with the new configuration and these
    /// `wanted` backends: one line for each. Includes those that drain. Configured backends were
    /// checked when the configuration was read.
    pub(super) fn that_would_be_itself(
        &self,
        config: &Config,
        wanted: Vec<BackendConfig>,
    ) -> Vec<String> {
        let members = self.shared.fleet.iter().map(|it| it.settings());
        let all: BTreeMap<String, BackendConfig> =
            members.chain(wanted).map(|it| (it.authority.clone(), it)).collect();
        let is_listed = |at: &str| config.backends.iter().any(|it| it.authority == at);
        let others = all.values().filter(|it| !is_listed(&it.authority));
        let itself = others.filter_map(|it| {
            let key = config.is_itself(it)?;
            Some(format!("{key}: `{}` is the backend `{}`", it.authority, it.name))
        });
        itself.collect()
    }
}

/// The current content of a backend's files, also if they were not read before; `None` if it has
/// none, or if they are read with a discovery.
fn read_again(
    config: &Config,
    backend: &BackendConfig,
) -> Result<Option<BackendSecrets>, Vec<String>> {
    let has_headers = backend.headers.stand_in_files();
    if !has_headers && !backend.tls.as_ref().is_some_and(BackendTls::stands_in_files) {
        return Ok(None);
    }
    let files = match &backend.listed_by {
        ListedBy::Operator => SecretFiles::In(config.admin.secrets_dir.as_deref()),
        // Headers of a discovery are read with its configuration.
        ListedBy::Discovery(place) if config.discovery.iter().any(|it| it.name == *place) => {
            return Ok(None);
        }
        ListedBy::Configuration | ListedBy::Discovery(_) => SecretFiles::Anywhere,
    };
    match kept_backend(&backend.name, &backend.kept(), files) {
        Ok(read) => {
            let BackendSecrets { headers, tls } = read.secrets();
            // Those that do not all stand in files are not kept whole.
            let headers = if has_headers { headers } else { backend.headers.clone() };
            Ok(Some(BackendSecrets { headers, tls }))
        }
        Err(problems) => Err(problems.0.iter().map(ToString::to_string).collect()),
    }
}
