//! A page that starts whatever is away: reads that name nothing, a page for when nobody answers.

use http::Method;
use mooring::sim::{Options, Sim};

use crate::passthrough::{Act, Puppet};
use crate::support::{Answer, World, network, send, slow};

/// What the stock page reads before it shows anything, and a read of a node pack.
const READS: [&str; 10] = [
    "/api/features",
    "/api/system_stats",
    "/api/i18n",
    "/api/extensions",
    "/api/global_subgraphs",
    "/api/object_info",
    "/object_info/SaveImage",
    "/models",
    "/system_stats?x=1",
    "/embeddings?filename=x",
];

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.front, Method::GET, path, headers, "").await
}

fn person() -> [(&'static str, &'static str); 2] {
    [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_name_nothing_do_not_fail_with_the_backend_that_holds_their_client() {
    let world = World::new(3).await;
    world.all_up().await;
    // The home holds ada; b holds bob.
    let mut places = Vec::new();
    for client in ["ada", "bob"] {
        let answer = world.submit(client, &slow(500, 60.0)).await;
        places.push(answer.backend().to_owned());
        answer.prompt_id();
    }
    assert_ne!(places[0], places[1]);
    for place in &places {
        world.sim(place).crash().await;
    }
    for noticed in ["not yet noticed", "noticed"] {
        for client in ["ada", "bob"] {
            let named = [("comfy-client-id", client)];
            for path in READS {
                let answer = get(&world, path, &named).await;
                assert_eq!(answer.status, 200, "{path} {client} {noticed}: {}", answer.text());
                assert!(!places.iter().any(|place| answer.backend() == place), "{path} {client}");
                let head = send(world.front, Method::HEAD, path, &named, "").await;
                assert_eq!(head.status, 200, "HEAD {path} {client} {noticed}");
            }
            assert_eq!(get(&world, "/pack/state", &named).await.status, 404, "another's own");
        }
        for place in &places {
            world.is_down(place).await;
        }
    }
    let named = [("comfy-client-id", "ada")];
    let placement = get(&world, "/pack/state", &named).await;
    assert!(["stand_in", "home"].contains(&placement.header("mooring-placement")));
    let act = send(world.front, Method::POST, "/pack/act", &named, "{}").await;
    assert_eq!((act.status, act.header("mooring-error")), (503, "backend_down"), "what acts never");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_backend_up_what_a_page_needs_comes_from_the_last_good_copy() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut before = Vec::new();
    for path in ["/api/object_info", "/system_stats", "/api/i18n"] {
        let first = world.get(path).await;
        assert_eq!(first.body, world.get(path).await.body, "{path}");
        before.push((path, first));
    }
    world.sim("a").crash().await;
    for noticed in ["not yet noticed", "noticed"] {
        for (path, first) in &before {
            let copy = world.get(path).await;
            assert_eq!((copy.status, &copy.body), (200, &first.body), "{path} {noticed}");
            assert!(!copy.header("mooring-stale").is_empty(), "{path} {noticed}");
        }
        world.is_down("a").await;
    }
    let other = world.get("/api/extensions").await;
    assert_eq!((other.status, other.header("mooring-error")), (503, "no_backend"), "never asked");
    let login = get(&world, "/api/object_info", &[("authorization", "Bearer x")]).await;
    assert_eq!(login.status, 503, "what one was given is not another's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_backend_up_a_person_is_told_so_and_the_page_comes_back() {
    let world = World::new(1).await;
    world.all_up().await;
    assert_eq!(world.get("/").await.status, 200);
    world.sim("a").crash().await;
    let plain_http = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for noticed in ["not yet noticed", "noticed"] {
        for path in ["/", "/index.html", "/pack/page", "/settings?of=nobody"] {
            for headers in [&person()[..], &plain_http] {
                let page = get(&world, path, headers).await;
                let told = (page.status, page.header("content-type"), page.header("cache-control"));
                assert_eq!(told, (503, "text/html; charset=utf-8", "no-store"), "{path} {noticed}");
                assert!(page.text().contains("http-equiv=\"refresh\""), "{path}");
                assert!(
                    !page.header("retry-after").is_empty()
                        && !page.header("mooring-error").is_empty()
                );
            }
        }
        world.is_down("a").await;
    }
    let script = world.get("/pack/page").await;
    assert_eq!(script.json()["error"]["type"], "no_backend", "for programs as ever");
    world.sim("a").restart().await.unwrap();
    world.all_up().await;
    let page = get(&world, "/", &person()).await;
    assert!(page.status == 200 && page.text().contains("page.js"), "{}", page.text());
}

/// What breaks the backend that it was sent to does not go round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_broke_its_backend_is_not_sent_to_another() {
    let poison = ["/pack/poison", "/pack/poison?filename=x"];
    let acts = poison.map(|path| (path, Act::AnswerAndClose(String::new())));
    let sims = vec![
        Sim::start(network(), Options::named("a")).await.unwrap(),
        Sim::start(network(), Options::named("b")).await.unwrap(),
    ];
    let puppet = Puppet::before(&sims[0], &acts).await;
    let port = puppet.port();
    let world = World::over(sims, |config| {
        config.backends[0].port = port;
        config.backends[0].authority = format!("127.0.0.1:{port}");
    })
    .await;
    world.all_up().await;
    for path in poison {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status, answer.header("mooring-error")),
            (502, "backend_lost"),
            "{path}"
        );
        let asked = puppet.asked().iter().filter(|(_, asked)| asked == path).count();
        assert_eq!(asked, 1, "{path}");
    }
    let seen = world.sim("b").requests();
    assert!(seen.iter().all(|it| !it.target.contains("poison")), "{seen:?}");
}
