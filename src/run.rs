//! The order of start-up and shutdown.
//!
//! What can fail comes before what must be undone; signals are installed before "ready" is said;
//! the listeners open only after each backend was asked once, so that a restart causes no outage.

mod drain;
mod in_store;
mod listening;
mod managed;
mod opening;
mod signals;

use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

pub use signals::Signals;

use crate::admin;
use crate::config::{Config, ServerConfig};
use crate::discovery::{Discoveries, Pod};
use crate::front::{Annex, Front, FrontService};
use crate::journal::{COMMIT_WITHIN, Store};
use crate::lines::Sink;
use crate::lock;
use crate::metrics::Metrics;
use crate::net::service_manager::{ServiceManager, State};
use crate::net::{Listener, Network, descriptors};
use crate::reload::watch::Watched;
use crate::reload::{By, Level, Means, Reloader, Reloads, Reread, certificates, users};
use crate::server::accept;
use crate::server::door::Door;
use crate::session::Sessions;
use crate::shared::Shared;
use crate::store::keeping::Life;
use crate::tasks::Tasks;
use crate::tasks::heartbeat;
use drain::drain;
use in_store::Opened;
use listening::{bind, terms_of};
use opening::open_journal;

/// How long the listeners wait for the first word of each backend.
const FIRST_PROBES: Duration = Duration::from_secs(2);

/// The names of the tasks that accept connections.
const FRONT_LISTENER: &str = "front listener";
const ADMIN_LISTENER: &str = "admin listener";

/// A gateway that listens.
#[derive(Debug)]
pub struct Running {
    pub front: Arc<Front>,
    /// The journal's writer. It is stopped last, and commits what was noted until then.
    pub writers: Tasks,
    /// Asks for reloads.
    pub reloads: Reloads,
    pub front_address: SocketAddr,
    pub admin_address: Option<SocketAddr>,
}

impl Running {
    /// Keeps the service manager told until the journal is written to its end.
    fn keep_told(&self, manager: ServiceManager) {
        let (shared, until) = (Arc::clone(&self.front.shared), self.writers.clone());
        let task = async move { managed::keep_told(manager, &shared, &until).await };
        self.writers.spawn_critical("service manager", task);
    }
}

/// What a gateway is given besides its configuration.
#[derive(Default)]
pub struct Parts {
    /// What else answers at the front. Set in the demo only.
    pub annex: Option<Arc<dyn Annex>>,
    /// Where the journal is kept. `None` is where the configuration says.
    pub home: Option<Box<dyn Store>>,
    /// The admin listener, if it is open already.
    pub admin: Option<Arc<dyn Listener>>,
    /// What is counted; there may be something already.
    pub metrics: Arc<Metrics>,
    /// Reads the configuration again. `None` where there is nothing to be read.
    pub source: Option<Reread>,
    /// The files of the configuration, if they are to be watched.
    pub watched: Option<Watched>,
    /// Sets what is logged.
    pub level: Option<Level>,
    /// Where the API server of Kubernetes is.
    pub pod: Pod,
    /// Where the audit log goes; `None` is none.
    pub audit: Option<Sink>,
    /// Where the access log goes; `None` is none.
    pub access: Option<Sink>,
    /// Is told when the gateway is ready, reloads and stops.
    pub manager: ServiceManager,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { annex, home, source, watched, level, pod, audit, access, manager, .. } = self;
        f.debug_struct("Parts")
            .field("annex", annex)
            .field("home", home)
            .field("source", &source.is_some())
            .field("watched", watched)
            .field("level", &level.is_some())
            .field("pod", pod)
            .field("audit", audit)
            .field("access", access)
            .field("manager", manager)
            .finish_non_exhaustive()
    }
}

