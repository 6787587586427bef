//! Do the documents say what the code does? Codes, metrics, keys, endpoints, invariants, and the
//! configurations under `deploy/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::StatusCode;
use mooring::comfy::commands::BadBody;
use mooring::comfy::endpoint::RequestClass;
use mooring::comfy::lists::history::NotAnInteger;
use mooring::comfy::submission;
use mooring::config::Applied;
use mooring::config::keys::{KEYS, Key};
use mooring::fleet::pool::ExchangeError;
use mooring::front::error::{Closed, GatewayError, Unknown};
use mooring::limits::LimitReached;

use mooring::metrics::{ByBackend, Dropped, EndedPrompt, Exposition, Metrics, StoreOperation};
use mooring::routing::decision::{Reason, Refusal, StillPending};
use mooring::routing::ids::{BackendId, BadClientId};
use mooring::routing::pending::End;
use mooring::routing::placement::NoPlace;
use mooring::server::refusal;
use mooring::session::registry::TooManyClients;
use mooring::session::subscriber::TooManySockets;
use mooring::tunnels::TooMany;
use mooring::ws::HandshakeError;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of tables whose first cell is code: that code, and all cells.
fn rows(markdown: &str) -> Vec<(String, Vec<String>)> {
    markdown
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix('|'))
        .map(|line| {
            let first = line.split('`').next().unwrap_or_default().to_owned();
            (first, line.split('|').map(|cell| cell.trim().to_owned()).collect())
        })
        .collect()
}

/// All strings in code marks.
fn marked(markdown: &str) -> Vec<&str> {
    markdown.split('`').skip(1).step_by(2).collect()
}

#[track_caller]
fn same(what: &str, documented: &BTreeSet<String>, in_code: &BTreeSet<String>) {
    let undocumented: Vec<_> = in_code.difference(documented).collect();
    let gone: Vec<_> = documented.difference(in_code).collect();
    assert!(undocumented.is_empty(), "{what}: not in the documents: {undocumented:?}");
    assert!(gone.is_empty(), "{what}: documented, and not in the code: {gone:?}");
}

/// The codes that the function `code` of a source can return.
fn codes(path: &str) -> BTreeSet<String> {
    let source = text(path);
    let body = source.split("fn code(").nth(1).expect("it has a function `code`");
    let body = body.split("\n    }\n").next().expect("that ends");
    let codes: BTreeSet<String> =
        body.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    assert!(!codes.is_empty(), "{path}");
    codes
}

#[test]
fn every_error_code_is_documented_and_no_other() {
    let documented = rows(&text("docs/errors.md")).into_iter();
    let documented = documented.map(|(code, _)| code).collect();
    let mut in_code = codes("src/front/error/code.rs");
    in_code.extend(codes("src/front/error/closed.rs"));
    in_code.extend(codes("src/session/waiting/full.rs"));
    in_code.extend(codes("src/comfy/submission.rs"));
    in_code.extend(codes("src/server/refusal.rs"));
    same("codes of docs/errors.md", &documented, &in_code);
}

