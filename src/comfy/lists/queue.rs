//! The queues of several backends as one list with the caller's own entries (promise R5),
//! unchanged.
//!
//! # Invariants
//!
//! - An entry is shown only if its id was given as one of the caller's. An entry with an unreadable
//!   id belongs to nobody.
//! - A shown entry has the very bytes that its backend sent, except for the id of its client if the
//!   caller has not named that client ([`Shown`]). Nothing else is copied before the answer is
//!   written: the list borrows the backends' answers.
//! - Every prompt that is known to be pending is in the list: clients poll it, and count a prompt
//!   that is neither here nor in the history as lost. If its backend does not answer in time, or
//!   has not got the prompt yet, an entry is made for it ([`OwnQueue::add_known`]).
//!
//! # The order
//!
//! By number, then backend, then id. On one backend that is the order in which ComfyUI will run
//! them (its queue is a heap of tuples that begin with number and id, and is sent unsorted).
//! Between backends numbers say little, since each counts from 0. But the order is the same in
//! every answer, and a prompt that jumped its queue comes before those that it passed.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::waiting::Parts;
use crate::comfy::answers::Junk;
use crate::comfy::jobs::Status;
use crate::comfy::redact::Told;
use crate::comfy::reply::integer_or_float;
use crate::comfy::{raw, redact};
use crate::routing::ids::{BackendId, ClientId, PromptId};

/// The caller's entries in the queues of several backends.
#[derive(Debug, Default)]
pub struct OwnQueue<'a> {
    running: Vec<Item<'a>>,
    pending: Vec<Item<'a>>,
    /// The ids of all, when the first was added that no backend has told of.
    ids: Option<HashSet<String>>,
}

/// One entry of a queue: `[number, prompt_id, prompt, extra_data, outputs_to_execute]`.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    /// `None` while it waits in the gateway.
    backend: Option<BackendId>,
    pub id: Cow<'a, str>,
    /// Infinite if it cannot be read: such entries come last.
    number: f64,
    raw: Raw<'a>,
}

/// The JSON of an entry.
#[derive(Clone, Debug)]
enum Raw<'a> {
    Told(Cow<'a, RawValue>),
    /// Made here, of parts that are JSON.
    Made(String),
}

/// A pending prompt of the caller that may be missing in the backends' answers.
#[derive(Clone, Copy, Debug)]
pub struct Known<'p> {
    /// `None` while it waits in the gateway.
    pub backend: Option<BackendId>,
    pub id: &'p PromptId,
    /// Its client, if the caller named that client.
    pub client: Option<&'p ClientId>,
    /// When it was submitted, in milliseconds since 1970.
    pub taken_ms: u64,
    /// The number in the answer to its submission, if that has come.
    pub number: Option<f64>,
    pub place: Place,
    /// Its submission and what is shown of that, if it waits in the gateway.
    pub submitted: Option<(&'p [u8], &'p Parts)>,
}

/// How an entry is shown to the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown<'n> {
    No,
    /// Without the id of its client.
    Cleaned,
    /// Unchanged: the caller named its client.
    Whole,
    /// The same, of a client that backends know by another name than this one, its own.
    As(&'n str),
}

impl<'n> From<Told<'n>> for Shown<'n> {
    fn from(told: Told<'n>) -> Self {
        match told {
            Told::Nothing => Self::Cleaned,
            Told::AsItIs => Self::Whole,
            Told::As(name) => Self::As(name),
        }
    }
}

/// The list of a queue in which an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    Running,
    Pending,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    queue_running: Vec<&'a RawValue>,
    #[serde(borrow)]
    queue_pending: Vec<&'a RawValue>,
}

