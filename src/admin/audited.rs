//! What operators do, for the audit log.

use http::StatusCode;
use serde_json::{Value, json};

use super::sender::Sender;
use crate::audit::Entry;
use crate::fleet::backend::Backend;
use crate::session::Sessions;

/// What was asked, and of what.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) sender: Sender,
    pub(super) what: &'static str,
    pub(super) on: Value,
    pub(super) before: Value,
}

impl Asked {
    /// Notes what came of it: `after` counts only if it was done.
    pub(super) fn note(self, sessions: &Sessions, status: StatusCode, after: Value) {
        let Self { sender, what, on, before } = self;
        sessions.shared.audit.note(|| {
            let who = sender.who();
            match status.is_success() {
                true => Entry { before, after, ..Entry::done(who, what, on) },
                false => Entry { before, ..Entry::refused(who, what, on, &status.to_string()) },
            }
        });
    }
}

/// A backend as an operator can change it; null is none. Who set its state is a part of it.
pub(super) fn backend_of(sessions: &Sessions, name: &str) -> Value {
    sessions.shared.fleet.called(name).map_or(Value::Null, |backend| backend_as_json(&backend))
}

fn backend_as_json(backend: &Backend) -> Value {
    let settings = backend.settings();
    let (state, said) = backend.said();
    json!({
        "at": settings.authority,
        "weight": settings.weight,
        "max_pending": settings.max_pending,
        "listed_by": settings.listed_by.to_string(),
        "state": state.as_str(),
        "by": said.as_ref().map(|it| &*it.by),
        "why": said.as_ref().and_then(|it| it.why.as_deref()),
        "leaving": backend.is_going(),
    })
}
