//! The devices of a backend: which they are, and how much of their memory is free.
//!
//! They are read when the watch link opens, and again while somebody looks, at the rate of the
//! probes. So a gateway that nobody watches asks nothing. What a backend answers here says nothing
//! about its health.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::backend::{Backend, Common};
pub use crate::comfy::devices::Device;
use crate::comfy::devices::read as devices_in;
use crate::net::{now, sleep};

/// After a look they are read for so long. A scraper looks again within that time.
const LOOKED_AT_FOR: Duration = Duration::from_secs(180);

/// The free memory is told until it is so old. Names and sizes stay true.
const FREE_IS_TRUE_FOR: Duration = Duration::from_secs(60);

/// What one backend said of its devices.
#[derive(Debug, Default)]
pub struct Devices {
    seen: ArcSwapOption<Seen>,
    /// When somebody looked last.
    looked: ArcSwapOption<Instant>,
    is_looked_at: Notify,
}

#[derive(Debug)]
struct Seen {
    devices: Vec<Device>,
    at: Instant,
}

impl Devices {
    /// The devices as far as they are known, and asks for them while this goes on. Free memory that
    /// was read too long ago is unknown.
    fn look(&self, now: Instant) -> Vec<Device> {
        self.looked.store(Some(Arc::new(now)));
        self.is_looked_at.notify_one();
        let Some(seen) = &*self.seen.load() else { return Vec::new() };
        let mut devices = seen.devices.clone();
        if FREE_IS_TRUE_FOR <= now.duration_since(seen.at) {
            devices.iter_mut().for_each(|device| device.vram_free = None);
        }
        devices
    }

    /// Stores the answer of `GET /system_stats`.
    pub(super) fn learned(&self, stats: &[u8], at: Instant) {
        self.seen.store(Some(Arc::new(Seen { devices: devices_in(stats), at })));
    }

    /// It did not answer: what is free is unknown.
    fn missed(&self) {
        let unknown = |device: &Device| Device { vram_free: None, ..device.clone() };
        // Another task may learn something newer meanwhile, which stays.
        self.seen.rcu(|seen| {
            let seen = seen.as_ref()?;
            let devices = seen.devices.iter().map(unknown).collect();
            Some(Arc::new(Seen { devices, at: seen.at }))
        });
    }

    /// Waits until somebody has looked lately. Cancel safe.
    async fn are_looked_at(&self) {
        loop {
            let looked = self.looked.load().as_ref().map(|at| **at);
            if looked.is_some_and(|at| now().duration_since(at) < LOOKED_AT_FOR) {
                return;
            }
            self.is_looked_at.notified().await;
        }
    }

    /// How long what was read last is new enough.
    fn rest(&self, every: Duration, now: Instant) -> Duration {
        let age = self.seen.load().as_ref().map(|seen| now.duration_since(seen.at));
        age.map_or(Duration::ZERO, |age| every.saturating_sub(age))
    }
}

impl Backend {
    /// Its devices as far as they are known, and asks for them while somebody looks. What is free
    /// is unknown while it is down.
    #[must_use]
    pub fn look_at_devices(&self, now: Instant) -> Vec<Device> {
        let mut devices = self.devices.look(now);
        if !self.is_up() {
            devices.iter_mut().for_each(|device| device.vram_free = None);
        }
        devices
    }
}

impl Backend {
    /// The memory of its first device, which is the one that a ComfyUI loads models into; `None` if
    /// it is not known.
    #[must_use]
    pub fn model_memory(&self) -> Option<u64> {
        self.devices.seen.load().as_ref()?.devices.first()?.vram_total
    }
}

/// The memory of all of them together, in total and free. A part of it that is unknown makes the
/// sum unknown.
#[must_use]
pub fn memory_of(devices: &[Device]) -> (Option<u64>, Option<u64>) {
    if devices.is_empty() {
        return (None, None);
    }
    let sum = |of: fn(&Device) -> Option<u64>| {
        devices.iter().map(of).try_fold(0_u64, |sum, bytes| sum.checked_add(bytes?))
    };
    (sum(|it| it.vram_total), sum(|it| it.vram_free))
}

/// Reads the devices of `backend` while somebody looks, until it leaves.
pub(super) async fn read(backend: Arc<Backend>, common: Common) {
    tokio::select! {
        biased;
        () = backend.leaves() => {}
        () = read_while_looked_at(&backend, &common) => {}
    }
}

async fn read_while_looked_at(backend: &Backend, common: &Common) {
    let devices = &backend.devices;
    loop {
        devices.are_looked_at().await;
        let every = common.live.get().fleet.probe_interval;
        sleep(devices.rest(every, now())).await;
        // What is down or off is not asked.
        if backend.is_up() {
            let limit = common.live.get().fleet.probe_timeout;
            match backend.get_ok("/system_stats", limit).await {
                Ok(stats) => devices.learned(&stats, now()),
                Err(_unknown) => {
                    devices.missed();
                    sleep(every).await;
                }
            }
        } else {
            devices.missed();
            sleep(every).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &[u8] = br#"{"devices": [{"name": "a", "vram_total": 10, "vram_free": 4}]}"#;

    fn told(devices: &Devices, at: Instant) -> Option<(Option<u64>, Option<u64>)> {
        devices.look(at).first().map(|it| (it.vram_total, it.vram_free))
    }

    #[test]
    fn free_memory_is_told_while_it_is_new() {
        let (devices, at) = (Devices::default(), now());
        assert_eq!(told(&devices, at), None);
        devices.learned(STATS, at);
        assert_eq!(told(&devices, at), Some((Some(10), Some(4))));
        assert_eq!(told(&devices, at + FREE_IS_TRUE_FOR), Some((Some(10), None)));
        devices.missed();
        assert_eq!(told(&devices, at), Some((Some(10), None)));
        devices.learned(b"junk", at);
        assert_eq!(told(&devices, at), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_enough_for_a_while() {
        let devices = Devices::default();
        let is_looked_at = || tokio::time::timeout(Duration::from_secs(1), devices.are_looked_at());
        assert!(is_looked_at().await.is_err());
        assert_eq!(told(&devices, now()), None);
        assert!(is_looked_at().await.is_ok());
        sleep(LOOKED_AT_FOR).await;
        // The first may still be woken by the look of before.
        assert!(is_looked_at().await.is_err());
    }

    #[test]
    fn memory_is_that_of_all_devices_or_unknown() {
        let two = br#"{"devices": [{"name": "a", "vram_total": 10, "vram_free": 4},
            {"name": "b", "vram_total": 5}]}"#;
        assert_eq!(memory_of(&devices_in(STATS)), (Some(10), Some(4)));
        assert_eq!(memory_of(&devices_in(two)), (Some(15), None));
        assert_eq!(memory_of(&[]), (None, None));
    }

    #[test]
    fn it_rests_until_the_next_probe() {
        let (devices, at) = (Devices::default(), now());
        let (every, second) = (Duration::from_secs(5), Duration::from_secs(1));
        assert_eq!(devices.rest(every, at), Duration::ZERO);
        devices.learned(STATS, at);
        assert_eq!(devices.rest(every, at + second), every - second);
        assert_eq!(devices.rest(every, at + every * 2), Duration::ZERO);
    }
}