impl<'a> OwnQueue<'a> {
    /// Adds the entries that the caller sees in one backend's answer to `GET /queue`.
    ///
    /// # Errors
    /// The answer is not a queue; nothing is added.
    pub fn add<'n>(
        &mut self,
        backend: impl Into<Option<BackendId>>,
        body: &'a [u8],
        mut shown: impl FnMut(&str) -> Shown<'n>,
    ) -> Result<(), Junk> {
        let answer: Answer<'a> = serde_json::from_slice(body).map_err(|_| Junk::Malformed)?;
        let backend = backend.into();
        let mut own = |items: Vec<&'a RawValue>| {
            let items = items.into_iter().filter_map(|raw| Item::read(backend, raw));
            let shown = items.filter_map(|item| match shown(&item.id) {
                Shown::No => None,
                Shown::Cleaned => Some(item.told(Told::Nothing)),
                Shown::Whole => Some(item),
                Shown::As(name) => Some(item.told(Told::As(name))),
            });
            shown.collect::<Vec<_>>()
        };
        self.running.extend(own(answer.queue_running));
        self.pending.extend(own(answer.queue_pending));
        Ok(())
    }

    /// Adds a prompt that is known to be pending, if no backend has listed it: without its graph.
    /// Call this after all answers were added.
    pub fn add_known(&mut self, known: Known<'_>) {
        let id = known.id.as_str();
        let is_new = self.ids().insert(id.to_owned());
        if !is_new {
            return;
        }
        let shown = known.number.and_then(integer_or_float).unwrap_or(Value::from(0));
        let mut more = format!("\"create_time\": {}", known.taken_ms);
        if let Some(client) = known.client {
            more.push_str(&format!(", \"client_id\": {}", json!(client.name())));
        }
        let nothing: (&[u8], _) = (b"", Parts::default());
        let (body, parts) = known.submitted.unwrap_or((nothing.0, &nothing.1));
        let entry = format!("[{shown}, {}, {}, []]", json!(id), parts.of_entry(body, &more));
        let number = known.number.unwrap_or(f64::INFINITY);
        let id = Cow::Owned(id.to_owned());
        let item = Item { backend: known.backend, id, number, raw: Raw::Made(entry) };
        match known.place {
            Place::Running => self.running.push(item),
            Place::Pending => self.pending.push(item),
        }
    }

    /// The ids of all entries.
    fn ids(&mut self) -> &mut HashSet<String> {
        let items = self.running.iter().chain(&self.pending);
        self.ids.get_or_insert_with(|| items.map(|item| item.id.clone().into_owned()).collect())
    }

    /// The entries with their status, in the order of the list: running ones, then waiting ones.
    pub fn items(&self) -> impl Iterator<Item = (Status, &Item<'a>)> {
        let running = sorted(&self.running).into_iter().map(|item| (Status::InProgress, item));
        running.chain(sorted(&self.pending).into_iter().map(|item| (Status::Pending, item)))
    }

    /// The list in the form of `GET /queue`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        const FRAME: usize = 64;
        let items = self.running.iter().chain(&self.pending);
        let len: usize = items.map(|item| item.json().len() + 2).sum();
        let mut out = Vec::with_capacity(len + FRAME);
        out.extend_from_slice(b"{\"queue_running\": ");
        write(&mut out, &self.running);
        out.extend_from_slice(b", \"queue_pending\": ");
        write(&mut out, &self.pending);
        out.push(b'}');
        out
    }
}

impl<'a> Item<'a> {
    fn read(backend: Option<BackendId>, raw: &'a RawValue) -> Option<Self> {
        let parts = raw::list(raw)?;
        let number = raw::number(parts.first()?).unwrap_or(f64::INFINITY);
        let id = raw::text(parts.get(1)?)?;
        Some(Self { backend, id, number, raw: Raw::Told(Cow::Borrowed(raw)) })
    }

    fn told(self, told: Told<'_>) -> Self {
        let raw = match self.raw {
            Raw::Told(Cow::Borrowed(raw)) => Raw::Told(redact::item(raw, told)),
            Raw::Told(Cow::Owned(raw)) => {
                Raw::Told(Cow::Owned(redact::item(&raw, told).into_owned()))
            }
            // Made for this caller.
            Raw::Made(entry) => Raw::Made(entry),
        };
        Self { raw, ..self }
    }

    /// The entry as its backend sent it, except for the client id.
    #[must_use]
    pub fn json(&self) -> &str {
        match &self.raw {
            Raw::Told(raw) => raw.get(),
            Raw::Made(entry) => entry,
        }
    }

    /// Its members; there are at least two.
    pub(in crate::comfy) fn parts(&self) -> Vec<&RawValue> {
        serde_json::from_str(self.json()).unwrap_or_default()
    }

