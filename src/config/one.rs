//! Checks one backend by itself, as an operator adds it to a running gateway.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keys::BACKENDS;
use super::layers::Layers;
use super::names::{self, Notation};
use super::problems::{Notes, Origin, Problems};
use super::raw::{Item, Written};
use super::url::Scheme;
use super::{BackendConfig, BackendHeaders, BackendTls, ListedBy, check};

/// The keys of a backend that are about TLS, and those of them that name files.
const OF_TLS: [&str; 5] = ["ca", "client_cert", "client_key", "server_name", "insecure"];
const FILES_OF_TLS: [&str; 3] = ["ca", "client_cert", "client_key"];

/// Which files may be read for secrets.
#[derive(Clone, Copy, Debug)]
pub enum SecretFiles<'a> {
    /// Only files in this folder, because their content is sent to an address that the same caller
    /// chooses. Without a folder, no file may be read.
    In(Option<&'a Path>),
    /// Any file: they were named by somebody who may read them all.
    Anywhere,
}

/// Checks a backend that an operator gives as JSON, with the keys of `[backends.NAME]`. Reads
/// files.
///
/// Secrets must be in files, because the JSON is kept in the journal.
///
/// # Errors
/// All problems.
pub fn one_backend(
    name: &str,
    given: &Value,
    secrets: Option<&Path>,
) -> Result<BackendConfig, Problems> {
    let backend = read(name, given, SecretFiles::In(secrets))?;
    Ok(BackendConfig { listed_by: ListedBy::Operator, ..backend })
}

/// Checks a backend that was kept ([`BackendConfig::kept`]), with the current content of its files.
/// It may be called `NAME~old`.
///
/// # Errors
/// All problems.
pub fn kept_backend(
    name: &str,
    kept: &Value,
    files: SecretFiles<'_>,
) -> Result<BackendConfig, Problems> {
    let base = name.split('~').next().unwrap_or(name);
    Ok(BackendConfig { name: name.to_owned(), ..read(base, kept, files)? })
}

/// Reads a backend that was kept, and whose files cannot be read: it has no secrets, and where they
/// stand is kept, for the day when they can be read.
///
/// # Errors
/// Every problem there is besides.
pub fn unread_backend(
    name: &str,
    kept: &Value,
    files: SecretFiles<'_>,
) -> Result<BackendConfig, Problems> {
    let without = |is_secret: fn(&str) -> bool, files| {
        let mut settings = kept.clone();
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|key, _| !is_secret(key));
        }
        kept_backend(name, &settings, files)
    };
    let is_header = |key: &str| key.starts_with("headers");
    let headers = BackendHeaders::unread(kept);
    if let Ok(backend) = without(is_header, files) {
        return Ok(BackendConfig { headers, ..backend });
    }
    let is_any = |key: &str| key.starts_with("headers") || OF_TLS.contains(&key);
    let backend = without(is_any, SecretFiles::In(None))?;
    Ok(BackendConfig { headers, tls: BackendTls::unread(kept), ..backend })
}

/// What of a backend stands in files, and may be other at each reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendSecrets {
    pub headers: BackendHeaders,
    pub tls: Option<BackendTls>,
}

impl BackendConfig {
    #[must_use]
    pub fn secrets(&self) -> BackendSecrets {
        BackendSecrets { headers: self.headers.clone(), tls: self.tls.clone() }
    }

    #[must_use]
    pub fn with_secrets(self, secrets: BackendSecrets) -> Self {
        let BackendSecrets { headers, tls } = secrets;
        Self { headers, tls, ..self }
    }

    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { Scheme::Https } else { Scheme::Http };
        format!("{}://{}", scheme.as_str(), self.authority)
    }

    /// The form that may be kept, with the keys of `[backends.NAME]`: a secret is replaced by the
    /// path of its file.
    #[must_use]
    pub fn kept(&self) -> Value {
        let mut kept = self.headers.places();
        kept.extend(self.tls.as_ref().map(BackendTls::places).unwrap_or_default());
        kept.insert("url".to_owned(), self.url().into());
        kept.insert("weight".to_owned(), self.weight.get().into());
        let max_pending = self.max_pending.map_or(0, NonZeroU32::get);
        kept.insert("max_pending".to_owned(), max_pending.into());
        kept.insert("labels".to_owned(), self.labels.clone().into());
        Value::Object(kept)
    }
}

