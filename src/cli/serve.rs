//! Runs the process: its log, its threads, and its exit code.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tracing::error;

use super::args::{DemoArgs, ServeArgs, SimArgs};
use super::{EXIT_CONFIG, EXIT_FAILURE, say, sources};
use crate::config::{self, Config, LogConfig, Sources};
use crate::demo::{Demo, DemoError};
use crate::discovery::Pod;
use crate::lines::Sink;
use crate::net::service_manager::ServiceManager;
use crate::net::{Inherited, Network, Tcp};
use crate::reload::watch::Watched;
use crate::reload::{Level, Reread};
use crate::run::{self, Parts, Signals};
use crate::sim::{self, Options};
use crate::tasks::Tasks;
use crate::telemetry::{self, SetLevel};

/// `mooring serve`.
pub(super) fn serve(args: ServeArgs) -> ExitCode {
    let sources = sources(args.config, args.overrides, std::env::vars_os());
    // The state of the files is noted before they are read, so that no change is missed.
    let watched = args.watch.then(|| watched(&sources));
    match config::load(&sources) {
        Ok(config) => start(config, sources, watched),
        Err(problems) => {
            say::note(&problems.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn watched(sources: &Sources) -> Watched {
    let sources = sources.clone();
    Watched::new(Arc::new(move || config::files(&sources)))
}

/// Runs the gateway until it is told to stop.
fn start(config: Config, sources: Sources, watched: Option<Watched>) -> ExitCode {
    let (log, workers) = (config.log.clone(), config.server.workers);
    let doors: Vec<SocketAddr> =
        [Some(config.server.listen), config.admin.listen].into_iter().flatten().collect();
    let opened = Sink::open("log.audit", &log.audit)
        .and_then(|audit| Ok((audit, Sink::open("log.access", &log.access)?)));
    let (audit, access) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            say::note(&error.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match Inherited::take(&doors) {
        Ok(network) => on_threads(&log, workers, |level| {
            let pod = Pod::of(&sources.env);
            let manager = ServiceManager::of(&sources.env, std::process::id());
            let source: Reread = Arc::new(move || config::load(&sources));
            let level: Level =
                Box::new(move |config| level(&config.log).map_err(|error| error.to_string()));
            let (source, level) = (Some(source), Some(level));
            let parts =
                Parts { source, level, watched, pod, audit, access, manager, ..Parts::default() };
            gateway(config, Arc::new(network), parts)
        }),
        Err(unasked) => say::failure(&unasked.to_string()),
    }
}

/// `mooring demo`.
pub(super) fn demo(args: DemoArgs) -> ExitCode {
    on_threads(&default_log(), 0, |_| demo_gateway(args))
}

/// `mooring sim`.
pub(super) fn sim(args: SimArgs) -> ExitCode {
    on_threads(&default_log(), 1, |_| simulated_server(args))
}

fn default_log() -> LogConfig {
    LogConfig::text("info")
}

/// Sets up the log and the threads (0 means one for each core), and runs `task` to its end.
fn on_threads<T>(log: &LogConfig, workers: usize, task: impl FnOnce(SetLevel) -> T) -> ExitCode
where
    T: Future<Output = ExitCode>,
{
    let level = match telemetry::init(log) {
        Ok(level) => level,
        Err(error) => {
            say::note(&format!("mooring: {error}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mut builder = match workers {
        // A single worker shares nothing with others, so it needs no work stealing.
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if 1 < workers {
        builder.worker_threads(workers);
    }
    builder.event_interval(EVENT_INTERVAL);
    match builder.thread_name("mooring").enable_all().build() {
        Ok(runtime) => to_its_end(runtime, task(level)),
        Err(error) => say::failure(&format!("cannot start its threads: {error}")),
    }
}

/// After how many polls of tasks a worker looks which sockets are ready. While a flood keeps its
/// tasks busy, all others wait for that look: with tokio's own value, 61, the p99 of an honest
/// client beside a flood of refused submissions was two to three times as long (`make floods`).
const EVENT_INTERVAL: u32 = 8;

/// At the end, how long the process waits for blocking work on other threads, such as a name lookup
/// or the reading of a file. All answers are sent and written by then. The system may never finish
/// such work, and nobody needs its result any more.
const THREADS_END: Duration = Duration::from_secs(1);

fn to_its_end(runtime: Runtime, task: impl Future<Output = ExitCode>) -> ExitCode {
    let code = runtime.block_on(task);
    runtime.shutdown_timeout(THREADS_END);
    code
}

async fn gateway(config: Config, network: Arc<dyn Network>, parts: Parts) -> ExitCode {
    finish(run::run(config, network, Tasks::default(), parts).await)
}

async fn demo_gateway(args: DemoArgs) -> ExitCode {
    let network: Arc<dyn Network> = Arc::new(Tcp);
    let DemoArgs { frontend, listen, admin_listen, auth } = args;
    if auth.as_deref() == Some("keys") {
        say::note("mooring: the demo has no users: `--auth keys` is for `mooring serve`");
        return ExitCode::from(EXIT_CONFIG);
    }
    let (listen, admin_listen) = (Some(listen.to_string()), Some(admin_listen.to_string()));
    // A person who stops a demo does not want to wait.
    let no_delay = Some("0s".to_owned());
    let flags = [
        ("--listen", listen),
        ("--admin-listen", admin_listen),
        ("--auth", auth),
        ("server.drain_delay", no_delay),
    ];
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let (demo, config) = match Demo::start(&network, frontend, flags.collect()).await {
        Ok(started) => started,
        Err(DemoError::Config(problems)) => {
            say::note(&problems.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
        Err(error @ DemoError::Listen(_)) => return say::failure(&error.to_string()),
    };
    let parts = Parts { annex: Some(Arc::new(demo)), ..Parts::default() };
    finish(run::run(config, network, Tasks::default(), parts).await)
}

async fn simulated_server(args: SimArgs) -> ExitCode {
    let options = Options {
        name: args.name,
        listen: SocketAddr::new(args.listen_host, args.port),
        version: args.comfyui,
        assets: args.enable_assets,
        multi_user: args.multi_user,
        compress: args.enable_compress_response_body,
        token: args.token,
        frontend: args.frontend,
        speed: args.speed,
    };
    let tasks = Tasks::default();
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return say::failure(&format!("cannot listen for signals: {error}")),
    };
    let stopping = tasks.clone();
    tasks.spawn(async move {
        signals.next(|| {}).await;
        stopping.stop();
    });
    finish(sim::run(options, Arc::new(Tcp), tasks).await)
}

fn finish(ended: io::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "Stopped by an error.");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};
    use std::thread;

    use super::*;

    #[test]
    fn a_stop_does_not_wait_for_work_that_hangs() {
        let (release, hangs) = channel::<()>();
        let (ended, end) = sync_channel(1);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let task = async {
                let (begun, begins) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    let _ = begun.send(());
                    let _ = hangs.recv();
                });
                // Work that has not started is never waited for.
                begins.await.unwrap();
                ExitCode::SUCCESS
            };
            ended.send(to_its_end(runtime, task)).unwrap();
        });
        assert!(end.recv_timeout(Duration::from_secs(20)).is_ok(), "it ends");
        drop(release);
    }
}
