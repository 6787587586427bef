//! Every name leads to the file that it was given for, and files follow the prompts that use them
//! (promises R3 and R4), over real sockets and simulated backends.

use std::time::Duration;

use http::Method;
use mooring::config::FileTags;
use mooring::sim::{Hang, Listening};
use serde_json::json;

use crate::pictures::{
    BLUE, RED, color, form, inverse, invert, png, post_form, run, upload, value, view,
};
use crate::support::{World, quick, send_bytes, soon, until};

/// Keeps a backend so busy that nothing else is placed there: with prompts that are not ours.
async fn keep_busy(world: &World, backend: &str) {
    let body = json!({ "client_id": "stranger", "prompt": crate::support::slow(50, 600.0) });
    let json = [("content-type", "application/json")];
    for _ in 0..4 {
        let sim = world.sim(backend).addr();
        let answer = send_bytes(sim, Method::POST, "/prompt", &json, body.to_string().into()).await;
        assert_eq!(answer.status, 200);
    }
    let known = world.gateway.shared.fleet.by_name(backend).unwrap();
    until("its queue is known", || 4 <= known.load.queue_remaining()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_means_one_file_for_everyone_and_for_ever() {
    let world = World::new(2).await;
    let mut seen = Vec::new();
    for (client, shade) in [("ada", 0x11_22_33), ("bob", 0x44_55_66)] {
        let (answer, images) = run(&world, client, &quick(shade)).await;
        let prompt = answer.prompt_id();
        let history = world.get(&format!("/history/{prompt}")).await.json();
        assert_eq!(history[&prompt]["outputs"]["3"]["images"], json!(images), "{client}");
        let job = world.get(&format!("/api/jobs/{prompt}")).await.json();
        assert_eq!(job["outputs"]["3"]["images"], json!(images), "{client}");
        assert_eq!(job["preview_output"]["subfolder"], images[0]["subfolder"], "{client}");
        seen.push((answer.backend().to_owned(), images[0].clone()));
    }
    assert_ne!(seen[0].0, seen[1].0, "the name is made twice");
    assert_eq!(seen[0].1["filename"], seen[1].1["filename"]);
    assert_eq!(seen[0].1["subfolder"], "");
    assert_eq!(seen[1].1["subfolder"], format!("~{}", seen[1].0));
    for (backend, image) in &seen {
        let answer = view(&world, image, None).await;
        assert_eq!((answer.status, answer.backend()), (200, backend.as_str()), "{image}");
        assert_eq!(answer.header("cache-control"), "private, no-cache");
    }
    let plain = "/view?filename=test_00001_.png&type=output&clientId=bob";
    assert_eq!(world.get(plain).await.backend(), seen[0].0, "with identity too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_one_name_stay_apart_and_follow_their_prompts() {
    let world = World::new(3).await;
    let ada = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let bob = upload(&world, Some("bob"), "photo.png", &png(BLUE)).await;
    assert_ne!(ada.backend(), bob.backend());
    assert_eq!(value(&ada), "photo.png");
    assert_eq!(value(&bob), format!("~{}/photo.png", bob.backend()));
    // Where they lie, there is no room: they go to the third, both of them.
    for answer in [&ada, &bob] {
        let client = if answer.backend() == ada.backend() { "ada" } else { "bob" };
        let released = format!("/api/v1/clients/{client}/release");
        assert_eq!(world.admin_post(&released, "").await.status, 200);
        keep_busy(&world, answer.backend()).await;
    }
    for (client, file, picture) in [("ada", value(&ada), RED), ("bob", value(&bob), BLUE)] {
        let (answer, images) = run(&world, client, &invert(&file)).await;
        assert!(answer.backend() != ada.backend() && answer.backend() != bob.backend());
        assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(picture), "{client}");
    }
    assert_eq!(world.gateway.shared.metrics.files_copied.get(), 2);
    // A script that leaves out what it did not write itself means its own.
    let (_, images) = run(&world, "bob", &invert("photo.png")).await;
    assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(BLUE));
    assert_eq!(world.gateway.shared.metrics.files_copied.get(), 2, "the copy is used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_nobody_follows_the_prompt_that_names_it() {
    let world = World::new(3).await;
    for client in ["ada", "bob"] {
        upload(&world, Some(client), "photo.png", &png(RED)).await;
    }
    let nobodys = upload(&world, None, "photo.png", &png(BLUE)).await;
    assert_eq!(nobodys.json()["subfolder"], format!("~{}", nobodys.backend()));
    let (_, images) = run(&world, "script", &invert("photo.png")).await;
    assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(BLUE));
}

/// Scripts that upload without saying who they are share their address. Each means what he was
/// told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_one_name_from_one_address_stay_apart() {
    let world = World::new(2).await;
    // Two are there, so that the address alone says nothing.
    for client in ["dan", "eve"] {
        run(&world, client, &quick(0x11_22_33)).await;
    }
    let first = upload(&world, None, "photo.png", &png(RED)).await;
    assert_eq!(value(&first), "photo.png");
    // A prompt of somebody who has no socket yet takes the reservation.
    let taken = world.submit("fay", &invert("photo.png")).await;
    assert_eq!(taken.backend(), first.backend());
    keep_busy(&world, first.backend()).await;
    let second = upload(&world, None, "photo.png", &png(BLUE)).await;
    assert_ne!(first.backend(), second.backend());
    assert_eq!(value(&second), format!("~{}/photo.png", second.backend()));
    for (client, file, picture) in [("ada", value(&first), RED), ("bob", value(&second), BLUE)] {
        let (_, images) = run(&world, client, &invert(&file)).await;
        assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(picture), "{client}");
    }
    // With leave to overwrite it, the name means the new one, as with one ComfyUI.
    const GREEN: [u8; 3] = [0, 255, 0];
    let over = form("photo.png", &png(GREEN), &[("overwrite", "true")]);
    let third = post_form(&world, "/upload/image", None, over).await;
    assert_ne!(first.backend(), third.backend());
    let (_, images) = run(&world, "cyd", &invert("photo.png")).await;
    assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(GREEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_goes_where_its_files_are_if_the_queues_are_alike() {
    let world = World::new(3).await;
    let up = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    // Clients that have never been anywhere would go round.
    for client in ["bob", "cyd", "dan", "eve", "fay", "gil"] {
        let (answer, _) = run(&world, client, &invert(&value(&up))).await;
        assert_eq!(answer.backend(), up.backend(), "{client}");
        // A small file is no reason to wait for anybody.
        let near = world.gateway.shared.fleet.by_name(up.backend()).unwrap();
        until("it is idle again", || near.load.total(mooring::net::now()) == 0).await;
    }
    assert_eq!(world.gateway.shared.metrics.files_copied.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_deleted_is_made_again() {
    let world = World::new(2).await;
    let up = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    keep_busy(&world, up.backend()).await;
    for copies in 1..=2 {
        let (answer, images) = run(&world, "bob", &invert(&value(&up))).await;
        assert_ne!(answer.backend(), up.backend());
        assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(RED));
        assert_eq!(world.gateway.shared.metrics.files_copied.get(), copies);
        world.sim(answer.backend()).delete_inputs();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_stands_in_for_a_file_whose_backend_is_down() {
    let world = World::new(2).await;
    // Taken by other bytes where it is copied to: the copy has another name there.
    let ada = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let bob = upload(&world, Some("bob"), "photo.png", &png(BLUE)).await;
    keep_busy(&world, ada.backend()).await;
    let named = format!("~{}/photo.png", ada.backend());
    let (answer, _) = run(&world, "cyd", &invert(&named)).await;
    assert_eq!(answer.backend(), bob.backend());
    world.sim(ada.backend()).crash().await;
    world.is_down(ada.backend()).await;
    let at = json!({ "filename": "photo.png", "subfolder": "", "type": "input" });
    let seen = view(&world, &at, None).await;
    assert_eq!((seen.status, seen.backend()), (200, bob.backend()));
    assert_eq!(color(&seen.body), RED);
}

/// New connections are refused there, and its watch link says still that all is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_stands_in_before_anybody_has_noticed_that_its_backend_is_down() {
    let world = World::new(3).await;
    let only = async |backend: &str| {
        for name in ["a", "b", "c"] {
            let state = if name == backend { "ready" } else { "draining" };
            let path = format!("/api/v1/backends/{name}/state");
            world.admin_post(&path, &json!({ "state": state }).to_string()).await;
        }
    };
    only("a").await;
    upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    only("b").await;
    let (answer, _) = run(&world, "bob", &invert("~a/photo.png")).await;
    assert_eq!(answer.backend(), "b");
    world.sim("a").set_faults(|faults| {
        faults.listening = Listening::Closed;
        faults.close_connections = 1;
    });
    let at = json!({ "filename": "photo.png", "subfolder": "", "type": "input" });
    let seen = view(&world, &at, None).await;
    assert_eq!((seen.status, seen.backend()), (200, "b"));
    assert_eq!(color(&seen.body), RED);
    only("c").await;
    let (answer, _) = run(&world, "cyd", &invert("~a/photo.png")).await;
    assert_eq!(answer.backend(), "c", "copied from the other copy");
    assert!(world.gateway.shared.fleet.by_name("a").unwrap().is_up(), "nobody has noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_was_made_elsewhere_is_used_as_an_input() {
    let world = World::new(2).await;
    let (made, images) = run(&world, "ada", &quick(0x00_ff_00)).await;
    keep_busy(&world, made.backend()).await;
    let file = format!("{} [output]", images[0]["filename"].as_str().unwrap());
    let (answer, images) = run(&world, "ada", &invert(&file)).await;
    assert_ne!(answer.backend(), made.backend());
    assert_eq!(color(&view(&world, &images[0], None).await.body), [255, 0, 255]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mask_is_painted_where_its_original_is_brought() {
    let world = World::new(2).await;
    let up = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    // Another client's mask goes to the other backend.
    let original = json!({ "filename": "photo.png", "type": "input" }).to_string();
    let body = form("mask.png", &png(BLUE), &[("original_ref", &original)]);
    let mask = post_form(&world, "/upload/mask", Some("bob"), body).await;
    assert_eq!(mask.status, 200, "{}", mask.text());
    assert_ne!(mask.backend(), up.backend());
    let at =
        json!({ "filename": "mask.png", "subfolder": mask.json()["subfolder"], "type": "input" });
    assert_eq!(view(&world, &at, None).await.status, 200, "it was written");
    assert_eq!(world.gateway.shared.metrics.files_copied.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_nobody_told_of_is_found_on_the_others_and_used() {
    let world = World::new(3).await;
    // Put there behind the gateway's back.
    let body = form("old.png", &png(RED), &[]);
    let headers = [("content-type", "multipart/form-data; boundary=xyz")];
    let sim = world.sim("c").addr();
    assert_eq!(send_bytes(sim, Method::POST, "/upload/image", &headers, body).await.status, 200);
    let at = json!({ "filename": "old.png", "subfolder": "", "type": "input" });
    let answer = view(&world, &at, None).await;
    assert_eq!((answer.status, answer.backend()), (200, "c"));
    let nowhere = json!({ "filename": "none.png", "subfolder": "", "type": "input" });
    assert_eq!(view(&world, &nowhere, None).await.status, 404);
    let asked = |world: &World| {
        let seen = |sim: &mooring::sim::Sim| {
            sim.requests().iter().filter(|it| it.target.contains("none")).count()
        };
        world.sims.iter().map(seen).sum::<usize>()
    };
    let before = asked(&world);
    assert_eq!(view(&world, &nowhere, None).await.status, 404);
    let seen: Vec<_> = world.sims.iter().map(|sim| sim.requests()).collect();
    assert_eq!(asked(&world), before + 1, "the others are asked once a minute: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_names_an_unknown_file_is_submitted_again_once_it_is_found() {
    let world = World::new(2).await;
    let headers = [("content-type", "multipart/form-data; boundary=xyz")];
    let body = form("old.png", &png(RED), &[]);
    let sim = world.sim("b").addr();
    assert_eq!(send_bytes(sim, Method::POST, "/upload/image", &headers, body).await.status, 200);
    keep_busy(&world, "b").await;
    let (answer, images) = run(&world, "ada", &invert("old.png")).await;
    assert_eq!(answer.backend(), "a");
    assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(RED));
    let refused = world.submit("ada", &invert("none.png")).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("Invalid image file: none.png"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_on_a_backend_that_is_down_is_said_to_be_and_nobodys_other_is_used() {
    let world = World::new(2).await;
    let ada = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let down = ada.backend().to_owned();
    let other = if down == "a" { "b" } else { "a" };
    upload(&world, Some("bob"), "photo.png", &png(BLUE)).await;
    world.sim(&down).crash().await;
    world.is_down(&down).await;
    let refused = world.submit("ada", &invert("photo.png")).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "input_unavailable"));
    let at = json!({ "filename": "photo.png", "subfolder": "", "type": "input" });
    assert_eq!(view(&world, &at, None).await.status, 503, "never {other}'s");
    world.sim(&down).restart().await.unwrap();
    world.all_up().await;
    assert_eq!(color(&view(&world, &at, None).await.body), RED);
}

/// It hangs with its connections open, and a copy may take `files.copy_timeout`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_from_a_backend_that_goes_down_is_not_waited_for() {
    let world = World::with(2, |config| {
        config.fleet.probe_interval = Duration::from_millis(50);
        config.fleet.patience = Duration::from_millis(100);
        config.fleet.probe_timeout = Duration::from_secs(1);
    })
    .await;
    let ada = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    world.admin_post("/api/v1/clients/ada/release", "").await;
    keep_busy(&world, ada.backend()).await;
    world.sim(ada.backend()).set_faults(|faults| {
        faults.hang = Hang::All;
        faults.mute_sockets = true;
    });
    let refused = soon("its answer", world.submit("ada", &invert("photo.png"))).await;
    let code = refused.header("mooring-error");
    assert!(matches!(code, "input_not_copied" | "input_unavailable"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_deleted_is_gone_and_nobodys_other_is_used() {
    let world = World::new(2).await;
    let ada = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let bob = upload(&world, Some("bob"), "photo.png", &png(BLUE)).await;
    world.sim(ada.backend()).delete_inputs();
    world.admin_post("/api/v1/clients/ada/release", "").await;
    keep_busy(&world, ada.backend()).await;
    let refused = world.submit("ada", &invert("photo.png")).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (400, "input_gone"));
    assert_eq!(refused.json()["error"]["type"], "input_gone", "in ComfyUI's own shape");
    assert_ne!(bob.backend(), ada.backend());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_bounded() {
    let change = |config: &mut mooring::config::Config| {
        config.files.copy_bytes = 1_024;
        config.files.copies_per_prompt = 1;
    };
    let world = World::with(2, change).await;
    let noise = (0..4_096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8);
    let big: Vec<u8> = noise.collect();
    let up = upload(&world, Some("ada"), "big.png", &big).await;
    let up2 = upload(&world, Some("ada"), "small.png", &png(RED)).await;
    assert_eq!(up.backend(), up2.backend());
    world.admin_post("/api/v1/clients/ada/release", "").await;
    // It would be waited for there, however long, if it took work.
    let draining = format!("/api/v1/backends/{}/state", up.backend());
    world.admin_post(&draining, r#"{"state":"draining"}"#).await;
    let refused = world.submit("ada", &invert("big.png")).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (413, "input_too_large"));
    let mut both = invert("big.png");
    both["4"] = json!({ "class_type": "LoadImage", "inputs": { "image": "small.png" } });
    let refused = world.submit("ada", &both).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (400, "too_many_inputs"));
    let pending = world.get("/prompt?clientId=ada").await.json();
    assert_eq!(pending["exec_info"]["queue_remaining"], 0, "nothing is left pending");
}

/// A server that has the files of a prompt is waited for only as long as copying them would take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_waited_for_only_for_the_bytes_that_it_saves() {
    for (bytes_per_prompt, copy_max, waits) in
        [(1 << 28, 1 << 30, false), (1, 1 << 30, true), (1 << 28, 16, true)]
    {
        let world = World::with(2, |config| {
            config.affinity.input_bytes = bytes_per_prompt;
            config.affinity.input_margin = 10;
            config.files.copy_bytes = copy_max;
        })
        .await;
        let up = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
        world.admin_post("/api/v1/clients/ada/release", "").await;
        keep_busy(&world, up.backend()).await;
        let placed = world.submit("ada", &invert("photo.png")).await;
        assert_eq!(placed.status, 200, "{}", placed.text());
        let case = format!("{bytes_per_prompt} bytes a prompt, {copy_max} at most");
        assert_eq!(placed.backend() == up.backend(), waits, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_whose_node_is_missing_is_tried_on_the_others() {
    let world = World::new(3).await;
    for name in ["a", "b"] {
        world.sim(name).set_faults(|faults| faults.lacks = vec!["ImageInvert".to_owned()]);
    }
    let up = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let (answer, images) = run(&world, "ada", &invert(&value(&up))).await;
    assert_eq!(answer.backend(), "c");
    assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(RED));
    world.sim("c").set_faults(|faults| faults.lacks = vec!["ImageInvert".to_owned()]);
    let refused = world.submit("ada", &invert(&value(&up))).await;
    assert_eq!((refused.status, refused.backend()), (400, "c"), "the first answer goes back");
    assert!(refused.text().contains("Node 'ImageInvert' not found"), "{}", refused.text());
    for sim in &world.sims {
        let asked = sim
            .requests()
            .iter()
            .filter(|it| it.method == "POST" && it.target == "/prompt")
            .count();
        assert!((1..=2).contains(&asked), "{}: {asked}", sim.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_other_work_is_not_moved_for_a_missing_node() {
    let world = World::new(2).await;
    let answer = world.submit("ada", &crate::support::slow(50, 5.0)).await;
    let lacking = world.sim(answer.backend());
    lacking.set_faults(|faults| faults.lacks = vec!["ImageInvert".to_owned()]);
    let up = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let refused = world.submit("ada", &invert(&value(&up))).await;
    assert_eq!((refused.status, refused.backend()), (400, answer.backend()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_left_alone_where_the_operator_says_so() {
    let world = World::with(2, |config| config.files.tag = FileTags::Never).await;
    let mut backends = Vec::new();
    for client in ["ada", "bob"] {
        let (answer, images) = run(&world, client, &quick(1)).await;
        assert_eq!(images[0]["subfolder"], "");
        backends.push((client, answer.backend().to_owned()));
    }
    assert_ne!(backends[0].1, backends[1].1);
    for (client, backend) in backends {
        let path = format!("/view?filename=test_00001_.png&type=output&clientId={client}");
        assert_eq!(world.get(&path).await.backend(), backend, "{client}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_of_a_node_pack_that_names_a_file_goes_to_it_and_loses_the_backend() {
    let world = World::new(2).await;
    let mut seen = Vec::new();
    for client in ["ada", "bob"] {
        let (answer, _) = run(&world, client, &quick(1)).await;
        seen.push(answer.backend().to_owned());
    }
    let path =
        format!("/pack/metadata?filename=test_00001_.png&subfolder=~{}&type=output", seen[1]);
    let answer = world.get(&path).await;
    assert_eq!(answer.backend(), seen[1]);
    let requests = world.sim(&seen[1]).requests();
    let got = requests.iter().any(|it| it.target.starts_with("/pack/") && !it.target.contains('~'));
    assert!(got, "{requests:?}");
}
