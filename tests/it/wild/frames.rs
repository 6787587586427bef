//! Pictures over the socket that are results, and those that are previews.

use mooring::ws::{Frame, Opcode};
use serde_json::{Value, json};

use super::Cases;
use crate::support::{Socket, World, soon};

const JPEG: u8 = 1;
const PNG: u8 = 2;

/// A frame of the kind without a node (type 1), which each number makes another.
fn plain(format: u8, number: u8) -> Frame {
    Frame::binary(vec![0, 0, 0, 1, 0, 0, 0, format, number, number])
}

/// The numbers of the pictures up to the event of this type.
async fn until_event(socket: &mut Socket, kind: &str) -> Vec<u8> {
    let mut numbers = Vec::new();
    soon(kind, async {
        loop {
            let frame = socket.frame().await.expect("the socket is open");
            if frame.opcode == Opcode::Binary {
                numbers.extend(frame.payload.last());
            } else if frame.as_text().contains(&format!("{kind:?}")) {
                return;
            }
        }
    })
    .await;
    numbers
}

/// A graph whose node of this class and id works until it is stopped.
fn graph(class: &str, id: &str) -> Value {
    let mut graph = json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 8, "height": 8, "batch_size": 1, "color": 1 } },
        "out": { "class_type": "PreviewImage", "inputs": { "images": [id, 0] } },
    });
    graph[id] = json!({ "class_type": class, "inputs": { "image": ["1", 0], "steps": 2,
        "seconds": 600.0, "fail": false, "preview": false } });
    graph
}

/// A node sends five pictures; the socket is lost before, in the middle or afterwards, and one
/// comes back: the pictures that it then has seen, in all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_over_the_socket_are_there_after_it_was_lost() {
    let all = vec![1, 2, 3, 4, 5];
    let mut cases = Cases::default();
    for (name, is_output, id, format, lost_after, right) in [
        ("PNG of a class that nobody listed", false, "2", PNG, 5, all.clone()),
        ("lost in the middle", false, "2", PNG, 2, all.clone()),
        ("lost before the first", false, "2", PNG, 0, all.clone()),
        ("JPEG of a class that is listed", true, "2", JPEG, 5, all.clone()),
        ("in a subgraph", true, "57:8:2", JPEG, 3, all.clone()),
        ("an id in Japanese", true, "送信", JPEG, 0, all.clone()),
        ("previews: only the newest", false, "2", JPEG, 5, vec![5]),
        ("previews of a subgraph", false, "57:8", JPEG, 4, vec![5]),
    ] {
        let world = World::with(1, |config| {
            if is_output {
                config.sockets.output_classes.push("SlowSteps".to_owned());
            }
        })
        .await;
        let sim = world.sim("a");
        let mut ada = world.socket("ada").await;
        world.submit("ada", &graph("SlowSteps", id)).await.prompt_id();
        while ada.until("executing").await["data"]["node"] != id {}
        let mut ada = Some(ada);
        // What the server says behind its pictures.
        let mark = |kind: &str| {
            sim.say(&Frame::text(json!({ "type": kind, "data": {} }).to_string()), None);
        };
        for number in 0..=5_u8 {
            if number == lost_after
                && let Some(mut socket) = ada.take()
            {
                mark("lost");
                let seen = until_event(&mut socket, "lost").await;
                assert_eq!(seen, (1..=number).collect::<Vec<_>>(), "{name}: live, all of them");
                socket.cut();
            }
            if number < 5 {
                sim.say(&plain(format, number + 1), Some("ada"));
            }
        }
        // It hears of all that was sent before, and goes as well.
        let mut other = world.socket("ada").await;
        other.until("status").await;
        mark("all");
        until_event(&mut other, "all").await;
        other.cut();
        let mut back = world.socket("ada").await;
        back.until("status").await;
        mark("end");
        cases.case(name, until_event(&mut back, "end").await, right);
    }
    cases.end(8);
}
