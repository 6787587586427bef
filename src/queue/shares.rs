//! Who has had how much: seconds of a GPU of speed 1 for each sharer, and the fair time that each
//! could have had by now.
//!
//! Fair time never decreases, and neither it nor `used` depends on a guess: a wrong guess about one
//! sharer must not push another back. Why not counters with a lift on return (VTC): newcomers would
//! pass those who wait.

use std::collections::HashMap;

use super::ids::SharerKey;

/// All sharers that have work, or have had more than their share lately.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// Fair time, in seconds of a GPU of speed 1.
    fair: f64,
    now: f64,
    half_life: f64,
    /// The weights of sharers with work, and how many those are.
    weights: f64,
    working: usize,
    /// With so many it is looked for sharers that can be forgotten.
    forget_at: usize,
    sharers: HashMap<SharerKey, Sharer>,
}

#[derive(Clone, Debug)]
pub(super) struct Sharer {
    weight: f64,
    /// What it has had, by its weight.
    used: f64,
    /// What its prompts at backends are expected to take, by its weight: for the order only.
    expected: f64,
    /// Prompts that wait or are at a backend.
    pub(super) prompts: u32,
    pub(super) waiting: usize,
    touched: f64,
}

impl Shares {
    pub(super) fn new(half_life: f64) -> Self {
        let half_life = half_life.max(1.0);
        let sharers = HashMap::new();
        Self { fair: 0.0, now: 0.0, half_life, weights: 0.0, working: 0, forget_at: 64, sharers }
    }

    pub(super) fn fair(&self) -> f64 {
        self.fair
    }

    /// The latest time that was told.
    pub(super) fn now(&self) -> f64 {
        self.now
    }

    pub(super) fn weights(&self) -> f64 {
        self.weights
    }

    /// Fair time goes on while anybody waits. `speed` is that of all backends that are up. Returns
    /// the time, which never goes back.
    pub(super) fn advance(&mut self, now: f64, speed: f64, anybody_waits: bool) -> f64 {
        let passed = (now - self.now).max(0.0);
        self.now = self.now.max(now);
        if anybody_waits && 0.0 < self.weights {
            self.fair += speed.max(0.0) * passed / self.weights;
        }
        self.now
    }

    /// The sharer, if it has work or is remembered.
    pub(super) fn get(&self, sharer: SharerKey) -> Option<&Sharer> {
        self.sharers.get(&sharer)
    }

    /// One more prompt of the sharer. From idleness it starts with what it has used, but with no
    /// claim to the time in which it had no work.
    pub(super) fn arrives(&mut self, sharer: SharerKey, weight: f64) {
        let (fair, now) = (self.fair, self.now);
        let new =
            Sharer { weight, used: fair, expected: 0.0, prompts: 0, waiting: 0, touched: now };
        self.forget_some();
        self.fade(sharer);
        let it = self.sharers.entry(sharer).or_insert(new);
        if it.prompts == 0 {
            it.weight = if weight.is_finite() && 0.0 < weight { weight } else { 1.0 };
            it.used = it.used.max(fair);
            it.expected = 0.0;
            self.weights += it.weight;
            self.working += 1;
        }
        it.prompts += 1;
        it.waiting += 1;
    }

    /// One prompt less: it ended, or is gone.
    pub(super) fn leaves(&mut self, sharer: SharerKey) {
        let Some(it) = self.sharers.get_mut(&sharer) else { return };
        it.prompts = it.prompts.saturating_sub(1);
        if it.prompts == 0 {
            it.expected = 0.0;
            self.working -= 1;
            self.weights = if self.working == 0 { 0.0 } else { self.weights - it.weight };
        }
    }

    /// One prompt that waited does not, or waits again.
    pub(super) fn waits(&mut self, sharer: SharerKey, change: isize) {
        if let Some(it) = self.sharers.get_mut(&sharer) {
            it.waiting = it.waiting.saturating_add_signed(change);
        }
    }

    /// What is at backends takes so many seconds more, or less; returns its share of the sharer.
    pub(super) fn expects(&mut self, sharer: SharerKey, seconds: f64) -> f64 {
        let Some(it) = self.sharers.get_mut(&sharer) else { return 0.0 };
        let share = seconds / it.weight;
        it.expected += share;
        share
    }

    pub(super) fn expects_no_more(&mut self, sharer: SharerKey, share: f64) {
        if let Some(it) = self.sharers.get_mut(&sharer) {
            it.expected = (it.expected - share).max(0.0);
        }
    }

    /// The sharer has had so many seconds of a GPU of speed 1.
    pub(super) fn charge(&mut self, sharer: SharerKey, seconds: f64) {
        self.fade(sharer);
        if let Some(it) = self.sharers.get_mut(&sharer) {
            it.used += seconds.max(0.0) / it.weight;
        }
    }

    /// The fair part of the key of the sharer's prompts.
    pub(super) fn key(&self, sharer: SharerKey) -> f64 {
        self.sharers.get(&sharer).map_or(self.fair, |it| it.used + it.expected)
    }

    #[cfg(test)]
    pub(super) fn used(&self, sharer: SharerKey) -> Option<f64> {
        self.sharers.get(&sharer).map(|it| it.used)
    }

    /// What was used above the share fades, so that nobody pays in the afternoon for the morning.
    fn fade(&mut self, sharer: SharerKey) {
        let Some(it) = self.sharers.get_mut(&sharer) else { return };
        let passed = self.now - it.touched;
        it.touched = self.now;
        if self.fair < it.used {
            it.used = self.fair + (it.used - self.fair) * (-passed / self.half_life).exp2();
        }
    }

    /// Those without work who have had no more than their share are as good as new. Looked for when
    /// the table has doubled, so it costs each arrival little.
    fn forget_some(&mut self) {
        if self.sharers.len() < self.forget_at {
            return;
        }
        let fair = self.fair;
        self.sharers.retain(|_, it| 0 < it.prompts || fair < it.used);
        self.forget_at = 64.max(2 * self.sharers.len());
    }
}