fn read(name: &str, given: &Value, files: SecretFiles<'_>) -> Result<BackendConfig, Problems> {
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
                let wrong = wrong_secret(key, value, files);
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

/// If there are no problems, there is a backend.
fn there(backend: Option<BackendConfig>) -> Result<BackendConfig, Problems> {
    backend.ok_or_else(|| Problems(Vec::new()))
}

/// What is wrong with the place of a secret.
fn wrong_secret(key: &str, value: &Value, files: SecretFiles<'_>) -> Option<&'static str> {
    const INLINE: &str =
        "a secret is given as {\"NAME\": {\"file\": PATH}}: what is given here is kept";
    const NOWHERE: &str = "no file may be named here while `admin.secrets_dir` is not set";
    const ELSEWHERE: &str =
        "there is no such file in the folder `admin.secrets_dir`, where the files of secrets lie";
    let secrets = match files {
        SecretFiles::In(secrets) => secrets,
        SecretFiles::Anywhere => return None,
    };
    if FILES_OF_TLS.contains(&key) {
        let file = value.as_str().map(PathBuf::from);
        let is_there =
            file.is_some_and(|file| file.as_os_str().is_empty() || lies_in(secrets, &file));
        return (!is_there).then_some(ELSEWHERE);
    }
    if key == "headers_file" {
        return Some(INLINE);
    }
    let Some(headers) = value.as_object().filter(|_| key == "headers") else {
        return (key == "headers").then_some(INLINE);
    };
    let file = |value: &Value| value.get("file")?.as_str().map(PathBuf::from);
    let files: Option<Vec<PathBuf>> = headers.values().map(file).collect();
    let Some(files) = files else { return Some(INLINE) };
    if secrets.is_none() {
        return Some(NOWHERE);
    }
    (!files.iter().all(|file| lies_in(secrets, file))).then_some(ELSEWHERE)
}

/// However it is named.
fn lies_in(folder: Option<&Path>, file: &Path) -> bool {
    let folder = folder.and_then(|folder| folder.canonicalize().ok());
    let file = file.canonicalize().ok();
    folder.zip(file).is_some_and(|(folder, file)| file.starts_with(folder))
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
    fn a_backend_that_was_kept_is_read_with_what_its_files_say_now() {
        let folder = tempfile::tempdir().unwrap();
        let (token, more) = (folder.path().join("token"), folder.path().join("more"));
        std::fs::write(&token, "Bearer x\n").unwrap();
        std::fs::write(&more, "X-More: y\n").unwrap();
        let given = json!({
            "url": "http://[::1]:8188", "weight": 2, "max_pending": 5, "headers_file": more,
            "labels": ["video", "h100"],
            "headers": { "Authorization": { "file": token } },
        });
        let backend = kept_backend("gpu~old2", &given, SecretFiles::Anywhere).unwrap();
        assert_eq!((backend.name.as_str(), backend.authority.as_str()), ("gpu~old2", "[::1]:8188"));
        assert_eq!(backend.kept(), given);
        assert!(!backend.kept().to_string().contains("Bearer"));
        std::fs::write(&token, "Bearer z\n").unwrap();
        let again = kept_backend("gpu", &backend.kept(), SecretFiles::Anywhere).unwrap();
        assert_eq!(again.headers.as_map()["authorization"], "Bearer z");
        assert_eq!(again.headers.as_map()["x-more"], "y");
        // A backend that an operator gave may only read from the allowed folder.
        let told = kept_backend("gpu", &given, SecretFiles::In(Some(folder.path()))).unwrap_err();
        assert!(told.to_string().contains("PATH"), "{told}");
        assert!(kept_backend("a b~old", &given, SecretFiles::Anywhere).is_err());
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

    /// As the journal has it.
    #[test]
    fn a_backend_under_tls_is_kept_with_its_files_and_waits_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let given = json!({
            "url": "https://gpu:8188", "ca": ca, "server_name": "gpu.lan", "weight": 1,
            "max_pending": 0, "labels": [],
        });
        let secrets = SecretFiles::In(Some(folder.path()));
        let told = kept_backend("gpu", &given, secrets).unwrap_err().to_string();
        assert!(told.contains("backends.gpu.ca"), "{told}");
        let unread = unread_backend("gpu", &given, secrets).unwrap();
        assert!(unread.tls.as_ref().unwrap().client().is_err());
        assert_eq!(unread.kept(), given);
        let params = rcgen::CertificateParams::new(vec!["gpu.lan".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
        let read = kept_backend("gpu", &unread.kept(), secrets).unwrap();
        assert!(read.tls.as_ref().unwrap().client().is_ok() && read.tls != unread.tls);
        assert_eq!((read.url().as_str(), read.kept()), ("https://gpu:8188", given.clone()));
        // It may not read what is elsewhere.
        let told = one_backend("gpu", &given, None).unwrap_err().to_string();
        assert!(told.contains("admin.secrets_dir"), "{told}");
    }

    /// A caller who may add a backend must not be able to read every file that the gateway can
    /// read.
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
