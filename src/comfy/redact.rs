//! Removes a prompt's client id from what others see, because the id is a secret (promise R5).
//!
//! ComfyUI puts the `client_id` of a submission into `extra_data` and shows it to everybody, in
//! queues, histories and jobs (0.33). Anybody who knows the id can receive all events of that
//! client and stop its work. So it is removed from every answer, unless the caller named that very
//! client.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::raw::{Object, Writer, list, object};
use super::walk::replaced;

const KEY: &str = "client_id";

/// What is told of the id of a prompt's client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told<'n> {
    Nothing,
    /// As the backend knows it: the caller named that client.
    AsItIs,
    /// The same, of a client that backends know by another name than its user.
    As(&'n str),
}

/// A history entry without the id of its client.
#[must_use]
pub fn entry(entry: &[u8]) -> Cow<'_, [u8]> {
    entry_as(entry, Told::Nothing)
}

/// A history entry with so much of the id of its client.
#[must_use]
pub fn entry_as<'e>(entry: &'e [u8], told: Told<'_>) -> Cow<'e, [u8]> {
    if told == Told::AsItIs {
        return Cow::Borrowed(entry);
    }
    let prompt = Object::read(entry).and_then(|entry| entry.get("prompt"));
    prompt.map_or(Cow::Borrowed(entry), |prompt| cleaned(entry, prompt, told))
}

/// `[number, prompt_id, prompt, extra_data, outputs_to_execute]`, in the same way.
pub(super) fn item<'i>(item: &'i RawValue, told: Told<'_>) -> Cow<'i, RawValue> {
    if told == Told::AsItIs {
        return Cow::Borrowed(item);
    }
    let bytes = item.get().as_bytes();
    let Cow::Owned(bytes) = cleaned(bytes, item, told) else { return Cow::Borrowed(item) };
    let text = String::from_utf8(bytes).ok();
    // One value was replaced by another, so it is still valid JSON.
    text.and_then(|text| RawValue::from_string(text).ok()).map_or(Cow::Borrowed(item), Cow::Owned)
}

/// `extra_data` without the id; `None` if it has none.
pub(super) fn extra_data(extra: &RawValue) -> Option<String> {
    extra_data_as(extra, Told::Nothing)
}

fn extra_data_as(extra: &RawValue, told: Told<'_>) -> Option<String> {
    memchr::memmem::find(extra.get().as_bytes(), KEY.as_bytes())?;
    let Some(fields) = object(extra) else {
        // Unreadable, or not an object: it has no use then.
        return Some("{}".to_owned());
    };
    fields.iter().any(|(key, _)| key == KEY).then(|| {
        let mut kept = Writer::new();
        for (key, value) in fields.iter() {
            match (key == KEY, told) {
                (false, _) | (true, Told::AsItIs) => kept.raw(key, value.get()),
                (true, Told::As(name)) => kept.text(key, name),
                (true, Told::Nothing) => &mut kept,
            };
        }
        kept.finish()
    })
}

/// `whole` with the `extra_data` of `prompt`, which is a part of it, redacted.
fn cleaned<'a>(whole: &'a [u8], prompt: &'a RawValue, told: Told<'_>) -> Cow<'a, [u8]> {
    let parts = list(prompt).unwrap_or_default();
    let changed = parts.get(3).and_then(|extra| Some((*extra, extra_data_as(extra, told)?)));
    let Some((extra, text)) = changed else { return Cow::Borrowed(whole) };
    // `extra` borrows from `whole`, so the difference of the addresses is its offset.
    let start = (extra.get().as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    Cow::Owned(replaced(whole, &[(start..start + extra.get().len(), text)]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::*;
    use crate::comfy::raw::tests::any_json;

    fn told(json: &str) -> String {
        String::from_utf8(entry(json.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn the_clients_id_is_taken_out_and_every_other_byte_stays() {
        let json = concat!(
            r#"{"prompt":  [1, "p", {"1": {"client_id": "a node's own"}}, "#,
            r#"{"client_id": "secret", "create_time": 5, "x": "\ud800"}, ["3"]], "outputs":  {}}"#,
        );
        let expected = concat!(
            r#"{"prompt":  [1, "p", {"1": {"client_id": "a node's own"}}, "#,
            r#"{"create_time": 5, "x": "\ud800"}, ["3"]], "outputs":  {}}"#,
        );
        assert_eq!(told(json), expected);
        assert_eq!(told(expected), expected);
    }

    #[test]
    fn a_client_that_backends_know_by_another_name_is_told_its_own() {
        let json =
            r#"{"prompt": [1, "p", {}, {"a": 1, "client_id": "\u0001ada\u0001x", "b": 2}, []]}"#;
        let own = |told| String::from_utf8(entry_as(json.as_bytes(), told).into_owned()).unwrap();
        let expected = r#"{"prompt": [1, "p", {}, {"a": 1, "client_id": "x", "b": 2}, []]}"#;
        let told: Value = serde_json::from_str(&own(Told::As("x"))).unwrap();
        assert_eq!(told, serde_json::from_str::<Value>(expected).unwrap());
        assert_eq!(own(Told::AsItIs), json);
        assert!(!own(Told::Nothing).contains("ada"));
    }

    #[test]
    fn what_cannot_be_read_tells_no_id_either() {
        let odd = r#"{"prompt": [1, "p", {}, {"\ud800": 1, "client_id": "secret"}, []]}"#;
        assert_eq!(told(odd), r#"{"prompt": [1, "p", {}, {}, []]}"#);
        for whole in ["[]", "{}", r#"{"prompt": 3}"#, r#"{"prompt": [1, "client_id"]}"#] {
            assert_eq!(told(whole), whole);
        }
    }

    #[test]
    fn an_item_of_a_queue_is_cleaned_in_the_same_way() {
        let raw = json!([1, "p", {}, { "client_id": 7, "create_time": 5 }, []]).to_string();
        let raw: &RawValue = serde_json::from_str(&raw).unwrap();
        let told: Value = serde_json::from_str(item(raw, Told::Nothing).get()).unwrap();
        assert_eq!(told, json!([1, "p", {}, { "create_time": 5 }, []]));
    }

    proptest! {
        #[test]
        fn no_json_breaks_it(extra in any_json(), rest in any_json()) {
            let json = json!({ "prompt": [1, "p", rest, extra, []], "outputs": rest }).to_string();
            let told = entry(json.as_bytes());
            let told: Value = serde_json::from_slice(&told).unwrap();
            prop_assert!(told["prompt"][3].get(KEY).is_none());
            let before: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&told["prompt"][2], &before["prompt"][2]);
            prop_assert_eq!(&told["outputs"], &before["outputs"]);
        }
    }
}
