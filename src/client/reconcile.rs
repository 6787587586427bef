//! Ends found by asking (promises P3, P5, P6): events can be lost with a link, and ComfyUI says
//! nothing of some ends at all.
//!
//! Prompts that have been silent for long, whose link broke, or whose deletion was asked for, are
//! looked for on their backend: its queue first, read once for all of them, then the history of
//! each. What is found is for [`crate::routing::pending`] to judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::Client;
use crate::comfy::answers::{Outcome, Sighting};
use crate::fleet::ask::AskError;
use crate::fleet::backend::Backend;
use crate::gateway::Gateway;
use crate::net::{now, sleep};

use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Sighted, process_since};

/// The pause between two rounds, unless one is asked for sooner.
const ROUND: Duration = Duration::from_millis(500);

/// The least pause between two rounds.
const ROUND_MIN: Duration = Duration::from_millis(50);

/// How many prompts are asked about per backend and round: the rest waits for the next.
const PER_ROUND: usize = 64;

/// Asks, round by round, until the process stops.
pub async fn reconcile(gateway: Arc<Gateway>) {
    loop {
        tokio::select! {
            () = sleep(ROUND) => {}
            () = gateway.reconcile_asked() => sleep(ROUND_MIN).await,
            () = gateway.tasks.stopping() => return,
        }
        round(&gateway).await;
    }
}

type Questions = BTreeMap<BackendId, Vec<(Arc<Client>, PromptId)>>;

async fn round(gateway: &Arc<Gateway>) {
    presume_lost(gateway);
    let asked = questions(gateway).into_iter().map(|(backend, prompts)| {
        let backend = Arc::clone(gateway.fleet.get(backend));
        async move {
            if backend.is_up()
                && let Err(error) = ask(gateway, &backend, &prompts).await
            {
                debug!(backend = %backend.name, %error, "Asking about prompts failed.");
            }
        }
    });
    futures_util::future::join_all(asked).await;
}

fn questions(gateway: &Gateway) -> Questions {
    let now = now();
    let silent_after = gateway.config.prompts.silent_after;
    let mut questions = Questions::new();
    for client in gateway.clients.all() {
        for (prompt, backend) in client.inspect(|core, _| core.to_ask(silent_after, now)) {
            let prompts = questions.entry(backend).or_default();
            if prompts.len() < PER_ROUND {
                prompts.push((Arc::clone(&client), prompt));
            }
        }
    }
    questions
}

async fn ask(
    gateway: &Gateway,
    backend: &Backend,
    prompts: &[(Arc<Client>, PromptId)],
) -> Result<(), AskError> {
    let limit = gateway.config.fleet.probe_timeout;
    let queue = backend.get_ok("/queue", limit).await?;
    for (client, prompt) in prompts {
        let sighting = backend.look_in(&queue, prompt, limit).await?;
        let sent = client.inspect(|core, _| core.pending().get(prompt).map(|found| found.since));
        let Some(sent) = sent else { continue };
        let process = process_since(sent, backend.restarted());
        let (sighted, history) = match &sighting {
            Sighting::Queued { .. } => (Sighted::Queued, None),
            Sighting::Running { .. } => (Sighted::Running, None),
            Sighting::Ended(ended) => (Sighted::InHistory(end_of(ended.outcome)), Some(ended)),
            Sighting::Absent => (Sighted::Absent(process), None),
        };
        client.sighted(gateway, prompt, sighted, history, now());
    }
    Ok(())
}

/// How a history entry says that a prompt ended.
#[must_use]
pub fn end_of(outcome: Outcome) -> End {
    match outcome {
        Outcome::Succeeded => End::Succeeded,
        Outcome::Failed => End::Failed,
        Outcome::Interrupted => End::Interrupted,
    }
}

/// Backends that have stayed away past their grace have lost what they had (P6).
fn presume_lost(gateway: &Gateway) {
    let now = now();
    let grace = gateway.config.fleet.grace;
    let is_lost = |backend: &Arc<Backend>| {
        backend.down_for(now).filter(|down| grace <= *down).map(|_| backend.id)
    };
    let lost: Vec<BackendId> = gateway.fleet.iter().filter_map(is_lost).collect();
    if lost.is_empty() {
        return;
    }
    for client in gateway.clients.all() {
        let bound = client.inspect(|core, _| {
            core.bound().map(|(backend, _)| backend).filter(|_| !core.pending().is_empty())
        });
        if let Some(backend) = bound.filter(|backend| lost.contains(backend)) {
            client.presume_lost(gateway, backend, now);
        }
    }
}
