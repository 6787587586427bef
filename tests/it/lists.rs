//! Lists made of queues and histories, against what a real ComfyUI (0.8.0, and 0.33.0 where the two
//! differ) answered for the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use mooring::comfy::jobs::job::{Job, detail_of_entry, detail_of_own, own_list};
use mooring::comfy::jobs::page::{Row, Rows, answer};
use mooring::comfy::jobs::query::{BadJobQuery, JobQuery};
use mooring::comfy::jobs::{Interrupted, NOT_FOUND, Status, Telling};
use mooring::comfy::lists::history::{HistoryList, entry_of};
use mooring::comfy::lists::queue::{OwnQueue, Shown};
use mooring::routing::ids::{BackendId, PromptId};
use mooring::routing::pending::End;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

/// One request of a recording, and its answer.
struct Recorded {
    recording: String,
    path: String,
    status: u64,
    body: Value,
}

impl Recorded {
    fn bytes(&self) -> Vec<u8> {
        self.body.to_string().into_bytes()
    }
}

/// Every GET of every recording whose path begins so.
fn recorded(prefix: &str) -> Vec<Recorded> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let recording: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for step in recording["steps"].as_array().unwrap() {
            let (request, response) = (&step["request"], &step["response"]);
            let path = request["path"].as_str().unwrap_or_default();
            if request["method"] == "GET" && path.starts_with(prefix) {
                found.push(Recorded {
                    recording: file.file_stem().unwrap().to_string_lossy().into_owned(),
                    path: path.to_owned(),
                    status: response["status"].as_u64().unwrap(),
                    body: response["body"].clone(),
                });
            }
        }
    }
    assert!(!found.is_empty(), "no recording asks for {prefix}");
    found
}

fn told(interrupted: Interrupted) -> Telling {
    Telling { interrupted, taken_ms: 1 }
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn id(text: &str) -> PromptId {
    PromptId::parse(text).unwrap()
}

/// Every history entry of every recording.
fn entries() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for asked in recorded("/history") {
        for (prompt, _) in asked.body.as_object().unwrap() {
            let body = asked.bytes();
            let entry = entry_of(&body, prompt).unwrap().unwrap().to_owned();
            found.push((asked.recording.clone(), prompt.clone(), entry));
        }
    }
    found
}

/// A job of 0.8.0 as it is told now: what 0.33 added is there, and its client's id is not.
fn as_told_now(mut job: Value) -> Value {
    let count = job["outputs_count"].clone();
    let mut told = serde_json::Map::new();
    for (key, value) in job.as_object_mut().unwrap().iter() {
        told.insert(key.clone(), value.clone());
        if key == "outputs_count" {
            told.insert("previewable_outputs_count".to_owned(), count.clone());
        }
    }
    if let Some(extra) = told.get_mut("workflow").map(|workflow| &mut workflow["extra_data"]) {
        extra.as_object_mut().unwrap().remove("client_id").unwrap();
    }
    Value::Object(told)
}

