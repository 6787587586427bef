//! Classifies requests: from method and raw path to the endpoint and the id in the path.
//!
//! Matching follows aiohttp (3.14): it uses the path with everything percent-decoded except `%2F`
//! and `%25`, so that every spelling of a route is recognised. Routes exist bare and under `/api`
//! (`server.py:988`), except `/internal/*` (bare only) and `/api/jobs…` (with the prefix, once or
//! twice).

mod class;

use std::borrow::Cow;

use http::Method;

use super::assets;
use super::guard::{self, Area};
use crate::routing::ids::Folder;

pub use class::RequestClass;

/// The endpoint of a request. Ids are decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// `/ws`
    Socket,
    /// `POST /prompt`
    Submit,
    /// `GET /features`
    Features,
    /// `GET /prompt`
    QueueLength,
    /// `GET /queue`
    Queue,
    /// `POST /queue`
    EditQueue,
    /// `POST /interrupt`
    Interrupt,
    /// `GET /history`
    HistoryList,
    /// `GET /history/{prompt}`
    HistoryOf(String),
    /// `POST /history`
    EditHistory,
    /// `GET /api/jobs`
    JobList,
    /// `GET /api/jobs/{prompt}`
    Job(String),
    /// `POST /api/jobs/{prompt}/cancel`
    CancelJob(String),
    /// `POST /api/jobs/cancel`
    CancelJobs,
    /// `POST /upload/image`
    Upload,
    /// `POST /upload/mask`
    UploadMask,
    /// `GET /view`, and routes of custom nodes that name files in the same way.
    View,
    /// `PATCH /internal/logs/subscribe`
    SubscribeLogs,
    /// `POST /free`
    Free,
    /// The page itself.
    Page,
    /// Files of the page: hashed assets, scripts, fonts.
    Asset,
    /// Settings, saved workflows, users.
    UserData,
    /// Routes that install, update, restart or configure, and the other routes of ComfyUI-Manager.
    Guarded,
    /// Routes of ComfyUI-Manager that only list.
    ManagerList,
    /// `/internal/logs…`, `/internal/folder_paths`
    ServerLog,
    /// A read that a page makes before it shows anything.
    Start(StartRead),
    /// A route of Mooring, with its whole path.
    Own(String),
    /// `GET /object_info`
    NodeInfo,
    /// `GET /object_info/{class}`
    NodeInfoOf,
    /// `GET /internal/files/{folder}`
    FileList(Folder),
    /// `GET /models/{folder}` and `/embeddings`: lists of names.
    ModelList,
    /// `GET /global_subgraphs/{id}`
    Subgraph,
    /// Assets and their tags.
    Assets(assets::AssetRequest),
    /// A method or a path below the routes of prompts, files and assets that ComfyUI does not have
    /// today. A newer one may have it: it goes to the client's backend, but not for a user, because
    /// nothing says whose things it is about.
    Unserved,
    /// Everything else; it goes to the client's backend.
    Other,
}

/// A read of general facts about a server, which names no client's data. No page starts without it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StartRead(usize);

/// The reads of the stock page 1.49.6.
const STARTS: [&str; START_READS] = [
    "/system_stats",
    "/object_info",
    "/features",
    "/extensions",
    "/i18n",
    "/embeddings",
    "/models",
    "/experiment/models",
    "/workflow_templates",
    "/global_subgraphs",
    "/node_replacements",
];

/// The number of these reads.
pub const START_READS: usize = 11;

impl StartRead {
    /// The read of that path; `None` if no page needs it to start.
    #[must_use]
    pub fn of(bare: &str) -> Option<Self> {
        STARTS.iter().position(|start| *start == bare).map(Self)
    }

