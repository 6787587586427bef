//! A whole fleet and the gateway in turmoil: a simulated network and a simulated clock.
//!
//! A run is a function of its seed: `TURMOIL_SEED=17 cargo test --test it turmoil` replays one and
//! tells its story, `SEEDS=400` and `SEEDS=400..600` run as many and those.
//!
//! The gateway, three simulated backends and the clients are hosts of one simulated network, in one
//! thread. For a while lines are cut or held up, backends die and return without their memory, the
//! gateway is killed and started, submissions go wrong, and people open, lose and move their
//! sockets; then all is mended, and the run goes on until it is quiet. What the product promises is
//! checked at each step and in the end, against the ledgers of the backends ([`checks`]) and what
//! the clients were told ([`book`]).

mod book;
mod checks;
mod home;
mod network;
mod people;
mod store;
mod trouble;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use mooring::config::{Config, OnJournalError, QueueVerdict};
use mooring::front::Front;
use mooring::journal::Store as Kept;
use mooring::metrics::StoreMetrics;
use mooring::run::{self, Parts};
use mooring::sim::{Faults, Options, Sim};
use mooring::store::joining::join;
use mooring::store::keeping::keep;
use mooring::tasks::Tasks;
use tokio::sync::{mpsc, watch};

use crate::simulation::random::Random;
use crate::support::seeds;
use book::{Book, Tell};
use checks::{Checks, Machine};
use home::Survivor;
use network::{Links, Power, Simulated, Weather};
use people::{Calm, PLACES, Person, Wish};
use store::Model;
use trouble::{Act, Hands, Operator, Order, Trouble};

/// Seeds with `SOAK=1`, and in `make test`.
const SEEDS: u64 = 2_000;
const SEEDS_IN_TEST: u64 = 200;
const SEEDS_IN_STORE: u64 = 60;

/// For how long a life in a store is leased.
const LEASE: Duration = Duration::from_secs(3);

const GATEWAY: &str = "gateway";
const PORT: u16 = 8180;
const BACKENDS: [&str; 3] = ["gpu-a", "gpu-b", "gpu-c"];
const BACKEND_PORT: u16 = 8188;

/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(15);

/// When at the latest it must be quiet.
const QUIET: Duration = Duration::from_secs(80);

const TICK: Duration = Duration::from_millis(10);

/// When all runs begin.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

#[test]
fn promises_hold_in_turmoil_for_every_seed() {
    all_seeds("seeds of a fleet in turmoil", Way::AtOnce);
}

/// The same with prompts that wait in the gateway, and backends that are drained and turned off.
#[test]
fn promises_hold_in_turmoil_for_prompts_that_wait() {
    all_seeds("seeds of a fleet in turmoil with a queue", Way::Waiting);
}

/// The same with the journal in a store that is slow, loses calls and goes away.
#[test]
fn promises_hold_in_turmoil_with_a_journal_in_a_store() {
    all_seeds("seeds of a fleet in turmoil with a store", Way::InStore);
}

/// How prompts go to backends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// When they are submitted.
    AtOnce,
    /// When a backend has room: at most two are there.
    Waiting,
    /// As both, by seed; and the journal is in a store.
    InStore,
}

impl Way {
    fn waits(self, seed: u64) -> bool {
        match self {
            Self::AtOnce => false,
            Self::Waiting => true,
            Self::InStore => u64::is_multiple_of(seed, 2),
        }
    }
}

fn all_seeds(what: &str, way: Way) {
    if let Ok(seed) = std::env::var("TURMOIL_SEED") {
        // With `RUST_LOG=mooring=debug` the gateway tells its side of it.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _log = tracing_subscriber::fmt().with_env_filter(filter).without_time().try_init();
        let number = seed.parse().expect("TURMOIL_SEED is a number");
        let (_, outcome) = run_seed(number, way, Tell::AtOnce);
        outcome.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        return;
    }
    let in_test = if way == Way::InStore { SEEDS_IN_STORE } else { SEEDS_IN_TEST };
    let seeds = seeds(what, SEEDS, in_test);
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seeds.end <= seed {
                        return;
                    }
                    let ran = catch_unwind(AssertUnwindSafe(|| run_seed(seed, way, Tell::Nothing)));
                    let broken = match ran {
                        Ok((_, Ok(()))) => continue,
                        Ok((_, Err(broken))) => broken,
                        Err(_) => "it panicked".to_owned(),
                    };
                    failed.lock().unwrap().push((seed, broken));
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let lines: Vec<String> =
        failed.iter().map(|(seed, broken)| format!("TURMOIL_SEED={seed}: {broken}")).collect();
    assert!(failed.is_empty(), "{} of {seeds:?} fail\n{}", failed.len(), lines.join("\n"));
}