/// Binds the listeners, starts the gateway, and opens its doors.
///
/// # Errors
/// A listener's address is taken or not ours, or the journal cannot be used.
pub async fn start(
    mut config: Config,
    network: Arc<dyn Network>,
    tasks: &Tasks,
    parts: Parts,
) -> io::Result<Running> {
    fit_descriptors(&mut config);
    let writers = tasks.apart();
    let (journal, saved) = open_journal(&config, parts.home, &writers).await?;
    let listener = bind(&network, config.server.listen).await?;
    let admin = match (parts.admin, config.admin.listen) {
        (Some(listener), _) => Some(listener),
        (None, Some(address)) => Some(bind(&network, address).await?),
        (None, None) => None,
    };
    let shared = Shared::with(config, network, tasks.clone(), journal, parts.metrics);
    if let Some(sink) = parts.audit {
        shared.audit.start(sink, &writers);
    }
    if let Some(sink) = parts.access {
        shared.access.start(sink, &writers);
    }
    let sessions = Sessions::new(Arc::clone(&shared));
    let front = Front::new(Arc::clone(&sessions), parts.annex);
    let (reloads, asked) = Reloads::new();
    let remembers_nothing = saved.is_empty();
    sessions.restore(saved);
    if remembers_nothing {
        sessions.look_for_unclaimed();
    }
    shared.start();
    sessions.start();
    front.start(&writers);
    let mut discoveries = Discoveries::new(Arc::clone(&sessions), parts.pod);
    discoveries.reconfigure();
    tasks.spawn_critical("heartbeats", heartbeat::watch(tasks.clone()));
    let running = Running {
        front: Arc::clone(&front),
        reloads: reloads.clone(),
        front_address: listener.local_addr(),
        admin_address: admin.as_ref().map(|listener| listener.local_addr()),
        writers,
    };
    let (admin_door, admin_mover) = Door::new(admin);
    let service = admin::Admin::new(&front, reloads.clone());
    let terms = terms_of(&shared, |config| &config.admin_tls);
    let accepting = accept(ADMIN_LISTENER, admin_door, service, terms, tasks.clone());
    tasks.spawn_critical(ADMIN_LISTENER, accepting);
    first_probes(&sessions, &discoveries).await;
    let (front_door, front_mover) = Door::new(Some(listener));
    let service = FrontService(Arc::clone(&front));
    let terms = terms_of(&shared, |config| &config.server_tls);
    let accepting = accept(FRONT_LISTENER, front_door, service, terms, tasks.clone());
    tasks.spawn_critical(FRONT_LISTENER, accepting);
    let (source, level) = (parts.source, parts.level);
    tasks.spawn_critical("users", until_stopped(users::watch(Arc::clone(&front)), tasks.clone()));
    let watch = certificates::watch(Arc::clone(&front), reloads.clone());
    tasks.spawn_critical("certificates", until_stopped(watch, tasks.clone()));
    let manager = parts.manager;
    let means = Means { source, fit: fit_descriptors, level, discoveries, manager };
    let reloader = Reloader::new(front, means, front_mover, admin_mover);
    tasks.spawn_critical("reloader", reloader.run(asked));
    if let Some(watched) = parts.watched {
        let watch = until_stopped(watched.run(reloads), tasks.clone());
        tasks.spawn_critical("configuration files", watch);
    }
    shared.opened();
    Ok(running)
}

async fn until_stopped(task: impl Future<Output = ()>, tasks: Tasks) {
    tokio::select! {
        biased;
        () = tasks.stopping() => {}
        () = task => {}
    }
}

/// Waits until each backend has answered or failed once, and those that are up have said what they
/// have, where nobody remembers that; but not for long. Those that are to be discovered are found
/// first.
async fn first_probes(sessions: &Sessions, discoveries: &Discoveries) {
    let all_probed = async {
        discoveries.have_said().await;
        for backend in sessions.shared.fleet.iter() {
            backend.was_probed().await;
            tokio::select! {
                biased;
                () = sessions.adoption.has_read(backend.id) => {}
                // It is read when it is up.
                () = backend.is_down() => {}
            }
        }
    };
    let _ = timeout(FIRST_PROBES, all_probed).await;
}

