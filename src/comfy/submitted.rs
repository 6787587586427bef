//! Finds out who submitted the entries of a backend's queue: they carry the `client_id` in
//! `extra_data` (0.3.45 to 0.33). Pure.
//!
//! An entry without a client, or with an invalid client id or prompt id, belongs to nobody and does
//! not affect the others.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answers::Junk;
use super::submission::{name_or_null, output_nodes_of};
use super::{raw, scan};
use crate::routing::ids::{ClientId, PromptId};
use crate::routing::unclaimed::Stage;

/// An entry of a queue, with its client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Submitted {
    pub client: ClientId,
    pub prompt: PromptId,
    pub stage: Stage,
    /// Its nodes of the classes whose binary frames are outputs.
    pub output_nodes: Vec<String>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    queue_running: Vec<&'a RawValue>,
    #[serde(borrow)]
    queue_pending: Vec<&'a RawValue>,
}

/// The entries of the answer of `GET /queue` whose client is known, in the order in which the
/// backend runs them.
///
/// # Errors
/// The answer is not a queue.
pub fn submitted(body: &[u8], output_classes: &[String]) -> Result<Vec<Submitted>, Junk> {
    match serde_json::from_slice(body) {
        Ok(answer) => Ok(of(answer, output_classes)),
        Err(_) => {
            let body = scan::without_nan(body);
            let answer = serde_json::from_slice(&body).map_err(|_| Junk::Malformed)?;
            Ok(of(answer, output_classes))
        }
    }
}

fn of(answer: Answer<'_>, output_classes: &[String]) -> Vec<Submitted> {
    let read = |items: Vec<&RawValue>, stage| {
        let items = items.into_iter().filter_map(|item| entry(item, stage, output_classes));
        let mut items: Vec<(f64, Submitted)> = items.collect();
        // The queue is a heap, and is sent unsorted.
        items.sort_by(|(one, a), (other, b)| {
            one.total_cmp(other).then_with(|| a.prompt.cmp(&b.prompt))
        });
        items.into_iter().map(|(_, item)| item)
    };
    let running = read(answer.queue_running, Stage::Runs);
    running.chain(read(answer.queue_pending, Stage::Waits)).collect()
}

/// `[number, prompt_id, prompt, extra_data, …]`, with its number.
fn entry(item: &RawValue, stage: Stage, output_classes: &[String]) -> Option<(f64, Submitted)> {
    let parts = raw::list(item)?;
    let [number, prompt, graph, extra_data, ..] = parts.as_slice() else { return None };
    let client = name_or_null(raw::object(extra_data)?.get("client_id")?)??;
    let submitted = Submitted {
        client: ClientId::parse(&client).ok()?,
        prompt: PromptId::parse(&raw::text(prompt)?).ok()?,
        stage,
        output_nodes: output_nodes_of(graph.get().as_bytes(), output_classes),
    };
    Some((raw::number(number).unwrap_or(f64::INFINITY), submitted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;
    use crate::comfy::raw::tests::any_json;

    fn told(body: &str) -> Vec<String> {
        let read = submitted(body.as_bytes(), &["Saver".to_owned()]).unwrap();
        let shown = |it: Submitted| {
            format!("{} {} {:?} {}", it.client, it.prompt, it.stage, it.output_nodes.join("+"))
        };
        read.into_iter().map(shown).collect()
    }

    #[test]
    fn each_entry_is_its_clients_and_what_runs_comes_first() {
        let body = r#"{"queue_running": [[4, "run", {"1": {"class_type": "Saver", "x": NaN}},
            {"client_id": "ada", "create_time": 1}, ["1"], {}]],
            "queue_pending": [[7, "late", {}, {"client_id": "ada"}, []],
            [5, "next", {}, {"client_id": 1764310000123}, []]]}"#;
        assert_eq!(told(body), ["ada run Runs 1", "1764310000123 next Waits ", "ada late Waits "]);
    }

    #[test]
    fn what_names_nobody_is_nobodys_and_hides_no_other() {
        let odd = [
            r#"[1, "p", {}, {}]"#,
            r#"[1, "p", {}, {"client_id": null}]"#,
            r#"[1, "p", {}, {"client_id": ""}]"#,
            r#"[1, "p", {}, {"client_id": ["a"]}]"#,
            r#"[1, "p", {}, {"client_id": "a\nb"}]"#,
            r#"[1, "p", {}, {"client_id": "\ud800"}]"#,
            r#"[1, 7, {}, {"client_id": "a"}]"#,
            r#"[1, "", {}, {"client_id": "a"}]"#,
            r#"[1, "p", {}, null]"#,
            r#"[1, "p", {}]"#,
            r#"{"client_id": "a"}"#,
        ];
        let good = r#"[null, "good", null, {"client_id": "ada"}]"#;
        let body =
            format!(r#"{{"queue_pending": [{}, {good}], "queue_running": []}}"#, odd.join(", "));
        assert_eq!(told(&body), ["ada good Waits "]);
        assert!(submitted(b"[]", &[]).is_err() && submitted(b"{", &[]).is_err());
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(item in any_json()) {
            let body = format!(r#"{{"queue_running": [{item}], "queue_pending": []}}"#);
            let _ = submitted(body.as_bytes(), &[]);
        }
    }
}
