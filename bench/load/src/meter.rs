//! What did it cost? CPU and memory of the proxy, from `/proc`, over exactly the measured time.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::args::Args;

/// CPU time of all threads, from `schedstat`: nanoseconds, where `stat` has ticks of 10 ms.
/// Threads that ended are not in it; none of the proxies has such.
pub fn cpu(pids: &[u32]) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            let first = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
            nanoseconds += first.unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Resident memory in KiB, from `smaps_rollup`: `Rss`.
pub fn resident(pids: &[u32]) -> io::Result<f64> {
    let mut sum = 0.0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let rss =
            text.lines().find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next());
        sum += rss.and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(sum)
}

/// What the tasks of a row count, shared by all of them.
#[derive(Clone, Default)]
pub struct Meter(Rc<Counts>);

#[derive(Default)]
struct Counts {
    units: Cell<u64>,
    measures: Cell<bool>,
    /// Nanoseconds.
    latencies: RefCell<Vec<u64>>,
}

impl Meter {
    pub fn add(&self, units: u64) {
        self.0.units.set(self.0.units.get() + units);
    }

    pub fn units(&self) -> u64 {
        self.0.units.get()
    }

    /// One unit that took so long.
    pub fn took(&self, time: Duration) {
        self.add(1);
        if self.0.measures.get() {
            self.0.latencies.borrow_mut().push(time.as_nanos() as u64);
        }
    }

    /// Waits for the warm-up and for the measured time, and prints what came of it.
    pub async fn run(&self, args: &Args) -> io::Result<()> {
        let pids = args.pids();
        tokio::time::sleep(args.warm()?).await;
        let (units, used, began) = (self.units(), cpu(&pids)?, Instant::now());
        self.0.measures.set(true);
        tokio::time::sleep(args.seconds()?).await;
        self.0.measures.set(false);
        let (units, used) = (self.units() - units, cpu(&pids)? - used);
        let wall = began.elapsed().as_secs_f64();
        if units == 0 {
            return Err(io::Error::other("nothing was done in the measured time"));
        }
        if used.is_zero() && !pids.is_empty() {
            return Err(io::Error::other(
                "the proxy worked without CPU: these are not its processes",
            ));
        }
        println!("units={units}");
        println!("per_second={}", units as f64 / wall);
        println!("cpu_us={}", used.as_secs_f64() * 1e6 / units as f64);
        println!("busy={}", used.as_secs_f64() / wall);
        self.say_latencies();
        Ok(())
    }

    fn say_latencies(&self) {
        let mut latencies = self.0.latencies.borrow_mut();
        if latencies.is_empty() {
            return;
        }
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (share * (latencies.len() - 1) as f64).round() as usize;
            latencies[index] as f64 / 1e3
        };
        println!("median_us={}", at(0.5));
        println!("p99_us={}", at(0.99));
    }
}

/// Starts a task of a row. A failure ends the run: a row is measured whole or not at all.
pub fn spawn(work: impl Future<Output = io::Result<()>> + 'static) {
    tokio::task::spawn_local(async move {
        if let Err(error) = work.await {
            eprintln!("mooring-load: {error}");
            std::process::exit(1);
        }
    });
}
