//! Verbs of somebody who does not say who he is, of ids that nobody knows, and in one step where a
//! server can (promises R2, R6).

use http::Method;
use mooring::config::{Config, Nameless};
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::support::{Answer, World, network, quick, send, slow, until};

async fn over(count: usize, version: &str) -> World {
    let mut sims = Vec::new();
    for name in ["a", "b", "c"].into_iter().take(count) {
        let options = Options { version: version.to_owned(), ..Options::named(name) };
        sims.push(Sim::start(network(), options).await.unwrap());
    }
    let world = World::over(sims, |_| {}).await;
    world.all_up().await;
    world
}

/// What was asked of all backends: method and path, without ids.
fn asked(world: &World) -> Vec<String> {
    let all = world.sims.iter().flat_map(Sim::requests);
    let short = all.map(|seen| {
        let parts: Vec<&str> = seen.target.split('/').collect();
        let is_id = |part: &&str| 30 < part.len();
        let parts: Vec<&str> =
            parts.iter().map(|part| if is_id(part) { "ID" } else { *part }).collect();
        format!("{} {}", seen.method, parts.join("/"))
    });
    short.collect()
}

fn count(asked: &[String], what: &str) -> usize {
    asked.iter().filter(|seen| *seen == what).count()
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|_| mooring::net::new_id().to_string()).collect()
}

fn is_nameless(answer: &Answer) -> bool {
    (answer.status, answer.header("mooring-error")) == (403, "nameless")
}

