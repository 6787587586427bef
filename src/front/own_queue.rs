//! `GET /-/queue`: the caller's own prompts that wait in the gateway, with their places, when they
//! are expected to start, and what each waits for.
//!
//! Nothing of others is in it but how many of all come before.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response};
use serde::Serialize;

use super::caller::Caller;
use super::page_fleet::names;
use super::{Front, json};
use crate::body::ResponseBody;
use crate::report::why_it_waits;
use crate::routing::ids::PromptId;

/// How many are told, those that are expected to start first. All are counted.
const PROMPTS_MAX: usize = 100;

#[derive(Debug, Serialize)]
struct OwnQueue {
    prompts: Vec<OwnPrompt>,
    /// How many prompts of the caller wait, told or not.
    waiting: usize,
}

#[derive(Debug, Serialize)]
struct OwnPrompt {
    prompt_id: String,
    /// 1 for the next of all that is handed over.
    place: usize,
    /// In about how many seconds it starts; null if that is not known.
    start: Option<u64>,
    /// How many seconds it has waited.
    waited: u64,
    why: String,
}

pub(super) async fn queue(front: &Front, caller: &Caller) -> Response<ResponseBody> {
    let client = caller.asker(front).and_then(|id| front.sessions.clients.get(&id));
    let pending = client.map_or_else(Vec::new, |client| client.pending());
    let waiting = pending.into_iter().filter(|(_, it)| it.is_waiting());
    let waiting: Vec<PromptId> = waiting.map(|(prompt, _)| prompt).collect();
    let index = &front.sessions.waiting;
    let mut rows = Vec::new();
    if !waiting.is_empty() {
        let forecast = index.forecast().await;
        rows = index.in_line_of(&forecast, &waiting);
    }
    let count = rows.len();
    rows.truncate(PROMPTS_MAX);
    let names = names(front);
    let name = |id| names.get(&id).cloned().unwrap_or_else(|| "a server".to_owned());
    let prompts = rows.into_iter().map(|it| OwnPrompt {
        place: it.ahead.place,
        start: it.ahead.start_seconds(),
        waited: it.waited.as_secs(),
        why: why_it_waits(&it, &index.places(&it.prompt), name),
        prompt_id: it.prompt.to_string(),
    });
    let told = OwnQueue { prompts: prompts.collect(), waiting: count };
    // Our own types can always be serialised.
    let mut response = json(serde_json::to_vec(&told).unwrap_or_default());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
