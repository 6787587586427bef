//! Browsers get in under `auth.mode = "keys"`: the login page, sessions, and what no other page may
//! have a browser do that is logged in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, Method};
use mooring::auth::file::{self, Missing};
use mooring::auth::key::KeyHash;
use mooring::auth::password::PasswordHash;
use mooring::auth::{Role, User, UserTable};
use mooring::config::{AuthConfig, BasePath, Config, OnOff, StateDir};
use mooring::net::Stream;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, World, network, quick, send, soon};

const BOTH_WAYS: [OnOff; 2] = [OnOff::On, OnOff::Off];

/// What a browser asks for when somebody opens an address.
const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

const ADA: &str = "correct horse";
const BOB: &str = "battery staple";

fn user(name: &str, password: &str) -> User {
    User {
        name: name.parse().unwrap(),
        role: Role::Artist,
        generation: 1,
        key: KeyHash::of(format!("key-of-{name}").as_bytes()),
        password: Some(PasswordHash::of(password).unwrap()),
    }
}

fn users() -> UserTable {
    // Hashing is slow by intent.
    static USERS: LazyLock<[User; 2]> = LazyLock::new(|| [user("ada", ADA), user("bob", BOB)]);
    UserTable::of(USERS.clone()).unwrap()
}

async fn world(change: impl FnOnce(&mut Config)) -> World {
    let world = World::with(1, |config| {
        config.auth = AuthConfig::keys(users());
        change(config);
    })
    .await;
    world.all_up().await;
    world
}

async fn world_of(folder: &TempDir, change: impl FnOnce(&mut Config)) -> World {
    let path = folder.path().join("users.toml");
    fs::write(&path, users().to_text()).unwrap();
    world(|config| {
        config.auth.users_file = Some(path);
        change(config);
    })
    .await
}

fn change(folder: &TempDir, change: impl FnOnce(&UserTable) -> UserTable) {
    let path = folder.path().join("users.toml");
    file::change(&path, Missing::IsWrong, |users| Ok((change(users), ()))).unwrap();
}

/// A browser, as far as it matters here: it keeps cookies, and says of which page it asks.
struct Browser<'w> {
    world: &'w World,
    base: &'static str,
    cookies: BTreeMap<String, String>,
    /// What it says besides.
    lines: Vec<(&'static str, String)>,
}

impl<'w> Browser<'w> {
    fn new(world: &'w World) -> Self {
        Self { world, base: "", cookies: BTreeMap::new(), lines: Vec::new() }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.world.front)
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        more: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let cookies = self.cookie_line();
        let mut headers: Vec<(&str, &str)> = more.to_vec();
        headers.extend(self.lines.iter().map(|(name, value)| (*name, value.as_str())));
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        let answer = send(self.world.front, method, path, &headers, body).await;
        self.keep(&answer.headers);
        answer
    }

    fn cookie_line(&self) -> String {
        let pairs = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, headers: &HeaderMap) {
        for set in headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            if set.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Opens an address.
    async fn open(&mut self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[PAGE], "").await
    }

    /// Sends a form of the page that was opened.
    async fn submit(&mut self, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        let text = page.text();
        let mut form = form_urlencoded::Serializer::new(String::new());
        for name in ["token", "next"] {
            form.append_pair(name, hidden(&text, name));
        }
        form.extend_pairs(fields);
        let (path, origin) = (format!("{}/-/login", self.base), self.origin());
        assert!(text.contains(&format!("action=\"{path}\"")), "{text}");
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let headers = [PAGE, kind, ("origin", &*origin)];
        self.ask(Method::POST, &path, &headers, &form.finish()).await
    }

    async fn log_in(&mut self, name: &str, password: &str) -> Answer {
        let page = self.open(&format!("{}/", self.base)).await;
        self.submit(&page, &[("name", name), ("password", password)]).await
    }

    async fn log_out(&mut self, path: &str) -> Answer {
        let origin = self.origin();
        self.ask(Method::POST, path, &[PAGE, ("origin", &origin)], "").await
    }

    async fn who(&mut self) -> serde_json::Value {
        self.ask(Method::GET, "/-/whoami", &[], "").await.json()["user"]["name"].clone()
    }

    /// A socket of its page, opened as bytes.
    async fn socket(&self, target: &str) -> Stream {
        let (host, port) = (self.world.front.ip().to_string(), self.world.front.port());
        let mut stream = network().connect(&host, port).await.unwrap();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nOrigin: {}\r\nCookie: {}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.world.front,
            self.origin(),
            self.cookie_line()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("status") {
            let more = soon("the socket opens", stream.read_buf(&mut read)).await.unwrap();
            assert!(more != 0, "{}", String::from_utf8_lossy(&read));
        }
        stream
    }
}

