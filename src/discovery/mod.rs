//! Backends that are not in the configuration: they are found by DNS or in Kubernetes at run time.
//!
//! Each `[discovery.NAME]` is a task that asks its source and reports what it finds. The results
//! are turned into servers ([`answers`], [`slices`]) and these into backends ([`found`]); all of
//! that is pure. `desk` passes them to the sessions, where they join and leave like backends that
//! were configured. `dns` and `kubernetes` ask the sources.
//!
//! If a source fails, nothing changes: the last good list stays, with one warning. A source that
//! has never answered has only what the journal remembers of it. A discovery that a reload removes
//! keeps its backends until the others have answered.

pub mod answers;
mod api_server;
mod desk;
mod dns;
pub mod found;
mod kubernetes;
pub mod lines;
pub mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use api_server::Pod;

use crate::config::{DiscoveryConfig, PlaceOfBackends};
use crate::session::Sessions;
use desk::Desk;

/// All running discoveries.
#[derive(Debug)]
pub struct Discoveries {
    sessions: Arc<Sessions>,
    pod: Arc<Pod>,
    running: BTreeMap<String, Running>,
}

#[derive(Debug)]
struct Running {
    config: DiscoveryConfig,
    desk: Desk,
    end: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Discoveries {
    /// Nothing runs yet. `pod` tells how to access Kubernetes.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, pod: Pod) -> Self {
        Self { sessions, pod: Arc::new(pod), running: BTreeMap::new() }
    }

    /// Starts the discoveries of the configuration that do not run with its settings, and ends
    /// those that are not in it. The backends of an ended discovery leave when they are drained,
    /// once all others have answered. If the settings of a discovery change, its backends stay
    /// until it answers with the new settings, but they get the new headers at once.
    pub fn reconfigure(&mut self) {
        let config = self.sessions.shared.config_kept();
        let wanted = |it: &Running| config.discovery.contains(&it.config);
        self.running.retain(|_, running| wanted(running));
        let names: BTreeSet<&str> = config.discovery.iter().map(|it| it.name.as_str()).collect();
        self.sessions.discovered_by(&names);
        self.sessions.reconfigure_found();
        self.sessions.shared.metrics.discoveries.only(&names);
        for discovery in &config.discovery {
            if !self.running.contains_key(&discovery.name) {
                let running = self.begin(discovery);
                self.running.insert(discovery.name.clone(), running);
            }
        }
    }

    fn begin(&self, config: &DiscoveryConfig) -> Running {
        let tasks = &self.sessions.shared.tasks;
        let (desk, end) = (Desk::new(&self.sessions, config), tasks.child_token());
        self.sessions.shared.metrics.discoveries.began(&config.name);
        let (pod, ended, said) = (Arc::clone(&self.pod), end.clone(), desk.clone());
        tasks.spawn_again(move || {
            let (said, ended, pod) = (said.clone(), ended.clone(), Arc::clone(&pod));
            async move {
                tokio::select! {
                    biased;
                    () = ended.cancelled() => {}
                    () = Box::pin(look(said, pod)) => {}
                }
            }
        });
        Running { config: config.clone(), desk, end }
    }

    /// Waits until each discovery has answered or failed once.
    pub async fn have_said(&self) {
        for running in self.running.values() {
            running.desk.has_said().await;
        }
    }
}

/// Runs one discovery until it is ended.
async fn look(desk: Desk, pod: Arc<Pod>) {
    match desk.config.source.clone() {
        PlaceOfBackends::Addresses { host, port, resolver } => {
            dns::addresses(desk, host, port, resolver).await;
        }
        PlaceOfBackends::Services { name, resolver } => dns::services(desk, name, resolver).await,
        PlaceOfBackends::Kubernetes(service) => kubernetes::watch(desk, &pod, &service).await,
    }
}
