//! Limits of users and addresses: who reaches one is told which, and nobody else is.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};

use http::Method;
use mooring::config::{Config, LimitsConfig, OnOff};
use mooring::net::Stream;
use mooring::routing::ids::ClientId;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::keys::{ADA, BOB};
use crate::restart::Mortal;
use crate::support::{Answer, Socket, World, network, quick, send, slow, soon, until};

const REACHED: (u16, &str) = (429, "limit_reached");

fn told(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("mooring-error"))
}

/// The name of the limit that was reached.
#[track_caller]
pub(crate) fn limit_of(answer: &Answer) -> String {
    assert_eq!(told(answer), REACHED, "{}", answer.text());
    assert_ne!(answer.header("retry-after").parse::<u32>().unwrap(), 0);
    let error = answer.json();
    assert!(error["node_errors"].is_object(), "in ComfyUI's form: {error}");
    let message = error["error"]["message"].as_str().unwrap();
    let (_, from) = message.split_once("`limits.").unwrap();
    from.split_once('`').unwrap().0.to_owned()
}

async fn submit(world: &World, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "prompt": quick(1) }).to_string();
    send(world.front, Method::POST, "/prompt", headers, &body).await
}

/// Asks for a socket that is not used.
async fn ask(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    all.extend(headers);
    send(world.front, Method::GET, path, &all, "").await
}

/// Asks until a socket is opened: that another was closed is known a moment later.
async fn ask_until_opened(world: &World, path: &str, headers: &[(&str, &str)]) {
    let opened = async {
        loop {
            let answer = ask(world, path, headers).await;
            if answer.status == 101 {
                return;
            }
            assert_eq!(told(&answer), REACHED, "{}", answer.text());
        }
    };
    soon("a socket is opened again", opened).await;
}

/// A world behind a trusted proxy.
pub(crate) async fn world(change: impl FnOnce(&mut Config)) -> World {
    let world = World::with(1, |config| {
        config.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        change(config);
    })
    .await;
    world.all_up().await;
    world
}

