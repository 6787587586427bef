//! One backend by itself, as an operator adds it to a gateway that runs.

use serde_json::Value;

use super::keys::BACKENDS;
use super::layers::Layers;
use super::names::{self, Notation};
use super::problems::{Notes, Origin, Problems};
use super::raw::{Item, Written};
use super::{BackendConfig, check};

/// Checks a backend that is given as JSON, with the keys of `[backends.NAME]`. What is secret in it
/// stands in files, because what was given is kept in the journal.
///
/// # Errors
/// Every problem there is.
pub fn one_backend(name: &str, given: &Value) -> Result<BackendConfig, Problems> {
    let (mut notes, mut layers) = (Notes::default(), Layers::default());
    layers.begin();
    let origin = Origin::Request;
    if let Err(bad) = names::check_backend_name(name) {
        notes.report_at(Some(origin.clone()), name, bad.to_string());
    }
    layers.add_backend(name, &origin);
    let Value::Object(given) = given else {
        notes.report_at(Some(origin), "", "expected a JSON object with the keys of a backend");
        return notes.finish(None).and_then(there);
    };
    for (key, value) in given {
        let full_name = format!("{BACKENDS}.{name}.{key}");
        match names::path(BACKENDS, Some(name), key, Notation::Dotted) {
            Ok(path) => {
                if let Some(what) = shown_secret(key, value) {
                    notes.report_at(Some(origin.clone()), &full_name, what);
                }
                layers.set(&path, written(value, &origin));
            }
            Err(bad) => {
                notes.report_at(Some(origin.clone()), &full_name, bad.to_string());
            }
        }
    }
    let raw = layers.merge(&mut notes);
    let backend = check::backends(raw.backends, &mut notes).pop();
    notes.finish(backend).and_then(there)
}

/// Without a problem there is a backend.
fn there(backend: Option<BackendConfig>) -> Result<BackendConfig, Problems> {
    backend.ok_or_else(|| Problems(Vec::new()))
}

fn shown_secret(key: &str, value: &Value) -> Option<&'static str> {
    let is_in_file = |value: &Value| value.as_object().is_some_and(|it| it.contains_key("file"));
    let are_in_files = value.as_object().is_some_and(|all| all.values().all(is_in_file));
    (key == "headers" && !are_in_files)
        .then_some("a secret is given as {\"NAME\": {\"file\": PATH}}: what is given here is kept")
}

fn written(value: &Value, origin: &Origin) -> Written {
    let inner = |value: &Value| written(value, origin);
    let item = match value {
        Value::String(text) => Item::Text(text.clone()),
        Value::Bool(on) => Item::Switch(*on),
        Value::Number(number) => number.as_i64().map_or(Item::Other, |it| Item::Number(it.into())),
        Value::Array(list) => Item::List(list.iter().map(inner).collect()),
        Value::Object(table) => {
            Item::Table(table.iter().map(|(name, it)| (name.clone(), inner(it))).collect())
        }
        Value::Null => Item::Other,
    };
    Written { item, origin: origin.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(name: &str, given: &Value) -> Vec<String> {
        one_backend(name, given).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_backend_has_the_keys_of_the_configuration() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Bearer x\n").unwrap();
        let given = json!({
            "url": "http://gpu:8188", "weight": 2, "max_pending": 5,
            "headers": { "Authorization": { "file": file.path() } },
        });
        let backend = one_backend("gpu", &given).unwrap();
        assert_eq!((backend.name.as_str(), backend.authority.as_str()), ("gpu", "gpu:8188"));
        assert_eq!((backend.weight.get(), backend.max_pending.unwrap().get()), (2, 5));
        assert!(backend.headers.has("authorization"));
    }

    #[test]
    fn every_problem_of_a_request_is_told_and_no_secret() {
        let told = problems("a b", &json!({ "url": "gpu", "wait": 1, "weight": 0 }));
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(problems("a", &json!([])).len(), 1);
        assert!(problems("a", &json!({}))[0].contains("is missing"));
        let secret = json!({ "url": "http://a:1", "headers": { "X-Key": "s3cret" } });
        let told = problems("a", &secret).join(" ");
        assert!(told.contains("{\"file\": PATH}") && !told.contains("s3cret"), "{told}");
    }
}
