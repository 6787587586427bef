//! Clients, backends and prompts as JSON: one form for the admin API, the command line and the
//! client itself. Times are ages in milliseconds, so that no clocks have to agree.

mod waits;

use std::time::Instant;

use serde::Serialize;

use crate::fleet::backend::{Backend, Going};
use crate::fleet::devices::Device;
use crate::masked::mask;
use crate::net::unix_millis;
use crate::routing::client as core;
use crate::routing::home::HomeReason;
use crate::routing::ids::{ClientId, PromptId};
use crate::routing::ledger::{Record, State};
use crate::routing::pending::{Pending, Phase};
use crate::routing::placement::Excluded;
use crate::routing::placement_trace::{Candidate, PlacementTrace};
use crate::routing::state_change::StateChange;
use crate::session::Client;
use crate::session::Sessions;
use crate::session::control::Held;
use crate::session::link::Link;
use crate::shared::Shared;
pub(crate) use waits::why_it_waits;
use waits::{PlaceReport, WaitsReport};

/// One backend.
#[derive(Debug, Serialize)]
pub(crate) struct BackendReport {
    pub name: String,
    pub url: String,
    pub up: bool,
    /// What the operator says: ready, draining, off.
    pub state: &'static str,
    /// Who wants it in the fleet: configuration, operator, discovery, or none: it leaves when it
    /// has drained.
    pub wanted_by: &'static str,
    /// Why it is the home, which keeps settings, workflows and the page; none if it is not.
    pub home: Option<&'static str>,
    /// Who said so, when and why; none if nobody ever did.
    pub said: Option<SaidReport>,
    /// Who does not want it any more, and since when; none while it stays.
    pub leaving: Option<LeavingReport>,
    /// Draining, and nothing is left that would be lost.
    pub drained: bool,
    pub since_ms: u64,
    pub version: Option<String>,
    /// Prompts waiting and running there, as it says.
    pub queue_remaining: u32,
    /// The same plus what it cannot have counted yet.
    pub load: u32,
    pub weight: u32,
    pub max_pending: Option<u32>,
    /// What it is for, in the operator's words.
    pub labels: Vec<String>,
    pub bound_clients: u32,
    pub held_clients: usize,
    /// Where it computes, as far as it has said.
    pub devices: Vec<Device>,
    /// Why it is down, or what was last wrong with it.
    pub trouble: Option<String>,
}

/// An operator's word of a backend.
#[derive(Debug, Serialize)]
pub(crate) struct SaidReport {
    pub by: String,
    pub why: Option<String>,
    pub ago_ms: u64,
    /// `restart` if it holds until the server is another process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<&'static str>,
}

/// That a backend leaves when it has drained.
#[derive(Debug, Serialize)]
pub(crate) struct LeavingReport {
    pub by: String,
    pub ago_ms: u64,
}

/// One client, in a list.
#[derive(Debug, Serialize)]
pub(crate) struct ClientSummary {
    /// What it calls itself. Left out where it is not told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// The user whose client it is, where users are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How it stands in the log.
    pub hash: String,
    pub backend: Option<String>,
    /// held, reserved, idle or none.
    pub binding: &'static str,
    pub bound_since_ms: Option<u64>,
    pub pending: usize,
    pub sockets: u32,
    pub last_contact_ms: u64,
}

/// One client, with everything.
#[derive(Debug, Serialize)]
pub(crate) struct ClientReport {
    #[serde(flatten)]
    pub summary: ClientSummary,
    /// dialling, open, closed or none.
    pub link: &'static str,
    pub prompts: Vec<PendingReport>,
    /// The last decisions, oldest first.
    pub decisions: Vec<DecisionReport>,
    /// Between which backends the newest placement chose; none before the first.
    pub placement: Option<PlacementReport>,
}

/// One placement.
#[derive(Debug, Serialize)]
pub(crate) struct PlacementReport {
    pub ago_ms: u64,
    /// None if there was no place.
    pub chosen: Option<String>,
    /// Where the client was before: between equal queues it stays there.
    pub before: Option<String>,
    /// The chosen one first, then by queue for the weight; excluded ones last.
    pub candidates: Vec<CandidateReport>,
    /// How many more backends there were.
    pub others: usize,
}

