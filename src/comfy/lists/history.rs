//! `GET /history?max_items=&offset=`: chooses the requested prompts and writes the list.
//!
//! The ledger knows which prompts have ended and in which order. Their entries are fetched one by
//! one (`GET /history/{id}`) and joined here, oldest first as in ComfyUI.

use std::ops::Range;

use indexmap::IndexMap;
use serde_json::json;
use serde_json::value::RawValue;

use crate::comfy::answers::Junk;
use crate::comfy::number::integer;
use crate::comfy::query::parameter;
use crate::comfy::raw::quoted;
use crate::routing::pending::End;

/// The most ended prompts in a list: as many as one ComfyUI keeps (`execution.py`,
/// `MAXIMUM_HISTORY_SIZE`). Older prompts can be found only by their ids.
pub const KEPT_MAX: usize = 10_000;

/// The latest of the ended prompts, as many as a list may have.
#[must_use]
pub fn kept<T>(ended: &[T]) -> &[T] {
    &ended[ended.len().saturating_sub(KEPT_MAX)..]
}

/// The part of a history that a query asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    max_items: Option<i64>,
    /// Counted from the oldest; negative for none.
    offset: i64,
}

/// An error that ComfyUI answers with 500.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not an integer")]
pub struct NotAnInteger(pub &'static str);

impl Window {
    /// # Errors
    /// One of the two parameters is not an integer.
    pub fn read(raw_query: &str) -> Result<Self, NotAnInteger> {
        let number = |name: &'static str| match parameter(raw_query, name) {
            None => Ok(None),
            Some(text) => integer(&text).map(Some).ok_or(NotAnInteger(name)),
        };
        Ok(Self { max_items: number("max_items")?, offset: number("offset")?.unwrap_or(-1) })
    }

    /// The requested ones of `count` entries, oldest first. Without an offset, `max_items` selects
    /// the newest. With one, ComfyUI checks the limit only after an entry, so at least one is
    /// given.
    #[must_use]
    pub fn of(self, count: usize) -> Range<usize> {
        // No list is longer than that.
        let end = i64::try_from(count).unwrap_or(i64::MAX);
        let first = match self.max_items {
            Some(max_items) if self.offset < 0 => end.saturating_sub(max_items),
            Some(_) | None => self.offset,
        };
        let first = first.clamp(0, end);
        let len = self.max_items.unwrap_or(end).max(1);
        index(first)..index(first.saturating_add(len).min(end))
    }
}

/// The entry of a prompt in the answer of `GET /history/{id}`: a JSON object. `None` if its backend
/// does not know it (any more).
///
/// # Errors
/// The answer is not a history.
pub fn entry_of<'a>(body: &'a [u8], id: &str) -> Result<Option<&'a str>, Junk> {
    let mut entries: IndexMap<String, &'a RawValue> =
        serde_json::from_slice(body).map_err(|_| Junk::Malformed)?;
    match entries.swap_remove(id).map(RawValue::get) {
        Some(entry) if !entry.starts_with('{') => Err(Junk::Malformed),
        found => Ok(found),
    }
}

/// What callers see of an ended prompt that they do not own (promise R5): its id, its place `order`
/// among all submissions, and that it failed if it did. A success is not shown, because clients
/// would take it for a success without outputs.
#[must_use]
pub fn position(id: &str, order: u64, end: End) -> String {
    let mut entry = json!({ "prompt": [order, id, {}, {}, []], "outputs": {} });
    match end {
        End::Succeeded => {}
        End::Failed | End::Interrupted | End::Deleted | End::Lost(_) => {
            entry["status"] = json!({ "status_str": "error", "completed": false, "messages": [] });
        }
    }
    entry.to_string()
}

/// A history that is being written.
#[derive(Debug)]
pub struct HistoryList {
    out: Vec<u8>,
}

impl Default for HistoryList {
    fn default() -> Self {
        Self { out: vec![b'{'] }
    }
}

impl HistoryList {
    /// Adds the entry of a prompt, as [`entry_of`] returned it. Each id is added once.
    pub fn push(&mut self, id: &str, entry: &[u8]) {
        if 1 < self.out.len() {
            self.out.extend_from_slice(b", ");
        }
        self.out.extend_from_slice(quoted(id).as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(entry);
    }

    /// The length of the answer so far, in bytes; a caller may stop there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.len() == 1
    }

    /// The answer in the form of `GET /history`.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }
}