/// What 0.33.0 answered for one prompt (recordings 01 and 18).
fn of_newest() -> Value {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/jobs-0.33.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn a_job_is_made_as_the_newest_server_makes_it_in_the_list_and_alone() {
    let recorded = of_newest();
    let (path, of_server) = recorded
        .as_object()
        .unwrap()
        .iter()
        .find(|(path, _)| path.starts_with("/api/jobs/"))
        .unwrap();
    let prompt = path.rsplit('/').next().unwrap();
    let history = recorded[format!("/history/{prompt}")].to_string();
    let entry = entry_of(history.as_bytes(), prompt).unwrap().unwrap();
    let told = told(Interrupted::Cancelled);
    let mut expected = of_server.clone();
    // Nobody is told the id of a client.
    expected["workflow"]["extra_data"].as_object_mut().unwrap().remove("client_id").unwrap();
    let made = detail_of_entry(&id(prompt), entry.as_bytes(), told).unwrap();
    assert_eq!(json_of(made.as_bytes()).to_string(), expected.to_string());
    let own = detail_of_own(of_server.to_string().as_bytes(), told).unwrap();
    assert_eq!(json_of(own.as_bytes()).to_string(), expected.to_string());

    let listed = &recorded["/api/jobs?limit=2"]["jobs"][0];
    let made = Job::of_entry(&id(prompt), entry.as_bytes(), told).unwrap();
    let own = Job::of_own(of_server.to_string().as_bytes(), told).unwrap();
    assert_eq!(json_of(made.json.as_bytes()).to_string(), listed.to_string());
    assert_eq!(made, own, "a server's own object of a prompt is the one that is made here");

    let cut = &recorded["/api/jobs?status=cancelled"]["jobs"][0];
    let own = Job::of_own(cut.to_string().as_bytes(), told).unwrap();
    assert_eq!(json_of(own.json.as_bytes()).to_string(), cut.to_string());
}

#[test]
fn a_job_is_made_as_the_recorded_server_made_it() {
    let asked = recorded("/api/jobs/0650166d");
    let (_, prompt, entry) =
        entries().into_iter().find(|(_, prompt, _)| asked[0].path.ends_with(prompt)).unwrap();
    let made = detail_of_entry(&id(&prompt), entry.as_bytes(), told(Interrupted::Failed)).unwrap();
    // Its keys are in the recorded order too.
    let expected = as_told_now(asked[0].body.clone());
    assert_eq!(json_of(made.as_bytes()).to_string(), expected.to_string());
}

#[test]
fn the_list_of_jobs_is_the_recorded_one_for_the_same_history() {
    let asked = recorded("/api/jobs?limit=2").remove(0);
    let entries = entries();
    let first = entries.iter().find(|(recording, _, _)| *recording == asked.recording).unwrap();
    // What ran before the first recording left nothing but its job; this is the entry of that.
    let job = &asked.body["jobs"][1];
    let before = json!({
        "prompt": [job["priority"], job["id"], {}, { "create_time": job["create_time"] }, ["3"]],
        "outputs": { "3": { "images": [
            { "filename": "t_00001_.png", "subfolder": "", "type": "output" },
        ] } },
        "status": { "status_str": "success", "completed": true, "messages": [
            ["execution_start", { "timestamp": job["execution_start_time"] }],
            ["execution_success", { "timestamp": job["execution_end_time"] }],
        ] },
    });
    let query = JobQuery::read("limit=2", Interrupted::Failed).unwrap();
    let before = (job["id"].as_str().unwrap(), before.to_string());
    let history = [(before.0, before.1.as_str()), (first.1.as_str(), first.2.as_str())];
    let jobs = history.map(|(prompt, entry)| {
        Job::of_entry(&id(prompt), entry.as_bytes(), told(query.interrupted)).unwrap()
    });
    let mut expected = asked.body.clone();
    expected["jobs"] =
        expected["jobs"].as_array().unwrap().iter().cloned().map(as_told_now).collect();
    assert_eq!(answered(&query, &jobs).to_string(), expected.to_string());

    // The server's own objects make the same list.
    let own = own_list(&asked.bytes(), told(query.interrupted), |_| true).unwrap();
    assert_eq!(answered(&query, &own).to_string(), asked.body.to_string());
    let hers = own_list(&asked.bytes(), told(query.interrupted), |id| id == before.0).unwrap();
    assert_eq!(hers.len(), 1);
}

fn answered(query: &JobQuery, jobs: &[Job]) -> Value {
    let mut rows = Rows::default();
    jobs.iter().for_each(|job| rows.push(job.row.clone()));
    let page = rows.page(query);
    let of_row = |id: &PromptId| jobs.iter().find(|job| job.row.id == *id).unwrap().json.as_str();
    json_of(&answer(query, &page, page.rows.iter().map(|row| of_row(&row.id))))
}

#[test]
fn empty_lists_are_answered_as_recorded_and_so_are_refusals() {
    for asked in recorded("/api/jobs?status") {
        let query = asked.path.split_once('?').unwrap().1;
        let query = JobQuery::read(query, Interrupted::Failed).unwrap();
        // A page newer than its server is refused by that, and shows no history; not by us.
        let is_newer = query.wants(Status::Cancelled);
        assert_eq!(asked.status, if is_newer { 400 } else { 200 }, "{}", asked.path);
        if !is_newer {
            assert_eq!(answered(&query, &[]), asked.body, "{}", asked.path);
            continue;
        }
        let refused = BadJobQuery::Status(vec!["cancelled".to_owned()]).body();
        let expected = asked.body["error"].as_str().unwrap();
        assert_eq!(
            json_of(refused.as_bytes())["error"].as_str().unwrap(),
            format!("{expected}, cancelled")
        );
    }
    for asked in recorded("/api/jobs/").iter().filter(|asked| asked.status == 404) {
        assert_eq!(json_of(NOT_FOUND.as_bytes()), asked.body, "{}", asked.recording);
    }
}

#[test]
fn every_recorded_end_is_told_by_its_name() {
    for (recording, prompt, entry) in entries() {
        let expected = match &recording[..2] {
            "04" => Status::Failed,
            "05" | "17" => Status::Cancelled,
            _ => Status::Completed,
        };
        let job =
            Job::of_entry(&id(&prompt), entry.as_bytes(), told(Interrupted::Cancelled)).unwrap();
        assert_eq!(job.row.status, expected, "{recording}");
        let shown = json_of(job.json.as_bytes());
        assert_eq!(shown["status"], expected.name());
        assert_eq!(shown.get("execution_error").is_some(), expected == Status::Failed);
        assert!(0.0 < job.row.created_ms && 0.0 <= job.row.duration_ms);
        let older =
            Job::of_entry(&id(&prompt), entry.as_bytes(), told(Interrupted::Failed)).unwrap();
        let again = Job::of_own(older.json.as_bytes(), told(Interrupted::Cancelled)).unwrap();
        assert_eq!(again, job, "an interrupted one is known by its lack of an error");
    }
}

#[test]
fn recorded_queues_and_histories_pass_as_they_are() {
    for asked in recorded("/queue") {
        let bytes = asked.bytes();
        let mut queue = OwnQueue::default();
        queue.add(BackendId::nth(0), &bytes, |_| Shown::Whole).unwrap();
        assert_eq!(json_of(&queue.to_json()), asked.body, "{}", asked.recording);
        for (status, item) in queue.items() {
            let job = Job::of_item(item, status, 1).unwrap();
            assert!(0.0 < job.row.created_ms, "{}", asked.recording);
        }
        let mut nobodys = OwnQueue::default();
        nobodys.add(BackendId::nth(0), &bytes, |_| Shown::No).unwrap();
        assert_eq!(nobodys.to_json(), br#"{"queue_running": [], "queue_pending": []}"#);
    }
    for asked in recorded("/history") {
        let bytes = asked.bytes();
        let mut list = HistoryList::default();
        for (prompt, _) in asked.body.as_object().unwrap() {
            list.push(prompt, entry_of(&bytes, prompt).unwrap().unwrap().as_bytes());
        }
        assert_eq!(json_of(&list.finish()), asked.body, "{}", asked.recording);
    }
}

/// What has become of a prompt of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Runs,
    Waits,
    Ended(End),
    /// Ended, and its backend has forgotten it.
    Forgotten,
}

#[derive(Clone, Debug)]
struct Made {
    owner: u8,
    backend: u16,
    fate: Fate,
}

fn fleet() -> impl Strategy<Value = Vec<Made>> {
    let fate = prop_oneof![
        Just(Fate::Runs),
        Just(Fate::Waits),
        Just(Fate::Ended(End::Succeeded)),
        Just(Fate::Ended(End::Failed)),
        Just(Fate::Ended(End::Interrupted)),
        Just(Fate::Forgotten),
    ];
    let made = (0..3_u8, 0..4_u16, fate);
    let made = made.prop_map(|(owner, backend, fate)| Made { owner, backend, fate });
    proptest::collection::vec(made, 0..40)
}

fn name(at: usize) -> String {
    format!("p{at}")
}

fn submitted(at: usize, made: &Made) -> Value {
    json!([at, name(at), { "of": made.owner }, { "create_time": at }, []])
}

fn queue_of(fleet: &[Made], backend: u16) -> Vec<u8> {
    let list = |fate| -> Vec<Value> {
        let all = fleet.iter().enumerate();
        let here = all.filter(|(_, made)| made.backend == backend && made.fate == fate);
        here.map(|(at, made)| submitted(at, made)).collect()
    };
    json!({ "queue_running": list(Fate::Runs), "queue_pending": list(Fate::Waits) })
        .to_string()
        .into_bytes()
}

fn history_of(at: usize, made: &Made) -> Vec<u8> {
    let (status, last) = match made.fate {
        Fate::Runs | Fate::Waits | Fate::Forgotten => return b"{}".to_vec(),
        Fate::Ended(End::Failed) => ("error", "execution_error"),
        Fate::Ended(End::Interrupted) => ("error", "execution_interrupted"),
        Fate::Ended(_) => ("success", "execution_success"),
    };
    let messages = json!([[last, { "timestamp": at }]]);
    let entry = json!({
        "prompt": submitted(at, made), "outputs": {},
        "status": { "status_str": status, "messages": messages },
    });
    json!({ name(at): entry }).to_string().into_bytes()
}

proptest! {
    /// The way of a list: the ledger says whose a prompt is and how it ended, the backends have
    /// the rest.
    #[test]
    fn every_list_has_all_of_ones_own_prompts_and_no_others(
        fleet in fleet(),
        size in 1..7_usize,
        status in "|cancelled,failed|completed,failed|in_progress,pending|pending,completed",
    ) {
        let queues: Vec<Vec<u8>> = (0..4).map(|backend| queue_of(&fleet, backend)).collect();
        for owner in 0..3 {
            let is_theirs = |id: &str| {
                let is_own = id[1..].parse::<usize>().is_ok_and(|at| fleet[at].owner == owner);
                if is_own { Shown::Cleaned } else { Shown::No }
            };
            let mut queue = OwnQueue::default();
            for (body, backend) in queues.iter().zip(0..) {
                queue.add(BackendId::nth(backend), body, is_theirs).unwrap();
            }
            let mut rows = Rows::default();
            let mut jobs = BTreeMap::new();
            let mut history = HistoryList::default();
            for (status, item) in queue.items() {
                let job = Job::of_item(item, status, 1).unwrap();
                rows.push(job.row.clone());
                jobs.insert(job.row.id.clone(), job);
            }
            for (at, made) in fleet.iter().enumerate().filter(|(_, made)| made.owner == owner) {
                let end = match made.fate {
                    Fate::Runs | Fate::Waits => continue,
                    Fate::Ended(end) => end,
                    Fate::Forgotten => End::Succeeded,
                };
                let created = u64::try_from(at).unwrap();
                rows.push(Row::of_end(id(&name(at)), end, created).unwrap());
                let body = history_of(at, made);
                let Some(entry) = entry_of(&body, &name(at)).unwrap() else { continue };
                history.push(&name(at), entry.as_bytes());
                let told = told(Interrupted::Cancelled);
                let job = Job::of_entry(&id(&name(at)), entry.as_bytes(), told).unwrap();
                prop_assert_eq!(job.row.status, Status::of_end(end).unwrap());
                jobs.insert(job.row.id.clone(), job);
            }

            let mut listed = Vec::new();
            for offset in (0..=fleet.len()).step_by(size) {
                let query = format!("limit={size}&offset={offset}&status={status}");
                let query = JobQuery::read(&query, Interrupted::Cancelled).unwrap();
                let page = rows.page(&query);
                let found = page.rows.iter().filter_map(|row| jobs.get(&row.id));
                let answer = json_of(&answer(&query, &page, found.map(|job| job.json.as_str())));
                for job in answer["jobs"].as_array().unwrap() {
                    let told = job["status"].as_str().unwrap();
                    prop_assert!(status.is_empty() || status.contains(told));
                    listed.push(job["id"].as_str().unwrap().to_owned());
                }
            }
            let is_wanted = |job: &Job| status.is_empty() || status.contains(job.row.status.name());
            let expected: BTreeSet<String> = fleet
                .iter()
                .enumerate()
                .filter(|(_, made)| made.owner == owner && made.fate != Fate::Forgotten)
                .map(|(at, _)| name(at))
                .filter(|name| is_wanted(&jobs[&id(name)]))
                .collect();
            prop_assert_eq!(listed.len(), expected.len(), "each is listed once");
            prop_assert!(listed.iter().all(|id| expected.contains(id)));
            for (_, entry) in json_of(&history.finish()).as_object().unwrap() {
                prop_assert_eq!(&entry["prompt"][2]["of"], owner);
            }
        }
    }
}
