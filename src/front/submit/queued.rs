//! A submission while `queue.depth` is not 0: it waits in the gateway until a backend has room.
//!
//! Its answer is the backend's own if it is handed over at once, or if a backend says before that
//! what is wrong with it (`trial`). Otherwise it is answered because it waits: then it is in the
//! journal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::info;

use super::ClientOf;
use super::acceptance_tee::AcceptanceTee;
use super::decide::enter;
use super::trial::{self, Asks};
use crate::body::ResponseBody;
use crate::body::tee::tee;
use crate::comfy::reply;
use crate::comfy::submission::numbered::{Wish, numbered, wish};
use crate::config::{OnJournalError, QueueVerdict};
use crate::front::caller::Caller;
use crate::front::error::{GatewayError, Unknown};
use crate::front::headers::{PLACEMENT, QUEUE, VERDICT};
use crate::front::shares::holder;
use crate::front::waiting::known_good::GraphHash;
use crate::front::waiting::turn;
use crate::front::{Answer, Front, json};
use crate::journal::record::Kept;
use crate::masked::mask;
use crate::net::{now, sleep};
use crate::routing::files::Maker;
use crate::routing::ids::{ClientId, PromptId};
use crate::routing::owners::{Person, Submitter};
use crate::routing::pending::End;
use crate::session::Client;
use crate::session::completion::Completion;
use crate::session::handing_over::NotQueued;
use crate::session::registry::{Known, with_client};
use crate::session::submissions::Remembered;
use crate::session::waiting::{Ahead, Front as First};

/// The one header of a submission that ComfyUI reads (0.33, `server.py`, `post_prompt`).
pub(super) const USAGE_SOURCE: &str = "comfy-usage-source";

/// What `mooring-placement` says of a submission that waits.
const WAITING: &str = "waiting";

/// How often somebody who waits for longer than `queue.verdict_wait` looks whether the prompt has
/// come back from a backend.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How soon its end is known when nobody is left to answer.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// A submission that was read and may be accepted.
pub(super) struct Wanted {
    pub(super) id: ClientId,
    pub(super) prompt: PromptId,
    pub(super) by: Submitter,
    pub(super) told: Remembered,
    pub(super) met: Option<Known>,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    pub(super) askers: Vec<Maker>,
    pub(super) client_of: ClientOf,
    /// Its graph names files that are known.
    pub(super) has_files: bool,
}

/// Who has said that a submission that waits is valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// The same graph was accepted before.
    Known,
    Nobody,
}

/// Lets a submission wait, and answers when its answer is known, or that it waits.
///
/// # Errors
/// It was refused, by a backend or because too much waits.
pub(super) async fn submit(front: &Arc<Front>, caller: &Caller, wanted: Wanted) -> Answer {
    let journal = &front.shared.records.journal;
    if !journal.is_well() && front.shared.config().on_journal_error() == OnJournalError::Refuse {
        // Nothing is noted, so nothing can come of it.
        return Err(GatewayError::JournalFailed);
    }
    let prompt = wanted.prompt.clone();
    let has_files = wanted.has_files;
    let (completion, client_of) = (wanted.told.completion(), wanted.client_of);
    let waiting = &front.sessions.waiting;
    let payer = payer_of(caller, &wanted.id);
    let Queued { client, kept, told, asking } = match enqueue(front, caller, wanted) {
        Ok(queued) => queued,
        Err(GatewayError::QueueFull(full)) => {
            return Err(GatewayError::QueueFull(waiting.full_until(full, Some(&payer)).await));
        }
        Err(error) => return Err(error),
    };
    let answered = AcceptanceTee {
        front: Arc::clone(front),
        client: Arc::clone(&client),
        prompt: prompt.clone(),
    };
    turn(front);
    // A backend had room, but not for this one: something else was first, or holds its client.
    let mut full = waiting.is_too_much(&prompt);
    if full.is_none() {
        full = waiting.is_too_long(&prompt).await;
    }
    if let Some(full) = full
        && client.withdraw_waiting(&front.sessions, &prompt)
    {
        withdrawn(front, &prompt).await?;
        return Err(GatewayError::QueueFull(waiting.full_until(full, Some(&payer)).await));
    }
    let waits = Waits { front, client: &client, prompt: &prompt, kept: &kept, completion };
    // Whether its files are still there, nobody knows.
    let changes = front.sessions.waiting.fleet_changes();
    let graph = if has_files { None } else { GraphHash::of(&kept, changes) };
    let answer = waits.answer(told, graph).await;
    drop(asking);
    let is_refused = answer.as_ref().map_or(true, |answer| !answer.status().is_success());
    if is_refused && client_of == ClientOf::ThisPrompt {
        // Otherwise the refused prompts of strangers would hold a socket each at the backends.
        client.is_over();
    }
    let (mut parts, body) = answer?.into_parts();
    if parts.headers.get(PLACEMENT).is_some_and(|it| it == WAITING) {
        let ahead = front.sessions.waiting.ahead(&prompt).await;
        parts.headers.extend(ahead.and_then(|it| Some((QUEUE, place_in_queue(it)?))));
    }
    Ok(Response::from_parts(parts, tee(body, Box::new(answered))))
}