/// One failure of each code, but those that differ in their words only.
fn failures() -> Vec<GatewayError> {
    let backend = || "gpu-a".to_owned();
    let source = || ExchangeError::NoAnswer(Duration::from_secs(1));
    vec![
        Refusal::BackendDown { backend: BackendId::nth(0) }.into(),
        GatewayError::BackendDown { backend: backend() },
        Refusal::NoPlace(NoPlace::FleetEmpty).into(),
        Refusal::NoPlace(NoPlace::NoneReady).into(),
        Refusal::NoPlace(NoPlace::FleetFull).into(),
        Refusal::TooManyPending { max: 1 }.into(),
        GatewayError::PromptIdKnown,
        TooManyClients { max: 1 }.into(),
        BadClientId::Empty.into(),
        submission::Refusal::NoPrompt.into(),
        submission::Refusal::NotJson(String::new()).into(),
        submission::Refusal::BadNumber.into(),
        GatewayError::BodyTooLarge { max: 1 },
        GatewayError::BodiesBusy,
        GatewayError::SavingFull,
        GatewayError::BodyBroken,
        BadBody::NotAnObject.into(),
        NotAnInteger("offset").into(),
        GatewayError::Unreachable { backend: backend(), source: source() },
        GatewayError::Lost { backend: backend(), source: source() },
        GatewayError::NoAnswer { backend: backend(), source: source() },
        GatewayError::LinkTimeout { backend: backend() },
        GatewayError::NotQueued { backend: backend() },
        GatewayError::StateUnknown(Unknown::There { backend: backend(), prompt: "p".to_owned() }),
        GatewayError::StateUnknown(Unknown::Withdrawn { prompt: "p".to_owned() }),
        GatewayError::Unauthorized,
        GatewayError::Unnamed,
        GatewayError::NoToken,
        GatewayError::NoRole,
        GatewayError::ViewersOnlyRead,
        GatewayError::BadLogin,
        GatewayError::TooManyGuesses { seconds: 5 },
        GatewayError::LimitReached(LimitReached { name: "user_sockets", max: 5, seconds: 5 }),
        GatewayError::LoginsBusy,
        GatewayError::BadForm("why"),
        GatewayError::PageUnsaid,
        GatewayError::Closed(Closed::Path),
        GatewayError::ForeignOrigin,
        GatewayError::ForeignHost { host: "evil.example".to_owned() },
        GatewayError::Closed(Closed::Operators),
        GatewayError::Nameless,
        StillPending { pending: 1 }.into(),
        HandshakeError::NotGet.into(),
        HandshakeError::BadVersion.into(),
        TooManySockets { max: 1 }.into(),
        TooMany::OfOwner { max: 1 }.into(),
        TooMany::InAll { max: 1 }.into(),
        GatewayError::BadUpgrade { backend: backend() },
        GatewayError::NotFound,
        GatewayError::BadMethod { allowed: "GET" },
        refusal::Refusal::Malformed("its Host").into(),
        refusal::Refusal::HeadTooLarge { max: 1 }.into(),
        refusal::Refusal::TargetTooLong { max: 1 }.into(),
        refusal::Refusal::UnknownMethod.into(),
        refusal::Refusal::BadMethod.into(),
        refusal::Refusal::BadVersion.into(),
        refusal::Refusal::UnknownTransferCoding.into(),
        refusal::Refusal::UnknownExpectation.into(),
        refusal::Refusal::PlainHttp.into(),
        GatewayError::Stopping,
    ]
}

#[test]
fn an_error_has_the_status_and_the_pause_that_are_documented() {
    let markdown = text("docs/errors.md");
    let documented: BTreeMap<String, Vec<String>> = rows(&markdown).into_iter().collect();
    for failure in failures() {
        let (code, status) = (failure.code(), failure.status());
        let statuses = &documented[code][1];
        assert!(statuses.contains(status.as_str()), "{code}: {status}, documented {statuses}");
        let pause = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some(2),
            StatusCode::TOO_MANY_REQUESTS => Some(5),
            StatusCode::GATEWAY_TIMEOUT => Some(10),
            _ => None,
        };
        assert_eq!(failure.retry_after(), pause, "{code}");
    }
    assert!(markdown.contains("in seconds: 2 with 503, 5 with\n429, 10 with 504"));
}

/// Metrics as a scrape shows them, each touched once.
fn scrape() -> String {
    let metrics = Metrics::default();
    metrics.answered(RequestClass::Submit, StatusCode::OK, Duration::from_millis(1));
    metrics.failed("fleet_full");
    metrics.guests.refused("missing");
    metrics.guests.tried("ok");
    metrics.guests.fetched_keys("ok");
    metrics.limits.reached("user_sockets");
    metrics.placed(Reason::Held);
    for end in End::ALL {
        let took = Some(Duration::from_secs(1));
        let backend = "gpu-a".into();
        metrics.prompt_ended(&EndedPrompt { backend, end, waited: took, ran: took });
    }
    metrics.dropped(Dropped { previews: 1, progress: 1 });
    let label = ByBackend { backend: "gpu-a".to_owned() };
    for family in [
        &metrics.backends.up,
        &metrics.backends.wedged,
        &metrics.backends.suspect,
        &metrics.backends.queue,
        &metrics.backends.bound,
    ] {
        family.get_or_create(&label).set(1);
    }
    metrics.backends.vram(&label, Some(2), Some(1));
    metrics.certificates.ends("front", Some((1, 1)));
    let took = Duration::from_millis(1);
    metrics.store.called(StoreOperation::Commit, took, &Ok::<(), ()>(()));
    metrics.discoveries.began("gpus");
    metrics.discoveries.found("gpus", 2, 1);
    metrics.render(Exposition::OpenMetrics)
}

