//! The front below a path, behind a proxy that does not take it off (`server.base_path`).

use std::sync::Arc;

use http::Method;
use mooring::config::{BasePath, Config, OnOff};
use mooring::sim::{Options, Sim};
use serde_json::json;
use tokio::sync::Notify;

use crate::passthrough::{Act, world as puppet_world};
use crate::pictures::{RED, form, png, post_form};
use crate::support::{Answer, Socket, World, network, quick, send, until};

const BOTH_WAYS: [OnOff; 2] = [OnOff::On, OnOff::Off];

fn below(config: &mut Config) {
    config.server.base_path = BasePath::parse("/comfy/ui").unwrap();
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.front, Method::GET, path, headers, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_is_below_and_nothing_is_beside() {
    for way in BOTH_WAYS {
        let world = World::with(1, |config| {
            below(config);
            config.server.passthrough = way;
        })
        .await;
        world.all_up().await;
        for path in [
            "/comfy/ui/system_stats",
            "/comfy/ui/api/system_stats?clientId=ada",
            "/comfy/ui/api/queue",
            "/comfy/ui/-/whoami",
            "/comf%79/ui/api/queue",
            "/comfy/ui/",
        ] {
            assert_eq!(world.get(path).await.status, 200, "{path} {way:?}");
        }
        for path in [
            "/",
            "/system_stats",
            "/api/queue",
            "/-/whoami",
            "/comfy/",
            "/comfy",
            "/comfy/uix/system_stats",
            "/comfy%2Fui/system_stats",
            "/x/../comfy/ui/system_stats",
        ] {
            let answer = world.get(path).await;
            let told = (answer.status, answer.header("mooring-error"));
            assert_eq!(told, (404, "outside_base_path"), "{path} {way:?}");
            assert!(answer.text().contains("/comfy/ui/"), "{}", answer.text());
            let browser = [("accept", "text/html"), ("sec-fetch-mode", "navigate")];
            let page = send(world.front, Method::GET, path, &browser, "").await;
            let told = (page.status, page.header("set-cookie"));
            assert_eq!(told, (404, ""), "it would be one for all of this host: {path} {way:?}");
            assert!(page.header("content-type").starts_with("text/html"), "{path}");
        }
        for (path, to) in [("/comfy/ui", "/comfy/ui/"), ("/comfy/ui?a=/b", "/comfy/ui/?a=/b")] {
            let answer = world.get(path).await;
            assert_eq!((answer.status, answer.header("location")), (308, to), "{way:?}");
        }
        let seen = world.sim("a").requests();
        assert!(seen.iter().all(|it| !it.target.contains("comf")), "{way:?}");
        assert!(seen.iter().any(|it| it.target == "/api/system_stats?clientId=ada"));
        assert_eq!(world.admin_get("/readyz").await.status, 200, "the operators' door has its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_says_of_paths_is_put_below_on_both_ways() {
    let answer = "HTTP/1.1 302 Found\r\nLocation: /login?next=/\r\nSet-Cookie: a=1; Path=/\r\n\
        Set-Cookie: __Host-b=2; Path=/; Secure\r\nContent-Length: 0\r\n\r\n";
    let other = "HTTP/1.1 302 Found\r\nLocation: https://sso.example/x\r\nSet-Cookie: c=3\r\n\
        Content-Length: 0\r\n\r\n";
    let acts = [
        ("/pack/a", Act::Answer(vec![answer.to_owned()])),
        ("/pack/b", Act::Answer(vec![other.to_owned()])),
    ];
    for (way, is_below) in [(OnOff::On, true), (OnOff::Off, true), (OnOff::On, false)] {
        let (world, _puppet) = puppet_world(&acts, |config| {
            config.server.passthrough = way;
            if is_below {
                below(config);
            }
        })
        .await;
        let base = if is_below { "/comfy/ui" } else { "" };
        let told = world.get(&format!("{base}/pack/a")).await;
        assert_eq!(told.header("location"), format!("{base}/login?next=/"), "{way:?}");
        let cookies: Vec<_> = told.headers.get_all("set-cookie").iter().collect();
        let first = format!("a=1; Path={base}/");
        assert_eq!(cookies, [first.as_str(), "__Host-b=2; Path=/; Secure"], "{way:?}");
        let told = world.get(&format!("{base}/pack/b")).await;
        assert_eq!(told.header("location"), "https://sso.example/x");
        assert_eq!(told.header("set-cookie"), "c=3");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_uploads_prompts_and_pictures_work_below() {
    let world = World::with(2, below).await;
    world.all_up().await;
    let mut socket = Socket::open(world.front, "/comfy/ui/ws?clientId=ada").await;
    socket.until("status").await;
    let path = "/comfy/ui/api/upload/image";
    let uploaded = post_form(&world, path, Some("ada"), form("photo.png", &png(RED), &[])).await;
    assert_eq!((uploaded.status, &uploaded.json()["name"]), (200, &json!("photo.png")));
    let body = json!({ "client_id": "ada", "prompt": quick(7) }).to_string();
    let prompt = world.post("/comfy/ui/api/prompt", &body).await.prompt_id();
    assert!(socket.until_end(&prompt).await.contains(&"execution_success".to_owned()));
    let history = world.get(&format!("/comfy/ui/api/history/{prompt}?clientId=ada")).await;
    let file = &history.json()[&prompt]["outputs"]["3"]["images"][0]["filename"];
    let view = format!("/comfy/ui/api/view?filename={}&type=output", file.as_str().unwrap());
    let picture = get(&world, &view, &[("comfy-client-id", "ada")]).await;
    assert_eq!((picture.status, picture.header("content-type")), (200, "image/png"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_its_script_and_its_files_are_below() {
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir(files.path().join("assets")).unwrap();
    let page = "<!doctype html><html><head><script src=\"./assets/index-azSeANjR.js\"></script>";
    std::fs::write(files.path().join("index.html"), page).unwrap();
    std::fs::write(files.path().join("assets/index-azSeANjR.js"), "let a;").unwrap();
    let options = Options { frontend: Some(files.path().to_owned()), ..Options::named("a") };
    let sim = Sim::start(network(), options).await.unwrap();
    let world = World::over(vec![sim], |config| {
        below(config);
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    world.all_up().await;
    let page = world.get("/comfy/ui/").await;
    let text = page.text();
    let script = text.split("<script src=\".").nth(1).unwrap().split('"').next().unwrap();
    let script = world.get(&format!("/comfy/ui{script}")).await;
    assert_eq!(
        (script.status, script.header("content-type")),
        (200, "text/javascript; charset=utf-8")
    );
    let asset = world.get("/comfy/ui/assets/index-azSeANjR.js").await;
    assert_eq!((asset.status, asset.text().as_str()), (200, "let a;"));
    assert_eq!(
        world.get("/comfy/ui/assets/index-azSeANjR.js").await.header("mooring-placement"),
        "kept"
    );
    let console = world.get("/comfy/ui/-/console.js").await.text();
    assert!(console.contains("const BASE = \"/comfy/ui\";"), "{console}");

    let plain = page.header("set-cookie");
    assert!(plain.starts_with("mooring=") && plain.contains("; Path=/comfy/ui/;"), "{plain}");
    let tls = get(&world, "/comfy/ui/", &[("x-forwarded-proto", "https")]).await;
    let tls = tls.header("set-cookie").to_owned();
    assert!(tls.starts_with("__Secure-mooring=") && tls.contains("; Path=/comfy/ui/;"), "{tls}");
    let pair = tls.split(';').next().unwrap();
    let known = [("x-forwarded-proto", "https"), ("cookie", pair)];
    assert_eq!(get(&world, "/comfy/ui/", &known).await.header("set-cookie"), "", "it is known");
    let seen = world.sim("a").requests();
    let got = seen.iter().filter_map(|it| it.headers.get("cookie")).count();
    assert_eq!(got, 0, "and is no backend's business");
}

/// What an answer says of paths is put below the path that its request came by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_does_not_move_what_is_underway() {
    let answer = "HTTP/1.1 302 Found\r\nLocation: /login\r\nSet-Cookie: a=1; Path=/\r\n\
        Content-Length: 0\r\n\r\n";
    for way in BOTH_WAYS {
        let told = Arc::new(Notify::new());
        let act = Act::AnswerWhenTold(Arc::clone(&told), answer.to_owned());
        let (world, puppet) = puppet_world(&[("/pack/a", act)], |config| {
            config.server.passthrough = way;
            below(config);
        })
        .await;
        let moves = async {
            until("it is asked", || !puppet.asked().is_empty()).await;
            let elsewhere = BasePath::parse("/elsewhere").unwrap();
            world.reload(|config| config.server.base_path = elsewhere).await.unwrap();
            told.notify_one();
        };
        let (told, ()) = tokio::join!(world.get("/comfy/ui/pack/a"), moves);
        assert_eq!(told.header("location"), "/comfy/ui/login", "{way:?}");
        assert_eq!(told.header("set-cookie"), "a=1; Path=/comfy/ui/", "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_moves_all_of_it() {
    let world = World::new(1).await;
    world.all_up().await;
    assert_eq!(world.get("/system_stats").await.status, 200);
    let reloaded = world.reload(below).await.unwrap();
    assert_eq!(reloaded.applied, ["server.base_path"]);
    assert_eq!(world.get("/system_stats").await.status, 404);
    assert_eq!(world.get("/comfy/ui/system_stats").await.status, 200);
}
