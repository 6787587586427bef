//! A configuration that is replaced while everything runs.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use mooring::config::{Config, Secret};
use mooring::net::{Network as _, Tcp};
use mooring::reload::{NotReloaded, Reloaded};
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Daemon;
use crate::support::{Socket, World, fraction, network, quick, send, slow, soon, until};

fn applied(keys: &[&str]) -> Result<Reloaded, NotReloaded> {
    let applied = keys.iter().map(|key| (*key).to_owned()).collect();
    Ok(Reloaded { applied, ..Reloaded::default() })
}

/// An address where nobody listens.
async fn free() -> SocketAddr {
    Tcp.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap().local_addr()
}

async fn is_refused(address: SocketAddr) -> bool {
    Tcp.connect("127.0.0.1", address.port()).await.is_err()
}

#[tokio::test]
async fn what_has_changed_is_used_at_once_and_what_needs_a_restart_is_named() {
    let world = World::new(1).await;
    let big = json!({ "client_id": "ada", "prompt": quick(1), "extra": "x".repeat(4096) });
    let big = big.to_string();
    let submit = || world.post("/prompt", &big);
    assert_eq!(submit().await.status, 200);
    let reloaded = world
        .reload(|config| {
            config.prompts.max_body = 2048;
            config.server.workers = 3;
        })
        .await;
    let need_restart = vec!["server.workers".to_owned()];
    assert_eq!(
        reloaded,
        Ok(Reloaded {
            applied: vec!["prompts.max_body".to_owned()],
            need_restart,
            warnings: Vec::new()
        })
    );
    assert_eq!(submit().await.status, 413);
    // What needs a restart is named until there was one.
    let again = world.reload(|config| config.prompts.max_body = 1 << 20).await.unwrap();
    assert_eq!(again.need_restart, ["server.workers"]);
    assert_eq!(submit().await.status, 200);
    assert_eq!(world.reload(|config| config.server.workers = 0).await, applied(&[]));
}

#[tokio::test]
async fn limits_that_are_kept_elsewhere_change_as_well() {
    let world = World::new(1).await;
    let mut ada = world.socket("ada").await;
    ada.until("status").await;
    world.reload(|config| config.affinity.max_clients = 1).await.unwrap();
    // Who is known stays; who is new finds no room, because the other has a socket.
    let of = |client: &str| json!({ "client_id": client, "prompt": quick(1) }).to_string();
    assert_eq!(world.post("/prompt", &of("ada")).await.status, 200);
    assert_eq!(world.post("/prompt", &of("bob")).await.status, 503);
    world.reload(|config| config.affinity.max_clients = 2).await.unwrap();
    assert_eq!(world.post("/prompt", &of("bob")).await.status, 200);
    world.reload(|config| config.prompts.max_bodies_total = 64).await.unwrap();
    let refused = world.post("/prompt", &of("ada")).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    world
        .reload(|config| config.admin.token = Some(Secret::parse("s3cret").unwrap()))
        .await
        .unwrap();
    assert_eq!(world.admin_get("/api/v1/clients").await.status, 401);
    let with_token = [("authorization", "Bearer s3cret")];
    let asked = send(world.admin, Method::GET, "/api/v1/clients", &with_token, "").await;
    assert_eq!(asked.status, 200);
}

#[tokio::test]
async fn backends_join_and_leave_by_the_configuration() {
    let world = World::new(1).await;
    let sim = Sim::start(network(), Options::named("b")).await.unwrap();
    let with_b = Config::for_backends(&[("a", &world.sim("a").url()), ("b", &sim.url())]).unwrap();
    let both = with_b.backends.clone();
    let running = world.submit("ada", &slow(20, 1.0)).await;
    let mut ada = world.socket("ada").await;
    assert_eq!(
        world.reload(|config| config.backends.clone_from(&both)).await,
        applied(&["backends"])
    );
    world.all_up().await;
    assert_eq!(world.submit("bob", &quick(1)).await.backend(), "b", "the other has work");
    let only_b = vec![both[1].clone()];
    let reloaded = world.reload(|config| {
        config.backends.clone_from(&only_b);
        "b".clone_into(&mut config.server.home);
    });
    assert_eq!(reloaded.await, applied(&["server.home", "backends"]));
    // A held binding does not move.
    let more = world.submit("ada", &quick(2)).await;
    assert_eq!((more.status, more.backend()), (200, "a"));
    ada.until_end(&running.prompt_id()).await;
    ada.until_end(&more.prompt_id()).await;
}

