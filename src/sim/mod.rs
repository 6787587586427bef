//! A simulated ComfyUI, for the demo, the tests and the benchmarks. It can simulate faults.
//!
//! On the wire it behaves like an unmodified ComfyUI 0.33.0 or an older one (0.8.0, 0.3.64),
//! including bugs, for a small set of nodes: `tests/it/recordings.rs` compares it with recordings
//! of real servers. Pictures are real; models are not needed.

mod aside;
mod assets;
mod body;
mod compressed;
mod controls;
mod events;
mod extra;
mod fatal;
mod faults;
mod files;
mod fixed;
mod forms;
mod gate;
mod graph;
mod http;
mod jobs;
mod lent;
mod listening;
mod models;
mod nodes;
mod outputs;
mod packs;
mod page;
mod perform;
mod pictures;
mod prompts;
mod python_json;
mod release;
mod replace;
mod run;
mod seeding;
mod sockets;
mod state;
mod tunnelled;
mod users;
mod validate;
mod worker;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use faults::{Faults, Hang, Listening, SubmitFault, WorkerDies};
pub use models::Models;
pub use release::{VERSION, full_version};
pub use state::{Ledger, Seen};

use crate::net::Network;
use crate::tasks::Tasks;
use gate::Gate;
use release::Release;
use state::Server;

/// The options of a simulated backend.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    pub listen: SocketAddr,
    /// The simulated version, with all three numbers. Features of newer versions are missing.
    pub version: String,
    /// `--enable-assets`: `/api/assets` and `/api/tags` (from 0.33).
    pub assets: bool,
    /// `--multi-user`: users are distinguished by `Comfy-User`.
    pub multi_user: bool,
    /// `--enable-compress-response-body`.
    pub compress: bool,
    /// Requests without this token are refused, as by packs with a login.
    pub token: Option<String>,
    /// A folder with the official page, served at `/`.
    pub frontend: Option<PathBuf>,
    /// The waits of `SlowSteps` are divided by this.
    pub speed: f64,
}

impl Options {
    /// A ComfyUI 0.33.0 on a free port of loopback.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            version: VERSION.to_owned(),
            assets: false,
            multi_user: false,
            compress: false,
            token: None,
            frontend: None,
            speed: 1.0,
        }
    }
}

/// A running simulated backend. It stops when dropped.
#[derive(Debug)]
pub struct Sim {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// The state that its tasks share.
#[derive(Debug)]
struct Shared {
    options: Options,
    release: Release,
    network: Arc<dyn Network>,
    server: Mutex<Server>,
    faults: Mutex<Faults>,
    faults_changed: Notify,
    gate: Gate,
    work: Notify,
    blob_bytes: Arc<AtomicU64>,
    process: Mutex<Process>,
}

/// One process of the server, from a start to a crash.
#[derive(Debug, Default)]
struct Process {
    death: CancellationToken,
    tasks: TaskTracker,
    is_running: bool,
}

impl Sim {
    /// Starts a backend and returns once it listens.
    ///
    /// # Errors
    /// Its address is taken.
    pub async fn start(network: Arc<dyn Network>, options: Options) -> io::Result<Self> {
        let listen = options.listen;
        let shared = Arc::new(Shared {
            release: Release::parse(&options.version),
            options,
            network,
            server: Mutex::default(),
            faults: Mutex::default(),
            faults_changed: Notify::new(),
            gate: Gate::default(),
            work: Notify::new(),
            blob_bytes: Arc::default(),
            process: Mutex::default(),
        });
        let address = shared.begin(listen).await?;
        Ok(Self { shared, address })
    }

    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.options.name
    }

    /// Crashes like a killed process. Connections break; queue, history, sockets and temp files are
    /// lost; inputs and outputs stay; the port is closed.
    pub async fn crash(&self) {
        self.shared.end().await;
    }

    /// Starts again on the same port, without its memory.
    ///
    /// # Errors
    /// Another process has taken the port.
    pub async fn restart(&self) -> io::Result<()> {
        self.shared.end().await;
        self.shared.begin(self.address).await.map(|_| ())
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.process().is_running
    }

