//! Lists that a page holds its values against: nodes, models, input files of all backends, and of
//! files only one's own and nobody's (promises R3 and R5).

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::pictures::{BLUE, RED, color, inverse, invert, png, run, upload, value, view};
use crate::support::{Answer, World, send, soon, until};

async fn get(world: &World, path: &str, client: &str) -> Answer {
    let answer = send(world.front, Method::GET, path, &[("comfy-client-id", client)], "").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

async fn combo(world: &World, client: &str) -> Vec<String> {
    let whole = get(world, "/api/object_info", client).await.json();
    let one = get(world, "/object_info/LoadImage", client).await.json();
    let list = &whole["LoadImage"]["input"]["required"]["image"][0];
    assert_eq!(*list, one["LoadImage"]["input"]["required"]["image"][0], "both say the same");
    serde_json::from_value(list.clone()).unwrap()
}

async fn listing(world: &World, client: &str) -> Vec<String> {
    let listed = get(world, "/internal/files/input", client).await.json();
    serde_json::from_value(listed).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_inputs_carry_the_names_that_views_and_graphs_take() {
    let world = World::new(2).await;
    world.all_up().await;
    // They are asked for before the uploads, so that what is known of the other is old.
    assert!(combo(&world, "bob").await.is_empty());
    let ada = upload(&world, Some("ada"), "same.png", &png(RED)).await;
    let bob = upload(&world, Some("bob"), "same.png", &png(BLUE)).await;
    assert_ne!(ada.backend(), bob.backend());
    for (client, up, picture) in [("ada", &ada, RED), ("bob", &bob, BLUE)] {
        assert_eq!(combo(&world, client).await, [value(up)], "one's own, and nobody else's");
        let listed = listing(&world, client).await;
        assert_eq!(listed, [format!("{} [input]", value(up))]);
        let name = listed[0].trim_end_matches(" [input]");
        let at = json!({ "filename": name, "subfolder": "", "type": "input" });
        assert_eq!(color(&view(&world, &at, Some(client)).await.body), picture, "{client}");
        let (_, images) = run(&world, client, &invert(name)).await;
        assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(picture));
    }
    assert!(combo(&world, "eve").await.is_empty() && listing(&world, "eve").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_on_another_backend_is_listed_and_a_copy_is_not() {
    let world = World::new(2).await;
    world.all_up().await;
    let up = upload(&world, Some("ada"), "mine.png", &png(RED)).await;
    // Her binding moves to the other: the picture is listed there all the same.
    for state in ["draining", "ready"] {
        let body = json!({ "state": state }).to_string();
        let path = format!("/api/v1/backends/{}/state", up.backend());
        assert_eq!(world.admin_post("/api/v1/clients/ada/release", "").await.status, 200);
        assert_eq!(world.admin_post(&path, &body).await.status, 200);
        assert_eq!(combo(&world, "ada").await, ["mine.png"]);
        if state == "draining" {
            let (ran, _) = run(&world, "ada", &invert("mine.png")).await;
            assert_ne!(ran.backend(), up.backend(), "it was copied");
        }
    }
    assert_eq!(listing(&world, "ada").await, ["mine.png [input]"]);
}

/// It got another name where it was copied to, and no list shows that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_under_another_name_is_in_no_list() {
    let world = World::new(2).await;
    world.all_up().await;
    let ada = upload(&world, Some("ada"), "mine.png", &png(RED)).await;
    let bob = upload(&world, Some("bob"), "mine.png", &png(BLUE)).await;
    assert_ne!(ada.backend(), bob.backend());
    assert_eq!(world.admin_post("/api/v1/clients/ada/release", "").await.status, 200);
    let path = format!("/api/v1/backends/{}/state", ada.backend());
    assert_eq!(world.admin_post(&path, r#"{"state": "draining"}"#).await.status, 200);
    let (ran, _) = run(&world, "ada", &invert(&value(&ada))).await;
    assert_eq!(ran.backend(), bob.backend(), "it was copied");
    let there =
        send(world.sim(bob.backend()).addr(), Method::GET, "/internal/files/input", &[], "");
    assert!(there.await.text().contains("mine (1).png"));
    for (client, up) in [("ada", &ada), ("bob", &bob)] {
        assert_eq!(combo(&world, client).await, [value(up)], "{client}");
        assert_eq!(listing(&world, client).await, [format!("{} [input]", value(up))]);
    }
    assert!(combo(&world, "eve").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_nobody_uploaded_are_everybodys() {
    let world = World::new(2).await;
    world.all_up().await;
    for name in ["a", "b"] {
        let sim = world.sim(name).addr();
        let body = crate::pictures::form(&format!("of-{name}.png"), &png(RED), &[]);
        let headers = [("content-type", "multipart/form-data; boundary=xyz")];
        let path = "/upload/image";
        let put = crate::support::send_bytes(sim, Method::POST, path, &headers, body).await;
        assert_eq!(put.status, 200);
    }
    let mut listed = combo(&world, "ada").await;
    listed.sort();
    assert_eq!(listed, ["of-a.png", "of-b.png"]);
    for name in ["of-a.png", "of-b.png"] {
        let (_, images) = run(&world, "ada", &invert(name)).await;
        assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(RED), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_and_nodes_of_all_backends_are_listed() {
    let world = World::new(2).await;
    world.all_up().await;
    let loader = |models: &[&str]| {
        let input = json!([models, { "tooltip": "x" }]);
        json!({ "input": { "required": { "ckpt_name": input } } })
    };
    let info = |models: &[&str], more: &str| {
        let mut info = json!({ "CheckpointLoaderSimple": loader(models) });
        info[more] = json!({ "input": {}, "name": more });
        info
    };
    for (name, models, more) in
        [("a", ["x.safetensors", "both"], "OfA"), ("b", ["y", "both"], "OfB")]
    {
        let sim = world.sim(name);
        sim.serve("/object_info", &info(&models, more));
        sim.serve("/models/checkpoints", &json!(models));
        sim.serve("/embeddings", &json!([more]));
    }
    for client in ["ada", "bob"] {
        let answer = get(&world, "/object_info", client).await;
        let info = answer.json();
        let input = &info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"];
        let models: Vec<&str> =
            input[0].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        let own = if answer.backend() == "a" { "x.safetensors" } else { "y" };
        assert_eq!((models.len(), models[0]), (3, own), "{models:?}");
        assert_eq!(input[1], json!({ "tooltip": "x" }));
        assert_eq!((&info["OfA"]["name"], &info["OfB"]["name"]), (&json!("OfA"), &json!("OfB")));
        let listed = get(&world, "/api/models/checkpoints", client).await.json();
        assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
        assert_eq!(get(&world, "/embeddings", client).await.json().as_array().unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_did_not_change_is_not_sent_again_and_others_are_seldom_asked() {
    let world = World::new(2).await;
    world.all_up().await;
    let first = get(&world, "/object_info", "ada").await;
    let other = if first.backend() == "a" { "b" } else { "a" };
    let asked = || {
        let seen = world.sim(other).requests();
        seen.iter().filter(|it| it.target == "/object_info").count()
    };
    assert_eq!(asked(), 1);
    let tag = first.header("etag").to_owned();
    let ask = async |tag: &str| {
        let headers = [("comfy-client-id", "ada"), ("if-none-match", tag)];
        send(world.front, Method::GET, "/object_info", &headers, "").await
    };
    let known = ask(&tag).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(known.header("cache-control"), "private, no-cache");
    assert_eq!(asked(), 1, "what the other said is known");
    // An upload anywhere is seen at once.
    upload(&world, Some("ada"), "new.png", &png(RED)).await;
    assert_eq!(ask(&tag).await.status, 200);
    let head = [("comfy-client-id", "ada")];
    let head = send(world.front, Method::HEAD, "/object_info", &head, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

/// What was asked before an upload does not have it: it is asked again, and nobody waits in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_comes_after_an_upload_has_it_though_another_asked_before() {
    let world = World::with(2, |config| {
        config.fleet.list_timeout = Duration::from_secs(60);
    })
    .await;
    world.all_up().await;
    let stored = upload(&world, Some("bob"), "before.png", &png(RED)).await;
    let other = world.sim(stored.backend());
    let path = format!("/api/v1/backends/{}/state", stored.backend());
    assert_eq!(world.admin_post(&path, r#"{"state": "draining"}"#).await.status, 200);
    other.set_faults(|faults| faults.latency_ms = 1_000);
    let asked = || {
        let seen = other.requests();
        seen.iter().filter(|it| it.target == "/object_info").count()
    };
    let first = combo(&world, "ada");
    let second = async {
        until("it is asked", || 0 < asked()).await;
        other.set_faults(|faults| faults.latency_ms = 0);
        upload(&world, Some("bob"), "after.png", &png(RED)).await;
        combo(&world, "eve").await
    };
    soon("both", Box::pin(async { tokio::join!(first, second) })).await;
    assert_eq!(asked(), 2, "once before the upload and once after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_there_while_ones_backend_is_down() {
    let world = World::new(2).await;
    world.all_up().await;
    let first = get(&world, "/object_info", "ada").await.backend().to_owned();
    world.sim(&first).crash().await;
    world.is_down(&first).await;
    for path in ["/object_info", "/object_info/LoadImage", "/internal/files/output", "/embeddings"]
    {
        assert_ne!(get(&world, path, "ada").await.backend(), first, "{path}");
    }
    let junk = get(&world, "/internal/files/input", "ada").await;
    assert_eq!(junk.json(), json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blueprint_is_found_where_it_was_listed() {
    let world = World::new(2).await;
    world.all_up().await;
    let item = json!({ "name": "upscale", "data": "{}" });
    for (id, here, there) in [("1f", "a", "b"), ("2f", "b", "a")] {
        world.sim(here).serve(&format!("/global_subgraphs/{id}"), &item);
        world.sim(there).serve(&format!("/global_subgraphs/{id}"), &Value::Null);
    }
    for client in ["ada", "bob"] {
        for id in ["1f", "2f"] {
            let path = format!("/api/global_subgraphs/{id}");
            assert_eq!(get(&world, &path, client).await.json(), item, "{client} {id}");
        }
    }
    for name in ["a", "b"] {
        world.sim(name).serve("/global_subgraphs/3f", &Value::Null);
    }
    assert_eq!(get(&world, "/global_subgraphs/3f", "ada").await.json(), Value::Null);
}
