//! The hot paths, one at a time, so that their instructions can be counted:
//! `benches/instructions/run` does that with callgrind and compares with what is committed.
//!
//! `instructions PATH COUNT` goes so often through one of them. Nothing is timed.

#![expect(clippy::print_stdout, reason = "names are what it is asked for")]

mod reads;

use std::hint::black_box;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use mooring::comfy::graph::Unknown;
use mooring::comfy::names::{self, NameKey};
use mooring::comfy::{endpoint, event, files, preview, query, submission};
use mooring::config::{BackendHeaders, BasePath};
use mooring::front::caller::Peer;
use mooring::front::passthrough::answer::{OwnHeaders, pass_on};
use mooring::front::passthrough::request::{HEAD_MAX, Parsed, parse};
use mooring::net::now;
use mooring::routing::files::{Files, Seen};
use mooring::routing::ids::{BackendId, ClientId, FileRef, Folder, Located, PromptId};
use mooring::routing::placement::{AdminState, BackendView, Condition, TieBreak, place};
use mooring::session::budget::LogBudget;
use mooring::session::event_log::{EventLog, Kept};
use mooring::ws::Frame;

/// What is done, and how often.
type Path = fn(usize);

const PATHS: [(&str, Path); 20] = [
    ("pass a request's head on", request_head),
    ("pass an answer's head on", answer_head),
    ("classify four requests", classify),
    ("read the client off a query", client_of_query),
    ("read a progress event", progress),
    ("read a preview's head", preview_head),
    ("keep progress in the log", keep),
    ("name the files of an executed event", executed),
    ("find a file of 10,000", find),
    ("place over eight backends", placement),
    ("read and finish a submission of 10 KB", submit),
    ("look through a graph of 100 KB for files", mentions),
    ("route_backends_1", |count| reads::route(1, count)),
    ("route_backends_10", |count| reads::route(10, count)),
    ("route_backends_100", |count| reads::route(100, count)),
    ("route_backends_1000", |count| reads::route(1_000, count)),
    ("read_backends_1", |count| reads::read(1, count)),
    ("read_backends_10", |count| reads::read(10, count)),
    ("read_backends_100", |count| reads::read(100, count)),
    ("read_backends_1000", |count| reads::read(1_000, count)),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (name, count) = (arguments.next(), arguments.next());
    let path = PATHS.iter().find(|(known, _)| name.as_deref() == Some(known));
    match (path, count.and_then(|count| count.parse().ok())) {
        (Some((_, go)), Some(count)) => go(count),
        (Some(_), None) => return ExitCode::FAILURE,
        (None, _) => PATHS.iter().for_each(|(name, _)| println!("{name}")),
    }
    ExitCode::SUCCESS
}

/// What a browser sends.
const REQUEST: &[u8] = b"GET /system_stats?clientId=9f6d1f0a5e0c4c0b8a7e3d2c1b0a9f8e HTTP/1.1\r\n\
    Host: gateway:8180\r\nConnection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n\
    Accept: */*\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\nReferer: http://gateway:8180/\r\n\
    Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n\
    Cookie: theme=dark; mooring=00000000000000000000000000000001\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\
    Content-Length: 402\r\nDate: Mon, 23 Nov 2026 23:00:00 GMT\r\n\
    Server: Python/3.12 aiohttp/3.11.8\r\n\r\n";

fn request_head(count: usize) {
    let (own, base) = (BackendHeaders::default(), BasePath::default());
    let mut out = Vec::with_capacity(4096);
    for _ in 0..count {
        out.clear();
        if let Parsed::Plain(plain) = parse(black_box(REQUEST), HEAD_MAX, 100, black_box(&base)) {
            plain.write(b"gpu-a:8188", Peer::Stranger, black_box((None, &own)), &mut out);
        }
        assert!(!black_box(&out).is_empty(), "it is one that is only passed on");
    }
}

fn answer_head(count: usize) {
    let mut out = Vec::with_capacity(4096);
    let took = Duration::from_micros(345);
    let ours = OwnHeaders {
        backend: b"gpu-a",
        placement: "bound",
        base: "",
        is_for_one: false,
        token_cookie: None,
        own: took,
        at_backend: took,
        closes: false,
    };
    for _ in 0..count {
        out.clear();
        assert!(pass_on(black_box(ANSWER), false, &ours, &mut out).is_ok(), "it is an answer");
        black_box(&out);
    }
}

fn classify(count: usize) {
    let paths = ["/system_stats", "/api/view", "/api/history/4f7c", "/assets/index-4f7c.js"];
    for _ in 0..count {
        for path in paths {
            black_box(endpoint::classify(&Method::GET, black_box(path)));
        }
    }
}

fn client_of_query(count: usize) {
    let raw = "filename=ComfyUI_00001_.png&type=output&clientId=4f7c2a&rand=0.1";
    for _ in 0..count {
        let client = query::client_id(black_box(raw));
        black_box(client.map(|client| ClientId::parse(&client)));
    }
}