/// One backend as it was at a placement.
#[derive(Debug, Serialize)]
pub(crate) struct CandidateReport {
    pub backend: String,
    pub load: u32,
    pub weight: u32,
    /// By how many prompts its queue counted for less, because it had the files.
    pub head_start: Option<u32>,
    /// It may be dead: chosen only while no other had room.
    pub suspect: bool,
    /// down, off, draining, shut, wedged or full; none if it could have been chosen.
    pub excluded: Option<&'static str>,
}

/// One pending prompt.
#[derive(Debug, Serialize)]
pub(crate) struct PendingReport {
    pub prompt_id: String,
    /// `None` while it waits in the gateway.
    pub backend: Option<String>,
    /// waiting, sending, queued, running or ending.
    pub state: &'static str,
    pub age_ms: u64,
    /// Since when nothing was heard of it.
    pub silent_ms: u64,
}

/// One remembered decision.
#[derive(Debug, Serialize)]
pub(crate) struct DecisionReport {
    pub ago_ms: u64,
    pub what: &'static str,
    pub backend: Option<String>,
}

/// What the ledger knows of a prompt.
#[derive(Debug, Serialize)]
pub(crate) struct PromptReport {
    pub prompt_id: String,
    pub client_id: Option<String>,
    /// The user whose prompt it is, where users are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub backend: Option<String>,
    /// As of a pending prompt of its client's; else learned, or how it ended.
    pub state: &'static str,
    pub age_ms: u64,
    /// Where it stands while it waits in the gateway.
    #[serde(flatten)]
    pub waits: Option<WaitsReport>,
    /// What each backend is to it while it waits in the gateway.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<PlaceReport>,
}

/// All backends; everybody is looked at once.
#[must_use]
pub(crate) fn backends(sessions: &Sessions, now: Instant) -> Vec<BackendReport> {
    let held = Held::of(sessions);
    let backends = sessions.shared.fleet.iter();
    backends.map(|backend| self::backend(sessions, &backend, &held, now)).collect()
}

#[must_use]
pub(crate) fn backend(
    sessions: &Sessions,
    backend: &Backend,
    held: &Held<'_>,
    now: Instant,
) -> BackendReport {
    let report = backend.report(now);
    let held = held.at(backend.id);
    let takes_new = report.admin == crate::routing::placement::AdminState::Ready;
    BackendReport {
        name: backend.name().to_string(),
        url: backend.url(),
        up: report.up,
        state: report.admin.as_str(),
        wanted_by: sessions.source_of(&backend.name()).as_str(),
        home: home_reason(&sessions.shared, backend),
        said: report.said.as_ref().map(said),
        leaving: backend.going().map(|it| leaving(&it)),
        drained: (!takes_new || backend.going_since().is_some()) && held == 0,
        since_ms: age(report.since, now),
        version: report.version.map(|version| version.to_string()),
        queue_remaining: report.queue_remaining,
        load: report.load,
        weight: backend.weight().get(),
        max_pending: backend.max_pending().map(std::num::NonZeroU32::get),
        labels: Vec::clone(&backend.labels()),
        bound_clients: report.bound,
        held_clients: held,
        devices: backend.look_at_devices(now),
        trouble: report.trouble,
    }
}

fn leaving(going: &Going) -> LeavingReport {
    let ago_ms = unix_millis().saturating_sub(going.at);
    LeavingReport { by: going.by.to_string(), ago_ms }
}

fn home_reason(shared: &Shared, backend: &Backend) -> Option<&'static str> {
    let is_home = shared.home().is_some_and(|home| home.id == backend.id);
    shared.records.home_reason().filter(|_| is_home).map(HomeReason::as_str)
}

#[must_use]
pub(crate) fn said(change: &StateChange) -> SaidReport {
    SaidReport {
        by: change.by.to_string(),
        why: change.why.as_deref().map(str::to_owned),
        ago_ms: unix_millis().saturating_sub(change.at),
        until: change.is_of_one_process().then_some("restart"),
    }
}

#[must_use]
pub(crate) fn summary(shared: &Shared, client: &Client, now: Instant) -> ClientSummary {
    client.inspect(|core, _| summarise(shared, client, core, now))
}

