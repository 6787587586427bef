//! The sweep: periodic maintenance of all clients, also of those that make no request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tracing::info;

use super::servers::Mark;
use super::{Client, Sessions};
use crate::fleet::dial_limiter::Haste;
use crate::fleet::features::ToldFeatures;
use crate::masked::mask;
use crate::net::{now, sleep};
use crate::routing::ids::BackendId;

/// The interval of the sweep.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The least pause between two trims of the event logs.
const TRIM_PAUSE: Duration = Duration::from_millis(100);

/// Maintains the clients once a second until the process stops: moves idle ones off backends that
/// are down or draining, closes links that nobody needs, forgets clients whose lease has ended.
pub(super) async fn sweep(sessions: Arc<Sessions>) {
    let mut tick = tokio::time::interval(SWEEP_INTERVAL);
    let mut turn: usize = 0;
    let heart = sessions.shared.tasks.hearts().heart("sweep");
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        heart.beat();
        tokio::select! {
            // First: trims must not starve it.
            biased;
            _ = tick.tick() => {}
            () = sessions.trim_asked() => {
                trim(&sessions);
                // If nothing can be dropped, the search must not repeat without a pause.
                sleep(TRIM_PAUSE).await;
                continue;
            }
            () = sessions.shared.tasks.stopping() => return,
        }
        let now = now();
        turn = turn.wrapping_add(1);
        let fleet = &sessions.shared.fleet;
        let round = Round { features: fleet.features(), servers: Mark::of(fleet, now), now };
        for client in sessions.clients.to_look_after(turn) {
            client.maintain(&sessions, &round);
        }
        sessions.maintain_backends(now);
    }
}

/// Makes room in the event logs: over all clients, prompts that ended first are dropped first; then
/// pictures of running prompts that exist only on the socket.
fn trim(sessions: &Sessions) {
    let excess = sessions.logs.excess();
    let clients = sessions.clients.all();
    let mut ended: Vec<(Instant, usize)> =
        clients.iter().flat_map(|client| client.state().log.ended_sizes()).collect();
    ended.sort_unstable();
    let mut freed = 0;
    let needed = ended.iter().take_while(|(_, bytes)| {
        let is_needed = freed < excess;
        freed += bytes;
        is_needed
    });
    if let Some((latest, _)) = needed.last() {
        let dropped: usize =
            clients.iter().map(|client| client.state().log.drop_ended(*latest)).sum();
        sessions.shared.metrics.log_evictions.inc_by(dropped as u64);
    }
    if 0 < sessions.logs.excess() {
        clients.iter().for_each(|client| client.state().log.drop_pictures());
    }
}

/// What all clients are looked at with.
struct Round {
    features: ToldFeatures,
    servers: Mark,
    now: Instant,
}

/// The maintenance that one client needs.
enum Care {
    Nothing,
    Forget(Option<BackendId>),
    Rebind,
}

impl Client {
    fn maintain(self: &Arc<Self>, sessions: &Arc<Sessions>, round: &Round) {
        self.wait_no_longer(sessions, round.now);
        match self.care(sessions, round) {
            Care::Nothing => {}
            // All idle clients of a backend that went down move at once, so their dials take turns.
            Care::Rebind => self.bind_socket(sessions, Haste::Again),
            Care::Forget(bound) => {
                sessions.clients.forget(self);
                let backend = bound.map(|id| sessions.shared.fleet.get(id).name());
                let backend = backend.as_deref();
                info!(client = %mask(&self.id), backend, reason = "lease", "Client was released.");
            }
        }
    }

    fn care(self: &Arc<Self>, sessions: &Arc<Sessions>, round: &Round) -> Care {
        let Round { features, servers, now } = round;
        let now = *now;
        let config = sessions.shared.config();
        let mut state = self.turn(sessions);
        if let Some(oldest) = now.checked_sub(config.sockets.replay_window)
            && 0 < state.core.sockets()
        {
            state.log.forget_before(oldest);
        }
        state.tell_features_again(features.edition, features.told(self.id.user()));
        state.tell_servers_again(*servers);
        state.shed(&sessions.queues);
        let is_away = state.core.is_forgotten(config.affinity.lease, now);
        if is_away && sessions.tunnels.backends_of(&self.id).is_empty() {
            return Care::Forget(state.leave(now));
        }
        let is_wanted = state.core.is_held() || 0 < state.core.sockets();
        let left = state.core.last_socket_lost().unwrap_or(state.core.last_contact());
        if !is_wanted && config.affinity.link_linger <= now.duration_since(left) {
            state.let_go_of_link();
        }
        if let Some(link) = &state.link {
            link.probe_if_suspect(sessions.shared.fleet.get(link.backend).last_status(), now);
        }
        let has_link = state.link.is_some();
        let is_open = state.link.as_ref().is_some_and(|link| link.listens_since().is_some());
        let has_place = state.core.bound().is_some_and(|(backend, _)| {
            let view = sessions.shared.fleet.view(backend, now);
            if is_open { view.serves_linked() } else { view.serves_new() }
        });
        // A read can move an idle binding, and does not move the link.
        let is_astray = state.link.as_ref().is_some_and(|link| {
            state.core.bound().is_some_and(|(backend, _)| backend != link.backend)
        });
        let is_active = state.core.is_held() || 0 < state.core.sockets() || has_link;
        self.is_active.store(is_active, Ordering::Relaxed);
        let should_move = !state.core.is_held() && has_link && (is_astray || !has_place);
        // Adopted prompts have no link yet if no socket was opened. Work can also lose its link in
        // a panic of the link's task.
        let should_link = !has_link && (0 < state.core.sockets() || state.core.has_prompts_here());
        if should_move || should_link { Care::Rebind } else { Care::Nothing }
    }
}