#[test]
fn a_turmoil_is_a_function_of_its_seed() {
    // Also while others run beside it.
    let way = |seed| match seed {
        0 | 2 => Way::AtOnce,
        1 => Way::Waiting,
        _store => Way::InStore,
    };
    let story = |seed| run_seed(seed, way(seed), Tell::Nothing).0;
    let first: Vec<Vec<String>> = (0..4).map(story).collect();
    let again: Vec<Vec<String>> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|seed| scope.spawn(move || story(seed))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (seed, (first, again)) in first.iter().zip(&again).enumerate() {
        let differ = first.iter().zip(again).find(|(first, again)| first != again);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.len(), again.len(), "seed {seed}");
    }
}

/// One backend may take half a minute to say what it has; then the others have their turn.
#[test]
fn a_backend_that_never_says_what_it_has_does_not_keep_the_others_from_it() {
    mooring::net::simulated(1, clock, || {
        let mut config = config(Way::Waiting, 1);
        config.server.answer_timeout = Duration::from_secs(3_600);
        let mut world = World::with(1, Way::Waiting, config);
        let silent = Faults { holds: "GET /object_info".into(), ..Faults::default() };
        world.orders[0].send(Order::Misbehave(silent)).unwrap();
        let known = |world: &World| {
            let gateway = world.gateway.lock().unwrap();
            gateway.as_ref().map_or(0, |it| it.sessions.waiting.known_backends())
        };
        while known(&world) < BACKENDS.len() - 1 {
            world.sim.step().unwrap();
            assert!(world.sim.elapsed() < Duration::from_secs(40), "{} are known", known(&world));
        }
    });
}