    /// Its index, below [`START_READS`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// Finds the endpoint of a request.
#[must_use]
pub fn classify(method: &Method, raw_path: &str) -> Endpoint {
    let path = decode(raw_path);
    if path.starts_with("/-/") {
        return Endpoint::Own(path.into_owned());
    }
    let bare = without_api(&path);
    if let Some(guarded) = guarded(method, raw_path, &path) {
        return guarded;
    }
    if let Some(jobs) = path.strip_prefix("/api").and_then(|rest| strip_jobs(without_api(rest))) {
        return job(method, jobs);
    }
    if let Some(asked) = assets::asked(method, &path) {
        return Endpoint::Assets(asked);
    }
    let found = match *method {
        Method::GET | Method::HEAD => read(&path, bare),
        Method::POST => write(bare),
        _ if is_user_data(bare) => Endpoint::UserData,
        _ => Endpoint::Other,
    };
    let is_owned = || is_of_prompts(bare) || is_of_assets(&path);
    if found == Endpoint::Other && is_owned() { Endpoint::Unserved } else { found }
}

/// True for what begins like a route of assets, which have the prefix.
fn is_of_assets(path: &str) -> bool {
    let Some(mut rest) = path.strip_prefix("/api") else { return false };
    while let Some(below) = rest.strip_prefix("/api") {
        rest = below;
    }
    let first = rest.strip_prefix('/').map_or("", first_segment);
    first == "assets" || first == "tags"
}

/// True for routes about prompts, and those that store and show files.
fn is_of_prompts(bare: &str) -> bool {
    let below = ["/prompt", "/queue", "/history", "/interrupt"]
        .iter()
        .filter_map(|prefix| bare.strip_prefix(prefix))
        .any(|rest| rest.is_empty() || rest.starts_with('/'));
    below || ["/view", "/upload/image", "/upload/mask"].contains(&bare)
}

/// What is not everybody's.
fn guarded(method: &Method, raw_path: &str, path: &str) -> Option<Endpoint> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_command = !is_read && *method != Method::OPTIONS;
    match guard::area(raw_path, path) {
        Area::Open => None,
        Area::List if is_read => Some(Endpoint::ManagerList),
        Area::List | Area::Shut | Area::Doubtful => Some(Endpoint::Guarded),
        Area::Inside if *method == Method::PATCH && path == "/internal/logs/subscribe" => {
            Some(Endpoint::SubscribeLogs)
        }
        Area::Inside => Some(Endpoint::ServerLog),
        Area::Memory => is_command.then_some(Endpoint::Free),
        Area::Scan if is_command => {
            let asked = assets::asked(method, path);
            let asked = asked.unwrap_or_else(|| assets::AssetRequest::Scan(path.to_owned()));
            Some(Endpoint::Assets(asked))
        }
        Area::Scan => None,
    }
}

/// True for requests whose headers a page cannot set: its socket, and pictures.
#[must_use]
pub fn has_no_headers(raw_path: &str) -> bool {
    matches!(without_api(&decode(raw_path)), "/ws" | "/view")
}

fn read(path: &str, bare: &str) -> Endpoint {
    if let Some(prompt) = bare.strip_prefix("/history/")
        && is_segment(prompt)
    {
        return Endpoint::HistoryOf(decode_all(prompt));
    }
    if let Some(folder) = path.strip_prefix("/internal/files/").and_then(Folder::parse) {
        return Endpoint::FileList(folder);
    }
    match bare {
        "/ws" => Endpoint::Socket,
        "/prompt" => Endpoint::QueueLength,
        "/features" => Endpoint::Features,
        "/queue" => Endpoint::Queue,
        "/history" => Endpoint::HistoryList,
        "/view" | "/viewvideo" | "/vhs/viewvideo" | "/vhs/viewaudio" => Endpoint::View,
        "/" => Endpoint::Page,
        "/index.html" if path == bare => Endpoint::Page,
        "/object_info" => Endpoint::NodeInfo,
        "/embeddings" => Endpoint::ModelList,
        _ if is_below(bare, "/object_info/") => Endpoint::NodeInfoOf,
        _ if is_below(bare, "/models/") => Endpoint::ModelList,
        _ if is_below(bare, "/global_subgraphs/") => Endpoint::Subgraph,
        _ if is_user_data(bare) => Endpoint::UserData,
        _ if path == bare && is_asset(bare) => Endpoint::Asset,
        _ => StartRead::of(bare).map_or(Endpoint::Other, Endpoint::Start),
    }
}

fn is_below(bare: &str, folder: &str) -> bool {
    bare.strip_prefix(folder).is_some_and(is_segment)
}

fn write(bare: &str) -> Endpoint {
    match bare {
        "/prompt" => Endpoint::Submit,
        "/queue" => Endpoint::EditQueue,
        "/interrupt" => Endpoint::Interrupt,
        "/history" => Endpoint::EditHistory,
        "/upload/image" => Endpoint::Upload,
        "/upload/mask" => Endpoint::UploadMask,
        _ if is_user_data(bare) => Endpoint::UserData,
        _ => Endpoint::Other,
    }
}

