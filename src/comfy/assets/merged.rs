//! Merges the lists of assets of several servers (ComfyUI 0.33 `list_assets_page`).
//!
//! Each server sorts by a value and then by the id, and so does the merged list. A cursor consists
//! of these two, so it begins a page at the same place on every server.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::cursor::Cursor;
use super::item::{Item, Key};
use super::query::{Begin, Order, Sort, Window};
use crate::comfy::answers::Junk;
use crate::comfy::walk::quote;

/// One page of one server's list.
#[derive(Debug)]
pub struct Page<'a> {
    /// The readable items, each with its text.
    pub items: Vec<(Item, &'a str)>,
    pub total: usize,
    pub has_more: bool,
    next_cursor: Option<String>,
    /// The number of all items.
    len: usize,
}

#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    assets: Vec<&'a RawValue>,
    total: usize,
    #[serde(default)]
    has_more: bool,
    next_cursor: Option<String>,
}

impl<'a> Page<'a> {
    /// Reads an answer.
    ///
    /// # Errors
    /// The answer is not a list of assets.
    pub fn read(json: &'a [u8]) -> Result<Self, Junk> {
        let told: Told<'a> = serde_json::from_slice(json).map_err(|_| Junk::Malformed)?;
        let len = told.assets.len();
        let read = |raw: &&'a RawValue| Some((Item::read(raw.get().as_bytes())?, raw.get()));
        let items = told.assets.iter().filter_map(read).collect();
        let Told { total, has_more, next_cursor, .. } = told;
        Ok(Self { items, total, has_more, next_cursor, len })
    }

    /// Where this server's next page begins, if there is one; this page began at `from`.
    #[must_use]
    pub fn next(&self, from: Option<&Begin>) -> Option<Begin> {
        if self.len == 0 {
            return None;
        }
        match (&self.next_cursor, from) {
            (Some(cursor), _) => Some(Begin::After(cursor.clone())),
            (None, Some(Begin::After(_))) => None,
            (None, None) => self.has_more.then_some(Begin::Offset(self.len)),
            (None, Some(Begin::Offset(offset))) => {
                self.has_more.then_some(Begin::Offset(offset + self.len))
            }
        }
    }
}

/// One asset of the merged list, in the form for clients.
#[derive(Debug)]
pub struct Entry {
    key: Key,
    id: String,
    json: String,
}

impl Entry {
    #[must_use]
    pub fn new(item: &Item, sort: Sort, json: String) -> Self {
        Self { key: item.key(sort), id: item.id_text().to_owned(), json }
    }
}

/// The requested page of the merged entries; `total` is the number of assets on all pages.
#[must_use]
pub fn merged(mut entries: Vec<Entry>, window: Window, total: usize) -> String {
    entries.sort_by(|a, b| {
        let ordering = a.key.cmp(&b.key).then_with(|| a.id.cmp(&b.id));
        match window.order {
            Order::Asc => ordering,
            Order::Desc => ordering.reverse(),
        }
    });
    entries.drain(..window.offset.min(entries.len()));
    let is_last = entries.len() <= window.limit;
    entries.truncate(window.limit);
    let next = entries.last().filter(|_| !is_last).and_then(|last| cursor_after(last, window));
    let has_more =
        if window.has_cursor { next.is_some() } else { window.offset + entries.len() < total };
    let assets: Vec<String> = entries.into_iter().map(|entry| entry.json).collect();
    let assets = assets.join(", ");
    let next = next.map_or_else(String::new, |it| format!(", \"next_cursor\": {}", quote(&it)));
    format!("{{\"assets\": [{assets}], \"total\": {total}, \"has_more\": {has_more}{next}}}")
}

/// ComfyUI gives no cursor if the last asset has no value.
fn cursor_after(last: &Entry, window: Window) -> Option<String> {
    if !window.sort.has_cursor() {
        return None;
    }
    let value = match &last.key {
        Key::None => return None,
        Key::Number(number) => number.to_string(),
        Key::Text(text) => text.clone(),
    };
    Cursor::new(window.sort, window.order, value, &last.id).map(|cursor| cursor.encode())
}