/// The time of the simulated clock.
fn clock() -> u64 {
    let since = ::turmoil::since_epoch().unwrap_or(EPOCH);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Runs one seed: its story, and which promise it broke.
fn run_seed(seed: u64, way: Way, tell: Tell) -> (Vec<String>, Result<(), String>) {
    mooring::net::simulated(seed, clock, || {
        let mut world = World::new(seed, way);
        world.book.lock().unwrap().tell = tell;
        let outcome = world.live();
        let story = std::mem::take(&mut world.book.lock().unwrap().story);
        (story, outcome)
    })
}

/// One run.
struct World {
    sim: ::turmoil::Sim<'static>,
    trouble: Trouble,
    checks: Checks,
    book: Arc<Mutex<Book>>,
    weather: Arc<Weather>,
    /// The gateway's.
    power: Arc<Power>,
    gateway: Arc<Mutex<Option<Arc<Front>>>>,
    backends: Vec<Arc<Machine>>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    /// What an operator says to the gateway that lives.
    operator: Operator,
    config: Config,
    way: Way,
    people: usize,
    calm: watch::Sender<Calm>,
}

impl World {
    fn new(seed: u64, way: Way) -> Self {
        Self::with(seed, way, config(way, seed))
    }

    fn with(seed: u64, way: Way, config: Config) -> Self {
        let mut random = Random::new(seed);
        let slowest = random.pick(&[5, 20, 60]);
        let sim = ::turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(UNIX_EPOCH + EPOCH)
            .simulation_duration(3 * QUIET)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(slowest))
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let mut world = Self {
            sim,
            trouble: Trouble::new(&mut random),
            checks: Checks::default(),
            book: Arc::default(),
            weather: Arc::default(),
            power: Arc::default(),
            gateway: Arc::default(),
            backends: Vec::new(),
            orders: Vec::new(),
            operator: Arc::default(),
            config,
            way,
            people: 6 + random.below(5),
            calm: watch::Sender::default(),
        };
        for name in BACKENDS {
            world.add_backend(name);
        }
        world.add_gateway((way == Way::InStore).then(|| Model::new(seed, &world.power)));
        world.add_people(&mut random);
        if way.waits(seed) {
            world.trouble.with_operators(&mut random);
        }
        world
    }

    fn network(&self, host: &str, links: &Arc<Links>) -> Simulated {
        let (weather, links) = (Arc::clone(&self.weather), Arc::clone(links));
        Simulated { host: host.to_owned(), weather, links, power: Arc::default() }
    }

    fn add_backend(&mut self, name: &'static str) {
        let network = Arc::new(self.network(name, &Arc::default()));
        let backend = Arc::new(Machine::default());
        self.backends.push(Arc::clone(&backend));
        let (orders, mut inbox) = mpsc::unbounded_channel();
        self.orders.push(orders);
        self.sim.client(name, async move {
            let listen = SocketAddr::from(([0, 0, 0, 0], BACKEND_PORT));
            let options = Options { listen, ..Options::named(name) };
            let sim = Sim::start(network, options).await?;
            let sim = backend.sim.get_or_init(|| sim);
            while let Some(order) = inbox.recv().await {
                match order {
                    Order::Crash => {
                        sim.crash().await;
                        backend.bury();
                    }
                    Order::Restart => sim.restart().await?,
                    Order::Misbehave(faults) => sim.set_faults(|current| *current = faults),
                }
            }
            Ok(())
        });
    }

    fn add_gateway(&mut self, store: Option<Model>) {
        let network = self.network(GATEWAY, &self.checks.links);
        let network = Simulated { power: Arc::clone(&self.power), ..network };
        let current = Arc::clone(&self.gateway);
        let survivor = Survivor::on(&self.power);
        let (operator, config) = (Arc::clone(&self.operator), self.config.clone());
        self.sim.host(GATEWAY, move || {
            let (network, current) = (Arc::new(network.clone()), Arc::clone(&current));
            let (survivor, store) = (survivor.clone(), store.clone());
            let (operator, config) = (Arc::clone(&operator), config.clone());
            async move {
                let tasks = Tasks::default();
                let power = Arc::clone(&network.power);
                tasks.spawn(async move { power.supply().await });
                let home: Box<dyn Kept> = match store {
                    Some(store) => {
                        let begun = join(&store, "gateway", LEASE).await?;
                        let metrics = StoreMetrics::default();
                        let kept = keep(Arc::new(store), begun, metrics, Tasks::default());
                        Box::new(kept.await?.1)
                    }
                    None => Box::new(survivor),
                };
                let parts = Parts { home: Some(home), ..Parts::default() };
                let running = run::start(config, network, &tasks, parts).await?;
                *current.lock().unwrap() = Some(Arc::clone(&running.front));
                let (said, mut heard) = mpsc::unbounded_channel();
                *operator.lock().unwrap() = Some(said);
                while let Some((backend, state)) = heard.recv().await {
                    trouble::operate(&running.front, backend, state);
                }
                std::future::pending().await
            }
        });
    }

    fn add_people(&mut self, random: &mut Random) {
        let mut at: Vec<Vec<_>> = PLACES.iter().map(|_| Vec::new()).collect();
        let mut lives = Vec::new();
        for number in 0..self.people {
            let (wish, wished) = watch::channel(Wish::NOTHING);
            let seed = random.below(usize::MAX) as u64;
            for (place, name) in PLACES.iter().enumerate() {
                let person = Person {
                    name: format!("p{number}"),
                    network: self.network(name, &Arc::default()),
                    power: Arc::clone(&self.power),
                    book: Arc::clone(&self.book),
                    tasks: Tasks::default(),
                };
                at[place].push((person, wished.clone()));
            }
            lives.push((wish, Random::new(seed)));
        }
        let mut lives = Some(lives);
        for (place, people) in at.into_iter().enumerate() {
            // The scripts run at the first place; at the others there are only sockets.
            let lives = lives.take().unwrap_or_default();
            let calm = self.calm.clone();
            self.sim.client(PLACES[place], async move {
                let tasks = Tasks::default();
                for ((person, _), (wish, random)) in people.iter().zip(lives) {
                    tasks.spawn(person.clone().live(random, wish, calm.clone()));
                }
                for (person, wished) in people {
                    tasks.spawn(person.sit(place, wished));
                }
                std::future::pending().await
            });
        }
    }

    /// Steps through the chaos and the time after it, until it is quiet.
    fn live(&mut self) -> Result<(), String> {
        while self.calm.borrow().at_rest < self.people || !self.is_quiet() {
            self.step()?;
            if self.quiet() < self.sim.elapsed() {
                return Err(format!("not quiet after {:?}: {}", self.quiet(), self.unrest()));
            }
        }
        // What is still on its way must not change the picture.
        let rest = self.sim.elapsed() + Duration::from_secs(5);
        while self.sim.elapsed() < rest {
            self.step()?;
        }
        self.calm.send_modify(|calm| calm.is_quiet = true);
        while self.calm.borrow().done < self.people {
            self.step()?;
            if self.quiet() < self.sim.elapsed() {
                return Err("questions for the history are not answered".to_owned());
            }
        }
        let (book, gateway) = (self.book.lock().unwrap(), self.gateway.lock().unwrap());
        let gateway = gateway.as_ref().ok_or("the gateway is not there")?;
        checks::in_the_end(&book, gateway, &self.backends)
    }

    fn step(&mut self) -> Result<(), String> {
        self.make_trouble()?;
        self.sim.step().map_err(|error| error.to_string())?;
        if let Some(gateway) = &*self.gateway.lock().unwrap() {
            self.checks.bindings(gateway)?;
            self.checks.nothing_waits_in_vain(gateway, self.sim.elapsed())?;
            let lost = gateway.shared.metrics.links.ends("lost");
            self.book.lock().unwrap().links_lost(self.sim.elapsed(), lost);
        }
        self.checks.links()?;
        if self.sim.elapsed().subsec_millis() < 10 {
            checks::executions(&self.backends, &self.book.lock().unwrap())?;
        }
        match self.book.lock().unwrap().violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    fn make_trouble(&mut self) -> Result<(), String> {
        let now = self.sim.elapsed();
        while let Some(act) = self.trouble.due(now) {
            let is_of_gateway = matches!(act, Act::KillGateway | Act::StartGateway);
            if is_of_gateway && self.way == Way::InStore && self.config.queue.is_used() {
                // What was refused or deleted while the store is away is only written when it is
                // back: a kill before that lets such a prompt run.
                continue;
            }
            let mut book = self.book.lock().unwrap();
            book.note(now, &format!("{act:?}"));
            let is_away = self.gateway.lock().unwrap().is_none();
            book.happens(now, &act, is_away);
            if !self.config.queue.is_used() {
                // Without a queue the gateway sends nothing twice, whatever it knows.
                book.unseen = 0;
            }
            drop(book);
            if matches!(act, Act::KillGateway) {
                self.power.cut();
                self.sim.step().map_err(|error| error.to_string())?;
            }
            let hands = Hands { orders: &self.orders, operator: &self.operator };
            act.apply(&mut self.sim, &self.weather, hands, &self.gateway);
        }
        Ok(())
    }

    /// When at the latest it must be quiet. With a queue all may have come to wait for one backend.
    fn quiet(&self) -> Duration {
        if self.config.queue.is_used() { 2 * QUIET } else { QUIET }
    }

    /// Nobody is held any more.
    fn is_quiet(&self) -> bool {
        let gateway = self.gateway.lock().unwrap();
        gateway.as_ref().is_some_and(|gateway| checks::held(gateway).is_empty())
    }

    fn unrest(&self) -> String {
        let book = self.book.lock().unwrap();
        let waiting: Vec<String> = (0..self.people)
            .map(|number| format!("p{number}"))
            .filter(|name| book.is_waiting(name) || !book.without_end(name).is_empty())
            .map(|name| format!("{name} has no end of {:?}", book.without_end(&name)))
            .collect();
        let gateway = self.gateway.lock().unwrap();
        let held = gateway.as_ref().map(|gateway| checks::held(gateway)).unwrap_or_default();
        format!("{waiting:?}, held {held:?}")
    }
}

/// Shorter times than the defaults, in about the same proportions.
fn config(way: Way, seed: u64) -> Config {
    let urls = BACKENDS.map(|name| format!("http://{name}:{BACKEND_PORT}"));
    let named: Vec<(&str, &str)> =
        BACKENDS.iter().zip(&urls).map(|(name, url)| (*name, url.as_str())).collect();
    let mut config = Config::for_backends(&named).unwrap();
    let (millis, secs) = (Duration::from_millis, Duration::from_secs);
    config.server.listen = SocketAddr::from(([0, 0, 0, 0], PORT));
    config.admin.listen = None;
    config.server.answer_timeout = secs(4);
    config.server.body_timeout = secs(2);
    config.affinity.link_linger = secs(3);
    config.fleet.probe_interval = secs(1);
    config.fleet.probe_timeout = secs(2);
    config.fleet.patience = secs(1);
    config.fleet.connect_timeout = millis(500);
    config.fleet.pool_idle = secs(5);
    config.fleet.grace = secs(8);
    config.prompts.silent_after = secs(3);
    config.prompts.answer_limit = secs(6);
    config.prompts.link_timeout = secs(2);
    config.sockets.ping_interval = secs(1);
    config.sockets.alive_after = secs(2);
    config.sockets.close_wait = secs(1);
    if way == Way::InStore {
        config.state.on_error = Some(OnJournalError::Refuse);
    }
    if way.waits(seed) {
        config.queue.depth = 2;
        config.queue.verdict_wait = secs(3);
        if seed.is_multiple_of(4) {
            config.queue.verdict = QueueVerdict::Late;
        }
    }
    config
}
