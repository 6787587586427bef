//! What has ended is a person's, what has no name is of its address, and no answer tells anybody
//! the id of another's client (R5, R6).

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, World, quick, send, slow, until};

/// Somebody who asks, with the headers that say who he is.
struct Asker<'a> {
    world: &'a World,
    headers: Vec<(&'a str, &'a str)>,
}

impl Asker<'_> {
    async fn get(&self, path: &str) -> Answer {
        send(self.world.front, Method::GET, path, &self.headers, "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.world.front, Method::POST, path, &self.headers, &body.to_string()).await
    }

    /// Submits a graph for a client, or for none.
    async fn submit(&self, client: Option<&str>, graph: &Value) -> String {
        let mut body = json!({ "prompt": graph });
        if let Some(client) = client {
            body["client_id"] = json!(client);
        }
        self.post("/prompt", &body).await.prompt_id()
    }

    async fn ids(&self, path: &str) -> Vec<String> {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        ids_in(&answer.json())
    }
}

/// The prompts of a queue, a history or a list of jobs, in its order.
fn ids_in(list: &Value) -> Vec<String> {
    let text = |id: &Value| id.as_str().unwrap().to_owned();
    if let Some(jobs) = list["jobs"].as_array() {
        return jobs.iter().map(|job| text(&job["id"])).collect();
    }
    if let Some(running) = list["queue_running"].as_array() {
        let all = running.iter().chain(list["queue_pending"].as_array().unwrap());
        return all.map(|item| text(&item[1])).collect();
    }
    list.as_object().unwrap().keys().cloned().collect()
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

/// Waits until a client has nothing pending any more, whoever it is.
async fn all_ended(world: &World) {
    until("all prompts have ended", || {
        world.gateway.sessions.clients.all().iter().all(|client| client.pending().is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_tab_sees_what_ended_in_one_that_is_gone_and_cancels_what_it_left_behind() {
    let world = World::new(1).await;
    world.all_up().await;
    let (cookie, other) = (world.cookie(), world.cookie());
    let person = Asker { world: &world, headers: vec![("cookie", &cookie)] };
    let stranger = Asker { world: &world, headers: vec![("cookie", &other)] };

    let mut gone = world.socket("gone").await;
    let ended = person.submit(Some("gone"), &quick(1)).await;
    gone.until_end(&ended).await;
    let left = person.submit(Some("gone"), &slow(500, 60.0)).await;
    gone.until("progress").await;
    // While its tab is there, another one neither sees nor ends what is pending.
    let cancel = format!("/api/jobs/{left}/cancel?clientId=new");
    assert_eq!(person.ids("/queue?clientId=new").await, [""; 0]);
    assert_eq!(person.post(&cancel, &json!({})).await.json(), json!({ "cancelled": false }));
    gone.close().await;
    let client =
        world.gateway.sessions.clients.all().into_iter().find(|it| it.id.as_str() == "gone");
    let client = client.unwrap();
    until("the tab is gone", || client.inspect(|core, _| core.sockets() == 0)).await;

    assert_eq!(person.ids("/history?clientId=new").await, std::slice::from_ref(&ended));
    assert_eq!(person.ids("/queue?clientId=new").await, std::slice::from_ref(&left));
    let all = sorted(person.ids("/api/jobs?clientId=new").await);
    assert_eq!(all, sorted(vec![ended.clone(), left.clone()]));
    for path in ["/history?clientId=new", "/queue?clientId=new", "/api/jobs?clientId=new"] {
        let path = path.replace("new", "else");
        assert_eq!(stranger.ids(&path).await, [""; 0], "{path}");
        let nobody = Asker { world: &world, headers: Vec::new() };
        assert_eq!(nobody.ids(&path).await, [""; 0], "without the cookie: {path}");
    }
    let theirs = format!("/api/jobs/{left}/cancel?clientId=else");
    assert_eq!(stranger.post(&theirs, &json!({})).await.json(), json!({ "cancelled": false }));
    // A bare verb is the tab's: this one has nothing.
    assert_eq!(person.post("/interrupt?clientId=new", &json!({})).await.status, 200);
    assert_eq!(person.post("/queue?clientId=new", &json!({ "clear": true })).await.status, 200);
    assert_eq!(client.pending().len(), 1);
    assert_eq!(person.post(&cancel, &json!({})).await.json(), json!({ "cancelled": true }));
    until("it has ended", || client.pending().is_empty()).await;
    let history = person.ids("/history?clientId=new").await;
    assert_eq!(history, [ended.clone(), left.clone()]);

    // What a tab that is gone left behind is cleared with one's own; what a live one has is not.
    let mut live = world.socket("live").await;
    let lives = person.submit(Some("live"), &quick(2)).await;
    live.until_end(&lives).await;
    let delete = json!({ "delete": [ended] });
    assert_eq!(person.post("/history?clientId=new", &delete).await.status, 200);
    assert_eq!(person.ids("/history?clientId=new").await, [left, lives.clone()]);
    assert_eq!(person.post("/history?clientId=new", &json!({ "clear": true })).await.status, 200);
    assert_eq!(person.ids("/history?clientId=new").await, [lives]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_cookie_the_user_that_is_named_is_the_person() {
    let world = World::new(1).await;
    world.all_up().await;
    let ada = Asker { world: &world, headers: vec![("comfy-user", "ada_1")] };
    let bob = Asker { world: &world, headers: vec![("comfy-user", "bob_1")] };
    let everybody = Asker { world: &world, headers: vec![("comfy-user", "default")] };
    let adas = ada.submit(Some("one"), &quick(1)).await;
    let bobs = bob.submit(Some("two"), &quick(2)).await;
    let shared = everybody.submit(Some("three"), &quick(3)).await;
    all_ended(&world).await;
    assert_eq!(ada.ids("/history?clientId=another").await, std::slice::from_ref(&adas));
    assert_eq!(ada.ids("/api/jobs").await, [adas], "a user may have no tab yet");
    assert_eq!(bob.ids("/history?clientId=another").await, [bobs]);
    // Pages of servers with a single user say this: it names nobody.
    assert_eq!(everybody.ids("/history?clientId=another").await, [""; 0]);
    assert_eq!(everybody.ids("/history?clientId=three").await, [shared]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nameless_prompts_are_shown_in_full_where_they_were_sent_and_nowhere_else() {
    let world = World::with(2, |config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    world.all_up().await;
    let here = Asker { world: &world, headers: vec![("x-forwarded-for", "10.0.0.1")] };
    let there = Asker { world: &world, headers: vec![("x-forwarded-for", "10.0.0.2")] };
    let mut made = Vec::new();
    for color in 0..3 {
        made.push(here.submit(None, &quick(color)).await);
        all_ended(&world).await;
    }
    let history = here.get("/history").await;
    assert_eq!(ids_in(&history.json()), made);
    for (_, entry) in history.json().as_object().unwrap() {
        assert!(entry["outputs"]["3"]["images"][0]["filename"].is_string(), "{entry}");
        assert_eq!(entry["status"]["status_str"], "success");
    }
    assert_eq!(here.ids("/history?max_items=1").await, made[2..]);
    let jobs = here.get("/api/jobs?status=completed").await.json();
    assert_eq!(sorted(ids_in(&jobs)), sorted(made.clone()));
    assert_eq!(jobs["jobs"][0]["previewable_outputs_count"], 1);
    let running = here.submit(None, &slow(500, 60.0)).await;
    let queue = here.get("/queue").await;
    assert_eq!(ids_in(&queue.json()), std::slice::from_ref(&running));
    assert!(queue.text().contains("SlowSteps"), "in full");
    for path in ["/history", "/queue", "/api/jobs"] {
        assert_eq!(there.ids(path).await, [""; 0], "{path}");
    }

    // With somebody else there, nobody can say whose they are: only where they wait is told.
    let ada = here.submit(Some("ada"), &slow(500, 60.0)).await;
    assert_eq!(here.ids("/history").await, [""; 0], "never a success without its outputs");
    let queue = here.get("/queue").await;
    assert_eq!(sorted(ids_in(&queue.json())), sorted(vec![running, ada.clone()]));
    assert!(!queue.text().contains("SlowSteps"), "{}", queue.text());
    assert_eq!(there.ids("/queue").await, [ada], "what has a name is told by its place");
}

/// A proxy that is not trusted speaks for many, and what it sends is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_shown_in_full_to_who_comes_through_a_proxy_that_is_not_trusted() {
    for mark in [
        ("x-forwarded-for", "10.0.0.1"),
        ("X-Real-IP", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("via", "1.1 proxy"),
    ] {
        let world = World::new(1).await;
        world.all_up().await;
        let proxied = Asker { world: &world, headers: vec![mark] };
        proxied.submit(None, &quick(1)).await;
        all_ended(&world).await;
        assert_eq!(proxied.ids("/history").await, [""; 0], "{mark:?}");
        assert_eq!(proxied.ids("/api/jobs").await, [""; 0], "{mark:?}");
        proxied.submit(None, &slow(500, 60.0)).await;
        let stopped = proxied.post("/interrupt", &json!({})).await;
        assert_eq!(
            (stopped.status, stopped.header("mooring-error")),
            (403, "nameless"),
            "{mark:?}"
        );
        assert!(!proxied.get("/queue").await.text().contains("SlowSteps"), "{mark:?}");
    }
}

/// A socket says nothing for hours, and whoever has it is there all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_listens_is_there_as_well() {
    let world = World::with(1, |config| config.affinity.lease = Duration::from_millis(200)).await;
    world.all_up().await;
    let nobody = Asker { world: &world, headers: Vec::new() };
    let made = nobody.submit(None, &quick(1)).await;
    all_ended(&world).await;
    assert_eq!(nobody.ids("/history").await, [made]);
    let _socket = world.socket("ada").await;
    let later = mooring::net::now() + Duration::from_millis(300);
    until("the lease is over", || later < mooring::net::now()).await;
    assert_eq!(nobody.ids("/history").await, [""; 0], "it may be ada who asks, or who made it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_tells_the_id_of_anothers_client() {
    const SECRET: &str = "7c7d6e0a5b9f4a55b3a1-secret";
    let world = World::new(2).await;
    world.all_up().await;
    let cookie = world.cookie();
    let page = Asker { world: &world, headers: vec![("cookie", &cookie)] };
    let nobody = Asker { world: &world, headers: Vec::new() };
    let ended = page.submit(Some(SECRET), &quick(1)).await;
    all_ended(&world).await;
    let running = page.submit(Some(SECRET), &slow(500, 60.0)).await;
    let waiting = page.submit(Some(SECRET), &quick(2)).await;
    let mut paths: Vec<String> = ["/history", "/queue", "/api/jobs", "/prompt", "/api/history"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    for id in [&ended, &running, &waiting] {
        paths.extend([
            format!("/history/{id}"),
            format!("/api/jobs/{id}"),
            format!("/-/explain?prompt={id}"),
        ]);
    }
    // Twice: what was fetched for one asker is kept for the next.
    for _ in 0..2 {
        for path in &paths {
            let query = if path.contains('?') { "&" } else { "?" };
            let others = format!("{path}{query}clientId=bob");
            for answer in
                [nobody.get(path).await, nobody.get(&others).await, page.get(&others).await]
            {
                assert!(answer.status < 500, "{path}: {}", answer.text());
                assert!(!answer.text().contains(SECRET), "{path}: {}", answer.text());
            }
        }
    }
    // Its own page knows it, and finds it where it always was.
    let own = nobody.get(&format!("/history/{ended}?clientId={SECRET}")).await.json();
    assert_eq!(own[&ended]["prompt"][3]["client_id"], SECRET);
    let own = nobody.get(&format!("/queue?clientId={SECRET}")).await.json();
    assert_eq!(own["queue_running"][0][3]["client_id"], SECRET);
    let detail = nobody.get(&format!("/api/jobs/{ended}")).await.json();
    assert!(detail["workflow"]["extra_data"]["create_time"].is_number(), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_prompt_and_one_whose_backend_is_away_have_the_times_that_a_page_wants() {
    let world = World::with(2, |config| config.fleet.grace = Duration::from_millis(300)).await;
    world.all_up().await;
    let answer = world.submit("ada", &slow(500, 60.0)).await;
    let (prompt, home) = (answer.prompt_id(), answer.backend().to_owned());
    let before = mooring::net::unix_millis();
    world.sim(&home).crash().await;
    world.is_down(&home).await;
    let jobs = world.get("/api/jobs?clientId=ada").await.json();
    let taken = jobs["jobs"][0]["create_time"].as_u64().expect("a number");
    assert!(taken <= before && before < taken + 60_000, "{taken} is when it was taken");
    let alone = world.get(&format!("/api/jobs/{prompt}")).await;
    assert_eq!(alone.status, 200, "as in the list: {}", alone.text());
    assert_eq!(alone.json()["create_time"], taken);
    all_ended(&world).await;
    let lost = world.get("/api/jobs?clientId=ada").await.json();
    let job = &lost["jobs"][0];
    assert_eq!((&job["id"], &job["status"]), (&json!(prompt), &json!("failed")));
    assert_eq!(job["create_time"], taken);
    assert!(before <= job["execution_end_time"].as_u64().unwrap(), "{job}");
    assert!(job["execution_error"]["traceback"].is_array() && job["priority"].is_number());
    // It was lost when it was lost.
    let later = mooring::net::unix_millis() + 20;
    until("time has passed", || later <= mooring::net::unix_millis()).await;
    assert_eq!(world.get("/api/jobs?clientId=ada").await.json(), lost);
    let detail = world.get(&format!("/api/jobs/{prompt}")).await.json();
    assert_eq!(detail["execution_end_time"], job["execution_end_time"]);
    let entry = &world.get("/history?clientId=ada").await.json()[&prompt];
    assert_eq!(entry["prompt"][3]["create_time"], taken);
    assert_eq!(entry["status"]["messages"][0][1]["timestamp"], job["execution_end_time"]);
}
