//! Replaces the configuration while the process runs.
//!
//! The new configuration is read and checked as a whole. The steps that can fail come first:
//! listening on addresses, and the fleet. If one of them fails, nothing is changed. Otherwise
//! everything is applied, except the few keys that need a restart. These keep their values and are
//! named.
//!
//! There is one reload at a time: one task does them all. A reload closes no socket, loses no
//! prompt and moves no held binding.

pub mod certificates;
mod listeners;
pub mod users;
pub mod watch;
mod within;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::audit::{Entry, Who};
use crate::config::{Config, Problems, changes};
use crate::discovery::Discoveries;
use crate::front::Front;
use crate::net::service_manager::{ServiceManager, State};
use crate::net::{Network, unix_millis};
use crate::server::door::Mover;
use crate::session::membership::NotConfigured;
use crate::session::membership::rotated::ReadAgain;
use listeners::{Listeners, Moves};
use within::within;

/// Reads the configuration again from where it was read at the start. It may wait for a disk.
pub type Reread = Arc<dyn Fn() -> Result<Config, Problems> + Send + Sync>;

/// The result of a reload.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reloaded {
    /// Keys whose new values are in effect now.
    pub applied: Vec<String>,
    /// Keys whose new values take effect after a restart.
    pub need_restart: Vec<String>,
    /// Problems that did not prevent the rest from being applied.
    pub warnings: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotReloaded {
    /// One line for each problem, as `mooring check` prints them.
    #[error("{}", .0.join("\n"))]
    Bad(Vec<String>),
    #[error("this gateway was not started from a configuration that can be read again")]
    NoSource,
    #[error("the gateway is stopping")]
    Stopping,
}

impl From<Problems> for NotReloaded {
    fn from(problems: Problems) -> Self {
        Self::Bad(problems.0.iter().map(ToString::to_string).collect())
    }
}

impl From<NotConfigured> for NotReloaded {
    fn from(why: NotConfigured) -> Self {
        match why {
            NotConfigured::BadDiff(bad) => Self::Bad(vec![format!("backends: {bad}")]),
            NotConfigured::Itself(itself) => Self::Bad(itself),
        }
    }
}

/// What the reloading task is asked to do, and where it sends the result.
#[derive(Debug)]
pub struct Asked {
    what: What,
    by: By,
    tell: oneshot::Sender<Result<Reloaded, NotReloaded>>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Everything,
    /// Only the certificates of the listeners.
    Certificates,
}

/// Who wants a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum By {
    /// An operator.
    Operator(Who),
    /// SIGHUP.
    Signal,
    /// The files have changed.
    Files,
}

impl By {
    fn who(self) -> Who {
        match self {
            Self::Operator(who) => who,
            Self::Signal => Who::by("SIGHUP"),
            Self::Files => Who::by("files"),
        }
    }
}

/// Asks for reloads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Asked>);

/// The name in `applied` if secrets of backends were read again.
const BACKENDS: &str = "backends";

/// The key of the log's level.
const LEVEL: &str = "log.level";

/// How many requests for a reload may wait.
const WAITING_MAX: usize = 16;

impl Reloads {
    /// The handle that asks for reloads, and the receiver for the task that does them.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        (Self(ask), asked)
    }

    /// Reloads the configuration and returns the result.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn reload(&self, by: By) -> Result<Reloaded, NotReloaded> {
        self.ask(What::Everything, by).await
    }

    /// Reads only the certificates of the listeners again.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn certificates(&self) -> Result<Reloaded, NotReloaded> {
        self.ask(What::Certificates, By::Files).await
    }

    async fn ask(&self, what: What, by: By) -> Result<Reloaded, NotReloaded> {
        let (tell, told) = oneshot::channel();
        let asked = Asked { what, by, tell };
        let Ok(()) = self.0.send(asked).await else { return Err(NotReloaded::Stopping) };
        told.await.unwrap_or(Err(NotReloaded::Stopping))
    }
}

