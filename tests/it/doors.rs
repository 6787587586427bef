//! Who is let in, and with what: pages of others, proxies, cookies, what is the operator's. Both
//! ways of answering are asked each time: what may name a file is not only passed on.

use http::{Method, Request};
use http_body_util::Full;
use mooring::config::{Config, StateDir};
use mooring::front::browsers::Spot;
use mooring::front::cookie_signer::{CookieSigner, Signed};
use mooring::net::now;
use mooring::routing::realm::Realm;
use mooring::sim::Seen;

use crate::passthrough::{Act, ok, world as puppet_world};
use crate::support::{Answer, World, exchange, network, quick, send};

const BOTH_WAYS: [&str; 2] = ["/system_stats?x=1", "/embeddings?filename=x"];

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.front, Method::GET, path, headers, "").await
}

/// A request to the gateway under another name.
async fn get_at(world: &World, host: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    exchange(world.front, request.body(Full::default()).unwrap()).await
}

fn told(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("mooring-error"))
}

/// The last request for a path that the only backend got.
fn last_of(world: &World, target: &str) -> Seen {
    let seen = world.sim("a").requests();
    seen.into_iter().rev().find(|it| it.target == target).expect("it was asked")
}

fn trusting(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

fn pair(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_reach_nothing_by_any_way() {
    let world = World::new(1).await;
    world.all_up().await;
    for path in BOTH_WAYS.into_iter().chain(["/settings", "/view?filename=a.png", "/-/whoami"]) {
        for site in ["cross-site", "same-site"] {
            for mode in [("no-cors", "image"), ("navigate", "iframe"), ("no-cors", "script")] {
                let page = [
                    ("sec-fetch-site", site),
                    ("sec-fetch-mode", mode.0),
                    ("sec-fetch-dest", mode.1),
                    ("referer", "https://evil.example/"),
                ];
                let answer = get(&world, path, &page).await;
                assert_eq!(told(&answer), (403, "foreign_origin"), "{path} {page:?}");
            }
        }
        for site in ["same-origin", "none", ""] {
            let answer = get(&world, path, &[("sec-fetch-site", site)]).await;
            assert_ne!(answer.status, 403, "{path} {site}");
        }
    }
    let asked = world.sim("a").requests();
    assert!(asked.iter().all(|it| !it.headers.contains_key("sec-fetch-site")));
    let link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    assert_eq!(get(&world, "/", &link).await.status, 200, "a link to the page");
    assert_eq!(get(&world, "/system_stats", &link).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_on_an_allowed_page_are_shown() {
    let world = World::with(1, |config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    world.all_up().await;
    let path = "/view?filename=none.png";
    for (from, status) in [("https://app.example/gallery", 404), ("https://evil.example/", 403)] {
        let page = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-dest", "image"),
            ("referer", from),
        ];
        assert_eq!(get(&world, path, &page).await.status, status, "{from}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_the_same_with_its_port_and_without() {
    let world = World::new(1).await;
    world.all_up().await;
    for path in BOTH_WAYS {
        for (host, origin, site, status) in [
            ("gpu.example.com", "http://gpu.example.com:7777", "", 200),
            ("gpu.example.com:7777", "http://gpu.example.com", "", 200),
            ("gpu.example.com:7777", "http://gpu.example.com:7778", "", 403),
            ("gpu.example.com", "http://evil.example:7777", "", 403),
            ("gpu.example.com", "http://gpu.example.com:7777", "none", 403),
            ("inner:8180", "https://gpu.example.com", "same-origin", 200),
            ("inner:8180", "https://gpu.example.com", "", 403),
            ("gw", "", "", 200),
        ] {
            let headers = [("origin", origin), ("sec-fetch-site", site)];
            let answer = get_at(&world, host, path, &headers).await;
            assert_eq!(answer.status, status, "{path} {host} {origin} {site}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_that_a_trusted_proxy_names_is_believed_and_a_strangers_is_not() {
    let stranger = World::new(1).await;
    let trusted = World::with(1, trusting).await;
    for (forwarded, scheme, origin, status) in [
        ("gpu.example.com", "https", "https://gpu.example.com", 200),
        ("gpu.example.com, inner", "https, http", "https://gpu.example.com", 200),
        ("gpu.example.com", "https", "http://gpu.example.com", 403),
        ("gpu.example.com", "https", "https://evil.example", 403),
    ] {
        let headers =
            [("x-forwarded-host", forwarded), ("x-forwarded-proto", scheme), ("origin", origin)];
        for path in BOTH_WAYS {
            let answer = get_at(&trusted, "inner:8180", path, &headers).await;
            assert_eq!(answer.status, status, "{forwarded} {scheme} {origin}");
            assert_eq!(get_at(&stranger, "inner:8180", path, &headers).await.status, 403);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_an_origin_of_its_own_is_let_in_if_it_is_listed_and_given_no_identity() {
    let origins = ["null", "file://", "app://obsidian.md"];
    let world = World::with(1, |config| {
        config.server.allowed_origins = origins.map(str::to_owned).to_vec();
    })
    .await;
    world.all_up().await;
    let cookie = pair(&world.get("/").await);
    let named = [("cookie", cookie.as_str()), ("comfy-client-id", "ada")];
    assert_eq!(get(&world, "/queue", &named).await.status, 200, "ada is of this browser");
    for origin in origins {
        let page =
            [("origin", origin), ("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site")];
        let answer = get(&world, "/-/whoami", &page).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, origin));
        let is_opaque = origin != "app://obsidian.md";
        let credentials = if is_opaque { "" } else { "true" };
        assert_eq!(answer.header("access-control-allow-credentials"), credentials, "{origin}");
        assert_eq!(answer.json()["known"], !is_opaque, "{origin}: {}", answer.text());
        assert_eq!(get(&world, "/", &page).await.header("set-cookie"), "", "{origin}");
        let opened = [&page[..], &[("accept", "text/html")]].concat();
        assert_eq!(get(&world, "/", &opened).await.header("set-cookie"), "", "{origin}");
        let path = format!("/embeddings?of={}", origin.len());
        assert_eq!(
            get(&world, &path, &[("origin", origin), ("cookie", "login=1")]).await.status,
            200
        );
        assert_eq!(last_of(&world, &path).headers.contains_key("cookie"), !is_opaque, "{origin}");
    }
    for path in BOTH_WAYS {
        assert_eq!(get(&world, path, &[("origin", "")]).await.status, 200, "an empty one is none");
        let refused = get(&world, path, &[("origin", "chrome-extension://x")]).await;
        assert_eq!(told(&refused), (403, "foreign_origin"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_page_may_call_into_a_private_network() {
    let world = World::with(1, |config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let ask = |origin: &'static str, private: &'static str| {
        let asks = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-private-network", private),
        ];
        let front = world.front;
        async move { send(front, Method::OPTIONS, "/prompt", &asks, "").await }
    };
    let allows = "access-control-allow-private-network";
    assert_eq!(ask("https://app.example", "true").await.header(allows), "true");
    assert_eq!(ask("https://app.example", "false").await.header(allows), "");
    let foreign = ask("https://evil.example", "true").await;
    assert_eq!((foreign.status, foreign.header(allows)), (403, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_that_the_gateway_did_not_give_names_nobody_and_is_replaced() {
    let world = World::new(1).await;
    world.all_up().await;
    let given = pair(&world.get("/").await);
    for forged in [
        "mooring=00000000000000000000000000000007".to_owned(),
        format!("mooring={:032x}.{:032x}", 7, 7),
        format!("{}0", &given[..given.len() - 1]).replacen("=", "=f", 1),
    ] {
        // Named with it, so that it would be ada's if it were believed, on both ways.
        for path in BOTH_WAYS {
            let headers = [("cookie", forged.as_str()), ("comfy-client-id", "ada")];
            assert_eq!(get(&world, path, &headers).await.status, 200);
        }
        let page = get(&world, "/", &[("cookie", forged.as_str())]).await;
        assert!(pair(&page).starts_with("mooring="), "{forged} was kept");
        let who = get(&world, "/-/whoami", &[("cookie", forged.as_str())]).await.json();
        assert_eq!(who["known"], false, "{forged}: {who}");
    }
    assert_eq!(get(&world, "/", &[("cookie", &given)]).await.header("set-cookie"), "");
    for path in BOTH_WAYS {
        let headers = [("cookie", given.as_str()), ("comfy-client-id", "ada")];
        assert_eq!(get(&world, path, &headers).await.status, 200);
    }
    let who = get(&world, "/-/whoami", &[("cookie", given.as_str())]).await;
    let explained = get(&world, "/-/explain", &[("cookie", given.as_str())]).await;
    assert_eq!(who.json()["known"], true, "{}", who.text());
    assert_eq!(who.json()["client"]["backend"], "a");
    for answer in [who, explained] {
        assert!(!answer.text().contains("\"ada\""), "a cookie is told no id: {}", answer.text());
    }
    let named = get(&world, "/-/whoami", &[("comfy-client-id", "ada")]).await.json();
    assert_eq!(
        (named["client_id"].as_str(), named["client"]["client_id"].as_str()),
        (Some("ada"), Some("ada"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_cookie_is_another_that_only_this_host_can_set() {
    let world = World::with(1, trusting).await;
    world.all_up().await;
    let plain = pair(&world.get("/").await);
    let tls = [("x-forwarded-proto", "https")];
    let set = get(&world, "/", &tls).await;
    let (cookie, whole) = (pair(&set), set.header("set-cookie"));
    assert!(cookie.starts_with("__Host-mooring=") && whole.contains("; Secure"), "{whole}");
    let with = |cookie: &str| {
        let headers = [("x-forwarded-proto", "https"), ("cookie", cookie)];
        let headers = headers.map(|(name, value)| (name, value.to_owned()));
        let front = world.front;
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, it)| (*name, it.as_str())).collect();
            send(front, Method::GET, "/", &headers, "").await.header("set-cookie").to_owned()
        }
    };
    assert_eq!(with(&cookie).await, "", "it is known");
    assert!(with(&plain).await.starts_with("__Host-mooring="), "anybody can have set it");
    for path in BOTH_WAYS {
        let both = [("cookie", &*format!("{plain}; a=1; {cookie}"))];
        assert_eq!(get(&world, path, &both).await.status, 200);
        assert_eq!(last_of(&world, path).headers["cookie"], "a=1");
    }
    let stranger = World::new(1).await;
    let page = get(&stranger, "/", &tls).await;
    assert!(pair(&page).starts_with("mooring="), "nobody who is believed says that it is TLS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_is_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let world = World::with(1, |config| config.state.dir = StateDir::Written(dir.clone())).await;
    let cookie = pair(&world.get("/").await);
    drop(world);
    let seal = CookieSigner::kept_in(&dir, Signed::Browsers);
    let door = mooring::front::caller::Door::Plain;
    let browser = mooring::front::browsers::browser_of(cookie.as_bytes(), &seal, door, None);
    assert!(browser.is_some(), "{cookie}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_cannot_set_the_pages_cookie() {
    let sets = "HTTP/1.1 200 OK\r\nSet-Cookie: mooring=1; Path=/\r\nset-cookie: login=1\r\n\
        Set-Cookie: __Host-mooring=1; Secure; Path=/\r\nContent-Length: 2\r\n\r\n{}";
    let paths = ["/sets", "/sets?filename=x", "/settings"];
    let acts = paths.map(|path| (path, Act::Answer(vec![sets.to_owned()])));
    let (world, _puppet) = puppet_world(&acts, |_| {}).await;
    for path in paths {
        let answer = world.get(path).await;
        let set: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(set, ["login=1"], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_stranger_claims_to_speak_for_is_told_to_no_backend() {
    let claims = [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-host", "gw"),
        ("forwarded", "for=198.51.100.7"),
        ("x-real-ip", "198.51.100.7"),
        ("x-kept", "1"),
    ];
    let (stranger, proxy) = (World::new(1).await, World::with(1, trusting).await);
    for (world, is_believed) in [(&stranger, false), (&proxy, true)] {
        world.all_up().await;
        for path in BOTH_WAYS {
            assert_eq!(get(world, path, &claims).await.status, 200);
            let seen = last_of(world, path);
            for (name, value) in claims {
                let expected = (is_believed || name == "x-kept").then_some(value);
                let got = seen.headers.get(name).and_then(|value| value.to_str().ok());
                assert_eq!(got, expected, "{path} {name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_read_whatever_stands_around_it() {
    let world = World::with(1, trusting).await;
    world.all_up().await;
    let at = |from: &'static str| {
        let front = world.front;
        async move {
            let headers = [("x-forwarded-for", from), ("comfy-client-id", "ada")];
            send(front, Method::GET, "/system_stats?x=1", &headers, "").await
        }
    };
    at("junk, [2001:db8::1]:4711, 127.0.0.1:99").await;
    let lease = std::time::Duration::from_secs(60);
    let sole = |address: &str| {
        let spot = Spot { realm: Realm::Everybody, address: address.parse().unwrap() };
        let found = world.gateway.browsers.sole_at(&spot, lease, now());
        found.map(|client| client.to_string())
    };
    assert_eq!(sole("2001:db8::1").as_deref(), Some("ada"));
    at("198.51.100.9, unknown").await;
    assert_eq!(sole("198.51.100.9"), None, "said by nobody in particular");
    assert_eq!(sole("127.0.0.1").as_deref(), Some("ada"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_areas_are_shut_but_for_some_lists_by_every_method_and_spelling() {
    let world = World::new(1).await;
    world.all_up().await;
    for path in [
        "/manager/policy/component?value=workflow",
        "/v2/manager/share_option?value=x",
        "/api/v2/manager/get_matrix_auth",
        "/v2/manager/get_openart_auth",
        "/%76%32/manager/youml%2Fsettings",
        "/customnode/fetch_updates",
        "/manager/version?x=a%0Db",
        "/v2/customnode/getlist?mode=cache%0a",
        "/easyuse/reboot",
    ] {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
            let answer = send(world.front, method.clone(), path, &[], "").await;
            assert_eq!(told(&answer), (403, "operators_only"), "{method} {path}");
        }
    }
    for path in ["/manager/version", "/api/v2/customnode/getlist?mode=cache&skip_update=true"] {
        assert_eq!(world.get(path).await.status, 404, "{path}: the backend's own answer");
        assert_eq!(world.post(path, "").await.status, 403, "{path}");
    }
    let open = World::with(1, |config| config.server.allow_manager = true).await;
    open.all_up().await;
    assert_eq!(open.get("/manager/policy/component?value=workflow").await.status, 404);
    let lines = open.get("/manager/policy/component?value=a%0Dsecurity_level%20=%20weak").await;
    assert_eq!(told(&lines), (403, "operators_only"), "a line of its configuration");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_log_and_paths_are_the_operators_unless_he_opens_them() {
    let shut = World::new(1).await;
    let open = World::with(1, |config| config.server.allow_logs = true).await;
    let subscribe = r#"{"clientId": "ada", "enabled": true}"#;
    for (world, status) in [(&shut, 403), (&open, 200)] {
        world.all_up().await;
        let mut socket = world.socket("ada").await;
        socket.until("status").await;
        for path in ["/internal/logs", "/internal/%6cogs/raw", "/internal/folder_paths"] {
            let answer = world.get(path).await;
            assert_eq!(answer.status, status, "{path}");
        }
        let path = "/internal/logs/subscribe";
        let answer = send(world.front, Method::PATCH, path, &[], subscribe).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 200 {
            socket.until("logs").await;
        } else {
            assert!(answer.text().contains("server.allow_logs"), "{}", answer.text());
        }
    }
    let asked = shut.sim("a").requests();
    assert!(asked.iter().all(|it| !it.target.starts_with("/internal")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_must_not_be_kept_is_not() {
    let answer = |rule: &str| {
        let whole = ok("<svg/>");
        Act::Answer(vec![whole.replacen("\r\n", &format!("\r\nCache-Control: {rule}\r\n"), 1)])
    };
    let acts = [
        ("/view?filename=a.svg&type=output", answer("no-store")),
        ("/view?filename=b.png&type=output", answer("public, max-age=600")),
    ];
    let (world, _puppet) = puppet_world(&acts, |_| {}).await;
    let rule = |path: &'static str| {
        let front = world.front;
        async move {
            let answer = send(front, Method::GET, path, &[], "").await;
            answer.header("cache-control").to_owned()
        }
    };
    assert_eq!(rule(acts[0].0).await, "no-store");
    assert_eq!(rule(acts[1].0).await, "private, no-cache");
}

/// A connection that asks by both ways in turn: what was let in is no ticket for what comes next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_of_a_connection_is_judged_by_itself() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new(1).await;
    world.all_up().await;
    let mut stream = network().connect("127.0.0.1", world.front.port()).await.unwrap();
    let one = |site: &str| {
        format!("GET /system_stats?x=1 HTTP/1.1\r\nHost: gw\r\nSec-Fetch-Site: {site}\r\n\r\n")
    };
    let last = "GET /system_stats HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
    let all =
        [one("same-origin"), one("cross-site"), one("none"), one("same-site")].concat() + last;
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    crate::support::soon("all answers", stream.read_to_end(&mut read)).await.unwrap();
    let text = String::from_utf8_lossy(&read).into_owned();
    let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "403", "200", "403", "200"]);
}

/// The parser of aiohttp that is not compiled takes `get` for `GET` (`http_parser.py`, 3.14).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_in_other_letters_reaches_no_server() {
    let world = World::new(1).await;
    world.all_up().await;
    let before = world.sim("a").requests().len();
    for (method, path) in [
        ("get", "/history"),
        ("Get", "/api/queue"),
        ("post", "/interrupt"),
        ("post", "/api/prompt"),
        ("dELETE", "/userdata/x"),
        ("get", "/pack/x"),
        ("head", "/-/whoami"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = send(world.front, method.clone(), path, &[], "").await;
        assert_eq!(told(&answer), (405, "bad_method"), "{method} {path}");
    }
    let asked = world.sim("a").requests();
    let asked: Vec<_> = asked[before..].iter().filter(|it| it.target != "/prompt").collect();
    assert!(asked.is_empty(), "{asked:?}");
    // A method that a pack made up is its own business.
    let own = Method::from_bytes(b"PROPFIND").unwrap();
    assert_ne!(
        send(world.front, own, "/pack/x", &[], "").await.header("mooring-error"),
        "bad_method"
    );
}

/// Names that are not taken in are not remembered either, with whatever they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_taken_in_is_not_remembered() {
    let world = World::with(1, |config| config.affinity.max_clients = 1).await;
    world.all_up().await;
    // Who has a socket makes no room for others.
    let _listens = world.socket("ada").await;
    let cookie = pair(&world.get("/").await);
    let browser = |path: &'static str, client: &'static str| {
        let headers = [("cookie", cookie.as_str()), ("comfy-client-id", client)];
        let headers = headers.map(|(name, value)| (name, value.to_owned()));
        let front = world.front;
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, it)| (*name, it.as_str())).collect();
            send(front, Method::GET, path, &headers, "").await.status
        }
    };
    for path in BOTH_WAYS {
        assert_eq!(browser(path, "ada").await, 200);
    }
    for path in BOTH_WAYS.into_iter().chain(["/queue", "/history", "/features", "/-/whoami"]) {
        browser(path, "one too many").await;
    }
    let body = serde_json::json!({ "prompt": quick(1), "client_id": "one too many" }).to_string();
    let refused = send(world.front, Method::POST, "/prompt", &[("cookie", &cookie)], &body).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let here = Spot { realm: Realm::Everybody, address: std::net::Ipv4Addr::LOCALHOST.into() };
    let sole = world.gateway.browsers.sole_at(&here, std::time::Duration::from_secs(60), now());
    assert_eq!(sole.map(|client| client.to_string()), Some("ada".to_owned()));
}
