//! Labels of a backend, such as `video`.

use serde_json::{Value, json};

use super::kinds::{Faults, Kind, Shape};
use super::raw::Written;
use super::values::{comma_separated, read_list};

/// The most labels of a backend, and the longest label.
pub(super) const LABELS_MAX: usize = 32;
pub(super) const LABEL_LEN_MAX: usize = 63;

/// A list of labels, each once.
#[derive(Debug)]
pub(super) struct Labels;

impl Kind for Labels {
    type Value = Vec<String>;
    const SHAPE: Shape = Shape::List;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        labels(text)
    }

    fn takes(&self) -> String {
        format!("a list of at most {LABELS_MAX} labels such as \"video\"")
    }

    fn schema(&self) -> Value {
        let item = json!({
            "type": "string",
            "pattern": format!("^[A-Za-z0-9._-]{{1,{LABEL_LEN_MAX}}}$"),
        });
        json!({ "type": "array", "items": item, "maxItems": LABELS_MAX, "uniqueItems": true })
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        let labels = read_list(self, written, label)?;
        together(labels).map_err(|what| vec![(written.origin.clone(), what)])
    }
}

/// Parses labels that are separated by commas.
///
/// # Errors
/// What is wrong with one of them, or with all together.
pub fn labels(text: &str) -> Result<Vec<String>, String> {
    let labels: Result<Vec<String>, String> = comma_separated(text).map(label).collect();
    together(labels?)
}

fn label(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=LABEL_LEN_MAX).contains(&text.len()) && text.bytes().all(is_good) {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(LABEL_LEN_MAX + 1).collect();
    Err(format!("`{shown}`: a label has 1 to {LABEL_LEN_MAX} letters, digits or `.`, `_`, `-`"))
}

fn together(labels: Vec<String>) -> Result<Vec<String>, String> {
    if LABELS_MAX < labels.len() {
        return Err(format!("has {} labels, at most {LABELS_MAX} are allowed", labels.len()));
    }
    let twice = labels.iter().enumerate().find(|(at, it)| labels[..*at].contains(it));
    match twice {
        Some((_, label)) => Err(format!("the label `{label}` is given twice")),
        None => Ok(labels),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Sources, effective, one_backend};

    fn given(labels: &Value) -> Result<Vec<String>, String> {
        let given = json!({ "url": "http://a:1", "labels": labels });
        let read = one_backend("a", &given, None).map_err(|problems| problems.to_string());
        read.map(|backend| backend.labels)
    }

    #[test]
    fn labels_are_a_list_of_words_each_of_them_once() {
        assert_eq!(labels("video, h100").unwrap(), ["video", "h100"]);
        assert!(labels("").unwrap().is_empty());
        assert_eq!(given(&json!(["video", "sd-1.5_x"])).unwrap(), ["video", "sd-1.5_x"]);
        assert!(given(&json!([])).unwrap().is_empty());
        assert_eq!(given(&json!(["Video", "video"])).unwrap().len(), 2, "case counts");
    }

    #[test]
    fn labels_are_shown_with_the_configuration_that_is_in_effect() {
        let flag = |key: &str, value: &str| (format!("backends.a.{key}"), value.to_owned());
        let flags = vec![flag("url", "http://a:1"), flag("labels", "small, video")];
        let shown = effective(&Sources { flags, ..Sources::default() }).unwrap().to_toml();
        assert!(shown.contains("labels = [\"small\", \"video\"]"), "{shown}");
    }

    #[test]
    fn what_is_no_label_says_why() {
        let long = "x".repeat(LABEL_LEN_MAX + 1);
        let many: Vec<String> = (0..=LABELS_MAX).map(|number| format!("l{number}")).collect();
        for (bad, expected) in [
            (json!(["a b"]), "`a b`: a label has 1 to 63 letters"),
            (json!([""]), "a label has 1 to 63 letters"),
            (json!([long]), "a label has 1 to 63 letters"),
            (json!(["a,b"]), "a label has 1 to 63 letters"),
            (json!(["\u{e4}"]), "a label has 1 to 63 letters"),
            (json!(["video", "h100", "video"]), "the label `video` is given twice"),
            (json!(many), "has 33 labels, at most 32 are allowed"),
            (json!([1]), "texts in quotes"),
            (json!({ "video": true }), "a list of at most 32 labels"),
        ] {
            let told = given(&bad).unwrap_err();
            assert!(told.contains(expected), "{bad}: {told}");
        }
        assert_eq!(given(&json!(&many[1..])).unwrap().len(), LABELS_MAX);
        assert!(labels("a,a").is_err() && labels(&many.join(",")).is_err());
    }
}