/// Runs a gateway until a signal ends it.
///
/// # Errors
/// It could not start.
pub async fn run(
    config: Config,
    network: Arc<dyn Network>,
    tasks: Tasks,
    mut parts: Parts,
) -> io::Result<()> {
    let mut signals = Signals::install()?;
    let manager = parts.manager.clone();
    let life = match Box::pin(in_store::open(&config, &network, &tasks, (&mut parts, &mut signals)))
        .await?
    {
        Opened::None => None,
        Opened::InStore(life) => Some(life),
        Opened::Stopped => return Ok(()),
    };
    let running = match Box::pin(start(config, network, &tasks, parts)).await {
        Ok(running) => running,
        Err(error) => {
            leave(life).await;
            return Err(error);
        }
    };
    let backends = running.front.shared.fleet.len();
    let admin = running.admin_address.map(|admin| admin.to_string()).unwrap_or_default();
    let open = listening::opened(&running.front.shared.config(), running.front_address);
    info!(front = %running.front_address, admin, backends, open, "Gateway ready.");
    manager.tell(State::Ready, &running.front.shared.in_a_line());
    running.keep_told(manager.clone());
    let reload = || {
        let reloads = running.reloads.clone();
        // What comes of it is in the log.
        tasks.spawn(async move { drop(reloads.reload(By::Signal).await) });
    };
    let mut ended = tokio::select! {
        signal = signals.next(reload) => Ok(signal),
        what = broken(&running, &tasks) => Err(what),
        why = lost(life.as_ref()) => Err(why),
    };
    tell_of_the_end(&manager, &running, &ended);
    if let Ok(signal) = ended {
        let most = drain_at_most(&running.front.shared.config().server).as_secs();
        info!(signal, at_most_s = most, "Draining. The next such signal stops at once.");
        tokio::select! {
            () = drain(&running.front.sessions, &tasks) => {}
            signal = signals.next(too_late) => warn!(signal, "Stopping at once."),
            why = lost(life.as_ref()) => ended = Err(why),
        }
    }
    // Another process may act already: the sooner this one is gone, the better.
    if life.as_ref().is_none_or(|life| !life.is_over()) {
        if running.writers.drain(COMMIT_WITHIN).await != 0 {
            warn!("The journal could not be written to its end in time.");
        }
        leave(life).await;
    }
    ended.map(|_signal| ()).map_err(io::Error::other)
}

/// Waits until the life of this process is over in its store; says why.
async fn lost(life: Option<&Life>) -> String {
    match life {
        Some(life) => format!("the life of this process is over: {}", life.ended().await),
        None => pending().await,
    }
}

async fn leave(life: Option<Life>) {
    if let Some(life) = life {
        life.leave().await;
    }
}

/// Tells the service manager that the stop begins, before anything else of it.
fn tell_of_the_end<T>(manager: &ServiceManager, running: &Running, ended: &Result<T, String>) {
    let line = match ended {
        Ok(_signal) => {
            let most = drain_at_most(&running.front.shared.config().server).as_secs();
            format!("Draining, for at most {most} s.")
        }
        Err(what) => format!("Ending: {what}."),
    };
    manager.tell(State::Stopping, &line);
}

fn too_early() {
    info!("A reload was asked for, but the gateway is waiting for its store.");
}

fn too_late() {
    info!("A reload was asked for, but the gateway is stopping.");
}

/// Sees to it that connections do not use up all descriptors: what is over is closed at once, and
/// the admin listener, the journal and the backends go on.
fn fit_descriptors(config: &mut Config) {
    let server = &mut config.server;
    let Some(descriptors) = descriptors::raise_limit() else { return };
    let enough = descriptors::connections_for(descriptors, server.max_connections);
    if enough < server.max_connections {
        warn!(
            descriptors,
            connections = enough,
            wanted = server.max_connections,
            "There are too few file descriptors for `server.max_connections`: raise the hard limit \
             (`LimitNOFILE` under systemd, `ulimit -Hn`)."
        );
        server.max_connections = enough;
    }
}

