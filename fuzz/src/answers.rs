//! Bodies of backends' answers, as they are read and as the gateway rewrites them: each input is
//! read as every one of them.
//!
//! - What is written is JSON, and tells again the same when it is read again.
//! - Entries are the backend's own, but for the id of a client, which is nowhere.
//! - Nothing is shown that is not the asker's.
//! - The lists of nodes of one server, or of the same server twice, are what it said.

use std::collections::HashSet;

use bytes::Bytes;
use mooring::comfy::answers;
use mooring::comfy::assets::{item, merged};
use mooring::comfy::jobs::job::{self, Job};
use mooring::comfy::jobs::{Interrupted, Telling};
use mooring::comfy::lists::Positions;
use mooring::comfy::lists::history::{HistoryList, entry_of};
use mooring::comfy::lists::queue::{OwnQueue, Shown};
use mooring::comfy::lists::texts::{list_of, lists_of};
use mooring::comfy::names::NameKey;
use mooring::comfy::object_info::{NodeInfo, Union};
use mooring::comfy::submitted::submitted;
use mooring::comfy::{redact, refused, scan};
use mooring::routing::ids::{BackendId, PromptId};
use serde_json::Value;

use super::events::check_names;
use super::json;

const LEN_MAX: usize = 64 << 10;
const TOLD: Telling = Telling { interrupted: Interrupted::Cancelled, taken_ms: 900 };

pub fn check(data: &[u8]) {
    let body = &data[..data.len().min(LEN_MAX)];
    if json::is_json(body) {
        assert_eq!(scan::without_nan(body), body);
    }
    check_queue(body);
    check_history(body);
    check_jobs(body);
    check_nodes(body);
    check_assets(body);
    check_names(body, NameKey::Output);
    check_names(body, NameKey::Upload);
    let _ = (answers::queue_remaining(body), answers::system_version(body));
    let _ = (answers::accepted(body), answers::job_state(200, body));
    let _ = refused::read(body);
}

/// The id of its client, where ComfyUI puts it in an item of a queue or a history.
fn client_of(item: &Value) -> Option<&Value> {
    item.get(3)?.get("client_id")
}

