//! All clients, and what they share.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

use super::adoption::Adoption;
use super::apply::After;
use super::budget::{LogBudget, QueueBudget};
use super::interrupts::Interrupts;
use super::reconcile;
use super::registry::Clients;
use super::submissions::Account;
use super::sweep;
use super::waiting::Waiting;
use crate::fleet::wanted::Wanted;
use crate::limits::Counted;
use crate::limits::days::Days;
use crate::limits::held::{Allowed, Holdings};
use crate::lock::{Lock, rank};
use crate::queue::Spent;
use crate::routing::ids::{ClientId, PromptId};
use crate::shared::Shared;
use crate::tunnels::Tunnels;

/// See [`Sessions::late_looks`].
const LATE_LOOKS_MAX: usize = 256;

/// The clients of a gateway, with the fleet and the records that they share.
#[derive(Debug)]
pub struct Sessions {
    pub shared: Arc<Shared>,
    pub clients: Clients,
    pub interrupts: Interrupts,
    /// The wanted backends, by source.
    pub(super) wanted: Lock<Wanted, { rank::WANTED }>,
    /// Sockets of node packs that are passed through.
    pub tunnels: Tunnels,
    /// Pending prompts, where they are limited.
    pub pending_prompts: Holdings<{ rank::PENDING_LIMITS }>,
    /// For how many milliseconds prompts have run, where that is limited.
    pub gpu_millis: Days<{ rank::GPU_LIMITS }>,
    /// Prompts that wait in the gateway.
    pub waiting: Waiting,
    /// The bytes of all event logs.
    pub logs: LogBudget,
    /// The bytes that wait for all browser sockets.
    pub queues: QueueBudget,
    /// Prompts that backends have and that are unknown here.
    pub adoption: Adoption,
    /// Limits how many prompts are looked for again at a time after they were answered as absent.
    pub late_looks: Arc<Semaphore>,
    reconcile: Notify,
    trim: Notify,
}

impl Sessions {
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        let config = shared.config();
        let sockets = &config.sockets;
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let logs = LogBudget::new(bytes(sockets.log_bytes), bytes(sockets.log_bytes_total));
        Arc::new(Self {
            clients: Clients::new(shared.live_config(), logs.clone()),
            interrupts: Interrupts::default(),
            wanted: Lock::new(Wanted::default().configured(&config.backends)),
            tunnels: Tunnels::default(),
            pending_prompts: Holdings::default(),
            gpu_millis: Days::default(),
            waiting: Waiting::new(config.queue),
            logs,
            queues: QueueBudget::new(bytes(sockets.queue_bytes_total)),
            adoption: Adoption::default(),
            late_looks: Arc::new(Semaphore::new(LATE_LOOKS_MAX)),
            reconcile: Notify::new(),
            trim: Notify::new(),
            shared,
        })
    }

    /// Starts the tasks that maintain all clients, until the process stops.
    pub fn start(self: &Arc<Self>) {
        let tasks = &self.shared.tasks;
        tasks.spawn_critical("sweep", sweep::sweep(Arc::clone(self)));
        tasks.spawn_critical("reconciler", reconcile::reconcile(Arc::clone(self)));
    }

    /// Counts a pending prompt of a client that nobody has just submitted, whatever the limits are.
    /// Where nobody is asked who he is, nothing says from where it came, so it counts only for all
    /// together.
    #[must_use]
    pub(super) fn account_of(&self, client: &ClientId) -> Account {
        let limits = self.shared.config().limits;
        let user = client.user().map_or(Counted::Unknown, |user| Counted::User(user.into()));
        let each = [(user.clone(), None)].into_iter().collect();
        let is_counted = limits.limits_pending_prompts();
        let place = is_counted.then(|| self.pending_prompts.take(Allowed { each, all: None }).ok());
        Account {
            place: place.flatten().map(Arc::new),
            payer: limits.limits_gpu_seconds().then_some(user),
        }
    }

    /// A prompt has ended or was withdrawn. If its body was kept, that is to be forgotten when the
    /// journal knows of the end: a prompt that waits and has no body is lost.
    pub(super) fn leaves_queue(&self, prompt: &PromptId, spent: Spent) -> Option<After> {
        if !self.waiting.is_used() {
            return None;
        }
        if matches!(spent, Spent::Seen { .. })
            && let Some(ratio) = self.waiting.prediction(prompt)
        {
            self.shared.metrics.queue.prediction_ratio.observe(ratio);
        }
        let was_kept = self.waiting.over(prompt, spent);
        was_kept.then(|| After::Unkept { prompt: prompt.clone() })
    }

    /// A backend has a prompt that has waited. No other gets it unless it has certainly not begun,
    /// and the journal has to know that.
    pub(super) fn accepted(&self, prompt: &PromptId, output_nodes: &[String]) {
        if self.waiting.accepted(prompt) {
            self.shared.records.prompt_taken(prompt, output_nodes);
        }
    }

    /// A prompt that has waited has begun: its body is not needed any more.
    pub(super) fn began(&self, prompt: &PromptId) {
        self.waiting.accepted(prompt);
        if self.waiting.began(prompt) {
            self.shared.records.journal.forget_body(prompt);
        }
    }

    /// The configuration was replaced.
    pub fn reconfigure(&self) {
        self.shared.choose_home();
        let config = self.shared.config();
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let sockets = &config.sockets;
        self.logs.limit(bytes(sockets.log_bytes), bytes(sockets.log_bytes_total));
        self.queues.limit(bytes(sockets.queue_bytes_total));
        self.trim_soon();
    }

    /// The event logs exceed their limit: requests a trim at once.
    pub fn trim_soon(&self) {
        self.trim.notify_one();
    }

    /// Waits until a trim is requested. Cancel safe.
    pub async fn trim_asked(&self) {
        self.trim.notified().await;
    }

    /// Requests a round of the reconciler without waiting for its interval.
    pub fn reconcile_soon(&self) {
        self.reconcile.notify_one();
    }

    /// Waits until a round is requested. Cancel safe.
    pub async fn reconcile_asked(&self) {
        self.reconcile.notified().await;
    }
}
