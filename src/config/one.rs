//! One backend by itself, as an operator adds it to a gateway that runs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keys::BACKENDS;
use super::layers::Layers;
use super::names::{self, Notation};
use super::problems::{Notes, Origin, Problems};
use super::raw::{Item, Written};
use super::{BackendConfig, check};

/// Checks a backend that is given as JSON, with the keys of `[backends.NAME]`. Reads files.
///
/// What is secret in it stands in files, because what was given is kept in the journal. They lie in
/// `secrets`, because they are sent to an address of whoever gives it.
///
/// # Errors
/// Every problem there is.
pub fn one_backend(
    name: &str,
    given: &Value,
    secrets: Option<&Path>,
) -> Result<BackendConfig, Problems> {
    let (mut notes, mut layers) = (Notes::default(), Layers::default());
    layers.begin();
    let origin = Origin::Request;
    if let Err(bad) = names::check_backend_name(name) {
        notes.report_at(Some(origin.clone()), name, bad.to_string());
    }
    layers.add_table(BACKENDS, name, &origin);
    let Value::Object(given) = given else {
        notes.report_at(Some(origin), "", "expected a JSON object with the keys of a backend");
        return notes.finish(None).and_then(there);
    };
    for (key, value) in given {
        let full_name = format!("{BACKENDS}.{name}.{key}");
        match names::path(BACKENDS, Some(name), key, Notation::Dotted) {
            Ok(path) => {
                let wrong = wrong_secret(key, value, secrets);
                let is_wrong = wrong.is_some();
                if let Some(what) = wrong {
                    notes.report_at(Some(origin.clone()), &full_name, what);
                }
                if !is_wrong {
                    layers.set(&path, written(value, &origin));
                }
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

/// What is wrong with where a secret stands.
fn wrong_secret(key: &str, value: &Value, secrets: Option<&Path>) -> Option<&'static str> {
    const INLINE: &str =
        "a secret is given as {\"NAME\": {\"file\": PATH}}: what is given here is kept";
    const ELSEWHERE: &str = "the file of a secret lies in the folder `admin.secrets_dir`";
    if key == "headers_file" {
        return Some(INLINE);
    }
    let Some(headers) = value.as_object().filter(|_| key == "headers") else {
        return (key == "headers").then_some(INLINE);
    };
    let file = |value: &Value| value.get("file")?.as_str().map(PathBuf::from);
    let files: Option<Vec<PathBuf>> = headers.values().map(file).collect();
    let Some(files) = files else { return Some(INLINE) };
    let folder = secrets.and_then(|folder| folder.canonicalize().ok());
    let is_there = |file: &PathBuf| {
        let file = file.canonicalize().ok();
        folder.as_ref().zip(file).is_some_and(|(folder, file)| file.starts_with(folder))
    };
    (!files.iter().all(is_there)).then_some(ELSEWHERE)
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
        one_backend(name, given, None).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_backend_has_the_keys_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "Bearer x\n").unwrap();
        let given = json!({
            "url": "http://gpu:8188", "weight": 2, "max_pending": 5,
            "headers": { "Authorization": { "file": file } },
        });
        let backend = one_backend("gpu", &given, Some(folder.path())).unwrap();
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
        assert!(
            problems("a", &json!({ "url": "http://a:1", "headers_file": "/x" }))[0]
                .contains("PATH")
        );
    }

    /// Whoever may add a backend must not read what the gateway can read.
    #[test]
    fn a_secret_lies_in_the_folder_for_it_however_it_is_named() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = other.path().join("key");
        std::fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, folder.path().join("link")).unwrap();
        let up = folder.path().join("..").join(other.path().file_name().unwrap()).join("key");
        for file in [outside, folder.path().join("link"), up, folder.path().join("none")] {
            let given = json!({ "url": "http://a:1", "headers": { "X": { "file": file } } });
            for secrets in [Some(folder.path()), None] {
                let told = one_backend("a", &given, secrets).unwrap_err().to_string();
                assert!(told.contains("admin.secrets_dir"), "{told}");
            }
        }
    }
}
