//! The limits and measures of the queue, each with the value that the simulation of
//! `docs/placement.md` speaks for.

use std::time::Duration;

/// How the queue decides.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Prompts at one backend at most, the running one included. At least 1.
    pub depth: u32,
    /// How long before the running one is expected to end the next is handed over.
    pub lead: Duration,
    /// Backends on which one client's prompts may be at the same time; 0 is no limit. With 1 a
    /// client stays at its backend until all its prompts, waiting ones included, have ended.
    pub spread: usize,
    /// How much more than the first in the order, for each backend that is up, a sharer may have
    /// had whose prompt passes the first because its models are loaded. In seconds of a GPU of
    /// speed 1, so one sharer alone passes for about so long, and several for as often so long.
    pub window: Duration,
    /// How long a backend may idle because what waits is sooner done on one that is warm.
    pub patience: Duration,
    /// After how long half of what a sharer used above its share is forgotten.
    pub half_life: Duration,
    /// How long the first prompt of a client waits until it counts one class higher.
    pub ageing: Duration,
    /// Prompts that wait, of all sharers.
    pub waiting_max: usize,
    /// Prompts that wait, of one sharer.
    pub waiting_max_of_one: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            depth: 2,
            lead: Duration::from_secs(3),
            spread: 1,
            window: Duration::from_secs(75),
            patience: Duration::from_secs(30),
            half_life: Duration::from_secs(600),
            ageing: Duration::from_secs(600),
            waiting_max: 10_000,
            waiting_max_of_one: 1_000,
        }
    }
}

/// A head of the list is looked at for a cold start; those behind it are not.
pub(super) const LOOK: usize = 16;
/// So many warm backends are looked at that a prompt might wait for.
pub(super) const WARM_LOOK: usize = 16;
/// A cold start also takes a model from somebody.
pub(super) const COLD_WEIGHT: f64 = 1.5;
/// Before anything is known of run times, in seconds.
pub(super) const RUN_UNKNOWN: f64 = 20.0;
/// Nothing is expected to take less or more seconds.
pub(super) const EXPECTED_LEAST: f64 = 0.05;
pub(super) const EXPECTED_MOST: f64 = 86_400.0;
/// What is left of a prompt that should have ended, as a part of what was expected.
pub(super) const OVERDUE: f64 = 0.15;
/// A backend for which somebody waits is looked at again after so many seconds at the latest.
pub(super) const LOOK_AGAIN: f64 = 2.0;
/// Bytes a second from a disk, before a load was seen.
pub(super) const DISK: f64 = 0.8e9;
/// Seconds of a load, before one was seen and if the size is not known.
pub(super) const LOAD_UNKNOWN: f64 = 8.0;
/// How many times as long or as short as by its size a load is expected to take, whatever was seen.
pub(super) const LOAD_MOST: f64 = 8.0;
pub(super) const LOAD_LEAST: f64 = 1.0 / LOAD_MOST;
/// Models that a backend of unknown memory is thought to keep.
pub(super) const MODELS_KEPT: u64 = 5;