/// The task that reloads.
pub struct Reloader {
    front: Arc<Front>,
    source: Option<Reread>,
    listeners: Listeners,
    /// Adapts what depends on this machine, such as the number of connections.
    fit: fn(&mut Config),
    /// Sets the level of the log. `None` if the log is not Mooring's own.
    level: Option<Level>,
    discoveries: Discoveries,
    manager: ServiceManager,
    /// Whether the last reading of the whole configuration was refused.
    was_refused: bool,
}

/// Sets the level of the log.
pub type Level = Box<dyn Fn(&Config) -> Result<(), String> + Send + Sync>;

/// The parts of a [`Reloader`], besides the gateway.
pub struct Means {
    pub source: Option<Reread>,
    pub fit: fn(&mut Config),
    pub level: Option<Level>,
    /// Reloads start and stop them.
    pub discoveries: Discoveries,
    /// Is told when a reload begins and ends.
    pub manager: ServiceManager,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}

impl Reloader {
    #[must_use]
    pub fn new(front: Arc<Front>, means: Means, front_door: Mover, admin_door: Mover) -> Self {
        // The configuration of the start is in use.
        front.shared.metrics.reloaded(true, unix_millis());
        let network: Arc<dyn Network> = Arc::clone(&front.shared.network);
        let Means { source, fit, level, discoveries, manager } = means;
        let listeners = Listeners::new(network, front_door, admin_door);
        Self { front, source, listeners, fit, level, discoveries, manager, was_refused: false }
    }