    /// Changes its faults.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.set_faults(change);
    }

    /// Waits until so many requests are held (`Faults::holds`).
    pub async fn holds(&self, count: usize) {
        self.shared.gate.holds(count).await;
    }

    /// Deletes the files in its folder of uploads.
    pub fn delete_inputs(&self) {
        self.shared.server().files.delete_inputs();
    }

    /// Deletes its users, with what they have saved. Those of a real server are in a file.
    pub fn forget_users(&self) {
        self.shared.server().users = users::Users::default();
    }

    /// What it has done so far, over all its processes.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.server().ledger.clone()
    }

    /// The latest requests that it received.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.server().seen.iter().cloned().collect()
    }

    /// The ids of its registered sockets.
    #[must_use]
    pub fn sids(&self) -> Vec<String> {
        self.shared.server().memory.sockets.keys().cloned().collect()
    }

    /// How many sockets of node packs are open.
    #[must_use]
    pub fn pack_sockets(&self) -> usize {
        self.shared.server().memory.pack_sockets
    }

    /// How many bytes of blobs (`/sim/blob`) it has sent so far.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.shared.blob_bytes.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn queue_remaining(&self) -> usize {
        self.shared.server().memory.queue_remaining()
    }

    /// Stops it and waits until everything has ended.
    pub async fn stop(self) {
        self.shared.end().await;
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.shared.process().death.cancel();
    }
}

/// Runs one backend until the process stops, for `mooring sim`.
///
/// # Errors
/// Its address is taken.
pub async fn run(options: Options, network: Arc<dyn Network>, tasks: Tasks) -> io::Result<()> {
    let sim = Sim::start(network, options).await?;
    tracing::info!(name = sim.name(), url = sim.url(), "Simulated ComfyUI ready.");
    tasks.stopping().await;
    sim.stop().await;
    Ok(())
}

impl Shared {
    /// Starts a process: with empty memory, a worker and a listener.
    async fn begin(self: &Arc<Self>, listen: SocketAddr) -> io::Result<SocketAddr> {
        let listener = self.network.listen(listen).await?;
        let address = listener.local_addr();
        let process = Process {
            is_running: true,
            death: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        *self.process() = process;
        {
            let mut server = self.server();
            server.memory = state::Memory::default();
            server.memory.temp_prefix =
                (0..5).map(|_| char::from(b'a' + rand::random::<u8>() % 26)).collect();
            server.files.wipe_temp();
        }
        self.spawn(worker::work(Arc::clone(self)));
        self.spawn(listening::accept(Arc::clone(self), listener));
        Ok(address)
    }

    /// Ends the process, and waits until all its tasks are gone and its port is free.
    async fn end(&self) {
        let (death, tasks) = {
            let mut process = self.process();
            process.is_running = false;
            (process.death.clone(), process.tasks.clone())
        };
        death.cancel();
        tasks.close();
        tasks.wait().await;
    }

    /// Crashes from within: the caller is one of the tasks that end.
    fn kill(&self) {
        let mut process = self.process();
        process.is_running = false;
        process.death.cancel();
    }

    /// Spawns a task that ends with the process.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let process = self.process();
        let death = process.death.clone();
        process.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = death.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().expect("never poisoned: no panic while held"));
        self.faults_changed.notify_waiters();
    }

    fn faults(&self) -> Faults {
        self.faults.lock().expect("never poisoned: no panic while held").clone()
    }

    /// Simulates hashing an upload: nothing else happens meanwhile.
    async fn hash(&self) {
        let millis = self.faults().hash_ms;
        if 0 < millis {
            self.set_faults(|faults| faults.hashes = true);
            crate::net::sleep(std::time::Duration::from_millis(millis)).await;
            self.set_faults(|faults| faults.hashes = false);
        }
    }

    async fn faults_changed(&self) {
        self.faults_changed.notified().await;
    }

    fn name(&self) -> &str {
        &self.options.name
    }

    /// True once for each interrupt.
    fn take_interrupt(&self) -> bool {
        std::mem::take(&mut self.server().memory.interrupt)
    }

    fn speed(&self) -> f64 {
        self.options.speed.max(f64::MIN_POSITIVE)
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().expect("never poisoned: no panic while held")
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().expect("never poisoned: no panic while held")
    }
}