#[tokio::test]
async fn a_listener_moves_and_what_is_open_stays_open() {
    let world = World::new(1).await;
    let mut ada = world.socket("ada").await;
    ada.until("status").await;
    let (front, admin) = (free().await, free().await);
    let reloaded = world.reload(|config| {
        config.server.listen = front;
        config.admin.listen = Some(admin);
    });
    assert_eq!(reloaded.await, applied(&["server.listen", "admin.listen"]));
    assert!(is_refused(world.front).await && is_refused(world.admin).await);
    let body = json!({ "client_id": "ada", "prompt": quick(1) }).to_string();
    let answer = send(front, Method::POST, "/prompt", &[], &body).await;
    ada.until_end(&answer.prompt_id()).await;
    assert_eq!(send(admin, Method::GET, "/readyz", &[], "").await.status, 200);
    // A door may be closed and opened.
    assert_eq!(world.reload(|config| config.admin.listen = None).await, applied(&["admin.listen"]));
    assert!(is_refused(admin).await);
    world.reload(|config| config.admin.listen = Some(admin)).await.unwrap();
    assert_eq!(send(admin, Method::GET, "/readyz", &[], "").await.status, 200);
    // An address that is in its own way: all addresses of this machine with the port of one.
    let all = SocketAddr::from(([0, 0, 0, 0], front.port()));
    assert_eq!(
        world.reload(|config| config.server.listen = all).await,
        applied(&["server.listen"])
    );
    assert_eq!(send(front, Method::GET, "/system_stats", &[], "").await.status, 200);
    let answer = send(front, Method::POST, "/prompt", &[], &body).await;
    ada.until_end(&answer.prompt_id()).await;
}

#[tokio::test]
async fn an_address_that_is_taken_changes_nothing_at_all() {
    let world = World::new(1).await;
    let front = free().await;
    world.reload(|config| config.server.listen = front).await.unwrap();
    let taken = Tcp.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (address, other) = (taken.local_addr(), free().await);
    let bad = world.reload(|config| {
        config.server.listen = other;
        config.admin.listen = Some(address);
        config.prompts.max_body = 1024;
    });
    let Err(NotReloaded::Bad(problems)) = bad.await else { panic!("it is taken") };
    assert!(problems[0].starts_with(&format!("admin.listen: cannot listen on {address}")));
    assert!(is_refused(other).await, "what was listened on already is given back");
    assert_eq!(send(front, Method::GET, "/system_stats", &[], "").await.status, 200);
    assert_eq!(world.gateway.shared.config().prompts.max_body, 100 << 20);
    // Also where the door had to be closed to try.
    let all = SocketAddr::from(([0, 0, 0, 0], front.port()));
    let bad = world.reload(|config| config.server.listen = all).await;
    assert!(matches!(bad, Err(NotReloaded::Bad(_))));
    assert_eq!(send(front, Method::GET, "/system_stats", &[], "").await.status, 200);
    let shown = world.admin_get("/metrics").await.text();
    assert!(shown.contains("mooring_config_last_reload_success 0"), "{shown}");
    let good = world.reload(|config| config.admin.listen = Some(other)).await;
    assert!(good.is_ok());
    let shown = send(other, Method::GET, "/metrics", &[], "").await.text();
    assert!(shown.contains("mooring_config_last_reload_success 1"), "{shown}");
}

