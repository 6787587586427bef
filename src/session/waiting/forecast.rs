//! When what waits is expected to start. It is worked out when somebody asks, and kept for a
//! moment: the more work it was, the longer, and a second at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, yield_now};
use tracing::error;

use super::transitions::seconds;
use super::{Entry, Full, Index, Waiting};
use crate::net::now;
use crate::queue::forecast::{Forecast, Goes, Play};
use crate::queue::ids::SharerKey;
use crate::queue::snapshot::Snapshot;
use crate::routing::ids::{ClientId, PromptId};
use crate::routing::owners::Person;

/// The forecast that was made last.
#[derive(Debug)]
pub(super) struct Forecasts {
    last: Arc<ArcSwapOption<Forecast>>,
    /// One is made at a time, also if whoever asked for it has left.
    place: Arc<Semaphore>,
}

impl Default for Forecasts {
    fn default() -> Self {
        Self { last: Arc::default(), place: Arc::new(Semaphore::new(1)) }
    }
}

/// What is expected of one prompt that waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ahead {
    /// 1 for the next that is handed over.
    pub place: usize,
    /// In how long it starts; `None` if nothing is known of that.
    pub start: Option<Duration>,
}

impl Ahead {
    /// The seconds until it starts, of which none is left out.
    #[must_use]
    pub fn start_seconds(&self) -> Option<u64> {
        self.start.map(whole_seconds)
    }
}

/// One prompt that waits, for operators.
#[derive(Clone, Debug)]
pub struct InLine {
    pub prompt: PromptId,
    pub client: ClientId,
    pub ahead: Ahead,
    /// Since its submission.
    pub waited: Duration,
    /// ComfyUI's `number`.
    pub number: f64,
    /// It could not be sent, and is not tried at this moment.
    pub rests: bool,
}

/// A step takes about 40 ns, and a fiftieth of the time may be spent on forecasts.
const KEPT_FOR_A_STEP: Duration = Duration::from_micros(2);

/// It is never older than this.
const KEPT_MAX: Duration = Duration::from_secs(1);

/// With more prompts than this it is made on a thread of its own.
const FEW: usize = 256;

/// About a quarter of a millisecond: so long nobody else has this thread.
const STEPS_AT_ONCE: usize = 6_000;

/// How long to wait until asking again if nobody knows when something moves: soon enough for a
/// backend that comes back.
const UNKNOWN: Duration = Duration::from_secs(60);

impl Waiting {
    /// What is expected of all that wait now.
    pub async fn forecast(&self) -> Arc<Forecast> {
        if !self.is_used() {
            return Arc::default();
        }
        if let Some(kept) = self.kept_forecast() {
            return kept;
        }
        // It is never closed.
        let place = Arc::clone(&self.forecasts.place).acquire_owned().await;
        if let Some(kept) = self.kept_forecast() {
            return kept;
        }
        let at = self.at(now());
        let snapshot = self.index().queue.snapshot();
        if snapshot.waiting() <= FEW {
            let made = Arc::new(in_pieces(snapshot, at).await);
            self.forecasts.last.store(Some(Arc::clone(&made)));
            return made;
        }
        let last = Arc::clone(&self.forecasts.last);
        // Nothing stops this, so it keeps its place and what it makes.
        let making = spawn_blocking(move || {
            let _place = place;
            let made = Arc::new(Forecast::of(snapshot, at));
            last.store(Some(Arc::clone(&made)));
            made
        });
        making.await.unwrap_or_else(|failed| {
            error!(%failed, "A forecast of the queue has failed.");
            Arc::default()
        })
    }

    fn kept_forecast(&self) -> Option<Arc<Forecast>> {
        let last = self.forecasts.last.load_full()?;
        let steps = u32::try_from(last.steps()).unwrap_or(u32::MAX);
        let kept_for = KEPT_FOR_A_STEP.saturating_mul(steps).min(KEPT_MAX);
        (self.at(now()).saturating_sub(last.made()) < kept_for).then_some(last)
    }

    /// What is expected of a prompt; `None` if it does not wait.
    pub async fn ahead(&self, prompt: &PromptId) -> Option<Ahead> {
        let forecast = self.forecast().await;
        self.ahead_of(&forecast, std::iter::once(prompt)).pop().flatten()
    }