/// How often each tag is used.
#[derive(Debug, Default)]
pub struct TagCounts(BTreeMap<String, usize>);

impl TagCounts {
    pub fn add(&mut self, tags: &[String]) {
        for tag in tags {
            *self.0.entry(tag.clone()).or_default() += 1;
        }
    }

    /// Adds a tag that no asset has; it is listed with the count 0.
    pub fn add_unused(&mut self, tag: String) {
        self.0.entry(tag).or_default();
    }

    #[must_use]
    pub fn get(&self, tag: &str) -> usize {
        self.0.get(tag).copied().unwrap_or(0)
    }

    /// The most used tags first, then by name.
    fn by_count(&self) -> Vec<(&String, usize)> {
        let mut rows: Vec<_> = self.0.iter().map(|(tag, count)| (tag, *count)).collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        rows
    }

    /// The answer of `GET /api/assets/tags/refine`.
    #[must_use]
    pub fn refined(&self, limit: usize) -> String {
        let rows = self.by_count().into_iter().filter(|(_, count)| 0 < *count).take(limit);
        let rows: Vec<String> =
            rows.map(|(tag, count)| format!("{}: {count}", quote(tag))).collect();
        format!("{{\"tag_counts\": {{{}}}}}", rows.join(", "))
    }

    /// The answer of `GET /api/tags`.
    #[must_use]
    pub fn listed(&self, asked: &TagsAsked) -> String {
        let mut rows = self.by_count();
        rows.retain(|(tag, count)| {
            tag.starts_with(&asked.prefix) && (asked.with_unused || 0 < *count)
        });
        if asked.by_name {
            rows.sort_by(|a, b| a.0.cmp(b.0));
        }
        let total = rows.len();
        let page = rows.into_iter().skip(asked.offset).take(asked.limit);
        let page: Vec<String> =
            page.map(|(tag, count)| json!({ "name": tag, "count": count }).to_string()).collect();
        let has_more = asked.offset + page.len() < total;
        let tags = page.join(", ");
        format!("{{\"tags\": [{tags}], \"total\": {total}, \"has_more\": {has_more}}}")
    }
}

/// The parameters of a request for tags. A backend has accepted the query.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TagsAsked {
    pub prefix: String,
    pub limit: usize,
    pub offset: usize,
    pub by_name: bool,
    pub with_unused: bool,
}

impl TagsAsked {
    #[must_use]
    pub fn of(query: &str) -> Self {
        let text = |name| crate::comfy::query::parameter(query, name);
        let number =
            |name, default| text(name).and_then(|text| text.trim().parse().ok()).unwrap_or(default);
        // The values that pydantic reads as false.
        let is_false = |text: String| {
            ["0", "off", "f", "false", "n", "no"].contains(&text.trim().to_lowercase().as_str())
        };
        Self {
            prefix: text("prefix").unwrap_or_default().trim().to_owned(),
            limit: number("limit", 100),
            offset: number("offset", 0),
            by_name: text("order").is_some_and(|order| order.trim() == "name_asc"),
            with_unused: !text("include_zero").is_some_and(is_false),
        }
    }
}