/// Each is where the other was, and nobody who connects comes in at the wrong one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_swap_their_addresses_and_follow_one_another() {
    let world = World::new(1).await;
    let mut ada = world.socket("ada").await;
    ada.until("status").await;
    let (one, other, third) = (free().await, free().await, free().await);
    let to = async |front, admin| {
        world
            .reload(|config| {
                config.server.listen = front;
                config.admin.listen = Some(admin);
            })
            .await
    };
    let both = ["server.listen", "admin.listen"];
    assert_eq!(to(one, other).await, applied(&both));
    let is_front = async |at| send(at, Method::GET, "/system_stats", &[], "").await.status == 200;
    let is_admin = async |at| send(at, Method::GET, "/metrics", &[], "").await.status == 200;
    assert_eq!(to(other, one).await, applied(&both));
    assert!(is_front(other).await && is_admin(one).await);
    assert!(!is_front(one).await && !is_admin(other).await);
    // The front follows to where the admin was, which goes elsewhere; and then the other way.
    assert_eq!(to(one, third).await, applied(&both));
    assert!(is_front(one).await && is_admin(third).await && is_refused(other).await);
    assert_eq!(to(other, one).await, applied(&both));
    assert!(is_front(other).await && is_admin(one).await && is_refused(third).await);
    // One that closes leaves its address as well.
    let closes = world.reload(|config| {
        config.server.listen = one;
        config.admin.listen = None;
    });
    assert_eq!(closes.await, applied(&both));
    assert!(is_front(one).await && is_refused(other).await);
    let body = json!({ "client_id": "ada", "prompt": quick(1) }).to_string();
    let answer = send(one, Method::POST, "/prompt", &[], &body).await;
    ada.until_end(&answer.prompt_id()).await;
}

#[tokio::test]
async fn a_listener_that_is_in_the_way_of_the_other_is_named() {
    let world = World::new(1).await;
    let (front, admin) = (free().await, free().await);
    let reloaded = world.reload(|config| {
        config.server.listen = front;
        config.admin.listen = Some(admin);
    });
    reloaded.await.unwrap();
    let everywhere = SocketAddr::from(([0, 0, 0, 0], admin.port()));
    let bad = world.reload(|config| {
        config.server.listen = everywhere;
        config.admin.listen = Some(front);
    });
    let Err(NotReloaded::Bad(problems)) = bad.await else { panic!("it is taken") };
    assert!(problems[0].contains("`admin.listen` uses it, so move one after the other"));
    assert_eq!(send(front, Method::GET, "/system_stats", &[], "").await.status, 200);
    assert_eq!(send(admin, Method::GET, "/readyz", &[], "").await.status, 200);
}

/// A gateway before itself would answer itself.
#[tokio::test]
async fn a_listener_never_moves_to_where_a_backend_is() {
    let world = World::new(1).await;
    let (at, before) = (free().await, world.front);
    let put = |at: SocketAddr| {
        let body = json!({ "url": format!("http://{at}") }).to_string();
        let admin = world.admin;
        async move { send(admin, Method::PUT, "/api/v1/backends/late", &[], &body).await.status }
    };
    assert_eq!(put(at).await, 201, "nobody is there, but somebody may come");
    for key in ["server.listen", "admin.listen"] {
        let bad = world.reload(|config| match key {
            "server.listen" => config.server.listen = at,
            _admin => {
                // As it was.
                config.server.listen.set_port(0);
                config.admin.listen = Some(at);
            }
        });
        let Err(NotReloaded::Bad(problems)) = bad.await else { panic!("it would be itself") };
        assert_eq!(problems, [format!("{key}: `{at}` is the backend `late`")]);
    }
    assert!(is_refused(at).await, "what was listened on already is given back");
    assert_eq!(send(before, Method::GET, "/system_stats", &[], "").await.status, 200);
    let path = "/api/v1/backends/late?drain=force";
    assert_eq!(send(world.admin, Method::DELETE, path, &[], "").await.status, 204);
    assert!(world.reload(|config| config.admin.listen = Some(at)).await.is_ok());
}

