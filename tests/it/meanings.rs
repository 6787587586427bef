//! What a name means to whoever types it (promises R1 and R3), over real sockets and simulated
//! backends.

use http::Method;
use mooring::config::Config;
use serde_json::json;

use crate::pictures::{
    BLUE, RED, color, form, inverse, invert, png, post_form, run, upload, value, view,
};
use crate::support::{Answer, World, send, send_bytes, soon, until};

/// Addresses are what a proxy says.
fn behind_a_proxy(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

/// An upload of somebody who says no name, from an address.
async fn upload_from(world: &World, address: &str, picture: [u8; 3]) -> Answer {
    let body = form("avatar.png", &png(picture), &[("overwrite", "true")]);
    let headers =
        [("content-type", "multipart/form-data; boundary=xyz"), ("x-forwarded-for", address)];
    send_bytes(world.front, Method::POST, "/upload/image", &headers, body).await
}

/// The same from another address, where the first is not.
async fn upload_elsewhere(world: &World, but: &str) -> Answer {
    let path = format!("/api/v1/backends/{but}/state");
    let say = async |state: &str| {
        let body = json!({ "state": state }).to_string();
        assert_eq!(world.admin_post(&path, &body).await.status, 200);
    };
    say("draining").await;
    let answer = upload_from(world, "10.0.0.2", BLUE).await;
    say("ready").await;
    answer
}

/// What a nameless prompt from an address makes.
async fn inverted(world: &World, address: &str, image: &str) -> [u8; 3] {
    let body = json!({ "prompt": invert(image) }).to_string();
    let headers = [("x-forwarded-for", address)];
    let answer = send(world.front, Method::POST, "/prompt", &headers, &body).await;
    let prompt = answer.prompt_id();
    let sim = world.sim(answer.backend()).addr();
    let images = soon("it has ended", async {
        loop {
            let entry = send(sim, Method::GET, &format!("/history/{prompt}"), &[], "").await.json();
            let image = entry[&prompt]["outputs"]["3"]["images"][0].clone();
            if !image.is_null() {
                return image;
            }
        }
    })
    .await;
    let name = images["filename"].as_str().unwrap();
    let path = format!("/view?filename={name}&type=output");
    color(&send(sim, Method::GET, &path, &[], "").await.body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_older_picture_is_never_used_without_a_word() {
    let world = World::with(2, behind_a_proxy).await;
    let red = upload_from(&world, "10.0.0.1", RED).await;
    let blue = upload_elsewhere(&world, red.backend()).await;
    assert_ne!(red.backend(), blue.backend());
    assert_eq!(value(&blue), format!("~{}/avatar.png", blue.backend()));
    assert_eq!(inverted(&world, "10.0.0.3", "avatar.png").await, inverse(BLUE));
    // Each means his own, and whoever was given a name with a backend gets that one.
    assert_eq!(inverted(&world, "10.0.0.1", "avatar.png").await, inverse(RED));
    assert_eq!(inverted(&world, "10.0.0.2", "avatar.png").await, inverse(BLUE));
    let named = format!("~{}/avatar.png", red.backend());
    assert_eq!(inverted(&world, "10.0.0.3", &named).await, inverse(RED));
    // A link shows to everyone what it was given for.
    let plain = "/view?filename=avatar.png&type=input";
    assert_eq!(color(&world.get(plain).await.body), RED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_sees_under_a_name_of_ones_own_is_what_runs() {
    let world = World::new(2).await;
    let ada = upload(&world, Some("ada"), "same.png", &png(RED)).await;
    let bob = upload(&world, Some("bob"), "same.png", &png(BLUE)).await;
    assert_ne!(ada.backend(), bob.backend());
    for (client, picture) in [("ada", RED), ("bob", BLUE)] {
        let at = json!({ "filename": "same.png", "subfolder": "", "type": "input" });
        assert_eq!(color(&view(&world, &at, Some(client)).await.body), picture, "{client}");
        let (_, images) = run(&world, client, &invert("same.png")).await;
        assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(picture));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_a_prompt_names_no_backend() {
    let world = World::new(2).await;
    upload(&world, Some("ada"), "same.png", &png(RED)).await;
    let bob = upload(&world, Some("bob"), "same.png", &png(BLUE)).await;
    let name = value(&bob);
    assert!(name.starts_with('~'), "{name}");
    let workflow = json!({ "nodes": [{ "widgets_values": [name, "image"] }], "note": name });
    let body = json!({ "client_id": "bob", "prompt": invert(&name),
        "extra_data": { "extra_pnginfo": { "workflow": workflow } } });
    let answer = world.post("/prompt", &body.to_string()).await;
    let prompt = answer.prompt_id();
    let bob = mooring::routing::ids::ClientId::parse("bob").unwrap();
    until("it has ended", || {
        let client = world.gateway.sessions.clients.get(&bob).unwrap();
        client.inspect(|core, _| core.pending().is_empty())
    })
    .await;
    let sim = world.sim(answer.backend()).addr();
    let kept = send(sim, Method::GET, &format!("/history/{prompt}"), &[], "").await.text();
    assert!(kept.contains("same.png") && !kept.contains('~'), "{kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_say_where_a_backend_listens() {
    let world = World::new(2).await;
    for called in ["a".to_owned(), world.sim("a").addr().to_string()] {
        for state in ["draining", "ready"] {
            let path = format!("/api/v1/backends/{called}/state");
            let body = json!({ "state": state }).to_string();
            assert_eq!(world.admin_post(&path, &body).await.status, 200, "{called} {state}");
        }
    }
}

/// What was read before is not what lies there when the copy has arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_what_was_written_anew_meanwhile_is_not_used_again() {
    let world = World::new(2).await;
    let red = upload(&world, Some("ada"), "x.png", &png(RED)).await;
    let (from, to) = if red.backend() == "a" { ("a", "b") } else { ("b", "a") };
    let path = format!("/api/v1/backends/{from}/state");
    assert_eq!(world.admin_post(&path, r#"{"state": "draining"}"#).await.status, 200);
    let target = world.sim(to);
    target.set_faults(|faults| faults.latency_ms = 1_000);
    let graph = invert("x.png");
    let first = world.submit("bob", &graph);
    let meanwhile = async {
        let arrives = || target.requests().iter().any(|it| it.target == "/upload/image");
        until("the copy is on its way", arrives).await;
        let body = form("x.png", &png(BLUE), &[("overwrite", "true")]);
        let blue = post_form(&world, "/upload/image", Some("ada"), body).await;
        assert_eq!((blue.status, blue.backend()), (200, from));
        target.set_faults(|faults| faults.latency_ms = 0);
    };
    let (first, ()) = tokio::join!(first, meanwhile);
    assert_eq!((first.status, first.backend()), (200, to), "{}", first.text());
    let (second, images) = run(&world, "bob", &graph).await;
    assert_eq!(second.backend(), to);
    let images = images.last().unwrap();
    assert_eq!(color(&view(&world, images, None).await.body), inverse(BLUE));
}

/// Puts a file on a backend behind our back.
async fn put(world: &World, backend: &str, name: &str, picture: [u8; 3], at: &[(&str, &str)]) {
    let headers = [("content-type", "multipart/form-data; boundary=xyz")];
    let body = form(name, &png(picture), at);
    let sim = world.sim(backend).addr();
    let answer = send_bytes(sim, Method::POST, "/upload/image", &headers, body).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_of_outputs_lead_to_the_file_of_their_backend() {
    let world = World::new(2).await;
    world.all_up().await;
    let at = [("type", "output"), ("subfolder", "mesh")];
    for (backend, picture) in [("a", RED), ("b", BLUE)] {
        put(&world, backend, "M_00001_.glb", picture, &at).await;
        let told = json!({ "type": "executed", "data": { "node": "5", "prompt_id": "p",
            "output": { "result": ["mesh/M_00001_.glb", null, null] } } });
        let id = world.gateway.shared.fleet.by_name(backend).unwrap().id;
        let named = world.gateway.shared.records.name_outputs(id, &[], told.to_string().into());
        let named: serde_json::Value = serde_json::from_slice(&named).unwrap();
        let result = named["data"]["output"]["result"][0].as_str().unwrap();
        // As the page takes it apart.
        let (subfolder, filename) = result.rsplit_once('/').unwrap();
        let at = json!({ "filename": filename, "subfolder": subfolder, "type": "output" });
        for client in [None, Some("eve")] {
            let seen = view(&world, &at, client).await;
            assert_eq!((seen.backend(), color(&seen.body)), (backend, picture), "{result}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_a_node_names_is_told_with_its_backend_in_every_answer() {
    let world = World::new(2).await;
    world.all_up().await;
    let mut told = Vec::new();
    for (client, picture) in [("ada", RED), ("bob", BLUE)] {
        let mut socket = world.socket(client).await;
        let graph = json!({ "5": { "class_type": "Preview3D",
            "inputs": { "model_file": "mesh/M_00001_.glb" } } });
        let answer = world.submit(client, &graph).await;
        let prompt = answer.prompt_id();
        let at = [("type", "output"), ("subfolder", "mesh")];
        put(&world, answer.backend(), "M_00001_.glb", picture, &at).await;
        let event = socket.until("executed").await;
        let result = event["data"]["output"]["result"].clone();
        socket.until_end(&prompt).await;
        let history = world.get(&format!("/history/{prompt}")).await.json();
        assert_eq!(history[&prompt]["outputs"]["5"]["result"], result, "{client}");
        let job = world.get(&format!("/api/jobs/{prompt}")).await.json();
        let told_by_job = &job["outputs"]["5"]["result"][0]["filename"];
        assert_eq!(*told_by_job, result[0], "{client}");
        told.push((answer.backend().to_owned(), result[0].as_str().unwrap().to_owned(), picture));
    }
    assert_ne!(told[0].0, told[1].0);
    assert_eq!(told[0].1, "mesh/M_00001_.glb");
    assert_eq!(told[1].1, format!("mesh/~{}/M_00001_.glb", told[1].0));
    for (backend, result, picture) in &told {
        let (subfolder, filename) = result.rsplit_once('/').unwrap();
        let at = json!({ "filename": filename, "subfolder": subfolder, "type": "output" });
        let seen = view(&world, &at, None).await;
        assert_eq!((seen.backend(), color(&seen.body)), (backend.as_str(), *picture));
        // The page puts it into the node's input, and it comes back with the next prompt.
        let graph =
            json!({ "5": { "class_type": "Preview3D", "inputs": { "model_file": result } } });
        let again = world.submit("ada", &graph).await;
        assert_eq!(again.status, 200, "{result}: {}", again.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_inputs_that_take_files_are_changed() {
    let world = World::new(2).await;
    let ada = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let bob = upload(&world, Some("bob"), "photo.png", &png(BLUE)).await;
    assert_ne!(ada.backend(), bob.backend());
    // Hers is copied to where the name is taken, and is called otherwise there.
    let body = json!({ "state": "draining" }).to_string();
    assert_eq!(world.admin_post("/api/v1/clients/ada/release", "").await.status, 200);
    let path = format!("/api/v1/backends/{}/state", ada.backend());
    assert_eq!(world.admin_post(&path, &body).await.status, 200);
    let mut graph = invert("photo.png");
    graph["3"]["inputs"]["filename_prefix"] = "photo.png".into();
    let (answer, images) = run(&world, "ada", &graph).await;
    assert_eq!(answer.backend(), bob.backend());
    assert_eq!(images[0]["filename"], "photo.png_00001_.png");
    assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(RED));
}

/// What a backend was given to run.
async fn graph_of(world: &World, answer: &Answer) -> serde_json::Value {
    let prompt = answer.prompt_id();
    let sim = world.sim(answer.backend()).addr();
    let entry = send(sim, Method::GET, &format!("/history/{prompt}"), &[], "").await.json();
    entry[&prompt]["prompt"][2].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_follows_the_prompt_that_takes_it() {
    let world = World::new(2).await;
    let at = [("subfolder", "d")];
    let pictures = [("1.png", RED), ("2.png", BLUE), ("3.png", RED)];
    let mut home = String::new();
    for (name, picture) in pictures {
        let body = form(name, &png(picture), &at);
        let up = post_form(&world, "/upload/image", Some("ada"), body).await;
        assert_eq!(up.status, 200);
        up.backend().clone_into(&mut home);
    }
    let mut graph = invert("d/1.png");
    graph["1"]["inputs"]["directory"] = "d".into();
    graph["1"]["inputs"]["text"] = "d".into();
    let (near, _) = run(&world, "ada", &graph).await;
    assert_eq!(near.backend(), home);
    // Elsewhere it comes along, all of it.
    let body = json!({ "state": "draining" }).to_string();
    let path = format!("/api/v1/backends/{home}/state");
    assert_eq!(world.admin_post(&path, &body).await.status, 200);
    let (far, _) = run(&world, "ada", &graph).await;
    assert_ne!(far.backend(), home);
    assert_eq!(graph_of(&world, &far).await["1"]["inputs"]["directory"], "d");
    let there = world.sim(far.backend()).addr();
    for (name, picture) in pictures {
        let path = format!("/view?filename={name}&subfolder=d&type=input");
        assert_eq!(color(&send(there, Method::GET, &path, &[], "").await.body), picture);
    }
    let whole = json!({
        "1": { "class_type": "VHS_LoadImages", "inputs": { "directory": "d" } },
        "3": { "class_type": "SaveImage", "inputs": { "images": ["1", 0],
            "filename_prefix": "d" } },
    });
    let (_, images) = run(&world, "ada", &whole).await;
    assert_eq!(images.len(), 3, "all of the folder, and saved under a prefix of its name");
    assert_eq!(images[0]["filename"], "d_00001_.png");
    // Somebody else's folder of that name stays apart from it.
    let other = form("4.png", &png(RED), &at);
    let up = post_form(&world, "/upload/image", Some("eve"), other).await;
    assert_eq!(up.backend(), far.backend());
    let (again, _) = run(&world, "ada", &graph).await;
    let inputs = graph_of(&world, &again).await["1"]["inputs"].clone();
    let folder = inputs["directory"].as_str().unwrap();
    assert!(folder.starts_with("d-mooring-"), "{folder}");
    assert_eq!(inputs["text"], "d", "a text is none");
    for (name, status) in [("1.png", 200), ("3.png", 200), ("4.png", 404)] {
        let path = format!("/view?filename={name}&subfolder={folder}&type=input");
        assert_eq!(send(there, Method::GET, &path, &[], "").await.status, status, "{name}");
    }
}