/// The place in the queue, and in how many seconds it should start, as a structured field
/// (RFC 9651 section 3.2).
fn place_in_queue(it: Ahead) -> Option<HeaderValue> {
    let start = it.start_seconds().map(|start| format!(", start={start}"));
    HeaderValue::from_str(&format!("place={}{}", it.place, start.unwrap_or_default())).ok()
}

/// Whose limits a submission counts against.
fn payer_of(caller: &Caller, id: &ClientId) -> Person {
    let household = || Person::Address(holder(caller.address));
    caller.person().filter(|_| id.user().is_some()).unwrap_or_else(household)
}

/// A submission that waits from here on.
struct Queued<'a> {
    client: Arc<Client>,
    kept: Kept,
    told: oneshot::Receiver<Answer>,
    asking: Asking<'a>,
}

/// The caller may leave: then nobody is to be told.
struct Asking<'a> {
    front: &'a Front,
    prompt: PromptId,
    serial: u64,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.front.askers.leave(&self.prompt, self.serial);
    }
}

/// The prompt waits from here on, and is noted for the journal with its body.
fn enqueue<'a>(
    front: &'a Arc<Front>,
    caller: &Caller,
    wanted: Wanted,
) -> Result<Queued<'a>, GatewayError> {
    let Wanted { id, prompt, by, told, met, parts, body, askers, .. } = wanted;
    let upload = enter(front, caller, &id, (&prompt, &by), met)?;
    let waiting = &front.sessions.waiting;
    let number = match wish(&body) {
        Wish::Number(number) => number,
        Wish::Front => waiting.number(First::Yes),
        Wish::Last => waiting.number(First::No),
    };
    // Without users a cookie costs nothing, and an address of a large network neither: share and
    // limits are those of the household, and in it the browsers take turns.
    let payer = payer_of(caller, &id);
    let sharer = caller.person().unwrap_or_else(|| payer.clone());
    let usage_source = parts.headers.get(USAGE_SOURCE).and_then(|it| it.to_str().ok());
    let kept = Kept {
        body: numbered(&body, number),
        usage_source: usage_source.map(Arc::from),
        askers,
        sharer: Some(sharer),
        payer: Some(payer),
        number,
    };
    // After the id is reserved: another submission with this id has a caller of its own. Before the
    // prompt waits: it may be handed over at once.
    let (asker, told_later) = oneshot::channel();
    let serial = front.askers.put(&prompt, asker);
    let asking = Asking { front, prompt: prompt.clone(), serial };
    let queued = with_client(&front.sessions, &id, |client| {
        if let Some((backend, until)) = upload {
            client.reserve(&front.sessions, backend, until);
        }
        client.enqueue(&front.sessions, &prompt, told.clone(), kept.clone())
    });
    let queued = match queued {
        Ok((client, Ok(()))) => Ok(client),
        Ok((_, Err(NotQueued::Refused(refusal)))) => Err(GatewayError::from(refusal)),
        Ok((_, Err(NotQueued::Full(full)))) => Err(GatewayError::QueueFull(full)),
        Err(full) => Err(full.into()),
    };
    let client =
        queued.inspect_err(|_| front.shared.records.ledger_of(&prompt).withdraw(&prompt))?;
    let client_hash = mask(&id);
    info!(client = %client_hash, %prompt, "Prompt waits.");
    Ok(Queued { client, kept, told: told_later, asking })
}

/// A submission that waits, and its caller.
struct Waits<'a> {
    front: &'a Arc<Front>,
    client: &'a Arc<Client>,
    prompt: &'a PromptId,
    kept: &'a Kept,
    completion: Arc<Completion>,
}