/// Front ends that say who they are when they submit, and not when they interrupt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_interrupt_is_that_of_the_only_client_of_its_address() {
    for nameless in [None, Some(Nameless::None), Some(Nameless::ById)] {
        let world = World::with(1, |config| config.isolation.nameless = nameless).await;
        let mut ada = world.socket("ada").await;
        for body in ["", "{}", "not json"] {
            let prompt = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
            ada.until("progress").await;
            assert_eq!(world.post("/api/interrupt", body).await.status, 200, "{body}");
            let seen = ada.until_end(&prompt).await;
            assert!(seen.contains(&"execution_interrupted".to_owned()), "{seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_interrupt_is_nobodys_where_it_may_be_anothers() {
    let world = World::new(1).await;
    let mut ada = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
    ada.until("progress").await;
    // Another browser, somebody behind a proxy, and other verbs.
    let cookie = world.cookie();
    for header in [("cookie", cookie.as_str()), ("x-forwarded-for", "203.0.113.9")] {
        let answer = send(world.front, Method::POST, "/interrupt", &[header], "").await;
        assert!(is_nameless(&answer), "{header:?}: {}", answer.text());
    }
    for path in ["/queue", "/history"] {
        assert!(is_nameless(&world.post(path, r#"{"clear": true}"#).await), "{path}");
    }
    // Another client at the address, who has nothing pending and says nothing more.
    let bob = world.socket("bob").await;
    assert!(is_nameless(&world.post("/interrupt", "").await));
    let running = world.get("/queue?clientId=ada").await;
    assert!(running.text().contains(&prompt));
    drop(bob);
    assert!(is_nameless(&world.post("/interrupt", "").await), "it was there within the lease");
}

async fn with_work(nameless: Nameless) -> (World, String, String) {
    let world = World::with(1, |config| config.isolation.nameless = Some(nameless)).await;
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
    ada.until("progress").await;
    let _bob = world.socket("bob").await;
    let waiting = world.submit("bob", &quick(1)).await.prompt_id();
    (world, running, waiting)
}

async fn pending(world: &World) -> usize {
    let queue = world.get("/queue").await.json();
    let len = |list: &str| queue[list].as_array().map_or(0, Vec::len);
    len("queue_running") + len("queue_pending")
}

async fn gone(world: &World, count: usize) {
    crate::support::soon("the queue gets shorter", async {
        while pending(world).await != count {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_may_do_nothing_where_that_is_configured() {
    let (world, running, waiting) = with_work(Nameless::None).await;
    let delete = json!({ "delete": [waiting] }).to_string();
    let interrupt = json!({ "prompt_id": running }).to_string();
    let cancel = json!({ "job_ids": [running] }).to_string();
    for (path, body) in [
        ("/queue", delete.as_str()),
        ("/queue", r#"{"clear": true}"#),
        ("/history", delete.as_str()),
        ("/history", r#"{"clear": true}"#),
        ("/interrupt", interrupt.as_str()),
        ("/interrupt", ""),
        ("/api/jobs/cancel", cancel.as_str()),
        (&format!("/api/jobs/{running}/cancel"), ""),
        (&format!("/api/jobs/{}/cancel", ids(1)[0]), ""),
    ] {
        let answer = world.post(path, body).await;
        assert!(is_nameless(&answer), "{path} {body}: {}", answer.text());
    }
    assert_eq!(world.post("/queue", "{}").await.status, 200, "that is to do nothing");
    assert_eq!(pending(&world).await, 2);
    // Who says who he is does it.
    assert_eq!(world.post("/queue?clientId=bob", &delete).await.status, 200);
    gone(&world, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_may_name_ids_where_that_is_configured() {
    let (world, running, waiting) = with_work(Nameless::ById).await;
    assert!(is_nameless(&world.post("/queue", r#"{"clear": true}"#).await));
    let delete = json!({ "delete": [waiting] }).to_string();
    assert_eq!(world.post("/queue", &delete).await.status, 200);
    gone(&world, 1).await;
    let path = format!("/api/jobs/{running}/cancel");
    assert_eq!(world.post(&path, "").await.json(), json!({ "cancelled": true }));
    gone(&world, 0).await;
}

/// The listener alone does not say from where somebody comes: a proxy may stand before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_and_comes_from_elsewhere_may_do_nothing_unless_that_is_configured() {
    let stranger = |config: &mut Config| config.server.trusted_proxies.clear();
    let trusted = |config: &mut Config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    };
    let far = ("x-forwarded-for", "192.0.2.7");
    let via = ("via", "1.1 proxy");
    for (change, header, status) in [
        (&trusted as &dyn Fn(&mut Config), far, 403),
        (&stranger, far, 403),
        (&stranger, via, 403),
        (&stranger, ("x-other", ""), 200),
    ] {
        let world = World::with(1, change).await;
        let mut ada = world.socket("ada").await;
        let running = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
        ada.until("progress").await;
        let delete = json!({ "delete": [running] }).to_string();
        let path = format!("/api/jobs/{running}/cancel");
        for (path, body) in [("/queue", delete.as_str()), (path.as_str(), "")] {
            let answer = send(world.front, Method::POST, path, &[header], body).await;
            assert_eq!(answer.status, status, "{header:?} {path}: {}", answer.text());
        }
    }
    let world = World::with(1, |config| {
        config.isolation.nameless = Some(Nameless::ById);
    })
    .await;
    let delete = json!({ "delete": ids(1) }).to_string();
    let answer = send(world.front, Method::POST, "/queue", &[far], &delete).await;
    assert_eq!(answer.status, 200, "as configured");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_means_everybody_where_that_is_configured() {
    let (world, running, _waiting) = with_work(Nameless::All).await;
    assert_eq!(world.post("/queue", r#"{"clear": true}"#).await.status, 200);
    gone(&world, 1).await;
    assert_eq!(world.post("/interrupt", "").await.status, 200);
    gone(&world, 0).await;
    // In the gateway's as well: what ends during a clear stays, as in ComfyUI.
    crate::support::soon("it is in a history", async {
        while !world.get("/history").await.text().contains(&running) {}
    })
    .await;
    assert_eq!(world.post("/history", r#"{"clear": true}"#).await.status, 200);
    let history = send(world.sim("a").addr(), Method::GET, "/history", &[], "").await;
    assert_eq!(history.json(), json!({}));
    // One who is named is still only himself.
    let other = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
    assert_eq!(world.post("/queue?clientId=bob", r#"{"clear": true}"#).await.status, 200);
    assert!(world.get("/queue").await.text().contains(&other));
}

/// Sixteen ids once were 48 whole queues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_nobody_knows_cost_each_backend_one_reading_of_its_queue() {
    let world = over(3, "0.33.0").await;
    let before = asked(&world).len();
    let body = json!({ "delete": ids(16) }).to_string();
    assert_eq!(world.post("/queue?clientId=ada", &body).await.status, 200);
    let seen = asked(&world)[..].to_vec();
    assert_eq!(count(&seen, "GET /queue"), 3, "{seen:?}");
    assert_eq!(count(&seen, "GET /history/ID"), 0, "only what is queued can be deleted there");
    assert_eq!(seen.len() - before, 3, "{seen:?}");

    let body = json!({ "delete": ids(16) }).to_string();
    assert_eq!(world.post("/history?clientId=ada", &body).await.status, 200);
    let seen = asked(&world);
    assert_eq!((count(&seen, "GET /queue"), count(&seen, "GET /history/ID")), (6, 48));
    // The same again within five seconds is not looked for again.
    assert_eq!(world.post("/history?clientId=ada", &body).await.status, 200);
    assert_eq!(asked(&world).len(), seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_makes_ids_up_has_only_so_many_looked_for() {
    let world = over(1, "0.33.0").await;
    for id in ids(300) {
        assert_eq!(world.get(&format!("/history/{id}")).await.json(), json!({}));
    }
    let seen = asked(&world);
    let looks = count(&seen, "GET /history/ID");
    assert!((64..150).contains(&looks), "{looks} looks for 300 ids");
    assert!(count(&seen, "GET /queue") <= looks);
    // What is known is found all the same.
    let mut ada = world.socket("ada").await;
    let prompt = world.submit("ada", &quick(1)).await.prompt_id();
    ada.until_end(&prompt).await;
    let history = world.get(&format!("/history/{prompt}")).await.json();
    assert!(history[&prompt].is_object(), "{history}");
}

/// Who has used up what he may have looked for takes nothing from others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_was_not_looked_for_is_looked_for_by_the_next_who_asks() {
    let world = World::with(1, |config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    world.all_up().await;
    let elsewhere = ids(1).remove(0);
    let body = json!({ "prompt": quick(1), "prompt_id": elsewhere }).to_string();
    let sim = world.sim("a").addr();
    assert_eq!(send(sim, Method::POST, "/prompt", &[], &body).await.status, 200);
    crate::support::soon("it has ended there", async {
        let path = format!("/history/{elsewhere}");
        while send(sim, Method::GET, &path, &[], "").await.json() == json!({}) {}
    })
    .await;
    let look = |address: &'static str, id: String| {
        let front = world.front;
        async move {
            let path = format!("/history/{id}");
            let from = [("x-forwarded-for", address)];
            send(front, Method::GET, &path, &from, "").await.json()
        }
    };
    for id in ids(200) {
        look("192.0.2.7", id).await;
    }
    // Until he has nothing left at this very moment.
    let mut found = look("192.0.2.7", elsewhere.clone()).await;
    if found == json!({}) {
        found = look("192.0.2.8", elsewhere.clone()).await;
    }
    assert!(found[&elsewhere].is_object(), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_has_made_there_is_found_and_acted_on() {
    let world = over(3, "0.33.0").await;
    let sim = world.sim("b");
    let submit = |graph: Value| {
        let body = json!({ "prompt": graph }).to_string();
        async move { send(sim.addr(), Method::POST, "/prompt", &[], &body).await.prompt_id() }
    };
    let running = submit(slow(500, 30.0)).await;
    // Else it would be deleted as one that waits.
    until("it runs", || sim.ledger().executed.contains_key(&running)).await;
    let waiting = submit(quick(1)).await;
    let delete = json!({ "delete": [waiting, running] }).to_string();
    assert_eq!(world.post("/queue?clientId=ada", &delete).await.status, 200);
    until("it is deleted", || sim.ledger().deleted.contains(&waiting)).await;
    let path = format!("/api/jobs/{running}/cancel?clientId=ada");
    assert_eq!(world.post(&path, "").await.json(), json!({ "cancelled": true }));
    until("it is interrupted", || sim.ledger().interrupted.contains(&running)).await;
    let delete = json!({ "delete": [running] }).to_string();
    assert_eq!(world.post("/history?clientId=ada", &delete).await.status, 200);
    let history = send(sim.addr(), Method::GET, "/history", &[], "").await;
    assert_eq!(history.json(), json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_stopped_in_one_step_where_the_server_can() {
    for (version, is_new) in [("0.33.0", true), ("0.8.0", false)] {
        let world = over(1, version).await;
        let mut ada = world.socket("ada").await;
        let wanted = [usize::from(is_new), usize::from(!is_new)];
        let ways = |seen: &[String], old: &str| {
            [count(seen, "POST /api/jobs/ID/cancel").min(1), count(seen, old).min(1)]
        };
        let prompt = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
        ada.until("progress").await;
        world.post("/interrupt?clientId=ada", "").await;
        ada.until_end(&prompt).await;
        assert_eq!(ways(&asked(&world), "POST /interrupt"), wanted, "{version}");

        let running = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
        ada.until("progress").await;
        let waiting = world.submit("ada", &quick(1)).await.prompt_id();
        let cancel = format!("/api/jobs/{waiting}/cancel?clientId=ada");
        assert_eq!(world.post(&cancel, "").await.json(), json!({ "cancelled": true }));
        ada.until_end(&waiting).await;
        assert_eq!(ways(&asked(&world), "POST /queue"), wanted, "{version}");
        let again = world.post(&cancel, "").await;
        assert_eq!(again.json(), json!({ "cancelled": false }), "it has ended");

        let others = world.submit("ada", &quick(2)).await.prompt_id();
        let several = json!({ "job_ids": [running, others] }).to_string();
        let answer = world.post("/api/jobs/cancel?clientId=ada", &several).await;
        assert_eq!(answer.json(), json!({ "cancelled": true }), "{version}");
        let seen = ada.until_end(&running).await;
        assert!(seen.contains(&"execution_interrupted".to_owned()), "{seen:?}");
        if is_new {
            let seen = asked(&world);
            assert_eq!(count(&seen, "POST /api/jobs/cancel"), 1);
            assert_eq!(count(&seen, "POST /queue") + count(&seen, "POST /interrupt"), 0);
        }
        until("nothing is pending", || {
            let sim = world.sim("a");
            sim.ledger().deleted.contains(&others) && sim.ledger().interrupted.contains(&running)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_gets_its_cookie_with_any_page_that_it_goes_to() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("extensions/pack");
    std::fs::create_dir_all(&pack).unwrap();
    std::fs::write(folder.path().join("index.html"), "<html><head></head></html>").unwrap();
    std::fs::write(pack.join("app.html"), "<html>an app</html>").unwrap();
    std::fs::write(pack.join("app.json"), "{}").unwrap();
    let options = Options { frontend: Some(folder.path().to_owned()), ..Options::named("a") };
    let world = World::over(vec![Sim::start(network(), options).await.unwrap()], |_| {}).await;
    world.all_up().await;
    let goes = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let answer = send(world.front, Method::GET, path, headers, "").await;
        assert_eq!(answer.status, 200, "{path}");
        answer.header("set-cookie").to_owned()
    };
    let app = "/extensions/pack/app.html";
    let cookie = get(app, &[goes]).await;
    assert!(cookie.starts_with("mooring=") && cookie.contains("HttpOnly"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(get(app, &[goes, ("cookie", pair)]).await, "", "it has one");
    assert_eq!(get(app, &[("accept", "*/*")]).await, "", "a script reads it");
    assert_eq!(get("/extensions/pack/app.json", &[goes]).await, "", "it is no page");
    assert_eq!(get("/", &[goes]).await.matches("mooring=").count(), 1);
    // What the page does by itself is its browser's.
    let body = json!({ "client_id": "ada", "prompt": slow(500, 30.0) }).to_string();
    let mine = [("cookie", pair)];
    let prompt = send(world.front, Method::POST, "/prompt", &mine, &body).await.prompt_id();
    let _another = world.socket("bob").await;
    let sim = world.sim("a");
    until("it runs", || sim.ledger().executed.contains_key(&prompt)).await;
    assert_eq!(send(world.front, Method::POST, "/interrupt", &mine, "").await.status, 200);
    until("it is interrupted", || sim.ledger().interrupted.contains(&prompt)).await;
}