const PROGRESS: &str = concat!(
    r#"{"type": "progress_state", "data": {"prompt_id": "6a2c1d9e-0001-4f7c-9b1a-3d2e1f0a4b5c", "#,
    r#""nodes": {"3": {"value": 7.0, "max": 20.0, "state": "running", "node_id": "3", "#,
    r#""prompt_id": "6a2c1d9e-0001-4f7c-9b1a-3d2e1f0a4b5c", "display_node_id": "3", "#,
    r#""parent_node_id": null, "real_node_id": "3"}}}}"#
);

fn progress(count: usize) {
    for _ in 0..count {
        black_box(event::is_executed(black_box(PROGRESS.as_bytes())));
        black_box(event::read(black_box(PROGRESS.as_bytes())));
    }
}

fn preview_head(count: usize) {
    let told = br#"{"node_id": "3", "prompt_id": "6a2c1d9e", "image_type": "image/jpeg"}"#;
    let length = u32::try_from(told.len()).expect("it is short");
    let mut frame = [4_u32.to_be_bytes(), length.to_be_bytes()].concat();
    frame.extend_from_slice(told);
    frame.extend_from_slice(&[0; 40_000]);
    for _ in 0..count {
        black_box(preview::read(black_box(&frame)));
    }
}

fn keep(count: usize) {
    let mut log = EventLog::new(&LogBudget::new(8 << 20, 64 << 20));
    let prompt = PromptId::parse("6a2c1d9e-0001-4f7c-9b1a-3d2e1f0a4b5c").expect("it is an id");
    let frame = Frame::text(PROGRESS);
    for _ in 0..count {
        log.keep(&prompt, Kept::ProgressState, frame.clone());
    }
    black_box(log.running());
}

fn executed(count: usize) {
    let text = concat!(
        r#"{"type": "executed", "data": {"node": "9", "display_node": "9", "output": {"images": ["#,
        r#"{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}, "#,
        r#"{"filename": "ComfyUI_00002_.png", "subfolder": "", "type": "output"}]}, "#,
        r#""prompt_id": "6a2c1d9e-0001-4f7c-9b1a-3d2e1f0a4b5c"}}"#
    );
    for _ in 0..count {
        let text = black_box(text.as_bytes());
        let told = names::told_in(text, NameKey::Output);
        let named: Vec<_> = told.iter().map(|told| (told, "gpu-b")).collect();
        black_box(names::with_backends(text, &named));
    }
}

/// A ledger that knows so many pictures.
fn ledger(names: usize) -> Files {
    let mut files = Files::new(names, Duration::from_secs(600));
    for number in 0..names {
        let path = format!("ComfyUI_{number:07}_.png");
        let file = FileRef::of_path(Folder::Input, &path).expect("it is a name");
        let at = Located { backend: BackendId::nth(0), file };
        files.learn(&at, &[], Seen::There, now());
    }
    files
}

fn find(count: usize) {
    let files = ledger(10_000);
    // Many, because where a hash falls is another place in each process.
    let known = (0..1_000).map(|number| format!("ComfyUI_{:07}_.png", number * 7));
    let paths: Vec<String> = known.chain((0..1_000).map(|it| format!("a harbour {it}"))).collect();
    for path in paths.iter().cycle().take(count) {
        black_box(files.find(Folder::Input, black_box(path), &[]));
    }
}

fn placement(count: usize) {
    let view = |id: u16| BackendView {
        id: BackendId::nth(id),
        up: true,
        admin: AdminState::Ready,
        condition: Condition::Well,
        load: u32::from(id * 5 % 7),
        weight: NonZeroU32::MIN,
        max_pending: None,
        bound: u32::from(id),
        head_start: None,
    };
    let views: Vec<BackendView> = (0..8).map(view).collect();
    for turn in 0..count as u64 {
        let _ = black_box(place(black_box(&views), TieBreak { last: None, turn }));
    }
}

/// A submission with a graph of about so many bytes, mostly text.
fn body(bytes: usize) -> Bytes {
    let node = |id: usize| {
        let text = "a quiet harbour at dawn, ".repeat(8);
        format!(
            r#""{id}": {{"class_type": "CLIP", "inputs": {{"text": "{text}", "clip": ["4", 1]}}}}"#
        )
    };
    let nodes: Vec<String> = (0..bytes / 280).map(node).collect();
    let graph = nodes.join(", ");
    Bytes::from(format!(r#"{{"client_id": "c", "prompt": {{{graph}}}, "extra_data": {{}}}}"#))
}

fn submit(count: usize) {
    let body = body(10_000);
    let (client, prompt) = (ClientId::parse("c"), PromptId::parse("p"));
    let (Ok(client), Ok(prompt)) = (client, prompt) else { return };
    for _ in 0..count {
        let Ok(draft) = submission::read(black_box(body.clone()), &Unknown) else { return };
        black_box(draft.finish(&client, &prompt, &["SaveImageWebsocket".to_owned()]));
    }
}

fn mentions(count: usize) {
    let (files, body) = (ledger(10_000), body(100_000));
    for _ in 0..count {
        let known = |it: &files::Spelled<'_>| files.find(it.folder, &it.path, &[]).cloned();
        black_box(files::mentions(black_box(&body), known));
    }
}
