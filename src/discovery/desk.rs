//! Takes what a source has found, and reports its state: one warning when it begins to fail, one
//! message when it works again, and a gauge in between.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::found::{Server, backends};
use crate::config::{BackendConfig, DiscoveryConfig};
use crate::lock::{Lock, rank};
use crate::net::{Network, unix_millis};
use crate::session::Sessions;
use crate::tasks::Tasks;

/// The handle of one discovery, for its results and its state. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    sessions: Arc<Sessions>,
    pub(super) config: Arc<DiscoveryConfig>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    is_failing: AtomicBool,
    /// Cancelled when the source has answered or failed for the first time.
    has_said: CancellationToken,
    /// Remarks that were logged already.
    warned: Lock<BTreeSet<String>, { rank::DISCOVERY }>,
}

impl Desk {
    pub(super) fn new(sessions: &Arc<Sessions>, config: &DiscoveryConfig) -> Self {
        let config = Arc::new(config.clone());
        Self { sessions: Arc::clone(sessions), config, state: Arc::default() }
    }

    /// The name of the discovery.
    pub(super) fn place(&self) -> &str {
        &self.config.name
    }

    pub(super) fn network(&self) -> Arc<dyn Network> {
        Arc::clone(&self.sessions.shared.network)
    }

    pub(super) fn tasks(&self) -> Tasks {
        self.sessions.shared.tasks.clone()
    }

    /// Waits until the source has answered or failed for the first time. Cancel safe.
    pub(super) async fn has_said(&self) {
        self.state.has_said.cancelled().await;
    }

    /// What was found last, perhaps by an earlier process.
    pub(super) fn found_before(&self) -> Vec<BackendConfig> {
        self.sessions.found_by(self.place())
    }

    /// Reports that these servers exist now.
    ///
    /// # Errors
    /// They cannot be accepted yet. What was found earlier stays.
    pub(super) fn found(&self, servers: &[Server]) -> Result<(), String> {
        let mut found = backends(&self.config, servers);
        found.retain(|it| !self.is_ourselves(it));
        let count = found.len();
        let used = self.sessions.found(&self.config, found).map_err(|why| why.to_string());
        if used.is_ok() {
            let metrics = &self.sessions.shared.metrics.discoveries;
            metrics.found(self.place(), count, unix_millis());
        }
        used
    }

    /// A gateway that is its own backend would send each request to itself until no connection is
    /// left.
    fn is_ourselves(&self, backend: &BackendConfig) -> bool {
        let config = self.sessions.shared.config();
        let Some(key) = config.is_itself(backend) else { return false };
        let what = format!("`{}` is this gateway itself (`{key}`)", backend.authority);
        self.remark(&what);
        true
    }

    /// Reports something that is wrong and is not used. Each remark is logged once.
    pub(super) fn remark(&self, what: &str) {
        const REMARKS_MAX: usize = 1_000;
        let mut warned = self.state.warned.lock();
        if warned.len() < REMARKS_MAX && warned.insert(what.to_owned()) {
            warn!(discovery = self.place(), what, "Something that was discovered is not used.");
        }
    }

    /// Reports that the source fails at the moment. The last good list stays.
    pub(super) fn failed(&self, why: &str) {
        self.sessions.shared.metrics.discoveries.failed(self.place());
        if !self.state.is_failing.swap(true, Ordering::Relaxed) {
            let discovery = self.place();
            if self.sessions.has_answered(discovery) {
                warn!(discovery, why, "A discovery fails: its last result stays.");
            } else {
                let kept = self.sessions.kept_for_now();
                warn!(discovery, why, kept, "A discovery fails, and has never found anything.");
            }
        }
        self.state.has_said.cancel();
    }

    /// Reports that the result is up to date.
    pub(super) fn is_well(&self) {
        self.sessions.shared.metrics.discoveries.is_well(self.place());
        if self.state.is_failing.swap(false, Ordering::Relaxed) {
            info!(discovery = self.place(), "A discovery works again.");
        }
        self.state.has_said.cancel();
    }
}
