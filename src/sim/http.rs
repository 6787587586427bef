//! The HTTP server: one connection, one request, and the route that answers it.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, SERVER,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::body::{SimBody, headless};
use super::compressed::{Coding, compress};
use super::python_json::dumps;
use super::state::{FileKind, Seen};
use super::{
    Faults, Hang, Shared, assets, controls, files, gate, jobs, lent, models, nodes, packs, prompts,
    sockets, users,
};
use crate::net::{Buffered, Stream, sleep};

/// `--max-upload-size`, which also applies to JSON.
const BODY_MAX: usize = 104_857_600;

const CSP: &str = "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; \
    connect-src 'self'; frame-src 'self'; object-src 'self';";

/// Serves one connection.
pub(super) async fn serve(shared: Arc<Shared>, stream: Stream) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move {
            // An error of the service breaks the connection, as intended.
            answer(&shared, request).await.ok_or(Broken)
        }
    });
    let io = TokioIo::new(Buffered::new(stream));
    let connection = http1::Builder::new().serve_connection(io, service);
    let mut connection = std::pin::pin!(connection.with_upgrades());
    let closed = shared.faults().close_connections;
    let closes = async {
        while shared.faults().close_connections == closed {
            shared.faults_changed().await;
        }
    };
    tokio::select! {
        _ = &mut connection => {}
        () = closes => {
            // As after the keep-alive timeout: a request in progress is still answered.
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the connection is broken, as requested")]
struct Broken;

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Option<Response<SimBody>> {
    let target = request.uri().path_and_query().map_or("/", |it| it.as_str()).to_owned();
    shared.server().see(Seen {
        method: request.method().to_string(),
        target,
        headers: request.headers().clone(),
    });
    let path = decode(request.uri().path());
    if let Some(control) = path.strip_prefix("/sim/") {
        return Some(controls::answer(shared, control, request).await);
    }
    while shared.faults().hashes {
        shared.faults_changed().await;
    }
    let faults = shared.faults();
    sleep_if(&faults).await;
    let said: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
    if !faults.wants.is_empty() && (said.len() != 1 || said[0] != faults.wants.as_str()) {
        return Some(text(401, "401: Unauthorized"));
    }
    let kind = format!("{} {}", request.method(), without_api(&path));
    gate::pass(shared, &kind, |faults| &faults.holds).await;
    let is_submission = kind == "POST /prompt";
    if faults.hang == Hang::All || (faults.hang == Hang::Submit && is_submission) {
        pending::<Infallible>().await;
    }
    users::until_it_saves(shared, request.method(), without_api(&path)).await;
    if faults.junk && without_api(&path) != "/ws" {
        return Some(text(200, "<html><h1>It works!</h1></html>"));
    }
    if faults.status != 0 {
        return Some(text(faults.status, "asked to fail"));
    }
    let is_head = *request.method() == Method::HEAD;
    if let Some(mut response) = super::extra::answer(shared, &path) {
        dress(&mut response);
        return Some(if is_head { headless(response) } else { response });
    }
    let coding = Coding::taken(request.headers()).filter(|_| shared.options.compress);
    let mut response = route(shared, &path, request).await?;
    gate::pass(shared, &kind, |faults| &faults.holds_answers).await;
    if faults.hang == Hang::AfterQueue && kind == "POST /queue" {
        pending::<Infallible>().await;
    }
    if let Some(coding) = coding {
        response = compress(response, coding);
    }
    dress(&mut response);
    Some(if is_head { headless(response) } else { response })
}

async fn sleep_if(faults: &Faults) {
    if 0 < faults.latency_ms {
        sleep(faults.latency()).await;
    }
}

/// Simulates `--disable-api-nodes`, which sets this policy.
fn dress(response: &mut Response<SimBody>) {
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("Python/3.11 aiohttp/3.14.5"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
}

async fn route(
    shared: &Arc<Shared>,
    path: &str,
    mut request: Request<Incoming>,
) -> Option<Response<SimBody>> {
    let is_cross_site = header(request.headers(), "sec-fetch-site") == Some("cross-site");
    if is_foreign(request.headers()) || (is_cross_site && shared.release.is_of_2026()) {
        return Some(bare(403));
    }
    let bare_path = without_api(path);
    let query = request.uri().query().unwrap_or("").to_owned();
    if !packs::may_enter(shared, request.headers(), &query) {
        return Some(text(401, "401: Unauthorized"));
    }
    if packs::is_socket(bare_path) && *request.method() == Method::GET {
        return Some(packs::upgrade(shared, path, &mut request));
    }
    if packs::is_route(bare_path) {
        let method = request.method().clone();
        let body = whole(request).await?;
        return Some(packs::answer(shared, &method, bare_path, &query, body));
    }
    if assets::are_meant(shared, request.method(), path) {
        return assets::answer(shared, path, request).await;
    }
    Some(match *request.method() {
        Method::OPTIONS => bare(200),
        Method::GET | Method::HEAD if bare_path == "/ws" => sockets::upgrade(shared, &mut request),
        Method::GET | Method::HEAD => get(shared, path, bare_path, &query, request.headers()),
        Method::POST => return post(shared, path, request).await,
        Method::PATCH if path == "/internal/logs/subscribe" => {
            subscribe(shared, &whole(request).await?)
        }
        Method::DELETE if bare_path.starts_with("/userdata/") => {
            users::delete_userdata(shared, bare_path, request.headers())
        }
        _ => not_allowed(),
    })
}

fn get(
    shared: &Shared,
    path: &str,
    bare_path: &str,
    query: &str,
    headers: &HeaderMap,
) -> Response<SimBody> {
    if let Some(named) = jobs_path(path).filter(|_| shared.release.has_jobs()) {
        return match named.strip_prefix('/') {
            None => jobs::list(shared, query),
            Some(id) => jobs::one(shared, id),
        };
    }
    if let Some(id) = bare_path.strip_prefix("/history/") {
        return prompts::history_of(shared, id);
    }
    match bare_path {
        "/prompt" => {
            let count = shared.server().memory.queue_remaining();
            json_answer(200, &json!({ "exec_info": { "queue_remaining": count } }))
        }
        "/queue" => prompts::queue(shared),
        "/history" => prompts::history(shared, query),
        "/view" => files::view(shared, query, headers),
        "/system_stats" => json_answer(200, &shared.system_stats()),
        _ if bare_path.starts_with("/object_info") => object_info(shared, bare_path, headers),
        _ => catalogue(shared, path, (bare_path, query), headers),
    }
}

fn object_info(shared: &Shared, bare_path: &str, headers: &HeaderMap) -> Response<SimBody> {
    if bare_path == "/object_info" {
        shared.seed();
    }
    let mut server = shared.server();
    assets::looked_for(shared, &mut server);
    match bare_path.strip_prefix("/object_info") {
        Some(rest) => {
            let class = (!rest.is_empty()).then(|| rest.trim_start_matches('/'));
            let known = nodes::object_info(&shared.release, class, &server.files);
            json_answer(200, &lent::listed(known, class, &server.lent))
        }
        None => files::page(shared, bare_path, headers),
    }
}

/// Data that hardly changes: models, settings, user data, and last the page.
fn catalogue(
    shared: &Shared,
    path: &str,
    (bare_path, query): (&str, &str),
    headers: &HeaderMap,
) -> Response<SimBody> {
    if let Some(folder) = bare_path.strip_prefix("/models/") {
        let known =
            shared.fixed("/models").as_array().is_some_and(|all| all.contains(&json!(folder)));
        return if known { json_answer(200, &json!([])) } else { bare(404) };
    }
    if let Some(kind) = path.strip_prefix("/internal/files/") {
        return match FileKind::parse(kind) {
            Some(kind) => files::listing(shared, kind),
            None => json_answer(400, &json!({ "error": "Invalid directory type" })),
        };
    }
    if let Some(key) = bare_path.strip_prefix("/settings/") {
        return users::settings(shared, Some(key), headers);
    }
    if bare_path.starts_with("/userdata/") {
        return users::userdata(shared, bare_path, headers);
    }
    match bare_path {
        "/features" => json_answer(200, &shared.features()),
        "/embeddings" | "/models" | "/extensions" => json_answer(200, &shared.fixed(bare_path)),
        "/users" => users::list(shared),
        "/settings" => users::settings(shared, None, headers),
        "/userdata" | "/v2/userdata" => users::list_userdata(shared, query, headers),
        "/node_replacements" if shared.release.is_of_2026() => {
            json_answer(200, &super::replace::listed())
        }
        "/i18n" | "/workflow_templates" | "/global_subgraphs" | "/node_replacements" => {
            json_answer(200, &json!({}))
        }
        "/experiment/models" => json_answer(200, &json!([])),
        "/internal/folder_paths" => json_answer(200, &shared.fixed(path)),
        "/internal/logs" => json_answer(200, &json!("")),
        "/internal/logs/raw" => {
            let size = json!({ "cols": 80, "rows": 24 });
            json_answer(200, &json!({ "entries": [], "size": size }))
        }
        _ => files::page(shared, path, headers),
    }
}

async fn post(
    shared: &Arc<Shared>,
    path: &str,
    request: Request<Incoming>,
) -> Option<Response<SimBody>> {
    let bare_path = without_api(path).to_owned();
    let headers = request.headers().clone();
    let query = request.uri().query().unwrap_or("").to_owned();
    let Ok(body) = Limited::new(request.into_body(), BODY_MAX).collect().await else {
        return Some(text(413, &format!("Maximum request body size {BODY_MAX} exceeded.")));
    };
    let body = body.to_bytes();
    if let Some(named) = jobs_path(path).filter(|_| shared.release.cancels_jobs()) {
        return Some(jobs::cancel(shared, named, &body));
    }
    Some(match bare_path.as_str() {
        "/prompt" => return prompts::submit(shared, &body).await,
        "/queue" => prompts::edit_queue(shared, &body),
        "/interrupt" => prompts::interrupt(shared, &body),
        "/history" => prompts::edit_history(shared, &body),
        "/free" => models::free(shared),
        "/upload/image" | "/upload/mask" => {
            shared.hash().await;
            files::upload(shared, &headers, body, bare_path.ends_with("mask")).await
        }
        "/users" if shared.options.multi_user => users::create(shared, &body),
        "/settings" => users::change_settings(shared, None, &headers, &body),
        _ if bare_path.starts_with("/settings/") => {
            let key = bare_path.trim_start_matches("/settings/");
            users::change_settings(shared, Some(key), &headers, &body)
        }
        _ if bare_path.starts_with("/userdata/") => {
            users::put_userdata(shared, &bare_path, &query, &headers, body)
        }
        _ => not_allowed(),
    })
}

fn subscribe(shared: &Shared, body: &[u8]) -> Response<SimBody> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return prompts::trouble() };
    let (Some(client), Some(enabled)) = (body["clientId"].as_str(), body["enabled"].as_bool())
    else {
        return prompts::trouble();
    };
    let mut server = shared.server();
    let is_connected = server.memory.sockets.contains_key(client);
    server.memory.log_subscribers.retain(|known| known != client);
    if enabled && is_connected {
        server.memory.log_subscribers.push(client.to_owned());
        drop(server);
        let entry = json!({ "t": "2026-01-07T00:00:00", "m": "subscribed\n" });
        shared.say("logs", &json!({ "entries": [entry], "size": null }), Some(client));
    }
    bare(200)
}

/// The whole body of a request; `None` if it broke off or is too large.
pub(super) async fn whole(request: Request<Incoming>) -> Option<Bytes> {
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    body.ok().map(http_body_util::Collected::to_bytes)
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `server.py:141`: a page of another origin may not use a loopback server.
fn is_foreign(headers: &HeaderMap) -> bool {
    let named = (header(headers, HOST.as_str()), header(headers, ORIGIN.as_str()));
    let (Some(host), Some(origin)) = named else { return false };
    let is_loopback = ["127.", "localhost", "[::1]"].iter().any(|it| host.starts_with(it));
    let origin = origin.split_once("://").map_or("", |(_, authority)| authority);
    is_loopback && !origin.is_empty() && origin != host
}

fn jobs_path(path: &str) -> Option<&str> {
    let rest = without_api(path.strip_prefix("/api")?).strip_prefix("/jobs")?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

pub(super) fn without_api(path: &str) -> &str {
    match path.strip_prefix("/api") {
        Some(rest) if rest.starts_with('/') && !rest.starts_with("/internal") => rest,
        Some(_) | None => path,
    }
}

/// Decodes a path as aiohttp does: everything except `%2F` and `%25`.
fn decode(raw: &str) -> String {
    let kept = raw.replace("%2F", "%252F").replace("%2f", "%252F").replace("%25", "%2525");
    let kept = kept.replace("%25252F", "%252F");
    percent_encoding::percent_decode_str(&kept).decode_utf8_lossy().into_owned()
}

/// An answer without a body.
pub(super) fn bare(status: u16) -> Response<SimBody> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}

pub(super) fn empty() -> SimBody {
    SimBody::Whole(None)
}

pub(super) fn text(status: u16, text: &str) -> Response<SimBody> {
    let mut response = bytes(status, text.to_owned(), "text/plain; charset=utf-8");
    if status == 500 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

pub(super) fn json_answer(status: u16, value: &Value) -> Response<SimBody> {
    bytes(status, dumps(value), "application/json; charset=utf-8")
}

pub(super) fn bytes(
    status: u16,
    body: impl Into<Bytes>,
    content_type: &'static str,
) -> Response<SimBody> {
    let mut response = bare(status);
    *response.body_mut() = SimBody::Whole(Some(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn not_allowed() -> Response<SimBody> {
    let mut response = text(405, "405: Method Not Allowed");
    response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET,HEAD"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_a_segment_stays_encoded() {
        assert_eq!(decode("/userdata/workflows%2Fa%20b.json"), "/userdata/workflows%2Fa b.json");
        assert_eq!(decode("/%70rompt"), "/prompt");
    }
}