/// Name → type and labels, of every series in a scrape.
fn series(scrape: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found = BTreeMap::new();
    let mut kind = ("", "");
    for line in scrape.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind = rest.split_once(' ').expect("a name and a type");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name");
            let name = if kind.1 == "histogram" { kind.0 } else { name };
            let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            let labels = labels.map_or("", |(labels, _)| labels).split(',');
            let labels = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            let labels = labels.filter(|label| label != "le");
            let entry = found
                .entry(name.to_owned())
                .or_insert_with(|| (kind.1.to_owned(), BTreeSet::new()));
            entry.1.extend(labels);
        }
    }
    found
}

#[test]
fn every_metric_is_documented_with_type_and_labels_and_no_other() {
    let markdown = text("docs/metrics.md");
    let scrape = scrape();
    let in_code = series(&scrape);
    let registered = scrape.matches("# TYPE ").count();
    assert_eq!(in_code.len(), registered, "a metric was not touched by this test");
    let documented: BTreeMap<String, Vec<String>> = rows(&markdown).into_iter().collect();
    let names = documented.keys().cloned().collect();
    same("docs/metrics.md", &names, &in_code.keys().cloned().collect());
    for (name, (kind, labels)) in in_code {
        let cells = &documented[&name];
        assert_eq!(cells[1], kind, "{name}");
        let written = marked(&cells[2]).into_iter().map(ToOwned::to_owned).collect();
        same(&format!("labels of {name}"), &written, &labels);
    }
    for end in End::ALL {
        assert!(documented["mooring_prompts_total"][4].contains(end.as_str()), "{end:?}");
    }
}

#[test]
fn every_documented_key_is_one() {
    let is_key = |(name, _): &(String, Vec<String>)| name.contains('.');
    let documented = rows(&text("docs/configuration.md")).into_iter().filter(is_key);
    let documented = documented.map(|(name, _)| name).collect();
    same("docs/configuration.md", &documented, &KEYS.iter().map(|key| key.full_name()).collect());
    let sections: BTreeSet<&str> = KEYS.iter().map(|key| key.section).collect();
    let keys: BTreeSet<String> = KEYS.iter().map(|key| key.full_name()).collect();
    for document in documents() {
        let markdown = text(&document);
        for word in marked(&markdown) {
            let word = word.split([' ', '=']).next().unwrap_or_default();
            let is_file = word.ends_with(".rs") || word.ends_with(".toml");
            let is_ours = word.split_once('.').is_some_and(|(first, _)| sections.contains(first));
            // In tables of keys and in prose alike; `backends.gpu-a.url` is an example of one.
            let is_example = word.starts_with("backends.") || word.starts_with("discovery.");
            // A command on prompts, as the audit log calls it.
            let is_command = word == "queue.delete";
            if is_ours && !is_file && !is_example && !is_command {
                assert!(keys.contains(word), "{document}: `{word}` is no key");
            }
        }
    }
}

