//! Builds the events and answers that Mooring itself sends, in ComfyUI's format so that clients
//! understand them.

use serde_json::{Value, json};

use super::labels::Label;
use crate::routing::ids::{ClientId, PromptId};

fn event(kind: &str, data: &Value) -> String {
    // Written by hand so that the type comes first, as in ComfyUI.
    format!("{{\"type\": \"{kind}\", \"data\": {data}}}")
}

/// The number of pending prompts; with the socket's `sid` in its first message.
#[must_use]
pub fn status(queue_remaining: u64, sid: Option<&ClientId>) -> String {
    let status = json!({ "exec_info": { "queue_remaining": queue_remaining } });
    match sid {
        None => event("status", &json!({ "status": status })),
        Some(sid) => event("status", &json!({ "status": status, "sid": sid.name() })),
    }
}

/// The answer of `GET /prompt`.
#[must_use]
pub fn queue_length(queue_remaining: u64) -> String {
    json!({ "exec_info": { "queue_remaining": queue_remaining } }).to_string()
}

/// The node that a prompt runs; without a node it closes the prompt.
#[must_use]
pub fn executing(prompt: &PromptId, node: Option<&str>) -> String {
    let prompt = prompt.as_str();
    event(
        "executing",
        &match node {
            None => json!({ "node": null, "prompt_id": prompt }),
            Some(node) => json!({ "node": node, "display_node": node, "prompt_id": prompt }),
        },
    )
}

/// The start of a prompt that started while no link was open.
#[must_use]
pub fn execution_start(prompt: &PromptId, at_ms: u64) -> String {
    event("execution_start", &json!({ "prompt_id": prompt.as_str(), "timestamp": at_ms }))
}

#[must_use]
pub fn execution_success(prompt: &PromptId, at_ms: u64) -> String {
    event("execution_success", &json!({ "prompt_id": prompt.as_str(), "timestamp": at_ms }))
}

/// The end of a prompt that was deleted before it ran: it never had a node.
#[must_use]
pub fn execution_interrupted(prompt: &PromptId, at_ms: u64) -> String {
    let data = json!({
        "prompt_id": prompt.as_str(), "node_id": "", "node_type": "", "executed": [],
        "timestamp": at_ms,
    });
    event("execution_interrupted", &data)
}

/// The end of a prompt that failed for a reason outside of it. People read the message.
///
/// A page takes an error without a node for one of the server: it shows the type before the
/// message, shows it twice, and leaves the tab's spinner turning (frontend 1.49.6). So this names a
/// node.
#[must_use]
pub fn execution_error(
    prompt: &PromptId,
    kind: &str,
    message: &str,
    at: Option<&Label>,
    at_ms: u64,
) -> String {
    let (node, class) = at.map_or(("", ""), |label| (&*label.node, &*label.class));
    let data = json!({
        "prompt_id": prompt.as_str(), "node_id": node, "node_type": class, "executed": [],
        "exception_message": message, "exception_type": kind, "traceback": [],
        "current_inputs": {}, "current_outputs": [], "timestamp": at_ms,
    });
    event("execution_error", &data)
}

/// A message for people, which the page script shows.
#[must_use]
pub fn notice(level: &str, message: &str) -> String {
    event("mooring.notice", &json!({ "level": level, "message": message }))
}

/// Tells the page script that the servers are not as they were.
#[must_use]
pub fn servers_changed() -> String {
    event("mooring.servers", &json!({}))
}

/// A sign of life for clients that give up after ten seconds of silence. No client knows this type,
/// and all ignore it.
#[must_use]
pub fn alive() -> String {
    r#"{"type":"mooring.alive","data":{}}"#.to_owned()
}

/// The answer to a socket's `feature_flags`; `features` is JSON as the backend sent it.
#[must_use]
pub fn feature_flags(features: &str) -> String {
    format!("{{\"type\": \"feature_flags\", \"data\": {features}}}")
}

/// The body that subscribes a client to its backend's log.
#[must_use]
pub fn log_subscription(client: &ClientId) -> String {
    json!({ "clientId": client.as_str(), "enabled": true }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comfy::event::{Event, read};

    #[test]
    fn what_is_said_is_understood() {
        let prompt = PromptId::parse("p\"q").unwrap();
        let id = || std::borrow::Cow::from("p\"q");
        let said = execution_error(&prompt, "mooring.PromptLost", "gone", None, 1);
        assert_eq!(read(said.as_bytes()), Event::Failed { prompt: id() });
        let said = executing(&prompt, None);
        let last_word = Event::Executing { prompt: Some(id()), node: None };
        assert_eq!(read(said.as_bytes()), last_word);
        let sid = ClientId::parse("s").unwrap();
        let first = Event::Status { queue_remaining: Some(2), has_sid: true };
        assert_eq!(read(status(2, Some(&sid)).as_bytes()), first);
        assert_eq!(read(feature_flags("{}").as_bytes()), Event::FeatureFlags);
    }
}