/// Converts a number that is known to lie within a list.
fn index(number: i64) -> usize {
    usize::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Range<usize>) {
        assert_eq!(Window::read(query).unwrap().of(10), expected, "{query}");
    }

    #[test]
    fn a_window_is_the_newest_or_counts_from_the_oldest() {
        check("", 0..10);
        check("max_items=4", 6..10);
        check("max_items=64", 0..10);
        check("offset=3", 3..10);
        check("offset=3&max_items=4", 3..7);
        check("offset=9&max_items=4", 9..10);
        check("offset=12&max_items=4", 10..10);
        check("offset=-5&max_items=4", 6..10);
        check("offset=-5", 0..10);
        check("max_items=+4&rand=1", 6..10);
    }

    #[test]
    fn no_items_are_none_of_the_newest_and_one_from_an_offset() {
        check("max_items=0", 10..10);
        check("max_items=-3", 10..10);
        check("max_items=0&offset=2", 2..3);
        check("max_items=-3&offset=2", 2..3);
        check("max_items=99999999999999999999&offset=-99999999999999999999", 0..10);
        check("max_items=-99999999999999999999", 10..10);
        check("max_items=99999999999999999999&offset=99999999999999999999", 10..10);
    }

    #[test]
    fn what_is_no_integer_is_refused_by_its_name() {
        assert_eq!(Window::read("max_items=x"), Err(NotAnInteger("max_items")));
        assert_eq!(Window::read("max_items="), Err(NotAnInteger("max_items")));
        assert_eq!(Window::read("max_items=1&offset=1.5"), Err(NotAnInteger("offset")));
    }

    #[test]
    fn entries_are_put_together_as_they_were() {
        let one = br#"{"a": {"prompt":  [1], "x": "\ud800"}}"#;
        let other = br#"{"b\"": {}, "c": 3}"#;
        let mut list = HistoryList::default();
        assert!(list.is_empty());
        list.push("a", entry_of(one, "a").unwrap().unwrap().as_bytes());
        list.push("b\"", entry_of(other, "b\"").unwrap().unwrap().as_bytes());
        let expected = r#"{"a": {"prompt":  [1], "x": "\ud800"}, "b\"": {}}"#;
        assert_eq!(String::from_utf8(list.finish()).unwrap(), expected);
        assert_eq!(HistoryList::default().finish(), b"{}");
        assert_eq!(entry_of(b"{}", "a"), Ok(None));
        assert_eq!(entry_of(other, "c"), Err(Junk::Malformed));
        for body in [&b""[..], b"null", b"[]", b"404", b"{\"a\": NaN}"] {
            assert_eq!(entry_of(body, "a"), Err(Junk::Malformed));
        }
    }

    #[test]
    fn to_nobody_no_success_is_told_without_its_outputs() {
        let told = |end| serde_json::from_str::<serde_json::Value>(&position("p", 3, end)).unwrap();
        let done = told(End::Succeeded);
        assert_eq!(done, json!({ "prompt": [3, "p", {}, {}, []], "outputs": {} }));
        assert_eq!(told(End::Failed)["status"]["status_str"], "error");
    }

    #[test]
    fn a_list_goes_back_as_far_as_a_server_keeps() {
        let ended: Vec<usize> = (0..KEPT_MAX + 5).collect();
        assert_eq!(kept(&ended), &ended[5..]);
        assert_eq!(kept(&ended[..3]), [0, 1, 2]);
    }

    /// ComfyUI's own loop over its history.
    fn walk(count: usize, max_items: Option<i64>, offset: Option<i64>) -> Vec<usize> {
        let mut offset = offset.unwrap_or(-1);
        if let (true, Some(max)) = (offset < 0, max_items) {
            offset = i64::try_from(count).unwrap() - max;
        }
        let mut given = Vec::new();
        for at in 0..count {
            if offset <= i64::try_from(at).unwrap() {
                given.push(at);
                if max_items.is_some_and(|max| max <= i64::try_from(given.len()).unwrap()) {
                    break;
                }
            }
        }
        given
    }

    proptest! {
        #[test]
        fn a_window_is_what_comfyui_gives(
            count in 0..20_usize,
            max_items in option::of(-3..25_i64),
            offset in option::of(-25..25_i64),
        ) {
            let part = |name, it: Option<i64>| it.map(|it| format!("{name}={it}"));
            let query: Vec<_> =
                part("max_items", max_items).into_iter().chain(part("offset", offset)).collect();
            let window = Window::read(&query.join("&")).unwrap();
            let given: Vec<usize> = window.of(count).collect();
            prop_assert_eq!(given, walk(count, max_items, offset));
        }

        #[test]
        fn pages_cover_a_history_exactly_once(count in 0..200_usize, size in 1..20_usize) {
            let mut seen = Vec::new();
            for offset in (0..count + size).step_by(size) {
                let query = format!("max_items={size}&offset={offset}");
                seen.extend(Window::read(&query).unwrap().of(count));
            }
            prop_assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_and_no_query_break_it(
            body in vec(any::<u8>(), 0..200),
            text in any::<String>(),
            count in any::<usize>(),
        ) {
            let _any_answer = entry_of(&body, &text);
            let _any_answer = entry_of(text.as_bytes(), "");
            if let Ok(window) = Window::read(&text) {
                prop_assert_eq!(window.of(count).end <= count, true);
            }
        }
    }
}