#[must_use]
pub(crate) fn client(shared: &Shared, client: &Client, now: Instant) -> ClientReport {
    client.inspect(|core, link| ClientReport {
        summary: summarise(shared, client, core, now),
        link: link.map_or("none", |link: &Link| link.phase().as_str()),
        prompts: core
            .pending()
            .iter()
            .map(|(prompt, pending)| self::pending(shared, prompt, pending, now))
            .collect(),
        decisions: core
            .decisions()
            .iter()
            .map(|decided| DecisionReport {
                ago_ms: age(decided.at, now),
                what: decided.what.as_str(),
                backend: decided.backend.map(|id| shared.fleet.get(id).name().to_string()),
            })
            .collect(),
        placement: core.decisions().placement().map(|it| placement(shared, it, now)),
    })
}

fn placement(shared: &Shared, considered: &PlacementTrace, now: Instant) -> PlacementReport {
    let name = |id| shared.fleet.get(id).name().to_string();
    let candidate = |it: &Candidate| CandidateReport {
        backend: name(it.backend),
        load: it.load,
        weight: it.weight.get(),
        head_start: it.head_start,
        suspect: it.is_suspect,
        excluded: it.excluded.map(Excluded::as_str),
    };
    PlacementReport {
        ago_ms: age(considered.at, now),
        chosen: considered.chosen.map(name),
        before: considered.last.map(name),
        candidates: considered.candidates.iter().map(candidate).collect(),
        others: considered.others,
    }
}

pub(crate) async fn prompt(
    sessions: &Sessions,
    prompt: &PromptId,
    record: &Record,
    now: Instant,
) -> PromptReport {
    let waiting = &sessions.waiting;
    let state = match record.state {
        State::Pending => phase(sessions, prompt, record.by.client.as_ref()).as_str(),
        State::Learned => "learned",
        State::Ended(end) => end.reason(),
    };
    let places = waiting.places(prompt);
    let mut rows = Vec::new();
    if !places.is_empty() {
        rows = waiting.in_line_of(&*waiting.forecast().await, std::slice::from_ref(prompt));
    }
    let name = |id| sessions.shared.fleet.get(id).name().to_string();
    PromptReport {
        prompt_id: prompt.to_string(),
        client_id: record.by.client.as_ref().map(|client| client.name().to_owned()),
        user: record.by.user().map(str::to_owned),
        backend: record.backend.map(name),
        state,
        age_ms: age(record.made, now),
        waits: rows.pop().map(|it| WaitsReport::of(&it, &places, name)),
        places: places.into_iter().map(|it| PlaceReport::of(it, name)).collect(),
    }
}

/// How far a prompt is that the ledger has as pending: what has a place and nothing else yet, or
/// ends at this moment, is on its way.
fn phase(sessions: &Sessions, prompt: &PromptId, client: Option<&ClientId>) -> Phase {
    let client = client.and_then(|id| sessions.clients.get(id));
    let found = client.and_then(|client| {
        client.inspect(|core, _| core.pending().get(prompt).map(|pending| pending.phase))
    });
    found.unwrap_or(Phase::Sending)
}

fn summarise(shared: &Shared, client: &Client, core: &core::Client, now: Instant) -> ClientSummary {
    let bound = core.bound();
    ClientSummary {
        client_id: client.id.name().to_owned(),
        user: client.id.user().map(str::to_owned),
        hash: mask(&client.id).to_string(),
        backend: bound.map(|(id, _)| shared.fleet.get(id).name().to_string()),
        binding: core.binding_state(now),
        bound_since_ms: bound.map(|(_, since)| age(since, now)),
        pending: core.pending().len(),
        sockets: core.sockets(),
        last_contact_ms: age(core.last_contact(), now),
    }
}

#[must_use]
pub(crate) fn pending(
    shared: &Shared,
    prompt: &PromptId,
    pending: &Pending,
    now: Instant,
) -> PendingReport {
    PendingReport {
        prompt_id: prompt.to_string(),
        backend: pending.backend().map(|id| shared.fleet.get(id).name().to_string()),
        state: pending.phase.as_str(),
        age_ms: age(pending.since, now),
        silent_ms: age(pending.heard, now),
    }
}

fn age(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX)
}