fn check_queue(body: &[u8]) {
    let none = |_: &str| Shown::No;
    let mut own = OwnQueue::default();
    let Ok(()) = own.add(BackendId::nth(0), body, none) else { return };
    assert_eq!(own.to_json(), br#"{"queue_running": [], "queue_pending": []}"#);
    let mut all = OwnQueue::default();
    all.add(BackendId::nth(0), body, |_| Shown::Whole).expect("as before");
    let mut cleaned = OwnQueue::default();
    cleaned.add(BackendId::nth(0), body, |_| Shown::Cleaned).expect("as before");
    if let Ok((running, waiting)) = answers::queued_ids(body) {
        assert_eq!(all.items().count(), running.len() + waiting.len());
        for id in running.iter().chain(&waiting) {
            assert!(answers::in_queue(body, id).expect("as before").is_some());
        }
        let told: HashSet<_> = running.iter().chain(&waiting).collect();
        let named = submitted(body, &["SaveImage".to_owned()]).expect("it is a queue");
        assert!(named.iter().all(|it| told.contains(&it.prompt.to_string())));
        let mut positions = Positions::default();
        positions.add(body).expect("it is a queue");
        let positions = json::value(positions.to_json(|_| true).as_bytes()).expect("JSON");
        let shown = positions["queue_running"].as_array().expect("a list").iter();
        let shown = shown.chain(positions["queue_pending"].as_array().expect("a list"));
        for item in shown {
            assert!(item[2] == serde_json::json!({}) && item[3] == serde_json::json!({}));
        }
    }
    for queue in [&all, &cleaned] {
        let out = queue.to_json();
        assert!(json::is_json(&out), "{}", out.escape_ascii());
        let mut again = OwnQueue::default();
        again.add(BackendId::nth(0), &out, |_| Shown::Whole).expect("what is told is a queue");
        assert_eq!(again.to_json(), out);
        for (status, item) in queue.items() {
            check_job(Job::of_item(item, status, 900).map(|job| job.json).ok());
            check_job(Job::of_position(item, status, 900).map(|job| job.json).ok());
            check_job(job::detail_of_item(item, status, 900).ok());
        }
    }
    for ((_, whole), (_, cleaned)) in all.items().zip(cleaned.items()) {
        let (whole, cleaned) = (whole.json().as_bytes(), cleaned.json().as_bytes());
        check_cleaned(json::value(whole), json::value(cleaned));
    }
}

/// The same but for the client's id.
fn check_cleaned(whole: Option<Value>, cleaned: Option<Value>) {
    let (Some(mut whole), Some(cleaned)) = (whole, cleaned) else { return };
    assert_eq!(client_of(&cleaned), None);
    if let Some(extra) = whole.get_mut(3).and_then(Value::as_object_mut) {
        extra.shift_remove("client_id");
        assert_eq!(cleaned, whole);
    }
}

/// What is told of a job has what pages check, and tells no client.
fn check_job(told: Option<String>) {
    let Some(told) = told else { return };
    assert!(json::is_json(told.as_bytes()), "{told}");
    let Some(told) = json::value(told.as_bytes()) else { return };
    assert!(told["id"].is_string() && told["create_time"].is_number(), "{told}");
    let is_known = |status: &str| {
        ["pending", "in_progress", "completed", "failed", "cancelled"].contains(&status)
    };
    assert!(told["status"].as_str().is_some_and(is_known), "{told}");
    let extra = told.get("workflow").and_then(|workflow| workflow.get("extra_data"));
    assert!(extra.and_then(|extra| extra.get("client_id")).is_none(), "{told}");
}

fn check_history(body: &[u8]) {
    let Some(Value::Object(history)) = json::value(body) else { return };
    let mut list = HistoryList::default();
    for (id, value) in &history {
        let entry = match entry_of(body, id) {
            Ok(entry) => entry.expect("it is there").as_bytes(),
            Err(_) => {
                assert!(!value.is_object(), "an object is an entry");
                continue;
            }
        };
        assert_eq!(json::value(entry).as_ref(), Some(value));
        let cleaned = redact::entry(entry);
        let told = json::value(&cleaned).expect("an entry stays JSON");
        let prompt = |entry: &Value| entry.get("prompt").cloned();
        if let (Some(whole), Some(cleaned)) = (prompt(value), prompt(&told))
            && whole.is_array()
        {
            check_cleaned(Some(whole), Some(cleaned));
        }
        list.push(id, &cleaned);
        let ended = answers::in_history(body, id);
        if let Ok(Some(ended)) = ended {
            let events = ended.events(id);
            assert!(events.iter().all(|event| json::is_json(event.as_bytes())), "{events:?}");
            assert!(events.last().is_some_and(|last| last.contains("\"node\": null")));
        }
        let Ok(prompt) = PromptId::parse(id) else { continue };
        check_job(Job::of_entry(&prompt, entry, TOLD).map(|job| job.json).ok());
        check_job(job::detail_of_entry(&prompt, entry, TOLD).ok());
    }
    let out = list.finish();
    assert!(json::is_json(&out), "{}", out.escape_ascii());
}

fn check_jobs(body: &[u8]) {
    if let Ok(jobs) = job::own_list(body, TOLD, |_| true) {
        for job in &jobs {
            assert!(job.json.contains(job.row.id.as_str()));
            check_job(Some(job.json.clone()));
        }
        assert!(job::own_list(body, TOLD, |_| false).is_ok_and(|none| none.is_empty()));
    }
    if let Ok(job) = Job::of_own(body, TOLD) {
        check_job(Some(job.json));
    }
    if let Ok(detail) = job::detail_of_own(body, TOLD) {
        check_job(Some(detail.clone()));
        let again = job::detail_of_own(detail.as_bytes(), TOLD);
        assert_eq!(again.as_ref(), Ok(&detail), "told again it is the same");
    }
}

fn check_nodes(body: &[u8]) {
    const OTHER: &str = r#"{"LoadImage": {"input": {"required": {"image": [["b.png", "c.png"],
        {"image_upload": true}]}}, "output": ["IMAGE", "MASK"], "python_module": "nodes"},
        "KSampler": {"input": {"required": {"sampler_name": [["euler", "odd"]]}}}}"#;
    let body = Bytes::copy_from_slice(body);
    let lists = [body.clone(), Bytes::from_static(b"[\"b.png\"]")];
    if let Some(texts) = lists_of(&lists) {
        let list = list_of(&texts.into_iter().map(|(_, text)| Some(text)).collect::<Vec<_>>());
        let Some(Value::Array(told)) = json::value(&list) else { panic!("a list is told") };
        assert!(told.iter().collect::<HashSet<_>>().len() == told.len() && !told.is_empty());
    }
    let Some(info) = NodeInfo::read(body.clone()) else { return };
    let told = |servers: &[&NodeInfo]| {
        let union = Union::of(servers);
        let names = union.files().into_iter().map(|entry| Some(entry.text.to_owned()));
        union.told(&names.collect::<Vec<_>>(), &[])
    };
    let once = told(&[&info]);
    assert!(json::is_json(&once), "{}", once.escape_ascii());
    if !json::is_plain(&body) {
        return;
    }
    assert_eq!(told(&[&info, &info]), once, "a server twice says no more");
    let again = NodeInfo::read(once.clone()).expect("what is told is a list of nodes");
    assert_eq!(told(&[&again]), once);
    let other = NodeInfo::read(Bytes::from_static(OTHER.as_bytes())).expect("it is one");
    let both = told(&[&info, &other]);
    assert!(json::is_json(&both), "{}", both.escape_ascii());
    let (Some(before), Some(once), Some(both)) =
        (json::value(&body), json::value(&once), json::value(&both))
    else {
        return;
    };
    let names = |it: &Value| it.as_object().map(|it| it.keys().cloned().collect::<Vec<_>>());
    assert_eq!(names(&before), names(&once));
    let has = |it: &Value, name: &str| it.get(name).is_some();
    assert!(has(&both, "LoadImage") && has(&both, "KSampler"));
    for (name, class) in before.as_object().into_iter().flatten() {
        assert!(has(&both, name));
        let Some(class) = class.as_object() else { continue };
        for (key, value) in class.iter().filter(|(key, _)| *key != "input") {
            assert_eq!(once[name].get(key), Some(value), "{name}");
            assert_eq!(both[name].get(key), Some(value), "{name}");
        }
    }
}

fn check_assets(body: &[u8]) {
    for (_, file, _) in item::told_in(body) {
        assert!(!file.filename().is_empty());
    }
    if let Some(out) = item::with_backends(body, None, |_| Some("gpu-b"))
        && json::is_json(body)
    {
        assert!(json::is_json(&out), "{}", out.escape_ascii());
    }
    if let Ok(page) = merged::Page::read(body) {
        assert!(page.items.iter().all(|(_, text)| json::is_json(text.as_bytes())));
        let _ = page.next(None);
    }
    if let Some((tags, _)) = merged::tags_in(body) {
        let mut counts = merged::TagCounts::default();
        for (tag, _) in &tags {
            counts.add(std::slice::from_ref(tag));
        }
        let listed = counts.listed(&merged::TagsAsked::of("limit=1000000"));
        let told = json::value(counts.refined(usize::MAX).as_bytes()).expect("JSON");
        let names: HashSet<_> = tags.iter().map(|(tag, _)| tag).collect();
        assert_eq!(told["tag_counts"].as_object().map(|it| it.len()), Some(names.len()));
        let again = merged::tags_in(listed.as_bytes()).expect("what is listed can be read");
        assert_eq!(again.0.len(), names.len());
    }
}