pub(crate) fn from(address: &str) -> [(&str, &str); 1] {
    [("x-forwarded-for", address)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_submits_more_than_he_may_is_told_when_to_come_back() {
    let world = world(|config| config.limits.user_prompts_per_minute = NonZeroU32::new(2)).await;
    // A trusted proxy is not counted, but each of those for whom it speaks.
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        for _ in 0..2 {
            assert_eq!(submit(&world, &from(address)).await.status, 200, "{address}");
        }
        let refused = submit(&world, &from(address)).await;
        assert_eq!(limit_of(&refused), "user_prompts_per_minute", "{address}");
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=30).contains(&seconds), "{seconds}");
    }
    for same in ["2001:db8::2", "::ffff:192.0.2.1"] {
        assert_eq!(told(&submit(&world, &from(same)).await), REACHED, "{same}");
    }
    for _ in 0..5 {
        assert_eq!(submit(&world, &[]).await.status, 200, "the proxy does not say for whom");
    }
    // Nothing but submissions is limited.
    assert_eq!(send(world.front, Method::GET, "/queue", &from("192.0.2.1"), "").await.status, 200);
    let metrics = world.admin_get("/metrics").await.text();
    let line = "mooring_limits_refused_total{limit=\"user_prompts_per_minute\"} 5";
    assert!(metrics.contains(line), "{metrics}");
    world.reload(|config| config.limits = LimitsConfig::default()).await.unwrap();
    assert_eq!(submit(&world, &from("192.0.2.1")).await.status, 200, "the limit was taken away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_as_many_submissions_as_may_come_pass_at_once() {
    let world = world(|config| config.limits.all_prompts_per_minute = NonZeroU32::new(4)).await;
    let addresses: Vec<String> = (1..=12).map(|number| format!("192.0.2.{number}")).collect();
    let world = &world;
    let asked = addresses.iter().map(|address| async move { submit(world, &from(address)).await });
    let answers = futures_util::future::join_all(asked).await;
    let refused: Vec<_> = answers.iter().filter(|it| it.status != 200).map(limit_of).collect();
    assert_eq!(refused, ["all_prompts_per_minute"; 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_is_refused_counts_too() {
    let world = world(|config| config.limits.user_prompts_per_minute = NonZeroU32::new(2)).await;
    for _ in 0..2 {
        let bad = send(world.front, Method::POST, "/prompt", &from("192.0.2.1"), "{}").await;
        assert_eq!(bad.status, 400, "{}", bad.text());
    }
    assert_eq!(limit_of(&submit(&world, &from("192.0.2.1")).await), "user_prompts_per_minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_have_counts_of_their_own() {
    let world = world(|config| {
        config.limits.user_prompts_per_minute = NonZeroU32::new(2);
        config.limits.user_sockets = NonZeroU32::new(1);
        config.limits.address_sockets = NonZeroU32::new(2);
        config.auth = crate::keys::keys();
    })
    .await;
    let of = |key, address| [("x-api-key", key), ("x-forwarded-for", address)];
    // He is the same wherever he is.
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(submit(&world, &of(ADA, address)).await.status, 200);
    }
    let refused = submit(&world, &of(ADA, "192.0.2.3")).await;
    assert_eq!(limit_of(&refused), "user_prompts_per_minute");
    assert_eq!(submit(&world, &of(BOB, "192.0.2.1")).await.status, 200);
    let open = async |key, address| {
        Socket::open_with(world.front, "/ws?clientId=a", &of(key, address)).await
    };
    let (_adas, _bobs) = (open(ADA, "192.0.2.1").await, open(BOB, "192.0.2.1").await);
    let again = ask(&world, "/ws?clientId=b", &of(ADA, "192.0.2.9")).await;
    assert_eq!(limit_of(&again), "user_sockets");
    world.reload(|config| config.limits.user_sockets = None).await.unwrap();
    let again = ask(&world, "/ws?clientId=b", &of(ADA, "192.0.2.1")).await;
    assert_eq!(limit_of(&again), "address_sockets", "two users share the address");
    assert_eq!(ask(&world, "/ws?clientId=b", &of(ADA, "192.0.2.9")).await.status, 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_too_many_is_refused_until_another_is_closed() {
    let world = world(|config| {
        config.limits.user_sockets = NonZeroU32::new(2);
        config.limits.all_sockets = NonZeroU32::new(3);
    })
    .await;
    let (one, other) = (from("192.0.2.1"), from("192.0.2.2"));
    let open = async |path: &str, headers| Socket::open_with(world.front, path, headers).await;
    let first = open("/ws?clientId=a", &one).await;
    // Sockets of node packs count as well.
    let pack = "/tunnelled/echo?mooring_client=a";
    let _second = open(pack, &one).await;
    for path in ["/ws?clientId=x", pack] {
        assert_eq!(limit_of(&ask(&world, path, &one).await), "user_sockets", "{path}");
    }
    let third = open("/ws?clientId=c", &other).await;
    for path in ["/ws?clientId=x", pack] {
        assert_eq!(limit_of(&ask(&world, path, &other).await), "all_sockets", "{path}");
    }
    first.close().await;
    ask_until_opened(&world, "/ws?clientId=x", &one).await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_below_what_is_open_closes_nothing_and_lets_nothing_in() {
    let world = world(|config| config.limits.user_sockets = NonZeroU32::new(9)).await;
    let (here, path) = (from("192.0.2.1"), "/ws?clientId=a");
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(Socket::open_with(world.front, path, &here).await);
    }
    world.reload(|config| config.limits.user_sockets = NonZeroU32::new(1)).await.unwrap();
    assert_eq!(limit_of(&ask(&world, path, &here).await), "user_sockets");
    // They are still there.
    let body = json!({ "prompt": quick(1), "client_id": "a" }).to_string();
    let prompt = send(world.front, Method::POST, "/prompt", &here, &body).await.prompt_id();
    for socket in &mut sockets {
        socket.until_end(&prompt).await;
    }
    for socket in sockets {
        socket.close().await;
    }
    ask_until_opened(&world, path, &here).await;
}

/// A prompt that goes on until it is stopped, from a client of its own.
async fn submit_slow(to: SocketAddr, client: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "prompt": slow(1000, 100.0), "client_id": client }).to_string();
    send(to, Method::POST, "/prompt", headers, &body).await
}

/// Submits until it is taken: that another has ended is known a moment later.
async fn submit_until_taken(to: SocketAddr, client: &str, headers: &[(&str, &str)]) {
    let taken = async {
        loop {
            let answer = submit_slow(to, client, headers).await;
            if answer.status == 200 {
                return;
            }
            assert_eq!(limit_of(&answer), "user_pending_prompts");
        }
    };
    soon("a prompt is taken again", taken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_prompt_too_many_is_refused_until_another_has_ended() {
    let world = world(|config| {
        config.limits.user_pending_prompts = NonZeroU32::new(2);
        config.limits.all_pending_prompts = NonZeroU32::new(3);
    })
    .await;
    let (here, there) = (from("192.0.2.1"), from("192.0.2.2"));
    let first = submit_slow(world.front, "a", &here).await.prompt_id();
    let second = submit_slow(world.front, "b", &here).await.prompt_id();
    let refused = submit_slow(world.front, "c", &here).await;
    assert_eq!(limit_of(&refused), "user_pending_prompts");
    let refused = submit(&world, &here).await;
    assert_eq!(limit_of(&refused), "user_pending_prompts");
    submit_slow(world.front, "d", &there).await.prompt_id();
    let refused = submit_slow(world.front, "e", &there).await;
    assert_eq!(limit_of(&refused), "all_pending_prompts");
    // One is deleted while it waits, and one is interrupted.
    let path = "/queue?clientId=b";
    let body = json!({ "delete": [second] }).to_string();
    assert_eq!(send(world.front, Method::POST, path, &here, &body).await.status, 200);
    submit_until_taken(world.front, "f", &here).await;
    let body = json!({ "prompt_id": first }).to_string();
    let path = "/interrupt?clientId=a";
    assert_eq!(send(world.front, Method::POST, path, &here, &body).await.status, 200);
    submit_until_taken(world.front, "g", &here).await;
    let refused = submit_slow(world.front, "h", &here).await;
    assert_eq!(limit_of(&refused), "user_pending_prompts", "each place came back once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_as_many_prompts_as_may_be_pending_are_taken_at_once() {
    let world = world(|config| config.limits.user_pending_prompts = NonZeroU32::new(3)).await;
    let clients: Vec<String> = (0..9).map(|number| format!("c{number}")).collect();
    let headers = from("192.0.2.1");
    let asked = clients.iter().map(|client| submit_slow(world.front, client, &headers));
    let answers = futures_util::future::join_all(asked).await;
    let taken = answers.iter().filter(|it| it.status == 200).count();
    assert_eq!(taken, 3);
    assert!(answers.iter().all(|it| it.status == 200 || told(it) == REACHED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_was_refused_gives_its_place_back() {
    let world = world(|config| config.limits.user_pending_prompts = NonZeroU32::new(1)).await;
    let here = from("192.0.2.1");
    let bad = json!({ "prompt": { "1": { "class_type": "Nothing", "inputs": {} } } }).to_string();
    for _ in 0..3 {
        let refused = send(world.front, Method::POST, "/prompt", &here, &bad).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    submit_slow(world.front, "a", &here).await.prompt_id();
    assert_eq!(limit_of(&submit_slow(world.front, "b", &here).await), "user_pending_prompts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_below_what_is_pending_ends_nothing_and_takes_nothing_new() {
    let world = world(|config| config.limits.user_pending_prompts = NonZeroU32::new(9)).await;
    let here = from("192.0.2.1");
    for client in ["a", "b", "c"] {
        submit_slow(world.front, client, &here).await.prompt_id();
    }
    world.reload(|config| config.limits.user_pending_prompts = NonZeroU32::new(1)).await.unwrap();
    assert_eq!(limit_of(&submit_slow(world.front, "d", &here).await), "user_pending_prompts");
    let queue = send(world.front, Method::GET, "/api/jobs?clientId=a", &here, "").await.json();
    assert_eq!(queue["pagination"]["total"], 1, "{queue}");
    world.reload(|config| config.limits.user_pending_prompts = None).await.unwrap();
    submit_slow(world.front, "d", &here).await.prompt_id();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_used_up_his_day_gets_no_further_prompt() {
    let world = world(|config| {
        config.limits.user_gpu_seconds_per_day = NonZeroU32::new(1);
        config.limits.all_gpu_seconds_per_day = NonZeroU32::new(3);
    })
    .await;
    let mut socket = world.socket("a").await;
    let (here, there) = (from("192.0.2.1"), from("192.0.2.2"));
    let run = async |headers: &[(&str, &str)], seconds: f64| {
        let body = json!({ "prompt": slow(3, seconds), "client_id": "a" }).to_string();
        send(world.front, Method::POST, "/prompt", headers, &body).await
    };
    let prompt = run(&here, 0.1).await.prompt_id();
    socket.until_end(&prompt).await;
    // Both are taken while something is left, and neither is stopped.
    let first = run(&here, 1.2).await.prompt_id();
    let second = run(&here, 0.1).await.prompt_id();
    socket.until_end(&first).await;
    socket.until_end(&second).await;
    let reached = async {
        loop {
            let answer = run(&here, 0.01).await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let refused = soon("it is counted", reached).await;
    assert_eq!(limit_of(&refused), "user_gpu_seconds_per_day");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((86_000..=86_400).contains(&seconds), "{seconds}");
    let prompt = run(&there, 2.2).await.prompt_id();
    socket.until_end(&prompt).await;
    let reached = async { while run(&from("192.0.2.3"), 0.01).await.status == 200 {} };
    soon("all together have used up the day", reached).await;
    let refused = run(&from("192.0.2.4"), 0.01).await;
    assert_eq!(limit_of(&refused), "all_gpu_seconds_per_day");
    world.reload(|config| config.limits = LimitsConfig::default()).await.unwrap();
    assert_eq!(run(&here, 0.01).await.status, 200);
}

/// Who takes his pictures and gives the rest of the prompt up has used the GPU all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_no_way_around_a_day() {
    let limit = |config: &mut Config| config.limits.user_gpu_seconds_per_day = NonZeroU32::new(1);
    let world = world(limit).await;
    let mut socket = world.socket("a").await;
    let here = from("192.0.2.1");
    let body = json!({ "prompt": slow(40, 4.0), "client_id": "a" }).to_string();
    let answer = send(world.front, Method::POST, "/prompt", &here, &body).await;
    answer.prompt_id();
    while socket.until("progress").await["data"]["value"].as_f64() < Some(15.0) {}
    let path = "/-/reset?clientId=a&force=true";
    assert_eq!(send(world.front, Method::POST, path, &here, "").await.status, 200);
    assert_eq!(limit_of(&submit(&world, &here).await), "user_gpu_seconds_per_day");
}

/// A client that is counted as new is still the one for whom an upload waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_finds_its_upload_where_new_clients_are_counted() {
    for limit in [None, NonZeroU32::new(100)] {
        let world = World::with(8, |config| {
            config.limits.address_new_clients_per_minute = limit;
        })
        .await;
        world.all_up().await;
        let kind = [("content-type", "multipart/form-data; boundary=xyz")];
        let sent = form("a.png", 300);
        let upload = send(world.front, Method::POST, "/upload/image", &kind, &sent).await;
        assert_eq!(upload.status, 200, "{}", upload.text());
        let prompt = world.submit("fresh", &quick(1)).await;
        assert_eq!((prompt.status, prompt.backend()), (200, upload.backend()), "{limit:?}");
    }
}

/// A form with a picture, which is so long in all.
pub(crate) fn form(name: &str, len: usize) -> String {
    let head = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\
         Content-Type: image/png\r\n\r\n"
    );
    let end = "\r\n--xyz--\r\n";
    let picture = "x".repeat(len - head.len() - end.len());
    format!("{head}{picture}{end}")
}

pub(crate) async fn upload(world: &World, headers: &[(&str, &str)], len: usize) -> Answer {
    let mut all = vec![("content-type", "multipart/form-data; boundary=xyz")];
    all.extend(headers);
    let body = form("harbour.png", len);
    send(world.front, Method::POST, "/upload/image", &all, &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_bytes_are_uploaded_in_a_day_than_may_be() {
    let world = world(|config| {
        config.limits.user_upload_bytes_per_day = NonZeroU64::new(10_000);
        config.limits.all_upload_bytes_per_day = NonZeroU64::new(30_000);
    })
    .await;
    let here = from("192.0.2.1");
    assert_eq!(upload(&world, &here, 6_000).await.status, 200);
    let refused = upload(&world, &here, 4_001).await;
    assert_eq!(limit_of(&refused), "user_upload_bytes_per_day");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((86_000..=86_400).contains(&seconds), "{seconds}");
    assert_eq!(upload(&world, &here, 4_000).await.status, 200, "the rest, exactly");
    assert_eq!(limit_of(&upload(&world, &here, 1_000).await), "user_upload_bytes_per_day");
    assert_eq!(upload(&world, &from("192.0.2.2"), 10_000).await.status, 200);
    assert_eq!(upload(&world, &from("192.0.2.3"), 10_000).await.status, 200);
    let refused = upload(&world, &from("192.0.2.4"), 1_000).await;
    assert_eq!(limit_of(&refused), "all_upload_bytes_per_day");
    // Other bodies are no uploads.
    assert_eq!(submit(&world, &here).await.status, 200);
}

async fn is_up(mortal: &Mortal) {
    let fleet = &mortal.gateway().shared.fleet;
    until("the backend is up", || fleet.iter().all(|backend| backend.is_up())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_from_before_a_restart_are_still_their_users() {
    let mut mortal = Mortal::new(1).await;
    let limited = |config: &mut Config| {
        config.auth = crate::keys::keys();
        config.limits.user_pending_prompts = NonZeroU32::new(2);
    };
    mortal.crash().await;
    mortal.start_with(limited).await;
    is_up(&mortal).await;
    let (ada, bob) = ([("x-api-key", ADA)], [("x-api-key", BOB)]);
    for client in ["a", "b"] {
        submit_slow(mortal.front(), client, &ada).await.prompt_id();
    }
    mortal.crash().await;
    mortal.start_with(limited).await;
    is_up(&mortal).await;
    let refused = submit_slow(mortal.front(), "c", &ada).await;
    assert_eq!(limit_of(&refused), "user_pending_prompts");
    submit_slow(mortal.front(), "a", &bob).await.prompt_id();
    let path = "/interrupt?clientId=a";
    let stopped = async {
        loop {
            send(mortal.front(), Method::POST, path, &ada, "").await;
            let answer = submit_slow(mortal.front(), "c", &ada).await;
            if answer.status == 200 {
                return;
            }
        }
    };
    soon("the place of the one that was stopped is free", stopped).await;
}

const BOTH_WAYS: [OnOff; 2] = [OnOff::On, OnOff::Off];

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.front, Method::GET, path, headers, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_an_address_are_counted_once_whichever_way_they_go() {
    for passthrough in BOTH_WAYS {
        let world = world(|config| {
            config.server.passthrough = passthrough;
            config.limits.address_requests_per_minute = NonZeroU32::new(6);
        })
        .await;
        let (here, neighbour) = (from("2001:db8::1"), from("2001:db8::2"));
        for path in ["/system_stats?clientId=a", "/queue", "/object_info"] {
            for headers in [&here, &neighbour] {
                assert_eq!(get(&world, path, headers).await.status, 200, "{path}");
            }
        }
        for path in ["/system_stats?clientId=a", "/queue", "/", "/-/status", "/nothing"] {
            let refused = get(&world, path, &here).await;
            assert_eq!(limit_of(&refused), "address_requests_per_minute", "{path}");
            let seconds: u64 = refused.header("retry-after").parse().unwrap();
            assert!((1..=10).contains(&seconds), "{seconds}");
        }
        assert_eq!(limit_of(&submit(&world, &here).await), "address_requests_per_minute");
        let refused = ask(&world, "/ws?clientId=a", &here).await;
        assert_eq!(limit_of(&refused), "address_requests_per_minute");
        let elsewhere = from("2001:db8:0:1::1");
        assert_eq!(get(&world, "/system_stats?clientId=a", &elsewhere).await.status, 200);
        let metrics = world.admin_get("/metrics").await.text();
        let line = "mooring_limits_refused_total{limit=\"address_requests_per_minute\"} 7";
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_too_many_requests_is_closed() {
    for passthrough in BOTH_WAYS {
        let world = World::with(1, |config| {
            config.server.passthrough = passthrough;
            config.limits.address_requests_per_minute = NonZeroU32::new(1);
        })
        .await;
        world.all_up().await;
        let mut client = network().connect("127.0.0.1", world.front.port()).await.unwrap();
        let request = "GET /system_stats?clientId=a HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.write_all(request.repeat(50).as_bytes()).await.unwrap();
        let mut told = String::new();
        soon("the end", client.read_to_string(&mut told)).await.unwrap();
        let statuses = |status: &str| told.matches(&format!("HTTP/1.1 {status}")).count();
        assert_eq!((statuses("200"), statuses("429")), (1, 1), "{told}");
    }
    // That of a trusted proxy carries others too.
    let world =
        world(|config| config.limits.address_requests_per_minute = NonZeroU32::new(1)).await;
    let (one, path) = (from("192.0.2.1"), "/system_stats?clientId=a");
    assert_eq!(get(&world, path, &one).await.status, 200);
    let refused = get(&world, path, &one).await;
    assert_eq!((told(&refused), refused.header("connection")), (REACHED, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_closed_until_another_ends() {
    let change = |config: &mut Config| config.limits.address_connections = NonZeroU32::new(2);
    let world = World::with(1, change).await;
    world.all_up().await;
    let connect = async || network().connect("127.0.0.1", world.front.port()).await.unwrap();
    let request = b"GET /queue HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let is_answered = async |client: &mut Stream| {
        let mut byte = [0];
        client.write_all(request).await.is_ok() && matches!(client.read(&mut byte).await, Ok(1))
    };
    // A socket is a connection as well.
    let socket = Socket::open(world.front, "/ws?clientId=a").await;
    let mut other = connect().await;
    assert!(soon("an answer", is_answered(&mut other)).await);
    assert!(!soon("a close", is_answered(&mut connect().await)).await);
    let metrics = world.admin_get("/metrics").await.text();
    for line in [
        "mooring_limits_refused_total{limit=\"address_connections\"} 1",
        "mooring_connections_refused_total 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    socket.close().await;
    soon("another gets in", async { while !is_answered(&mut connect().await).await {} }).await;
    world
        .reload(|config| config.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()])
        .await
        .unwrap();
    let mut proxy = Vec::new();
    for _ in 0..5 {
        let mut one = connect().await;
        assert!(soon("an answer", is_answered(&mut one)).await, "a trusted proxy is not counted");
        proxy.push(one);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_count_before_anybody_is_known() {
    for passthrough in BOTH_WAYS {
        let world = World::with(1, |config| {
            config.server.passthrough = passthrough;
            config.auth = crate::keys::keys();
            config.limits.address_requests_per_minute = NonZeroU32::new(4);
        })
        .await;
        world.all_up().await;
        let path = "/system_stats?clientId=a";
        for key in ["wrong", "worse", ADA, "worst"] {
            // Whoever is no trusted proxy can say what he likes.
            let headers = [("x-api-key", key), ("x-forwarded-for", key)];
            let expected = if key == ADA { 200 } else { 401 };
            assert_eq!(get(&world, path, &headers).await.status, expected, "{key}");
        }
        for key in ["wrong", ADA] {
            let refused = get(&world, path, &[("x-api-key", key)]).await;
            assert_eq!(limit_of(&refused), "address_requests_per_minute");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_as_many_requests_as_may_come_pass_at_once() {
    let world =
        world(|config| config.limits.address_requests_per_minute = NonZeroU32::new(7)).await;
    let headers = from("192.0.2.1");
    let paths = ["/system_stats?clientId=a", "/queue"].repeat(10);
    let asked = paths.iter().map(|path| get(&world, path, &headers));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|it| it.status == 200).count(), 7);
    assert!(answers.iter().all(|it| it.status == 200 || told(it) == REACHED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_clients_that_are_not_known_are_new() {
    for passthrough in BOTH_WAYS {
        let world = world(|config| {
            config.server.passthrough = passthrough;
            config.limits.address_new_clients_per_minute = NonZeroU32::new(2);
        })
        .await;
        let (here, there) = (from("192.0.2.1"), from("192.0.2.2"));
        let read = |client: &str| format!("/system_stats?clientId={client}");
        for client in ["a", "b", "a", "b"] {
            assert_eq!(get(&world, &read(client), &here).await.status, 200, "{client}");
        }
        let name = "address_new_clients_per_minute";
        assert_eq!(limit_of(&get(&world, &read("c"), &here).await), name);
        assert_eq!(limit_of(&ask(&world, "/ws?clientId=c", &here).await), name);
        assert_eq!(limit_of(&ask(&world, "/ws", &here).await), name);
        assert_eq!(limit_of(&submit_slow(world.front, "c", &here).await), name);
        assert_eq!(limit_of(&submit(&world, &here).await), name, "it would get a name");
        assert!(world.gateway.sessions.clients.get(&id("c")).is_none(), "nothing is left of it");
        assert_eq!(get(&world, "/queue?clientId=c", &here).await.status, 200, "a list makes none");
        assert_eq!(get(&world, &read("c"), &there).await.status, 200);
        assert_eq!(get(&world, &read("c"), &here).await.status, 200, "it is known now");
    }
}

fn id(name: &str) -> ClientId {
    ClientId::parse(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_asks_for_many_things_at_once_is_one_new_client() {
    let max = 20;
    let world =
        world(|config| config.limits.address_new_clients_per_minute = NonZeroU32::new(max)).await;
    let here = from("192.0.2.1");
    let asked = (0..16).map(|_| get(&world, "/system_stats?clientId=page", &here));
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|it| it.status == 200));
    for number in 1..max {
        let path = format!("/system_stats?clientId={number}");
        assert_eq!(get(&world, &path, &here).await.status, 200, "{number}");
    }
    let refused = get(&world, "/system_stats?clientId=last", &here).await;
    assert_eq!(limit_of(&refused), "address_new_clients_per_minute");
}