/// The file took its name, and does so no more: it would be wanted again.
#[tokio::test]
async fn a_listener_never_moves_to_where_a_backend_is_that_would_come_back() {
    let (world, at) = (World::new(1).await, free().await);
    let body = json!({ "url": format!("http://{at}") }).to_string();
    let put = send(world.admin, Method::PUT, "/api/v1/backends/late", &[], &body).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let other = Config::for_backends(&[("late", &world.sim("a").url())]).unwrap().backends;
    let before = world.gateway.shared.config_kept().backends.clone();
    world.reload(|config| config.backends = other).await.unwrap();
    let fleet = &world.gateway.shared.fleet;
    let is_there = || fleet.iter().any(|it| *it.authority == at.to_string());
    until("it has left", || !is_there()).await;
    let bad = world.reload(|config| {
        config.backends = before;
        config.admin.listen = Some(at);
    });
    let Err(NotReloaded::Bad(problems)) = bad.await else { panic!("it would be itself") };
    assert_eq!(problems, [format!("admin.listen: `{at}` is the backend `late`")]);
    assert!(!is_there() && fleet.by_name("a").is_none(), "nothing was changed");
}

/// The fleet and the listeners are compared as they will be, also while a listener has yet to move.
#[tokio::test]
async fn a_backend_is_never_added_where_a_listener_moves_to() {
    let (world, at) = (World::new(1).await, free().await);
    let mut config = Config::clone(&world.gateway.shared.config_kept());
    config.admin.listen = Some(at);
    world.gateway.sessions.configure_fleet(config).unwrap();
    let body = json!({ "url": format!("http://{at}") }).to_string();
    let put = send(world.admin, Method::PUT, "/api/v1/backends/late", &[], &body).await;
    assert_eq!(put.status, 422, "{}", put.text());
    assert!(put.text().contains("this gateway itself (`admin.listen`)"), "{}", put.text());
}

/// A whole fleet takes the place of another one, which drains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_six_hundred_is_replaced_by_another() {
    let world = World::new(1).await;
    let fleet = |third: u8| {
        let named: Vec<(String, String)> = (0..600_u16)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                let ip = std::net::Ipv4Addr::new(127, third, high, low);
                (format!("n{third}-{number}"), format!("http://{ip}:9"))
            })
            .collect();
        let named: Vec<(&str, &str)> = named.iter().map(|it| (&*it.0, &*it.1)).collect();
        Config::for_backends(&named).unwrap().backends
    };
    for third in [1, 2] {
        let all = fleet(third);
        let reloaded = world.reload(|config| {
            config.server.home.clone_from(&all[0].name);
            config.backends.clone_from(&all);
        });
        assert!(reloaded.await.is_ok());
    }
    let members = world.gateway.shared.fleet.members().len();
    assert!((600..=1_201).contains(&members), "{members}");
    assert!(world.gateway.shared.fleet.by_name("n2-599").is_some());
}

#[tokio::test]
async fn the_api_says_what_a_reload_did() {
    let world = World::new(1).await;
    let answer = world.admin_post("/api/v1/reload", "").await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "applied": [], "need_restart": [] })));
}