/// Waits until something is broken that the whole process needs; says what. There is no drain
/// then: the sooner the next process takes over from the journal, the less is missed.
async fn broken(running: &Running, tasks: &Tasks) -> String {
    tokio::select! {
        name = tasks.failed() => format!("the task {name:?} ended: a fault of ours"),
        name = running.writers.failed() => format!("the task {name:?} ended: a fault of ours"),
        name = lock::broken() => format!("a panic left {name} half changed: a fault of ours"),
    }
}

/// How long a drain can take from its signal on.
fn drain_at_most(server: &ServerConfig) -> Duration {
    server.drain_pending + server.drain_timeout
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::drain::work_is_done;
    use super::*;
    use crate::journal::Journal;
    use crate::net::sleep;
    use crate::net::{Boxed, Listener, Stream, now};
    use crate::routing::ids::{ClientId, PromptId};
    use crate::session::registry::with_client;
    use crate::session::submissions::{Nearness, Remembered};

    /// Nobody answers.
    #[derive(Debug)]
    struct Silent;

    impl Network for Silent {
        fn connect<'a>(&'a self, _: &'a str, _: u16) -> Boxed<'a, io::Result<Stream>> {
            Box::pin(pending())
        }

        fn listen(&self, _: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
            Box::pin(pending())
        }
    }

    fn sessions() -> Arc<Sessions> {
        let backends = [("a", "http://127.0.0.1:1"), ("b", "http://127.0.0.1:2")];
        let mut config = Config::for_backends(&backends).unwrap();
        config.fleet.probe_timeout = Duration::from_millis(100);
        Sessions::new(Shared::new(config, Arc::new(Silent), Tasks::default(), Journal::in_memory()))
    }

    fn goes_up(sessions: &Sessions, name: &str) {
        let backend = sessions.shared.fleet.by_name(name).unwrap();
        (0..sessions.shared.config().fleet.rise.get()).for_each(|_| backend.passed());
        assert!(backend.is_up());
    }

    /// Time stands still unless all wait for it, so whoever looks from time to time is late.
    #[tokio::test(start_paused = true)]
    async fn the_doors_open_with_the_first_word_of_the_last_backend() {
        let sessions = sessions();
        sessions.look_for_unclaimed();
        let began = now();
        let words = async {
            sessions.shared.fleet.by_name("a").unwrap().failed("as asked".to_owned());
            sleep(Duration::from_millis(7)).await;
            let last = sessions.shared.fleet.by_name("b").unwrap();
            // It has work, which is asked for and not told, and then it has none any more.
            last.status_came(1, now());
            goes_up(&sessions, "b");
            sleep(Duration::from_millis(1)).await;
            last.status_came(0, now());
        };
        let none = Discoveries::new(Arc::clone(&sessions), Pod::default());
        tokio::join!(first_probes(&sessions, &none), words);
        // 100 ms for the question, and the pause of 500 ms after it.
        assert_eq!(now().duration_since(began), Duration::from_millis(607));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_says_nothing_is_not_waited_for_for_long() {
        let sessions = sessions();
        goes_up(&sessions, "a");
        let began = now();
        let none = Discoveries::new(Arc::clone(&sessions), Pod::default());
        first_probes(&sessions, &none).await;
        assert_eq!(now().duration_since(began), FIRST_PROBES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_leaves_with_the_end_of_the_last_prompt() {
        let sessions = sessions();
        goes_up(&sessions, "a");
        let id = ClientId::parse("ada").unwrap();
        let prompts = ["p", "q"].map(|name| PromptId::parse(name).unwrap());
        for prompt in &prompts {
            let submitted = with_client(&sessions, &id, |client| {
                let (told, near) = (Remembered::default(), Nearness::default());
                client.submit(&sessions, prompt, told, &near)
            });
            assert!(submitted.is_ok_and(|(_, decided)| decided.is_ok()));
        }
        let client = sessions.clients.get(&id).unwrap();
        let began = now();
        let ends = async {
            for prompt in &prompts {
                sleep(Duration::from_millis(7)).await;
                client.withdraw(&sessions, prompt, None);
            }
        };
        tokio::join!(work_is_done(&sessions, Duration::from_secs(3_600)), ends);
        assert_eq!(now().duration_since(began), Duration::from_millis(14));
    }
}