/// The tags in an answer of `GET /api/tags` with their counts, and whether more follow.
#[must_use]
pub fn tags_in(json: &[u8]) -> Option<(Vec<(String, usize)>, bool)> {
    #[derive(Deserialize)]
    struct Tag {
        name: String,
        count: usize,
    }
    #[derive(Deserialize)]
    struct Tags {
        tags: Vec<Tag>,
        #[serde(default)]
        has_more: bool,
    }
    let Tags { tags, has_more } = serde_json::from_slice(json).ok()?;
    Some((tags.into_iter().map(|tag| (tag.name, tag.count)).collect(), has_more))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn id(number: usize) -> String {
        format!("0f8fad5b-d9cb-469f-a165-{number:012}")
    }

    fn entry(number: usize, size: u64, sort: Sort) -> Entry {
        let json = format!(r#"{{"id": "{}", "size": {size}}}"#, id(number));
        Entry::new(&Item::read(json.as_bytes()).unwrap(), sort, json)
    }

    fn page(window: &str, count: usize) -> Value {
        let window = Window::of(window);
        let entries = (0..count).map(|at| entry(at, at as u64 / 2, window.sort)).collect();
        serde_json::from_str(&merged(entries, window, count)).unwrap()
    }

    fn numbers(page: &Value) -> Vec<String> {
        let assets = page["assets"].as_array().unwrap();
        assets.iter().map(|it| it["id"].as_str().unwrap()[24..].to_owned()).collect()
    }

    #[test]
    fn a_page_is_sorted_by_value_then_by_id() {
        let first = page("sort=size&limit=3", 5);
        assert_eq!(numbers(&first), ["000000000004", "000000000003", "000000000002"]);
        assert_eq!((first["total"].as_u64(), first["has_more"].as_bool()), (Some(5), Some(true)));
        let cursor = first["next_cursor"].as_str().unwrap();
        let cursor = Cursor::decode(cursor, Sort::Size, Order::Desc).unwrap();
        assert_eq!((cursor.value.as_str(), cursor.id), ("1", id(2)));
        let last = page("sort=size&order=asc&limit=3&offset=3", 5);
        assert_eq!(numbers(&last), ["000000000003", "000000000004"]);
        assert_eq!((last["has_more"].as_bool(), last.get("next_cursor")), (Some(false), None));
        let without = page("sort=last_access_time&limit=3", 5);
        assert_eq!((without["has_more"].as_bool(), without.get("next_cursor")), (Some(true), None));
        let past = page("sort=size&offset=9", 5);
        assert_eq!((numbers(&past).len(), past["has_more"].as_bool()), (0, Some(false)));
    }

    #[test]
    fn the_pages_of_a_server_are_followed_to_their_end() {
        let read = |json: &str, from: Option<Begin>| {
            Page::read(json.as_bytes()).unwrap().next(from.as_ref())
        };
        let some = r#"{"assets": [{"id": "x"}, {}], "total": 9, "has_more": true"#;
        let after = Begin::After("c".to_owned());
        let with_cursor = format!(r#"{some}, "next_cursor": "c"}}"#);
        assert_eq!(read(&with_cursor, None), Some(after.clone()));
        let without = format!("{some}}}");
        assert_eq!(read(&without, None), Some(Begin::Offset(2)));
        assert_eq!(read(&without, Some(Begin::Offset(2))), Some(Begin::Offset(4)));
        assert_eq!(read(&without, Some(after)), None);
        let empty = r#"{"assets": [], "total": 9, "has_more": true, "next_cursor": "c"}"#;
        assert_eq!(read(empty, None), None, "one that never ends");
        for junk in [&b""[..], b"{}", b"[]", b"{\"assets\": 1, \"total\": 2}"] {
            assert!(Page::read(junk).is_err());
        }
    }

    #[test]
    fn tags_are_counted_over_all() {
        let mut counts = TagCounts::default();
        for tags in [&["b", "a"][..], &["b"]] {
            counts.add(&tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>());
        }
        counts.add_unused("c".to_owned());
        counts.add_unused("b".to_owned());
        assert_eq!(counts.refined(9), r#"{"tag_counts": {"b": 2, "a": 1}}"#);
        assert_eq!(counts.refined(1), r#"{"tag_counts": {"b": 2}}"#);
        let all = counts.listed(&TagsAsked::of(""));
        let rows = r#"{"name":"b","count":2}, {"name":"a","count":1}, {"name":"c","count":0}"#;
        assert_eq!(all, format!(r#"{{"tags": [{rows}], "total": 3, "has_more": false}}"#));
        let asked = TagsAsked::of("order=name_asc&include_zero=False&limit=1&prefix=");
        let some = counts.listed(&asked);
        assert_eq!(some, r#"{"tags": [{"name":"a","count":1}], "total": 2, "has_more": true}"#);
        assert_eq!(tags_in(all.as_bytes()).unwrap().0.len(), 3);
        assert_eq!(tags_in(b"{}"), None);
    }
}