    /// The same for several, of one forecast.
    #[must_use]
    pub fn ahead_of<'p>(
        &self,
        forecast: &Forecast,
        prompts: impl Iterator<Item = &'p PromptId>,
    ) -> Vec<Option<Ahead>> {
        if !self.is_used() {
            return prompts.map(|_| None).collect();
        }
        let at = self.at(now());
        let index = self.index();
        let ahead = |prompt| index.ahead(forecast, index.prompts.get(prompt)?, at);
        prompts.map(ahead).collect()
    }

    /// So many of those who wait, by place. One that came after the forecast is not among them.
    #[must_use]
    pub fn in_line(&self, forecast: &Forecast, skip: usize, most: usize) -> Vec<InLine> {
        if !self.is_used() {
            return Vec::new();
        }
        let (now, index) = (now(), self.index());
        let at = self.at(now);
        let keys = forecast.order().iter().skip(skip).take(most);
        let prompts = keys.filter_map(|key| index.ids.get(key));
        prompts.filter_map(|prompt| index.in_line(forecast, prompt, (now, at))).collect()
    }

    /// The same for these prompts, those of them that wait.
    #[must_use]
    pub fn in_line_of(&self, forecast: &Forecast, prompts: &[PromptId]) -> Vec<InLine> {
        if !self.is_used() {
            return Vec::new();
        }
        let (now, index) = (now(), self.index());
        let at = self.at(now);
        let rows = prompts.iter().filter_map(|it| index.in_line(forecast, it, (now, at)));
        let mut rows: Vec<InLine> = rows.collect();
        rows.sort_by_key(|it| it.ahead.place);
        rows
    }

    /// A prompt that waits is before all others. False if it does not wait.
    pub fn to_front(&self, prompt: &PromptId) -> bool {
        let at = self.at(now());
        let mut index = self.index();
        let Some(key) = index.prompts.get(prompt).map(|it| it.key) else { return false };
        let is_moved = index.queue.to_front(key, at);
        drop(index);
        // What is told from now on is the new order.
        self.forecasts.last.store(None);
        self.wake();
        is_moved
    }

    /// The same refusal, with the time until there is room as it is expected: until the first of
    /// all leaves the queue, or the first of this payer.
    pub async fn full_until(&self, full: Full, payer: Option<&Person>) -> Full {
        let of_all = match full {
            Full::Queue { .. } => true,
            Full::Sharer { .. } | Full::BytesOfSharer { .. } => false,
            Full::TooLarge { .. } | Full::Known | Full::TooLong { .. } => return full,
        };
        let forecast = self.forecast().await;
        let leaves = match of_all {
            true => forecast.leaves(),
            false => {
                let sharer = self.index().sharers.get(&payer.cloned());
                sharer.and_then(|sharer| forecast.leaves_of(SharerKey(sharer)))
            }
        };
        let at = self.at(now());
        full.within(seconds(leaves.map_or(UNKNOWN, |leaves| leaves.saturating_sub(at))))
    }

    /// Why a prompt may not wait so long, if it is expected to start later than that.
    pub async fn is_too_long(&self, prompt: &PromptId) -> Option<Full> {
        let max = self.limits.max_wait;
        if max.is_zero() {
            return None;
        }
        let forecast = self.forecast().await;
        let start = {
            let at = self.at(now());
            let index = self.index();
            let entry = index.prompts.get(prompt)?;
            // Nobody is refused for what is only roughly known.
            forecast.get(entry.key)?;
            index.ahead(&forecast, entry, at)?.start?
        };
        let over = start.checked_sub(max).filter(|over| !over.is_zero())?;
        Some(Full::TooLong { start: whole_seconds(start), max, seconds: seconds(over) })
    }
}

impl Index {
    fn in_line(
        &self,
        forecast: &Forecast,
        prompt: &PromptId,
        (now, at): (Instant, Duration),
    ) -> Option<InLine> {
        let entry = self.prompts.get(prompt)?;
        let ahead = self.ahead(forecast, entry, at)?;
        let waited = now.saturating_duration_since(entry.since);
        let (prompt, client) = (prompt.clone(), entry.client.clone());
        let (number, rests) = (entry.number, entry.rests);
        Some(InLine { prompt, client, ahead, waited, number, rests })
    }

    fn ahead(&self, forecast: &Forecast, entry: &Entry, at: Duration) -> Option<Ahead> {
        if !self.queue.has_waiting(entry.key) {
            return None;
        }
        let expected = forecast.get(entry.key).unwrap_or_else(|| {
            let sharer = SharerKey(self.sharers.get(&entry.payer).unwrap_or_default());
            forecast.of_newcomer(sharer, self.queue.waiting_of(sharer))
        });
        // One that could not be sent is tried again, and nobody knows if that succeeds; those of
        // its client that come after it wait with it.
        let first = self.queue.first_of_client(entry.key).and_then(|key| self.ids.get(&key));
        let first_rests = first.and_then(|it| self.prompts.get(it)).is_some_and(|it| it.rests);
        let start = expected.starts.filter(|_| !entry.rests && !first_rests);
        Some(Ahead {
            place: expected.place.clamp(1, self.queue.waiting().max(1)),
            start: start.map(|start| start.saturating_sub(at)),
        })
    }
}

/// Makes a small one without keeping this thread from others.
async fn in_pieces(snapshot: Snapshot, at: Duration) -> Forecast {
    let mut play = Play::new(snapshot, at);
    while play.goes_on(STEPS_AT_ONCE) == Goes::On {
        yield_now().await;
    }
    play.into_forecast()
}

fn whole_seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}