/// Exit code, standard output, standard error.
fn mooring(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
    let done = command.args(arguments).current_dir(folder).env_clear().output().unwrap();
    let Output { status, stdout, stderr } = done;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A file as editors write it: beside the old one, and then in its place.
fn write(folder: &TempDir, text: &str) {
    fs::write(folder.path().join("new"), text).unwrap();
    fs::rename(folder.path().join("new"), folder.path().join("mooring.toml")).unwrap();
}

/// The audit log has for each reload who asked for it, and whether it was refused.
fn say_who_asked(noted: &str) {
    let lines = noted.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = lines.map(|line| {
        assert_eq!(line["what"], "configuration.reload", "{line}");
        let who = &line["who"];
        let who = who["by"].as_str().or(who["address"].as_str()).unwrap().to_owned();
        (who, line["result"].as_str().unwrap().starts_with("refused: "))
    });
    let expected = [
        ("127.0.0.1", false),
        ("SIGHUP", false),
        ("127.0.0.1", true),
        ("SIGHUP", true),
        ("127.0.0.1", true),
        ("127.0.0.1", false),
    ];
    let expected = expected.map(|(who, is_refused)| (who.to_owned(), is_refused));
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_and_a_command_read_the_file_again_and_a_bad_one_changes_nothing() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "");
    let config = folder.path().join("mooring.toml").display().to_string();
    let audit = "log.audit=./audit.log";
    let set = ["--config", &config, "--set", "prompts.max_body=1MiB", "--set", audit];
    let daemon = Daemon::start_with(&sim, &folder, &set);
    let noted = || fs::read_to_string(folder.path().join("audit.log")).unwrap();
    let are_noted = |count: usize| {
        until("reloads are in the audit log", move || count <= noted().lines().count())
    };
    let mut socket = Socket::open(daemon.front, "/ws?clientId=ada").await;
    socket.until("status").await;
    let admin = format!("http://{}", daemon.admin);
    let reload = || mooring(&folder, &["reload", "--admin", &admin]);
    write(&folder, "[affinity]\nlease = \"20m\"\n[log]\nformat = \"json\"\n");
    let (code, out, err) = reload();
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, "applied: affinity.lease\nafter a restart: log.format\n");
    // What stands on the command line goes over the file, as it did at the start.
    write(&folder, "[affinity]\nlease = \"30m\"\n[prompts]\nmax_body = \"2KiB\"\n");
    daemon.signal("-HUP");
    let line = daemon.says("The configuration was reloaded.");
    let line = match line.contains("affinity.lease") {
        true => line,
        false => daemon.says("The configuration was reloaded."),
    };
    assert!(!line.contains("max_body"), "{line}");
    are_noted(2).await;
    write(&folder, "[affinity]\nlease = \"soon\"\n[prompt]\n");
    let (code, out, err) = reload();
    assert_eq!((code, out.as_str()), (Some(78), ""));
    let (_, _, checked) = mooring(&folder, &["check", "mooring.toml"]);
    for line in ["affinity.lease: ", "mooring.toml:3: "] {
        assert!(err.contains(line) && checked.contains(line), "{err}\n{checked}");
    }
    assert_eq!(daemon.metric("mooring_config_last_reload_success").await, 0);
    daemon.signal("-HUP");
    daemon.says("The configuration was not reloaded: the old one stays.");
    are_noted(4).await;
    fs::remove_file(&config).unwrap();
    assert_eq!(reload().0, Some(78), "a file that is gone is a problem");
    write(&folder, "");
    assert_eq!(reload().0, Some(0));
    assert_eq!(daemon.metric("mooring_config_last_reload_success").await, 1);
    let body = json!({ "client_id": "ada", "prompt": quick(1) }).to_string();
    let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
    socket.until_end(&answer.prompt_id()).await;
    are_noted(6).await;
    say_who_asked(&noted());
}

#[tokio::test]
async fn a_watched_file_is_read_when_it_has_changed() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "");
    let config = folder.path().join("mooring.toml").display().to_string();
    let daemon = Daemon::start_with(&sim, &folder, &["--config", &config, "--watch"]);
    write(&folder, "[affinity]\nlease = \"20m\"\n");
    let line = daemon.says("The configuration was reloaded.");
    assert!(line.contains("affinity.lease"), "{line}");
    write(&folder, "[affinity]\nlease = \"never\"\n");
    daemon.says("The configuration was not reloaded: the old one stays.");
    write(&folder, "[affinity]\nlease = \"40m\"\n");
    daemon.says("The configuration was reloaded.");
}