impl Waits<'_> {
    async fn answer(
        &self,
        mut told: oneshot::Receiver<Answer>,
        graph: Option<GraphHash>,
    ) -> Answer {
        let config = self.front.shared.config_kept();
        let asked_at = now();
        let is_known = graph.is_some_and(|graph| self.front.known_good.has(graph, asked_at));
        let verdict = if is_known { Verdict::Known } else { Verdict::Nobody };
        let mut patience = config.queue.verdict_wait;
        if self.front.sessions.waiting.has_waiting(self.prompt) {
            match (verdict, config.queue.verdict) {
                (Verdict::Known, _) | (Verdict::Nobody, QueueVerdict::Late) => {
                    patience = Duration::ZERO;
                }
                (Verdict::Nobody, QueueVerdict::Backend) => {
                    match trial::begin(self.front, self.client, self.prompt) {
                        Asks::Somebody => {}
                        Asks::Nobody => patience = Duration::ZERO,
                    }
                }
            }
        }
        loop {
            tokio::select! {
                biased;
                answer = &mut told => match answer {
                    Ok(answer) => return answer,
                    // Nobody answers any more: it has ended.
                    Err(_) => return self.over().await,
                },
                end = self.completion.end() => return self.ended(end),
                () = sleep(patience) => {}
            }
            if let Some(answer) = self.accepted(verdict, asked_at).await {
                return answer;
            }
            // It is being sent: what its backend says is its answer.
            patience = LOOK_AGAIN;
        }
    }

    /// Answers that it waits. `None` if somebody else is answering.
    async fn accepted(&self, verdict: Verdict, asked_at: Instant) -> Option<Answer> {
        let config = self.front.shared.config_kept();
        let noted = self.front.shared.records.journal.durable_body(self.prompt).await;
        let is_refused = noted.is_err() && config.on_journal_error() == OnJournalError::Refuse;
        // If it does not wait any more, it is being sent, which needs the journal too, or has
        // ended: its answer is what becomes of that.
        let is_withdrawn =
            is_refused && self.client.withdraw_waiting(&self.front.sessions, self.prompt);
        let asker = match is_refused && !is_withdrawn {
            true => None,
            false => self.front.askers.take(self.prompt),
        };
        if is_withdrawn {
            let withdrawn = withdrawn(self.front, self.prompt).await;
            return Some(withdrawn.and(Err(GatewayError::JournalFailed)));
        }
        if asker.is_none() {
            let is_too_late = config.prompts.answer_limit <= now().duration_since(asked_at);
            return is_too_late.then(|| Err(self.unknown()));
        }
        Some(Ok(waits(self.prompt, self.kept.number, verdict)))
    }

    async fn over(&self) -> Answer {
        match timeout(ENDS_WITHIN, self.completion.end()).await {
            Ok(end) => self.ended(end),
            Err(_) if self.front.shared.is_leaving() => Err(GatewayError::Stopping),
            Err(_) => Err(self.unknown()),
        }
    }

    /// It has ended before anybody has answered. It was pending, so its end is told as any other,
    /// also if it is lost: whether a backend had it is not known then.
    fn ended(&self, _end: End) -> Answer {
        Ok(waits(self.prompt, self.kept.number, Verdict::Nobody))
    }

    fn unknown(&self) -> GatewayError {
        GatewayError::state_unknown("its server", self.prompt)
    }
}

/// A prompt that has waited does not any more, and nobody is told before that is durable.
///
/// # Errors
/// It may not be: the journal is in a store, which may have that the prompt waits, and not that it
/// does not. Should this process end now, its successor would let it run.
pub(super) async fn withdrawn(front: &Front, prompt: &PromptId) -> Result<(), GatewayError> {
    let is_durable = front.sessions.settled().await.is_ok();
    match is_durable || front.shared.records.journal.lease().is_none() {
        true => Ok(()),
        false => Err(GatewayError::StateUnknown(Unknown::Withdrawn { prompt: prompt.to_string() })),
    }
}

/// The answer to a submission that waits.
fn waits(prompt: &PromptId, number: f64, verdict: Verdict) -> Response<ResponseBody> {
    let mut response = json(reply::queued(prompt, Some(number)));
    let verdict = match verdict {
        Verdict::Known => "known",
        Verdict::Nobody => "none",
    };
    mark_waiting(&mut response, HeaderValue::from_static(verdict));
    response
}

/// The same without a verdict.
pub(super) fn waits_without(prompt: &PromptId, number: f64) -> Response<ResponseBody> {
    waits(prompt, number, Verdict::Nobody)
}

pub(super) fn mark_waiting(response: &mut Response<ResponseBody>, verdict: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(PLACEMENT, HeaderValue::from_static(WAITING));
    headers.insert(VERDICT, verdict);
}
