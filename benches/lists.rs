//! How long lists of many entries take, and how much memory: `cargo bench --bench lists`.
//!
//! The bounds are promises: it fails if one is broken. Each task runs several times; the best time
//! counts, so that a busy machine does not fail it.

#![expect(clippy::print_stdout, reason = "times are what it is for")]

use std::fs;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use mooring::cache::Cache;
use mooring::comfy::jobs::job::Job;
use mooring::comfy::jobs::page::{Row, Rows, answer};
use mooring::comfy::jobs::query::JobQuery;
use mooring::comfy::jobs::{Interrupted, Telling};
use mooring::comfy::lists::history::{HistoryList, Window, kept};
use mooring::comfy::lists::queue::{OwnQueue, Shown};
use mooring::comfy::redact;
use mooring::net::now;
use mooring::routing::ids::{BackendId, PromptId};
use mooring::routing::pending::End;

const BACKENDS: u16 = 8;
const QUEUED: usize = 1_000;
const ENDED: usize = 10_000;
const RUNS: usize = 10;

fn main() -> ExitCode {
    let queues: Vec<String> = (0..BACKENDS).map(queue).collect();
    let bytes: usize = queues.iter().map(String::len).sum();
    println!("{BACKENDS} queues of {QUEUED} entries, {} KB", bytes / 1_000);
    // Without it the peak would be that of making the queues.
    let _not_everywhere = fs::write("/proc/self/clear_refs", "5");
    let before = peak_kib();
    let merged = timed("merge all of them", 150, || merge(&queues, |_| true));
    timed("merge a tenth of them", 150, || merge(&queues, |id| id.ends_with('7')));
    timed("make a page of 200 jobs of them", 150, || queued_jobs(&queues));
    let more = peak_kib().saturating_sub(before);
    println!("{more:>10} KiB   additional memory, of 65536");

    let mut history = History::new();
    println!("{BACKENDS} histories of {ENDED} entries, {} cached", history.cache.len());
    let newest = timed("the newest 64 of a history", 50, || history.list("max_items=64"));
    let jobs = timed("the newest 64 jobs", 50, || history.jobs("limit=64"));
    if merged && newest && jobs && more <= 65_536 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The answer of one backend's `GET /queue`, about 500 KB.
fn queue(backend: u16) -> String {
    let items: Vec<String> = (0..QUEUED).map(|at| item(backend, at)).collect();
    format!(r#"{{"queue_running": [{}], "queue_pending": [{}]}}"#, items[0], items[1..].join(", "))
}

fn item(backend: u16, at: usize) -> String {
    const REST: &str = concat!(
        r#"{"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "#,
        r#""batch_size": 1, "color": 255}}, "2": {"class_type": "SlowSteps", "inputs": "#,
        r#"{"image": ["1", 0], "steps": 5, "seconds": 3.0, "fail": false, "preview": true}}, "#,
        r#""3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "#,
        r#""filename_prefix": "r"}}}, {"client_id": "390b800f4ad84b45ac87865c9aa5c17a", "#,
        r#""create_time": 1795406289572, "extra_pnginfo": {"workflow": "#,
        r#"{"id": "6a3d0181-de41", "nodes": []}}}, ["3"]]"#,
    );
    format!(r#"[{at}, "{}", {REST}"#, id(backend, at))
}

fn id(backend: u16, at: usize) -> String {
    format!("{backend:08}-9fc2-4a5d-b0a5-{at:012}")
}

fn merge(queues: &[String], is_theirs: impl Fn(&str) -> bool + Copy) -> Vec<u8> {
    added(queues, is_theirs).to_json()
}

fn added(queues: &[String], is_theirs: impl Fn(&str) -> bool + Copy) -> OwnQueue<'_> {
    let mut own = OwnQueue::default();
    for (body, backend) in queues.iter().zip(0..) {
        let shown = |id: &str| if is_theirs(id) { Shown::Cleaned } else { Shown::No };
        own.add(BackendId::nth(backend), body.as_bytes(), shown).expect("a queue");
    }
    own
}

fn queued_jobs(queues: &[String]) -> Vec<u8> {
    let query = query("status=in_progress,pending&limit=200&offset=0");
    let own = added(queues, |_| true);
    let jobs: std::collections::HashMap<PromptId, Job> = own
        .items()
        .map(|(status, item)| Job::of_item(item, status, 1).expect("an entry"))
        .map(|job| (job.row.id.clone(), job))
        .collect();
    let mut rows = Rows::default();
    own.items().for_each(|(_, item)| rows.push(jobs[&*item.id].row.clone()));
    let page = rows.page(&query);
    answer(&query, &page, page.rows.iter().map(|row| jobs[&row.id].json.as_str()))
}

/// The ledger's ended prompts in their order, and their entries as far as the cache has them.
struct History {
    ended: Vec<PromptId>,
    cache: Cache<PromptId, std::sync::Arc<str>>,
}

impl History {
    fn new() -> Self {
        let mut cache = Cache::new(256 << 20);
        let mut ended = Vec::new();
        for at in 0..ENDED {
            for backend in 0..BACKENDS {
                let prompt = PromptId::parse(&id(backend, at)).expect("an id");
                let entry = entry(backend, at);
                let bytes = entry.len();
                cache.insert(&prompt, entry.into(), bytes);
                ended.push(prompt);
            }
        }
        Self { ended, cache }
    }

    fn list(&mut self, raw_query: &str) -> Vec<u8> {
        let window = Window::read(raw_query).expect("a query");
        let mut list = HistoryList::default();
        let ended = kept(&self.ended);
        for prompt in &ended[window.of(ended.len())] {
            let entry = self.cache.get(prompt).expect("it is warm");
            list.push(prompt.as_str(), &redact::entry(entry.as_bytes()));
        }
        list.finish()
    }

    fn jobs(&mut self, raw_query: &str) -> Vec<u8> {
        let query = query(raw_query);
        let mut rows = Rows::default();
        for (prompt, at) in kept(&self.ended).iter().zip(0..) {
            rows.push(Row::of_end(prompt.clone(), End::Succeeded, at).expect("a row"));
        }
        let page = rows.page(&query);
        let told = Telling { interrupted: query.interrupted, taken_ms: 1 };
        let jobs: Vec<Job> = page
            .rows
            .iter()
            .map(|row| (row.id.clone(), self.cache.get(&row.id).expect("it is warm")))
            .map(|(prompt, entry)| Job::of_entry(&prompt, entry.as_bytes(), told))
            .map(|job| job.expect("an entry"))
            .collect();
        answer(&query, &page, jobs.iter().map(|job| job.json.as_str()))
    }
}

fn entry(backend: u16, at: usize) -> String {
    format!(
        r#"{{"prompt": {}, "outputs": {{"3": {{"images": [{{"filename": "rec_{at:05}_.png", "#,
        item(backend, at)
    ) + r#""subfolder": "", "type": "output"}]}}, "status": {"status_str": "success", "#
        + r#""completed": true, "messages": [["execution_start", {"timestamp": 1795406283942}], "#
        + r#"["execution_success", {"timestamp": 1795406284570}]]}, "meta": {}}"#
}

fn query(raw_query: &str) -> JobQuery {
    JobQuery::read(raw_query, Interrupted::Cancelled).expect("a query")
}

/// Runs a task, says its best time, and whether that is within `bound_ms`.
fn timed(what: &str, bound_ms: u64, mut task: impl FnMut() -> Vec<u8>) -> bool {
    let mut best = Duration::MAX;
    let mut len = 0;
    for _ in 0..RUNS {
        let begun = now();
        len = black_box(task()).len();
        best = best.min(begun.elapsed());
    }
    println!("{:>10.3} ms    {what}: {len} bytes, of {bound_ms} ms", best.as_secs_f64() * 1e3);
    best <= Duration::from_millis(bound_ms)
}

/// The most memory that this process has had; 0 where the system does not say.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
