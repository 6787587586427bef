//! What the entry of a queue shows of a submission that waits in the gateway.
//!
//! A body is read once for this, when it arrives, and only where its parts are is kept: pages look
//! at the queue again and again, and bodies can be large.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What is secret, and what the entry says itself. A ComfyUI hides the same secrets (0.33,
/// `SENSITIVE_EXTRA_DATA_KEYS`).
const NOT_SHOWN: [&str; 4] =
    ["auth_token_comfy_org", "api_key_comfy_org", "client_id", "create_time"];

/// Where the parts of a body are that are shown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parts {
    graph: Range<usize>,
    /// Members of `extra_data`, as few runs as possible.
    extra: Vec<Range<usize>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    prompt: &'a RawValue,
    #[serde(default)]
    extra_data: Runs,
}

/// Runs of members that are shown, by the addresses of their first bytes and of those after them.
#[derive(Default)]
struct Runs(Vec<Range<usize>>);

impl Parts {
    /// Nothing is shown of what is no submission.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let Ok(read) = serde_json::from_slice::<Body<'_>>(body) else { return Self::default() };
        let start = body.as_ptr() as usize;
        let from = |place: usize| place.saturating_sub(start);
        let inside = |at: Range<usize>| from(at.start)..from(at.end);
        let extra = read.extra_data.0.into_iter().map(inside).collect();
        Self { graph: inside(place_of(read.prompt)), extra }
    }

    /// The graph and the `extra_data` of an entry, as JSON. `more` are members that the entry says
    /// itself.
    pub(super) fn of_entry(&self, body: &[u8], more: &str) -> String {
        let text = |at: &Range<usize>| {
            body.get(at.clone()).and_then(|part| std::str::from_utf8(part).ok()).unwrap_or("")
        };
        let graph = text(&self.graph);
        let graph = if graph.is_empty() { "{}" } else { graph };
        let members: Vec<&str> = self.extra.iter().map(text).chain([more]).collect();
        format!("{graph}, {{{}}}", members.join(", "))
    }
}

fn place_of(value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr() as usize;
    start..start + value.get().len()
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Runs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Runs, E> {
                Ok(Runs::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Runs, A::Error> {
                let (mut runs, mut is_run) = (Vec::<Range<usize>>::new(), false);
                while let Some((key, value)) =
                    members.next_entry::<&'de RawValue, &'de RawValue>()?
                {
                    let is_shown = !NOT_SHOWN.contains(&&*name(key));
                    let end = place_of(value).end;
                    match runs.last_mut().filter(|_| is_run && is_shown) {
                        Some(run) => run.end = end,
                        None if is_shown => runs.push(place_of(key).start..end),
                        None => {}
                    }
                    is_run = is_shown;
                }
                Ok(Runs(runs))
            }
        }
        deserializer.deserialize_any(Members)
    }
}

/// A key, which may be written with escapes.
fn name(key: &RawValue) -> Cow<'_, str> {
    serde_json::from_str(key.get()).map_or(Cow::Borrowed(""), Cow::<str>::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, proptest};
    use serde_json::{Value, json};

    fn shown(body: &str) -> String {
        Parts::of(body.as_bytes()).of_entry(body.as_bytes(), "\"create_time\": 7")
    }

    #[test]
    fn the_graph_and_what_is_not_secret_is_shown_as_it_was_sent() {
        let body = r#"{"client_id": "c", "prompt":  {"1": {"x":  1.0}}, "extra_data": {
            "extra_pnginfo":  {"a": [1]}, "more": "\ud83d\ude00", "api_key_comfy_org": "k",
            "\u0061uth_token_comfy_org": "t", "last": null, "create_time": 1}}"#;
        let expected = concat!(
            "{\"1\": {\"x\":  1.0}}, {\"extra_pnginfo\":  {\"a\": [1]}, ",
            "\"more\": \"\\ud83d\\ude00\", \"last\": null, \"create_time\": 7}",
        );
        assert_eq!(shown(body), expected);
        assert_eq!(Parts::of(body.as_bytes()).extra.len(), 2, "what is together is one run");
        let only = "{}, {\"create_time\": 7}";
        for body in ["", "{}", r#"{"prompt": {}}"#, r#"{"prompt": {}, "extra_data": null}"#] {
            assert_eq!(shown(body), only, "{body}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_json_whatever_was_sent(
            keys in proptest::collection::vec(any::<String>(), 0..4), secret in any::<bool>(),
        ) {
            let mut extra: serde_json::Map<String, Value> =
                keys.into_iter().map(|key| (key, json!([1, {}]))).collect();
            if secret {
                extra.insert("api_key_comfy_org".to_owned(), json!("secret"));
            }
            let body = json!({ "prompt": { "1": {} }, "extra_data": extra }).to_string();
            let parts: Value = serde_json::from_str(&format!("[{}]", shown(&body))).unwrap();
            prop_assert!(parts[1]["create_time"] == 7 && !parts.to_string().contains("secret"));
        }
    }
}
