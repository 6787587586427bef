//! How far a node is, from a `progress` event: `{"value": 3, "max": 20, "prompt_id": …, "node": …}`
//! (ComfyUI 0.3.64 to 0.33, `comfy_execution/progress.py`).

use serde_json::value::RawValue;

use super::raw::{self, Object};

/// The most that is told of a number: larger ones are no steps.
const STEPS_MAX: f64 = 1e12;

/// The steps of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    pub node: String,
    /// Never more than `max`.
    pub value: f64,
    pub max: f64,
}

/// The steps that a `progress` event tells; `None` if it tells none that make sense.
#[must_use]
pub fn read(text: &[u8]) -> Option<Steps> {
    let event = Object::read(text)?;
    let data = event.object("data")?;
    let number = |key| data.number(key).filter(|number| (0.0..STEPS_MAX).contains(number));
    let node = data.get("node").and_then(name)?;
    let max = number("max").filter(|max| 0.0 < *max)?;
    Some(Steps { node, value: number("value")?.min(max), max })
}

/// A node's id, which some packs write as a number.
fn name(value: &RawValue) -> Option<String> {
    let text = raw::text(value).map(std::borrow::Cow::into_owned);
    text.or_else(|| raw::number(value).map(|number| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data: &str) -> Option<(String, f64, f64)> {
        let text = format!(r#"{{"type": "progress", "data": {data}}}"#);
        read(text.as_bytes()).map(|it| (it.node, it.value, it.max))
    }

    #[test]
    fn a_node_is_at_a_step_of_so_many() {
        let told = of(r#"{"value": 3, "max": 20, "prompt_id": "p", "node": "12:4"}"#);
        assert_eq!(told, Some(("12:4".to_owned(), 3.0, 20.0)));
        assert_eq!(of(r#"{"value": 0.5, "max": 1, "node": 7}"#), Some(("7".to_owned(), 0.5, 1.0)));
        assert_eq!(of(r#"{"value": 30, "max": 20, "node": "1"}"#).unwrap().1, 20.0);
    }

    #[test]
    fn what_makes_no_sense_is_not_told() {
        for odd in [
            "null",
            "{}",
            r#"{"value": 1, "max": 2}"#,
            r#"{"value": 1, "max": 0, "node": "1"}"#,
            r#"{"value": -1, "max": 2, "node": "1"}"#,
            r#"{"value": "1", "max": 2, "node": "1"}"#,
            r#"{"value": 1, "max": 1e300, "node": "1"}"#,
            r#"{"value": 1, "max": 2, "node": null}"#,
        ] {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!(read(b"junk"), None);
    }
}