    fn order(&self, other: &Self) -> Ordering {
        let by_number = self.number.total_cmp(&other.number);
        by_number.then(self.backend.cmp(&other.backend)).then_with(|| self.id.cmp(&other.id))
    }
}

fn sorted<'l, 'a>(items: &'l [Item<'a>]) -> Vec<&'l Item<'a>> {
    let mut items: Vec<&Item<'a>> = items.iter().collect();
    items.sort_by(|one, other| one.order(other));
    items
}

fn write(out: &mut Vec<u8>, items: &[Item<'_>]) {
    out.push(b'[');
    for (index, item) in sorted(items).into_iter().enumerate() {
        if 0 < index {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(item.json().as_bytes());
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::comfy::raw::tests::any_json;
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    const A: Option<BackendId> = Some(BackendId::nth(0));
    const B: Option<BackendId> = Some(BackendId::nth(1));

    fn shown(queue: &OwnQueue<'_>) -> String {
        String::from_utf8(queue.to_json()).unwrap()
    }

    #[test]
    fn ones_own_entries_are_shown_by_number_then_backend_and_as_they_were() {
        let one = br#"{"queue_running": [[3, "mine 3", {"1":  {"x": "\ud800"}}, {}, ["9"]]],
            "queue_pending": [[5, "mine y", {}, {}, []], [4, "hers", {"s": "secret"}, {}, []]]}"#;
        let other = br#"{"queue_pending": [[5, "mine too", {}, {}, []], [-1.5, "mine", {}, {}, []],
            [null, "mine last", {}, {}, [], {}]], "queue_running": [], "more": 1}"#;
        let mut queue = OwnQueue::default();
        let is_mine = |id: &str| if id.starts_with("mine") { Shown::Whole } else { Shown::No };
        queue.add(B, other, is_mine).unwrap();
        queue.add(A, one, is_mine).unwrap();
        let expected = concat!(
            r#"{"queue_running": [[3, "mine 3", {"1":  {"x": "\ud800"}}, {}, ["9"]]], "#,
            r#""queue_pending": [[-1.5, "mine", {}, {}, []], [5, "mine y", {}, {}, []], "#,
            r#"[5, "mine too", {}, {}, []], [null, "mine last", {}, {}, [], {}]]}"#,
        );
        assert_eq!(shown(&queue), expected);
        let statuses: Vec<_> = queue.items().map(|(status, it)| (status, &*it.id)).collect();
        assert_eq!(statuses[..2], [(Status::InProgress, "mine 3"), (Status::Pending, "mine")]);
    }

    #[test]
    fn the_id_of_a_client_is_shown_to_who_named_it_only() {
        let body = br#"{"queue_running": [[1, "own", {"x":  1}, {"client_id": "ada"}, []]],
            "queue_pending": [[2, "tab's", {"x":  1}, {"client_id": "eve", "y": 2}, []]]}"#;
        let mut queue = OwnQueue::default();
        let is_own = |id: &str| {
            if id == "own" { Shown::Whole } else { Shown::Cleaned }
        };
        queue.add(A, body, is_own).unwrap();
        let expected = concat!(
            r#"{"queue_running": [[1, "own", {"x":  1}, {"client_id": "ada"}, []]], "#,
            r#""queue_pending": [[2, "tab's", {"x":  1}, {"y": 2}, []]]}"#,
        );
        assert_eq!(shown(&queue), expected);
    }

    #[test]
    fn what_is_no_queue_adds_nothing_and_what_is_no_entry_is_left_out() {
        let mut queue = OwnQueue::default();
        for body in ["", "<html>", "[]", "{}", r#"{"queue_running": 1, "queue_pending": []}"#] {
            assert_eq!(
                queue.add(A, body.as_bytes(), |_| Shown::Whole),
                Err(Junk::Malformed),
                "{body}"
            );
        }
        let odd = br#"{"queue_running": [{}, [], [1], [1, 2], "x", null, [1, "\ud800"]],
            "queue_pending": [[7, "p"]]}"#;
        assert_eq!(queue.add(A, odd, |_| Shown::Whole), Ok(()));
        assert_eq!(shown(&queue), r#"{"queue_running": [], "queue_pending": [[7, "p"]]}"#);
    }

    #[test]
    fn a_pending_prompt_that_no_backend_tells_of_is_shown_without_its_graph() {
        let body = br#"{"queue_running": [], "queue_pending": [[4, "told", {"1": {}}, {}, []]]}"#;
        let mut queue = OwnQueue::default();
        queue.add(A, body, |_| Shown::Whole).unwrap();
        let ada = ClientId::parse("ada").unwrap();
        let ids = ["told", "new", "asked", "runs"].map(|id| PromptId::parse(id).unwrap());
        let numbers = [Some(4.0), None, Some(3.0), Some(2.5)];
        for ((id, number), backend) in ids.iter().zip(numbers).zip([A, A, B, B]) {
            let place = if id.as_str() == "runs" { Place::Running } else { Place::Pending };
            let client = Some(&ada).filter(|_| place == Place::Pending);
            let submitted = None;
            let taken_ms = 7;
            queue.add_known(Known { backend, id, client, taken_ms, number, place, submitted });
        }
        let expected = json!({
            "queue_running": [[2.5, "runs", {}, { "create_time": 7 }, []]],
            "queue_pending": [
                [3, "asked", {}, { "client_id": "ada", "create_time": 7 }, []],
                [4, "told", { "1": {} }, {}, []],
                [0, "new", {}, { "client_id": "ada", "create_time": 7 }, []],
            ],
        });
        assert_eq!(serde_json::from_str::<Value>(&shown(&queue)).unwrap(), expected);
        assert_eq!(queue.items().map(|(_, item)| item.parts().len()).sum::<usize>(), 20);
    }

    proptest! {
        /// Each entry is shown to exactly one caller, its owner.
        #[test]
        fn nobody_sees_anothers_entry_and_everybody_all_of_his_own(
            backends in vec(vec((0..4_u8, any::<i32>()), 0..12), 0..5),
        ) {
            let mut all = BTreeSet::new();
            let bodies: Vec<String> = backends.iter().enumerate().map(|(backend, entries)| {
                let items: Vec<Value> = entries.iter().enumerate().map(|(at, (owner, number))| {
                    let id = format!("{owner}/{backend}/{at}");
                    all.insert(id.clone());
                    json!([number, id, { "of": owner }, {}, []])
                }).collect();
                let (running, pending) = items.split_at(items.len().min(1));
                json!({ "queue_running": running, "queue_pending": pending }).to_string()
            }).collect();
            let mut seen = BTreeSet::new();
            for owner in 0..4_u8 {
                let prefix = format!("{owner}/");
                let mut queue = OwnQueue::default();
                for (body, backend) in bodies.iter().zip(0..) {
                    let add = queue.add(BackendId::nth(backend), body.as_bytes(), |id| {
                        if id.starts_with(&prefix) { Shown::Cleaned } else { Shown::No }
                    });
                    prop_assert_eq!(add, Ok(()));
                }
                let answer: Value = serde_json::from_slice(&queue.to_json()).unwrap();
                for list in ["queue_running", "queue_pending"] {
                    let items = answer[list].as_array().unwrap();
                    let mut numbers = items.iter().map(|item| item[0].as_i64().unwrap());
                    prop_assert_eq!(numbers.by_ref().is_sorted(), true);
                    for item in items {
                        prop_assert_eq!(&item[2]["of"], &json!(owner));
                        prop_assert_eq!(seen.insert(item[1].as_str().unwrap().to_owned()), true);
                    }
                }
            }
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn no_bytes_and_no_json_break_it(
            body in vec(any::<u8>(), 0..200),
            running in vec(any_json(), 0..4),
            pending in any_json(),
        ) {
            let framed = json!({ "queue_running": running, "queue_pending": [[1, pending]] });
            let odd = json!({ "queue_running": running, "queue_pending": pending }).to_string();
            let framed = framed.to_string();
            let mut queue = OwnQueue::default();
            for bytes in [&body[..], framed.as_bytes(), odd.as_bytes()] {
                let _any_answer = queue.add(A, bytes, |_| Shown::Whole);
            }
            let _readable: Value = serde_json::from_slice(&queue.to_json()).unwrap();
        }
    }
}
