//! The main job: prompts from submission to image, over real sockets.

use mooring::ws::Opcode;
use serde_json::json;

use crate::support::{World, quick, slow};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_prompt_runs_to_its_image() {
    let world = World::new(3).await;
    let mut socket = world.socket("ada").await;
    let first = socket.event().await;
    assert_eq!(first["type"], "status");
    assert_eq!(first["data"]["sid"], "ada");

    let answer = world.submit("ada", &slow(3, 0.06)).await;
    let prompt = answer.prompt_id();
    let seen = socket.until_end(&prompt).await;
    for kind in ["execution_start", "execution_cached", "progress_state", "progress", "executed"] {
        assert!(seen.iter().any(|it| it == kind), "{kind} is missing in {seen:?}");
    }
    assert_eq!(seen[seen.len() - 2], "execution_success");
    let after = socket.event().await;
    assert_eq!(after["data"]["status"]["exec_info"]["queue_remaining"], 0, "after the last word");

    let history = world.get(&format!("/history/{prompt}?clientId=ada")).await;
    assert_eq!(history.backend(), answer.backend());
    let image = &history.json()[&prompt]["outputs"]["3"]["images"][0];
    let name = image["filename"].as_str().unwrap();
    let view = world.get(&format!("/view?filename={name}&type=output&clientId=ada")).await;
    assert_eq!((view.status, view.header("content-type")), (200, "image/png"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_socket_without_a_name_is_given_one() {
    let world = World::new(1).await;
    let mut socket = crate::support::Socket::open(world.front, "/ws").await;
    let sid = socket.event().await["data"]["sid"].as_str().unwrap().to_owned();
    assert_eq!(sid.len(), 32);
    let prompt = world.submit(&sid, &quick(1)).await.prompt_id();
    socket.until_end(&prompt).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previews_are_as_each_socket_negotiated_them() {
    let world = World::new(1).await;
    let mut plain = world.socket("ada").await;
    let mut named = world.socket("ada").await;
    let flags = json!({ "type": "feature_flags", "data": { "supports_preview_metadata": true } });
    named.say(&flags.to_string()).await;
    let answer = named.until("feature_flags").await;
    assert_eq!(answer["data"]["supports_preview_metadata"], true);
    world.submit("ada", &slow(2, 0.02)).await.prompt_id();
    for (socket, kind) in [(&mut plain, 1), (&mut named, 4)] {
        loop {
            let frame = socket.frame().await.unwrap();
            if frame.opcode == Opcode::Binary {
                assert_eq!(frame.payload[..4], [0, 0, 0, kind]);
                break;
            }
        }
    }
}