#[test]
fn the_keys_that_need_a_restart_are_listed() {
    let markdown = text("docs/reload.md");
    let section = markdown.split("## Keys that need a restart").nth(1).expect("it has them");
    let section = section.split("\n## ").next().expect("that end");
    let marked = marked(section);
    let is_whole = |section: &str| marked.contains(&format!("[{section}]").as_str());
    let documented = marked.iter().filter(|word| word.contains('.'));
    let documented = documented.map(|word| (*word).to_owned()).collect();
    let in_code = KEYS.iter().filter(|key| key.applied == Applied::Restart);
    let in_code = in_code.filter(|key| !is_whole(key.section)).map(Key::full_name).collect();
    same("docs/reload.md", &documented, &in_code);
    let of_whole = KEYS.iter().filter(|key| is_whole(key.section));
    assert!(of_whole.clone().count() != 0, "a section is listed as a whole");
    for key in of_whole {
        assert_eq!(key.applied, Applied::Restart, "{}", key.full_name());
    }
}

/// All Markdown at the top and under `docs/`.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs/"] {
        for entry in fs::read_dir(root().join(folder)).expect("it can be read") {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            if name.ends_with(".md") {
                found.push(format!("{folder}{name}"));
            }
        }
    }
    found.sort();
    assert!(found.iter().any(|path| path == "README.md"));
    found
}

#[test]
fn every_endpoint_of_ours_is_documented() {
    let pages = ["docs/admin-api.md", "docs/health.md", "docs/stuck.md"];
    let markdown = pages.map(text).concat();
    let marked = marked(&markdown);
    let is_documented = |path: &str| {
        marked.iter().any(|mark| mark.split_once(' ').is_some_and(|(_, known)| known == path))
    };
    let admin = text("src/admin/api.rs");
    let routes: Vec<&str> =
        admin.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(9 <= routes.len(), "{routes:?}");
    let own = text("src/front/self_service.rs");
    let own: Vec<&str> =
        own.split('"').skip(1).step_by(2).filter(|path| path.starts_with("/-/")).collect();
    assert!(5 <= own.len(), "{own:?}");
    for path in routes.into_iter().chain(own) {
        assert!(is_documented(path), "{pages:?}: `{path}` is missing");
    }
    for reason in [Reason::Held, Reason::Reserved, Reason::Idle, Reason::Placed, Reason::Moved] {
        assert!(markdown.contains(&format!("| `{}` |", reason.as_str())), "{reason:?}");
    }
}

/// All files below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("it can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_file_and_test_that_is_named_as_a_proof_is_there() {
    let sources: Vec<String> = [root().join("src"), root().join("tests/it")]
        .iter()
        .flat_map(|folder| below(folder))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let named = [("ARCHITECTURE.md", "## Invariants"), ("docs/survives.md", "## Which tests show")];
    for (document, heading) in named {
        let markdown = text(document);
        let section = markdown.split(heading).nth(1).expect("it has that section");
        let section = section.split("\n## ").next().expect("that ends");
        let mut tests = 0;
        for word in marked(section) {
            // `GET /history/ID` is neither.
            if word.contains(' ') {
                continue;
            }
            if word.contains('/') || word.contains('.') {
                assert!(root().join(word).exists(), "{document}: `{word}` is not there");
            } else if 2 < word.matches('_').count() {
                let signature = format!("fn {word}(");
                let is_there = sources.iter().any(|source| source.contains(&signature));
                assert!(is_there, "{document}: no test `{word}`");
                tests += 1;
            }
        }
        assert!(10 < tests, "{document}: only {tests} tests are named");
    }
}

#[test]
fn every_configuration_that_is_shipped_is_in_order() {
    let folders = [root().join("config"), root().join("deploy")];
    let files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| below(folder))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    assert!(3 < files.len(), "{files:?}");
    for file in files {
        // Who starts from the sample has to say who may come in; the manifests say it.
        let says = ("MOORING_AUTH__MODE", "off");
        let is_sample = file.starts_with(root().join("config"));
        let checked = Command::new(env!("CARGO_BIN_EXE_mooring"))
            .arg("check")
            .arg(&file)
            .env_clear()
            .envs(is_sample.then_some(says))
            // As the image and the manifests set them.
            .env("MOORING_SERVER__LISTEN", "0.0.0.0:8180")
            .env("MOORING_ADMIN__TOKEN", "a-token")
            .output()
            .expect("it runs");
        let report = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{}: {report}", file.display());
    }
}
