//! `GET /api/v1/scaling` tells an autoscaler how many backends the current work needs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::api::Reply;
use crate::net::now;
use crate::routing::ids::BackendId;
use crate::routing::pending::{Pending, Phase};
use crate::session::Sessions;

/// How long a submission that found no backend counts as a wish for one.
const ASKED_FOR: Duration = Duration::from_secs(300);

pub(super) fn router(sessions: Arc<Sessions>) -> Router {
    Router::new().route("/api/v1/scaling", get(scaling)).with_state(sessions)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScalingQuery {
    /// How many prompts one backend should have, running and waiting.
    #[serde(default = "one")]
    per_backend: usize,
}

fn one() -> usize {
    1
}

/// What is counted over all clients.
#[derive(Debug, Default)]
struct Work {
    pending: usize,
    running: usize,
    held: usize,
    /// Backends that hold clients. None of them can leave without losing work.
    busy: BTreeSet<BackendId>,
}

async fn scaling(
    State(sessions): State<Arc<Sessions>>,
    Query(query): Query<ScalingQuery>,
) -> Reply {
    if query.per_backend == 0 {
        let error = "`per_backend` must be at least 1";
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
    }
    let work = work(&sessions);
    let now = now();
    let ready = sessions.shared.fleet.iter().filter(|it| it.view(now).serves_new()).count();
    let asked = sessions.shared.fleet.missed_at();
    let is_asked = asked.is_some_and(|at| now.saturating_duration_since(at) < ASKED_FOR);
    let wanted = wanted(&work, query.per_backend, is_asked);
    let body = json!({
        "pending": work.pending,
        "running": work.running,
        "held": work.held,
        "busy": work.busy.len(),
        "ready": ready,
        "wanted": wanted,
    });
    (StatusCode::OK, Json(body))
}

fn work(sessions: &Sessions) -> Work {
    let mut work = Work::default();
    for client in sessions.clients.working() {
        client.inspect(|core, _| {
            work.pending += core.pending().len();
            let is_running = |phase| matches!(phase, Phase::Running | Phase::Ending(_));
            work.running += core.pending().values().filter(|it| is_running(it.phase)).count();
            work.busy.extend(core.pending().values().filter_map(Pending::backend));
            work.held += usize::from(core.is_held());
        });
    }
    work
}

/// The number of backends wanted: enough for the prompts, at least those that have work, and one if
/// a submission found none.
fn wanted(work: &Work, per_backend: usize, is_asked: bool) -> usize {
    let by_work = work.pending.div_ceil(per_backend);
    by_work.max(work.busy.len()).max(usize::from(is_asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_wanted_as_the_work_needs() {
        let work = |pending, busy: u16| Work {
            pending,
            busy: (0..busy).map(BackendId::nth).collect(),
            ..Work::default()
        };
        let cases = [
            (work(0, 0), 1, false, 0),
            (work(0, 0), 1, true, 1),
            (work(1, 1), 1, true, 1),
            (work(9, 3), 2, false, 5),
            (work(3, 3), 4, false, 3),
        ];
        for (work, per_backend, is_asked, expected) in cases {
            assert_eq!(wanted(&work, per_backend, is_asked), expected, "{work:?}");
        }
    }
}