/// The value of a field that a page has put into its form.
fn hidden<'p>(page: &'p str, name: &str) -> &'p str {
    let start = format!("name=\"{name}\" value=\"");
    let rest = page.split(&start).nth(1).unwrap_or_else(|| panic!("no field {name}: {page}"));
    rest.split('"').next().unwrap()
}

/// Waits until a socket is closed, with 1008 (RFC 6455 section 7.4.1).
async fn is_barred(mut socket: Stream) {
    let mut read = Vec::new();
    let _ = soon("the socket's end", socket.read_to_end(&mut read)).await;
    assert!(read.windows(2).any(|two| two == 1008_u16.to_be_bytes()), "{read:?}");
}

fn told(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("mooring-error"))
}

fn is_form(answer: &Answer) -> bool {
    answer.text().contains("<form method=\"post\" action=\"")
        && answer.text().contains("name=\"password\"")
}

fn asked(world: &World, mark: &str) -> Vec<String> {
    let all = world.sim("a").requests();
    let marked = all.into_iter().filter(|seen| seen.target.contains(mark));
    marked.map(|seen| format!("{} {} {:?}", seen.method, seen.target, seen.headers)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_logouts_and_changes_of_users_are_in_the_audit_log_and_no_secret_is() {
    let folder = tempfile::tempdir().unwrap();
    let world = world_of(&folder, |_| {}).await;
    let log = crate::audit::AuditLog::of(&world);
    let mut browser = Browser::new(&world);
    browser.log_in("ada", "wrong password").await;
    browser.log_in("a typed password", "wrong password").await;
    assert_eq!(browser.log_in("ada", ADA).await.status, 303);
    let sessions: Vec<String> = browser.cookies.values().cloned().collect();
    browser.log_out("/-/logout").await;
    let key = [("x-api-key", "a-wrong-key-of-mallory")];
    assert_eq!(send(world.front, Method::GET, "/queue", &key, "").await.status, 401);
    let lines = log.lines(5).await;
    let told: Vec<(&str, &str)> = lines.iter().map(crate::audit::said).collect();
    assert_eq!(
        told,
        [
            ("login", "refused: bad_login"),
            ("login", "refused: bad_login"),
            ("login", "done"),
            ("logout", "done"),
            ("request", "refused: unknown"),
        ]
    );
    let users: Vec<&serde_json::Value> = lines.iter().map(|line| &line["who"]["user"]).collect();
    let ada = serde_json::Value::from("ada");
    let nobody = serde_json::Value::Null;
    assert_eq!(users, [&ada, &nobody, &ada, &ada, &nobody]);
    assert_eq!(lines[2]["who"]["role"], "artist");
    change(&folder, |users| users.without(&"bob".parse().unwrap()));
    let lines = log.lines(6).await;
    assert_eq!(crate::audit::said(&lines[5]), ("users.reload", "done"));
    assert_eq!(lines[5]["before"]["bob"]["role"], "artist");
    assert_eq!(lines[5]["after"], serde_json::json!({}));
    let text = log.end().await;
    let secrets = ["wrong password", "typed", ADA, "mallory", "key-of-ada"];
    for secret in secrets.into_iter().chain(sessions.iter().map(String::as_str)) {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_opens_an_address_gets_the_form_and_all_else_is_401_as_before() {
    for passthrough in BOTH_WAYS {
        let world = world(|config| config.server.passthrough = passthrough).await;
        let navigate = ("sec-fetch-mode", "navigate");
        for (method, path, headers, expected) in [
            ("GET", "/mark", &[PAGE][..], true),
            ("GET", "/", &[PAGE, navigate], true),
            ("GET", "/mark", &[navigate], true),
            ("GET", "/queue?x=1", &[PAGE], true),
            ("GET", "/-/whoami", &[PAGE], true),
            ("POST", "/mark", &[navigate], true),
            ("GET", "/mark", &[], false),
            ("GET", "/mark", &[("accept", "*/*")], false),
            ("GET", "/mark", &[PAGE, ("sec-fetch-mode", "cors")], false),
            ("GET", "/mark", &[PAGE, ("sec-fetch-mode", "no-cors")], false),
            ("POST", "/prompt?mark", &[PAGE], false),
        ] {
            let method: Method = method.parse().unwrap();
            let answer = send(world.front, method, path, headers, "").await;
            assert_eq!(told(&answer), (401, "unauthorized"), "{path} {headers:?}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert_eq!(is_form(&answer), expected, "{path} {headers:?}: {}", answer.text());
            if expected {
                let policy = answer.header("content-security-policy");
                assert!(policy.starts_with("default-src 'none'; style-src 'nonce-"), "{policy}");
                assert_eq!(answer.header("cache-control"), "no-store");
                let cookies = answer.headers.get_all("set-cookie").iter().count();
                assert_eq!(cookies, 1, "its own and no other");
            }
        }
        let page = send(world.front, Method::GET, "/-/login", &[], "").await;
        assert!(page.status == 200 && is_form(&page));
        let wrong = send(world.front, Method::PUT, "/-/login", &[], "").await;
        assert_eq!((told(&wrong), wrong.header("allow")), ((405, "bad_method"), "GET, HEAD, POST"));
        assert_eq!(asked(&world, "mark"), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_off_nobody_is_asked_to_log_in() {
    let world = World::new(1).await;
    for (method, path) in [(Method::GET, "/-/login"), (Method::POST, "/-/logout")] {
        assert_eq!(told(&send(world.front, method, path, &[], "").await), (404, "not_found"));
    }
}

/// All that a page does: no backend sees a session or any other cookie of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_lets_in_and_no_backend_hears_of_the_session() {
    for passthrough in BOTH_WAYS {
        let world = world(|config| config.server.passthrough = passthrough).await;
        let mut ada = Browser::new(&world);
        let page = ada.open("/mark?a=b").await;
        let typed = [("name", "ada"), ("password", ADA)];
        let answer = ada.submit(&page, &typed).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/mark?a=b"));
        assert_eq!(ada.who().await, "ada");
        let session = ada.cookies["mooring_session"].clone();
        let origin = ada.origin();
        ada.cookies.insert("theirs".to_owned(), "1".to_owned());
        for path in ["/mark/a", "/mark/b", "/", "/object_info", "/queue", "/userdata?dir=mark"] {
            let answer = ada.ask(Method::GET, path, &[("comfy-client-id", "c-ada")], "").await;
            assert!(![401, 403].contains(&answer.status), "{path}: {}", answer.text());
        }
        // In places where we do not look for it.
        for line in [
            format!("Mooring_Session={session}"),
            format!("a=b, mooring_session={session}"),
            format!("mooring_session={session}; mooring_session={session}; theirs=1"),
            format!("x=\"mooring_session={session}\""),
        ] {
            let key = ("x-api-key", "key-of-ada");
            send(world.front, Method::GET, "/mark/c", &[key, ("cookie", &line)], "").await;
        }
        let body = serde_json::json!({ "client_id": "c-ada", "prompt": quick(3) }).to_string();
        let more = [("origin", &*origin), ("content-type", "application/json")];
        let answer = ada.ask(Method::POST, "/prompt", &more, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let _socket = ada.socket("/ws?clientId=c-ada").await;
        let all = asked(&world, "");
        assert!(all.iter().any(|seen| seen.contains("/mark/a") && seen.contains("theirs=1")));
        assert_eq!(all.iter().filter(|seen| seen.contains("/mark/c")).count(), 4);
        for seen in all {
            assert!(!seen.contains(&session) && !seen.contains("mooring_"), "{seen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_logs_in_too_and_each_login_is_another_session() {
    let world = world(|_| ()).await;
    let mut ada = Browser::new(&world);
    let page = ada.open("/-/login?next=/queue").await;
    let answer = ada.submit(&page, &[("key", " key-of-ada ")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/queue"));
    let account = ada.open("/-/login").await.text();
    assert!(account.contains("<strong>ada</strong>") && account.contains("Log out"), "{account}");
    let first = ada.cookies["mooring_session"].clone();
    ada.cookies.remove("mooring_session");
    ada.log_in("ada", ADA).await;
    assert_ne!(ada.cookies["mooring_session"], first);
    // By a key alone there is nothing to end.
    let by_key = send(world.front, Method::GET, "/-/login", &[("x-api-key", "key-of-ada")], "");
    assert!(by_key.await.text().contains("Your requests have a key"));
}

/// Neither text nor status says whether anybody has a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_wrong_is_told_the_same_whatever_is_wrong() {
    let world = world(|_| ()).await;
    let mut answers = Vec::new();
    for (name, password) in [("ada", "guess"), ("eve", ADA), ("ada", BOB), ("a b", "xyzzy")] {
        let mut browser = Browser::new(&world);
        let page = browser.open("/").await;
        let answer = browser.submit(&page, &[("name", name), ("password", password)]).await;
        assert_eq!(told(&answer), (401, "bad_login"), "{name}");
        assert!(!browser.cookies.contains_key("mooring_session"));
        let said = answer.text().split("role=\"alert\">").nth(1).unwrap().to_owned();
        answers.push(said.split("</p>").next().unwrap().to_owned());
        assert!(is_form(&answer) && !answer.text().contains(password), "it can be tried again");
        assert_eq!(hidden(&answer.text(), "next"), "/");
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let mut browser = Browser::new(&world);
    let page = browser.open("/").await;
    for fields in [&[][..], &[("name", "ada")], &[("password", ADA)]] {
        assert_eq!(told(&browser.submit(&page, fields).await), (400, "bad_form"));
    }
    let twice = [("name", "ada"), ("name", "bob"), ("password", ADA)];
    assert_eq!(told(&browser.submit(&page, &twice).await), (400, "bad_form"));
    let long = "x".repeat(20_000);
    let answer = browser.submit(&page, &[("name", "ada"), ("password", &long)]).await;
    assert_eq!(told(&answer), (413, "body_too_large"));
    let metrics = world.admin_get("/metrics").await.text();
    for counted in ["outcome=\"wrong\"} 4", "outcome=\"bad_form\"} 5"] {
        assert!(metrics.contains(&format!("mooring_auth_logins_total{{{counted}")), "{metrics}");
    }
}

/// A form that this browser was not shown, of whatever page, logs nobody in or out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_page_logs_anybody_in_or_out() {
    let world = world(|config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let own = format!("http://{}", world.front);
    let mut eve = Browser::new(&world);
    let page = eve.open("/").await;
    let token = hidden(&page.text(), "token").to_owned();
    let cookie = eve.cookie_line();
    let body = format!("token={token}&next=/&key=key-of-bob");
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let mut ada = Browser::new(&world);
    ada.log_in("ada", ADA).await;
    for origin in ["", &own, "https://evil.example", "https://app.example", "null"] {
        for site in ["", "same-origin", "same-site", "cross-site", "none"] {
            let mut headers = vec![kind];
            headers.extend([("origin", origin)].into_iter().filter(|_| !origin.is_empty()));
            headers.extend([("sec-fetch-site", site)].into_iter().filter(|_| !site.is_empty()));
            let is_own = match (origin, site) {
                (_, "same-site" | "cross-site") | ("", "" | "none") => false,
                ("https://app.example", _) => false,
                (_, "same-origin") => true,
                (origin, _) => origin == own,
            };
            let line = ada.cookie_line();
            let mut with = headers.clone();
            with.push(("cookie", &line));
            let out = send(world.front, Method::POST, "/-/logout?x", &with, "").await;
            assert_eq!(out.status, if is_own { 303 } else { 403 }, "{origin} {site}");
            if is_own {
                ada.log_in("ada", ADA).await;
            } else {
                assert_eq!(ada.who().await, "ada", "{origin} {site}");
            }
            let mut with = headers.clone();
            with.push(("cookie", &cookie));
            let answer = send(world.front, Method::POST, "/-/login", &with, &body).await;
            assert_eq!(answer.status, if is_own { 303 } else { 403 }, "{origin} {site}");
            // Of another browser's form, and without one.
            let alone = send(world.front, Method::POST, "/-/login", &headers, &body).await;
            assert_eq!(alone.status, if is_own { 400 } else { 403 }, "{origin} {site}");
        }
    }
}

/// What a request has that may change something.
struct Row<'a> {
    origin: &'a str,
    site: &'a str,
    method: &'a str,
    by: &'a str,
}

impl Row<'_> {
    /// Whether it may reach a backend; else its status.
    fn expected(&self, own: &str) -> Result<(), u16> {
        let Self { origin, site, method, by } = *self;
        // A page without an origin may be anybody's: no cookie counts there.
        let is_nobody = by == "nobody" || by == "session" && origin == "null";
        if is_nobody {
            return Err(401);
        }
        let is_foreign = match (origin, site) {
            ("https://app.example" | "null", _) => false,
            ("", site) => matches!(site, "same-site" | "cross-site"),
            (_, "same-origin") => false,
            (_, "same-site" | "cross-site") => true,
            (origin, _) => origin != own,
        };
        let is_unsaid = origin.is_empty() && site != "same-origin";
        let changes = !matches!(method, "GET" | "HEAD" | "OPTIONS");
        let is_forgeable = by == "session" && changes && is_unsaid;
        if is_foreign || is_forgeable { Err(403) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_changes_nothing_but_for_pages_of_ours_and_those_that_are_allowed() {
    for passthrough in BOTH_WAYS {
        let world = world(|config| {
            config.server.passthrough = passthrough;
            config.server.allowed_origins =
                vec!["https://app.example".to_owned(), "null".to_owned()];
        })
        .await;
        let own = format!("http://{}", world.front);
        let mut ada = Browser::new(&world);
        ada.log_in("ada", ADA).await;
        let cookie = ada.cookie_line();
        let mut rows = 0;
        for (by, credential) in [
            ("session", Some(("cookie", &*cookie))),
            ("key", Some(("x-api-key", "key-of-ada"))),
            ("nobody", None),
        ] {
            for origin in ["", &own, "https://evil.example", "https://app.example", "null"] {
                for site in ["", "same-origin", "same-site", "cross-site", "none"] {
                    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"] {
                        rows += 1;
                        let path = format!("/{}/n{rows}~", ["mark", "api/mark"][rows % 2]);
                        let mut headers: Vec<(&str, &str)> = credential.into_iter().collect();
                        headers.extend([("origin", origin)].iter().filter(|it| !it.1.is_empty()));
                        headers.extend(
                            [("sec-fetch-site", site)].iter().filter(|it| !it.1.is_empty()),
                        );
                        let sent = method.parse().unwrap();
                        let answer = send(world.front, sent, &path, &headers, "").await;
                        let row = Row { origin, site, method, by };
                        let what = format!("{by} {method} origin={origin} site={site}");
                        let reached = asked(&world, &format!("/n{rows}~")).len();
                        match row.expected(&own) {
                            Ok(()) => assert_eq!(reached, 1, "{what}: {}", answer.text()),
                            Err(status) => {
                                assert_eq!((answer.status, reached), (status, 0), "{what}");
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(rows, 525);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_by_a_session_is_for_pages_of_ours_alone() {
    let world = world(|_| ()).await;
    let mut ada = Browser::new(&world);
    ada.log_in("ada", ADA).await;
    let own = ada.origin();
    for target in ["/ws?clientId=a", "/tunnelled/echo"] {
        for (origin, status) in
            [(Some("https://evil.example"), 403), (None, 403), (Some(&*own), 101)]
        {
            let (host, port) = (world.front.ip().to_string(), world.front.port());
            let mut stream = network().connect(&host, port).await.unwrap();
            let line = origin.map(|it| format!("Origin: {it}\r\n")).unwrap_or_default();
            let head = format!(
                "GET {target} HTTP/1.1\r\nHost: {}\r\n{line}Cookie: {}\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                world.front,
                ada.cookie_line()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut read = Vec::new();
            while !String::from_utf8_lossy(&read).contains("\r\n") {
                soon("an answer", stream.read_buf(&mut read)).await.unwrap();
            }
            let start = format!("HTTP/1.1 {status} ");
            let answer = String::from_utf8_lossy(&read);
            assert!(answer.starts_with(&start), "{target} {origin:?}: {answer}");
        }
    }
}

/// Each of what ends sessions: sockets are closed, and who opens an address gets the form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_a_session_closes_its_sockets() {
    let with = |users: &UserTable, user: User| users.with(user).unwrap();
    for what in ["logout", "everywhere", "removal", "generation", "password", "by hand", "age"] {
        let folder = tempfile::tempdir().unwrap();
        let world = world_of(&folder, |config| {
            if what == "age" {
                config.auth.session_lifetime = Duration::from_secs(5);
            }
        })
        .await;
        let mut ada = Browser::new(&world);
        ada.log_in("ada", ADA).await;
        let mut bob = Browser::new(&world);
        if what != "age" {
            bob.log_in("bob", BOB).await;
        }
        let socket = ada.socket("/ws?clientId=a").await;
        let session = ada.cookie_line();
        let before = users();
        let before = before.get(&"ada".parse().unwrap()).unwrap();
        match what {
            "logout" => {
                let out = ada.log_out("/-/logout").await;
                assert_eq!((out.status, out.header("location")), (303, "/-/login?out=1"));
                assert!(!ada.cookies.contains_key("mooring_session"));
            }
            "everywhere" => {
                let mut other = Browser::new(&world);
                other.log_in("ada", ADA).await;
                other.log_out("/-/logout?everywhere=1").await;
            }
            "removal" => change(&folder, |users| users.without(&before.name)),
            "generation" => change(&folder, |users| {
                with(users, User { generation: 2, ..before.as_ref().clone() })
            }),
            "password" => change(&folder, |users| {
                let password = Some(PasswordHash::of("another one").unwrap());
                with(users, User { generation: 2, password, ..before.as_ref().clone() })
            }),
            // Somebody has changed the file himself, and left the generation as it was.
            "by hand" => change(&folder, |users| {
                let password = Some(PasswordHash::of("another one").unwrap());
                with(users, User { password, ..before.as_ref().clone() })
            }),
            _ => {}
        }
        is_barred(socket).await;
        let headers = [PAGE, ("cookie", &*session)];
        for path in ["/", "/mark", "/-/whoami"] {
            let answer = send(world.front, Method::GET, path, &headers, "").await;
            assert!(answer.status == 401 && is_form(&answer), "{what}: {path}");
        }
        if what != "age" {
            assert_eq!(bob.who().await, "bob", "{what}");
        }
        // Who comes back is another session, where he may come back.
        let again = Browser::new(&world).log_in("ada", ADA).await.status;
        assert_eq!(
            again,
            if matches!(what, "removal" | "password" | "by hand") { 401 } else { 303 },
            "{what}"
        );
    }
}

/// Each way of answering ends what has no end of its own when the session is too old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_too_old_gets_no_more_of_a_long_answer() {
    const LENGTH: u64 = 1 << 40;
    let of = |passthrough| async move {
        let world = world(|config| {
            config.server.passthrough = passthrough;
            config.auth.session_lifetime = Duration::from_secs(5);
        })
        .await;
        let mut ada = Browser::new(&world);
        let page = ada.open("/").await;
        assert_eq!(ada.submit(&page, &[("key", "key-of-ada")]).await.status, 303);
        let (host, port) = (world.front.ip().to_string(), world.front.port());
        let mut stream = network().connect(&host, port).await.unwrap();
        let line = ada.cookie_line();
        let request = format!(
            "GET /sim/blob?bytes={LENGTH} HTTP/1.1\r\nHost: {}\r\nCookie: {line}\r\n\r\n",
            world.front
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut piece = vec![0; 64 << 10];
        assert_ne!(soon("its beginning", stream.read(&mut piece)).await.unwrap(), 0);
        assert!(piece.starts_with(b"HTTP/1.1 200 "), "{passthrough:?}");
        let ended = async { while matches!(stream.read(&mut piece).await, Ok(1..)) {} };
        soon("its end", ended).await;
        assert!(world.sim("a").blob_bytes() < LENGTH, "{passthrough:?}");
        assert_eq!(ada.open("/").await.status, 401, "{passthrough:?}");
    };
    tokio::join!(of(OnOff::On), of(OnOff::Off));
}

/// A session is ended for good, and others outlive a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_their_ends_outlive_a_restart() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = |at: usize| {
        let state = folders[at].path().to_owned();
        world(move |config| config.state.dir = StateDir::Written(state))
    };
    let first = start(0).await;
    let (mut ada, mut bob) = (Browser::new(&first), Browser::new(&first));
    ada.log_in("ada", ADA).await;
    bob.log_in("bob", BOB).await;
    let (of_ada, of_bob) = (ada.cookie_line(), bob.cookie_line());
    ada.log_out("/-/logout").await;
    // What another process finds there; this one still has the folder.
    for name in ["session.key", "sessions.ended"] {
        fs::copy(folders[0].path().join(name), folders[1].path().join(name)).unwrap();
    }
    let second = start(1).await;
    for (cookies, status) in [(&of_ada, 401), (&of_bob, 200)] {
        let headers = [("cookie", cookies.as_str())];
        let answer = send(second.front, Method::GET, "/-/whoami", &headers, "").await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

/// Whoever takes over a browser is nobody of those who had it before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_user_of_a_browser_is_not_the_first() {
    let world = world(|_| ()).await;
    let mut browser = Browser::new(&world);
    browser.log_in("ada", ADA).await;
    let (mark, page) =
        (browser.cookies["mooring_mark"].clone(), browser.cookies["mooring"].clone());
    let origin = browser.origin();
    let body = serde_json::json!({ "client_id": "c-ada", "prompt": quick(3) }).to_string();
    let answer = browser.ask(Method::POST, "/prompt", &[("origin", &origin)], &body).await;
    let prompt = answer.prompt_id();
    let known = browser.ask(Method::GET, "/-/whoami", &[], "").await.json();
    assert_eq!(known["known"], true, "by the cookie alone: {known}");
    browser.log_out("/-/logout").await;
    browser.log_in("bob", BOB).await;
    assert_ne!(browser.cookies["mooring"], page);
    assert_ne!(browser.cookies["mooring_mark"], mark);
    // Also with the first one's page cookie beside his own session.
    browser.cookies.insert("mooring".to_owned(), page);
    let who = browser.ask(Method::GET, "/-/whoami", &[], "").await.json();
    assert_eq!((&who["user"]["name"], &who["known"]), (&"bob".into(), &false.into()), "{who}");
    let history = browser.ask(Method::GET, "/history", &[], "").await.text();
    assert!(!history.contains(&prompt), "{history}");
    // What has ended is a user's, wherever he logs in.
    let mut ada = Browser::new(&world);
    ada.log_in("ada", ADA).await;
    soon("it has ended", async {
        while !ada.ask(Method::GET, "/history", &[], "").await.text().contains(&prompt) {}
    })
    .await;
}

/// Of two users' sessions, one of which somebody has planted, neither counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_planted_beside_ones_own_does_not_count() {
    let world = world(|_| ()).await;
    let (mut ada, mut bob) = (Browser::new(&world), Browser::new(&world));
    ada.log_in("ada", ADA).await;
    bob.log_in("bob", BOB).await;
    let session = |it: &Browser<'_>| format!("mooring_session={}", it.cookies["mooring_session"]);
    for (line, status) in [
        (format!("{}; {}", session(&ada), session(&bob)), 401),
        (format!("{}; mooring_session=x", session(&ada)), 200),
        (format!("__Host-{}", session(&ada)), 401),
    ] {
        for path in ["/-/whoami", "/object_info"] {
            let answer = send(world.front, Method::GET, path, &[("cookie", &line)], "").await;
            assert_eq!(answer.status, status, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_are_few_and_keep_no_honest_user_out() {
    let world = world(|config| {
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let mut known = Browser::new(&world);
    known.log_in("ada", ADA).await;
    known.log_out("/-/logout").await;
    let from = |address: &str| vec![("x-forwarded-for", address.to_owned())];
    let mut eve = Browser { lines: from("2001:db8::1"), ..Browser::new(&world) };
    let mut statuses = Vec::new();
    for number in 0..8 {
        // Other addresses of one network are one.
        eve.lines = from(&format!("2001:db8::{number}"));
        let answer = eve.log_in("ada", "wrong").await;
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!(answer.header("mooring-error"), "too_many_guesses");
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=13).contains(&wait), "{wait}");
            assert!(is_form(&answer) && answer.text().contains("try again in"));
        }
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
    // Also with the right one: it is not even looked at.
    assert_eq!(eve.log_in("ada", ADA).await.status, 429);
    // A browser from which she came in before, and other networks.
    known.lines = from("2001:db8::1");
    assert_eq!(known.log_in("ada", ADA).await.status, 303);
    let mut other = Browser { lines: from("2001:db8:0:1::1"), ..Browser::new(&world) };
    assert_eq!(other.log_in("ada", ADA).await.status, 303);
}

/// Below a base path, and over TLS as a proxy says it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_are_of_the_place_where_the_front_is() {
    for (base, is_tls, prefix, path) in [
        ("/", false, "", "/"),
        ("/", true, "__Host-", "/"),
        ("/comfy/", false, "", "/comfy/"),
        ("/comfy/", true, "__Secure-", "/comfy/"),
    ] {
        let world = world(|config| {
            config.server.base_path = BasePath::parse(base).unwrap();
            config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        })
        .await;
        let mut ada = Browser::new(&world);
        ada.base = if base == "/" { "" } else { "/comfy" };
        if is_tls {
            ada.lines = vec![("x-forwarded-proto", "https".to_owned())];
        }
        if base != "/" {
            for beside in ["/", "/comfy", "/queue"] {
                let page = ada.open(beside).await;
                assert_eq!((page.status, hidden(&page.text(), "next")), (401, "/comfy/"));
            }
        }
        let page = ada.open(&format!("{}/mark?x=1", ada.base)).await;
        let host = world.front.to_string();
        let origin = format!("{}://{host}", if is_tls { "https" } else { "http" });
        let form = format!(
            "token={}&name=ada&password=correct+horse&next={}%2Fmark",
            hidden(&page.text(), "token"),
            ada.base
        );
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let target = format!("{}/-/login", ada.base);
        let answer = ada.ask(Method::POST, &target, &[kind, ("origin", &origin)], &form).await;
        assert_eq!(answer.status, 303, "{base} {is_tls}: {}", answer.text());
        assert_eq!(answer.header("location"), format!("{}/mark", ada.base));
        let set: Vec<&str> =
            answer.headers.get_all("set-cookie").iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(set.len(), 3, "{set:?}");
        for (set, name) in set.iter().zip(["mooring_session", "mooring_mark", "mooring"]) {
            assert!(set.starts_with(&format!("{prefix}{name}=")), "{set}");
            assert!(set.contains(&format!("; Path={path};")), "{set}");
            assert_eq!(set.contains("; Secure"), is_tls, "{set}");
            assert_eq!(set.contains("; HttpOnly"), name != "mooring_mark", "{set}");
            assert!(set.contains("; SameSite=Lax"), "{set}");
        }
        let who = ada.ask(Method::GET, &format!("{}/-/whoami", ada.base), &[], "").await;
        assert_eq!(who.json()["user"]["name"], "ada");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_leads_nowhere_but_to_pages_of_ours() {
    let world = world(|_| ()).await;
    for next in ["//evil.example/", "/\\evil.example", "https://evil.example", "/\t/evil.example"] {
        let mut ada = Browser::new(&world);
        let page = ada.open("/").await;
        let body = page
            .text()
            .replace("name=\"next\" value=\"/\"", &format!("name=\"next\" value=\"{next}\""));
        let page = Answer { body: body.into(), ..page };
        let answer = ada.submit(&page, &[("key", "key-of-ada")]).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{next}");
    }
}

/// A link of another page opens the form, and says nothing of where it leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_page_does_not_say_where_a_login_leads() {
    let world = world(|_| ()).await;
    for (site, next, leads) in [
        ("same-origin", "/queue?x=1", "/queue?x=1"),
        ("none", "/queue?x=1", "/queue?x=1"),
        ("cross-site", "", "/"),
        ("same-site", "", "/"),
    ] {
        let mut ada = Browser::new(&world);
        let said = [PAGE, ("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
        let page = ada.ask(Method::GET, "/-/login?next=%2Fqueue%3Fx%3D1", &said, "").await;
        assert_eq!((page.status, hidden(&page.text(), "next")), (200, next), "{site}");
        let answer = ada.submit(&page, &[("key", "key-of-ada")]).await;
        assert_eq!((answer.status, answer.header("location")), (303, leads), "{site}");
    }
}

/// Whoever is behind one address with those who guess comes in with his key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_guesses_of_neighbours_keep_no_key_out() {
    let world = world(|_| ()).await;
    let mut eve = Browser::new(&world);
    let page = eve.open("/").await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(eve.submit(&page, &[("key", "key-of-eve")]).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
    let mut ada = Browser::new(&world);
    let page = ada.open("/").await;
    assert_eq!(ada.submit(&page, &[("key", "key-of-ada")]).await.status, 303);
}

/// A key that signs sessions where the configuration says so.
#[test]
fn a_session_key_stands_in_a_file_that_is_long_enough() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("users.toml"), users().to_text()).unwrap();
    let text = "[auth]\nmode = \"keys\"\nusers_file = \"users.toml\"\n\
                session_key_file = \"key\"\n[backends.a]\nurl = \"http://127.0.0.1:9\"\n";
    fs::write(folder.path().join("mooring.toml"), text).unwrap();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
        let output = command.arg("check").current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (content, told) in [
        (None, "`key` cannot be read: No such file"),
        (Some("short"), "`key` has 5 characters, and has to have 32 or more"),
        (Some(""), "`key` is empty"),
    ] {
        if let Some(content) = content {
            fs::write(folder.path().join("key"), content).unwrap();
        }
        let (code, err) = check();
        assert_eq!(code, Some(78), "{err}");
        assert!(err.contains("auth.session_key_file") && err.contains(told), "{err}");
        assert!(!err.contains("short\n"));
    }
    fs::write(folder.path().join("key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    assert_eq!(check(), (Some(0), String::new()));
}

/// `mooring users …` with something on its standard input.
fn users_verb(folder: &TempDir, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
    command.arg("users").args(arguments).args(["--file", "users.toml"]);
    command.current_dir(folder.path()).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Whoever refuses at once reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_password_is_set_by_a_verb_and_is_in_no_file_and_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.toml");
    // As it was written before there were passwords.
    let key = KeyHash::of(b"key-of-ada").unwrap();
    let old = format!("[users.ada]\nrole = \"artist\"\ngeneration = 7\nkey = \"{key}\"\n");
    fs::write(&path, &old).unwrap();
    for (name, input, told) in [
        ("eve", "a good password\n", "there is no user `eve`"),
        ("ada", "short\n", "at least 8 characters"),
        ("ada", "", "no password in the first line"),
    ] {
        let (code, out, err) = users_verb(&folder, &["password", name], input);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{name} {input}: {err}");
        assert!(err.contains(told), "{name} {input}: {err}");
        assert_eq!(fs::read_to_string(&path).unwrap(), old, "it is as before");
    }
    let (code, out, err) = users_verb(&folder, &["password", "ada"], "a good password\nmore\n");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("good") && !out.contains("good"), "{text} {out}");
    let table = file::read(&path).unwrap();
    let ada = table.get(&"ada".parse().unwrap()).unwrap();
    assert!(ada.generation > 7 && ada.key == Some(key), "his key stays, his sessions end");
    assert!(ada.password.as_ref().unwrap().is_of(b"a good password"));
    let listed: serde_json::Value =
        serde_json::from_str(&users_verb(&folder, &["list", "--json"], "").1).unwrap();
    assert_eq!(listed[0]["password"], true);
    let before = ada.as_ref().clone();
    assert_eq!(users_verb(&folder, &["logout", "ada"], "").0, Some(0));
    let after = file::read(&path).unwrap();
    let after = after.get(&before.name).unwrap();
    assert!(after.generation > before.generation);
    assert_eq!((&after.key, &after.password), (&before.key, &before.password));
    assert_eq!(users_verb(&folder, &["logout", "eve"], "").0, Some(1));
}