    /// Does what it is asked, until the process stops.
    pub async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        let stopping = self.front.shared.tasks.child_token();
        loop {
            let Asked { what, by, tell } = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                asked = asked.recv() => match asked {
                    Some(tell) => tell,
                    // Nobody can ask any more.
                    None => return stopping.cancelled().await,
                },
            };
            let outcome = match what {
                What::Everything => {
                    self.manager.tell(State::reloading(), "Reloading the configuration.");
                    let outcome = self.reload().await;
                    self.was_refused = matches!(outcome, Err(NotReloaded::Bad(_)));
                    outcome
                }
                What::Certificates => self.read_certificates().await,
            };
            self.record(what, &outcome);
            self.audit(what, by, &outcome);
            if let What::Everything = what {
                self.manager.tell(State::Ready, &self.front.shared.in_a_line());
            }
            // The asker may have given up.
            let _ = tell.send(outcome);
        }
    }

    fn record(&self, what: What, outcome: &Result<Reloaded, NotReloaded>) {
        let metrics = &self.front.shared.metrics;
        match (what, outcome) {
            (What::Certificates, Ok(Reloaded { applied, .. })) => {
                if !self.was_refused {
                    metrics.reloaded(true, unix_millis());
                }
                if !applied.is_empty() {
                    info!(applied = applied.join(" "), "Certificates were read again.");
                }
            }
            (What::Certificates, Err(NotReloaded::Bad(problems))) => {
                metrics.reloaded(false, unix_millis());
                for problem in problems {
                    error!(problem, "Certificates were not read again: the previous ones stay.");
                }
            }
            (What::Everything, Ok(Reloaded { applied, need_restart, warnings })) => {
                metrics.reloaded(true, unix_millis());
                for warning in warnings {
                    warn!(warning, "The new configuration was not applied completely.");
                }
                info!(applied = applied.join(" "), "The configuration was reloaded.");
                if !need_restart.is_empty() {
                    let keys = need_restart.join(" ");
                    warn!(keys, "These keys have new values that need a restart.");
                }
            }
            (What::Everything, Err(NotReloaded::Bad(problems))) => {
                metrics.reloaded(false, unix_millis());
                for problem in problems {
                    error!(problem, "The configuration was not reloaded: the old one stays.");
                }
            }
            (_, Err(why @ (NotReloaded::NoSource | NotReloaded::Stopping))) => {
                warn!(%why, "The configuration was not reloaded.");
            }
        }
    }

    /// Notes it in the audit log, unless nothing has come of it. Values may be secrets, so keys are
    /// named and not what they are.
    fn audit(&self, what: What, by: By, outcome: &Result<Reloaded, NotReloaded>) {
        let what_is_read = match what {
            What::Everything => "configuration.reload",
            What::Certificates => "certificates.reload",
        };
        self.front.shared.audit.note(|| match outcome {
            Ok(Reloaded { applied, need_restart, .. }) => {
                let on = json!({ "applied": applied, "need_restart": need_restart });
                Entry::done(by.who(), what_is_read, on)
            }
            Err(NotReloaded::Bad(problems)) => {
                let why = format!("{} problems", problems.len());
                Entry::refused(by.who(), what_is_read, Value::Null, &why)
            }
            Err(why @ (NotReloaded::NoSource | NotReloaded::Stopping)) => {
                Entry::refused(by.who(), what_is_read, Value::Null, &why.to_string())
            }
        });
    }

    async fn reload(&mut self) -> Result<Reloaded, NotReloaded> {
        let mut config = self.read().await?;
        (self.fit)(&mut config);
        let before = self.front.shared.config_kept();
        let changes = changes(&before, &config);
        config.keep_until_restart(&before);
        let ReadAgain { rotated, problems: mut warnings } = self.read_secrets(&config).await?;
        let moves = self.listeners.plan(&before, &config).await?;
        if let Err(bad) = self.front.sessions.configure_fleet(config) {
            self.listeners.withdraw(moves, &before).await;
            return Err(bad.into());
        }
        let has_rotated = !rotated.is_empty();
        self.front.sessions.rotate(&rotated);
        let level_stays = self.apply(moves).await;
        warnings.extend(self.front.sessions.kept_for_now());
        let named = |needs_restart| -> Vec<String> {
            let those = changes.iter().filter(move |it| it.needs_restart == needs_restart);
            those.map(|it| it.key.clone()).collect()
        };
        let mut applied = named(false);
        if let Some(why) = level_stays.filter(|_| applied.iter().any(|it| it == LEVEL)) {
            applied.retain(|it| it != LEVEL);
            warnings.push(format!("`{LEVEL}` has no effect: {why}"));
        }
        if has_rotated && !applied.iter().any(|it| it == BACKENDS) {
            applied.push(BACKENDS.to_owned());
        }
        Ok(Reloaded { applied, need_restart: named(true), warnings })
    }

    /// Makes the listeners present the certificates that are in their files now.
    async fn read_certificates(&self) -> Result<Reloaded, NotReloaded> {
        let before = self.front.shared.config_kept();
        let (front, admin) = (before.server_tls.clone(), before.admin_tls.clone());
        let (front, admin) = within(move || (front.read_again(), admin.read_again())).await?;
        let (server_tls, admin_tls) = match (front, admin) {
            (Ok(front), Ok(admin)) => (front, admin),
            (front, admin) => {
                let front = front.err().map(|what| format!("server.tls: {what}"));
                let admin = admin.err().map(|what| format!("admin.tls: {what}"));
                return Err(NotReloaded::Bad(front.into_iter().chain(admin).collect()));
            }
        };
        let config = Config { server_tls, admin_tls, ..Config::clone(&before) };
        let applied = changes(&before, &config).into_iter().map(|it| it.key).collect();
        if config != *before {
            // Only this task replaces it.
            self.front.shared.reconfigure(config);
        }
        Ok(Reloaded { applied, ..Reloaded::default() })
    }

    /// Reads the secrets of backends that the configuration does not list.
    async fn read_secrets(&self, config: &Config) -> Result<ReadAgain, NotReloaded> {
        let (sessions, config) = (Arc::clone(&self.front.sessions), config.clone());
        within(move || sessions.read_secrets_again(&config)).await
    }

    async fn read(&self) -> Result<Config, NotReloaded> {
        let source = self.source.clone().ok_or(NotReloaded::NoSource)?;
        Ok(within(move || source()).await??)
    }

    /// Applies the current configuration everywhere. Only the change of the log's level can fail:
    /// then the log goes on as before, and the reason is returned.
    async fn apply(&mut self, moves: Moves) -> Option<String> {
        let set = self.level.as_ref().map(|level| level(&self.front.shared.config_kept()));
        self.front.sessions.reconfigure();
        self.discoveries.reconfigure();
        self.front.reconfigure();
        self.listeners.carry_out(moves).await;
        set.and_then(Result::err)
    }
}

/// Where a door listens. `None` means that it is closed.
type Place = Option<SocketAddr>;