fn job(method: &Method, rest: &str) -> Endpoint {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match rest.strip_prefix('/') {
        None if is_read => Endpoint::JobList,
        Some("cancel") if *method == Method::POST => Endpoint::CancelJobs,
        Some(prompt) if is_read && is_segment(prompt) => Endpoint::Job(decode_all(prompt)),
        Some(rest) if *method == Method::POST => match rest.strip_suffix("/cancel") {
            Some(prompt) if is_segment(prompt) => Endpoint::CancelJob(decode_all(prompt)),
            Some(_) | None => Endpoint::Unserved,
        },
        Some(_) | None => Endpoint::Unserved,
    }
}

fn strip_jobs(path: &str) -> Option<&str> {
    path.strip_prefix("/jobs").filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// `/api/x` becomes `/x`; `/api/` is the page; `/api` alone is no route, and neither is
/// `/api/internal`.
pub(super) fn without_api(path: &str) -> &str {
    match path.strip_prefix("/api") {
        Some(rest) if rest.starts_with('/') && !rest.starts_with("/internal/") => rest,
        Some(_) | None => path,
    }
}

/// A path up to its first slash. Segments are short: a loop finds their end sooner than `memchr`.
pub(super) fn first_segment(path: &str) -> &str {
    &path[..path.bytes().position(|byte| byte == b'/').unwrap_or(path.len())]
}

/// The path as it is matched, in one spelling and without `/api`.
#[must_use]
pub fn plain_path(raw_path: &str) -> Box<str> {
    without_api(&decode(raw_path)).into()
}

/// True for settings, saved workflows and users; `bare` is without `/api`.
#[must_use]
pub fn is_user_data(bare: &str) -> bool {
    ["/userdata", "/v2/userdata", "/settings", "/users"]
        .iter()
        .filter_map(|prefix| bare.strip_prefix(prefix))
        .any(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True for files of the page. `/extensions/<pack>/` belongs to a backend's own node packs, but
/// `/extensions/core/` belongs to the page.
fn is_asset(path: &str) -> bool {
    const FOLDERS: [&str; 8] = [
        "/assets/",
        "/scripts/",
        "/extensions/core/",
        "/fonts/",
        "/materialdesignicons",
        "/lib/",
        "/cursor/",
        "/css/",
    ];
    const FILES: [&str; 5] =
        ["/favicon.ico", "/manifest.json", "/user.css", "/sw.js", "/robots.txt"];
    FOLDERS.iter().any(|folder| path.starts_with(folder)) || FILES.contains(&path)
}

/// The path as aiohttp matches it: decoded, except for `%2F` and `%25`.
pub(super) fn decode(raw: &str) -> Cow<'_, str> {
    if !raw.contains('%') {
        return Cow::Borrowed(raw);
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, escaped(after)) {
            (b'%', Some(b'/' | b'%')) | (_, None) => bytes.push(byte),
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
                continue;
            }
            (_, Some(_)) => bytes.push(byte),
        }
        rest = after;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// The byte for two hexadecimal digits.
fn escaped(digits: &[u8]) -> Option<u8> {
    let (high, low) = (*digits.first()?, *digits.get(1)?);
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(high)? * 16 + value(low)?).ok()
}

/// Decodes the remaining escapes of an id, after the path was split.
pub(super) fn decode_all(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "reads better in a table")]
    fn check(request: &str, expected: Endpoint) {
        let (method, path) = request.split_once(' ').unwrap();
        assert_eq!(classify(&method.parse().unwrap(), path), expected, "{request}");
    }

    #[test]
    fn a_route_is_the_same_bare_and_under_api() {
        for prefix in ["", "/api"] {
            check(&format!("POST {prefix}/prompt"), Endpoint::Submit);
            check(&format!("GET {prefix}/prompt"), Endpoint::QueueLength);
            check(&format!("HEAD {prefix}/features"), Endpoint::Features);
            check(&format!("HEAD {prefix}/view"), Endpoint::View);
            check(&format!("GET {prefix}/ws"), Endpoint::Socket);
            check(&format!("GET {prefix}/history/a%20b"), Endpoint::HistoryOf("a b".into()));
            check(&format!("POST {prefix}/userdata/w%2Fa.json"), Endpoint::UserData);
            check(&format!("GET {prefix}/"), Endpoint::Page);
        }
    }

    #[test]
    fn exceptions_to_the_prefix_are_kept() {
        check("GET /api/jobs", Endpoint::JobList);
        check("GET /api/api/jobs/x", Endpoint::Job("x".into()));
        check("GET /jobs", Endpoint::Other);
        check("POST /api/jobs/cancel", Endpoint::CancelJobs);
        check("POST /api/jobs/x/cancel", Endpoint::CancelJob("x".into()));
        check("PATCH /internal/logs/subscribe", Endpoint::SubscribeLogs);
        check("PATCH /api/internal/logs/subscribe", Endpoint::ServerLog);
        check("GET /api", Endpoint::Other);
    }

    #[test]
    fn lists_that_every_backend_has_are_known() {
        for prefix in ["", "/api"] {
            check(&format!("GET {prefix}/object_info"), Endpoint::NodeInfo);
            check(&format!("HEAD {prefix}/object_info/Load%20x"), Endpoint::NodeInfoOf);
            check(&format!("GET {prefix}/models/loras"), Endpoint::ModelList);
            check(&format!("GET {prefix}/embeddings"), Endpoint::ModelList);
            check(&format!("GET {prefix}/global_subgraphs/1f"), Endpoint::Subgraph);
        }
        check("GET /internal/files/input", Endpoint::FileList(Folder::Input));
        check("GET /internal/files/models", Endpoint::Other);
        check("GET /api/internal/files/input", Endpoint::Other);
    }

    #[test]
    fn nothing_is_normalised_that_comfyui_does_not_normalise() {
        check("POST //prompt", Endpoint::Guarded);
        check("POST /prompt/", Endpoint::Unserved);
        check("PUT /api/queue", Endpoint::Unserved);
        check("DELETE /api/jobs/x", Endpoint::Unserved);
        check("GET /queues", Endpoint::Other);
        check("GET /history/a/b", Endpoint::Unserved);
        check("GET /history/a%2Fb", Endpoint::HistoryOf("a/b".into()));
        check("POST /%70rompt", Endpoint::Submit);
        check("POST /%2570rompt", Endpoint::Guarded);
    }

    #[test]
    fn what_installs_updates_or_reboots_is_guarded_in_every_spelling() {
        for path in [
            "/manager/reboot",
            "/api/manager/reboot",
            "/%6danager/%72eboot",
            "/api/v2/manager/reboot",
            "/manager/queue/update_all",
            "/v2/snapshot/restore",
            "/customnode/install/git_url",
        ] {
            check(&format!("GET {path}"), Endpoint::Guarded);
            check(&format!("POST {path}"), Endpoint::Guarded);
        }
        check("GET /customnode/getmappings", Endpoint::ManagerList);
        check("GET /manager/version", Endpoint::ManagerList);
        check("HEAD /v2/manager/queue/%73tatus", Endpoint::ManagerList);
        check("POST /v2/manager/queue/status", Endpoint::Guarded);
        check("GET /v2/manager/get_matrix_auth", Endpoint::Guarded);
        check("GET /internal/%6cogs", Endpoint::ServerLog);
        check("POST /internal/logs/subscribe", Endpoint::ServerLog);
        check("POST /x/..%2ffree", Endpoint::Guarded);
        check("PUT /api/FREE;x", Endpoint::Free);
        check("GET /free", Endpoint::Other);
        let scan = assets::AssetRequest::Scan("/api/assets/%2573eed".to_owned());
        check("POST /api/assets/%2573eed", Endpoint::Assets(scan));
        check("POST //api/assets/%2573eed", Endpoint::Guarded);
        check("GET /assets/seed", Endpoint::Asset);
    }

    #[test]
    fn the_page_and_its_files_are_told_from_a_packs_own() {
        check("GET /index.html", Endpoint::Page);
        check("GET /assets/index-abc.js", Endpoint::Asset);
        check("GET /extensions/core/x.js", Endpoint::Asset);
        check("GET /extensions/pack/x.js", Endpoint::Other);
        check("GET /api/extensions", Endpoint::Start(StartRead(3)));
        check("POST /extensions", Endpoint::Other);
        check("GET /object_info/KSampler", Endpoint::NodeInfoOf);
        check("GET /-/whoami", Endpoint::Own("/-/whoami".into()));
        check("GET /assets/index-abc.js", Endpoint::Asset);
        check("GET /api/%61ssets", Endpoint::Assets(assets::AssetRequest::List));
        for path in
            ["/api/assets/x", "/api/assets/", "/api/tags/x", "/api/api/assets", "/api/%74ags/"]
        {
            check(&format!("GET {path}"), Endpoint::Unserved);
        }
        check("PATCH /api/assets", Endpoint::Unserved);
        check("GET /api/assetsx", Endpoint::Other);
    }
}