/// The demo has no file: what it is asked to read again is nowhere.
#[tokio::test]
async fn what_was_not_read_cannot_be_read_again() {
    use mooring::run::{self, Parts};
    use mooring::tasks::Tasks;
    let mut config = Config::for_backends(&[("a", "http://127.0.0.1:9")]).unwrap();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let tasks = Tasks::default();
    let running = run::start(config, network(), &tasks, Parts::default()).await.unwrap();
    let admin = running.admin_address.unwrap();
    let answer = send(admin, Method::POST, "/api/v1/reload", &[], "").await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let left = soon("the drain", tasks.drain(Duration::from_secs(20))).await;
    assert_eq!(left, 0);
}

/// One browser: two prompts at a time, the second while the first is pending, again and again.
async fn browse(front: SocketAddr, name: &str, is_over: &AtomicBool) -> usize {
    let submit = |graph: Value| async move {
        let body = json!({ "client_id": name, "prompt": graph }).to_string();
        let answer = send(front, Method::POST, "/prompt", &[], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    };
    let mut socket = Socket::open(front, &format!("/ws?clientId={name}")).await;
    socket.until("status").await;
    let mut ended = 0;
    while ended == 0 || !is_over.load(Ordering::Relaxed) {
        let first = submit(slow(3, 0.5)).await;
        let second = submit(quick(1)).await;
        assert_eq!(second.backend(), first.backend(), "a held binding has moved");
        for prompt in [first.prompt_id(), second.prompt_id()] {
            let seen = socket.until_end(&prompt).await;
            assert!(!seen.contains(&"execution_error".to_owned()), "{seen:?}");
            ended += 1;
        }
        // Fifty of them have twenty prompts a second.
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    socket.close().await;
    ended
}

async fn has(admin: SocketAddr, name: &str) -> bool {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let shown = send(admin, Method::GET, "/api/v1/backends", &[], "").await.json();
    shown["backends"].as_array().unwrap().iter().any(|it| it["name"] == name)
}

/// Two files in turn: a backend comes and goes, weights and limits change, while browsers work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_nothing() {
    const BROWSERS: usize = 50;
    let reloads = fraction("reloads under load", 1_000, 50);
    let start = |name| Sim::start(network(), Options::named(name));
    let (a, b, c) =
        (start("a").await.unwrap(), start("b").await.unwrap(), start("c").await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let two = format!("[backends.b]\nurl = \"{}\"\n", b.url());
    let three = format!(
        "{two}weight = 2\n[backends.c]\nurl = \"{}\"\n[affinity]\nlease = \"20m\"\n\
         [server]\nmax_connections = 2000\n",
        c.url()
    );
    write(&folder, &three);
    let config = folder.path().join("mooring.toml").display().to_string();
    let daemon = Daemon::start_with(&a, &folder, &["--config", &config]);
    let reload = |text: &str| {
        write(&folder, text);
        send(daemon.admin, Method::POST, "/api/v1/reload", &[], "")
    };
    let is_over = AtomicBool::new(false);
    let names: Vec<String> = (0..BROWSERS).map(|number| format!("browser-{number}")).collect();
    let browsers = names.iter().map(|name| browse(daemon.front, name, &is_over));
    let work = futures_util::future::join_all(browsers);
    let change = async {
        let mut before = 0;
        for turn in 0..reloads {
            let answer = reload(if turn % 2 == 0 { &two } else { &three }).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.text().contains("backends"), "{}", answer.text());
            if turn == reloads / 2 {
                before = daemon.memory("VmRSS:");
            }
            // Now and then it has left, with all that belonged to it, before it comes again.
            if turn % 20 == 0 {
                soon("c leaves", async { while has(daemon.admin, "c").await {} }).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        is_over.store(true, Ordering::Relaxed);
        daemon.memory("VmRSS:").saturating_sub(before)
    };
    let (ended, grown) = tokio::join!(work, change);
    assert!(2 * BROWSERS <= ended.iter().sum(), "{ended:?}");
    assert!(grown <= 5 << 20, "{grown} bytes more");
    assert_eq!(daemon.pending().await, 0);
    assert_eq!(daemon.metric("mooring_panics_total").await, 0);
}
