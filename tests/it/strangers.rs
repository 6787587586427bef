//! What those get who never say who they are: `<img>` elements, and scripts that ask by name.

use crate::support::{World, quick};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_is_found_by_its_name_whoever_asks() {
    let world = World::new(3).await;
    let mut made = Vec::new();
    for client in ["ada", "bob", "cyd"] {
        let mut graph = quick(0x33_66_cc);
        graph["3"]["inputs"]["filename_prefix"] = client.into();
        let mut socket = world.socket(client).await;
        let answer = world.submit(client, &graph).await;
        let prompt = answer.prompt_id();
        socket.until("executed").await;
        // At once: whoever is told of a picture asks for it.
        let path = format!("/view?filename={client}_00001_.png&subfolder=&type=output");
        let view = world.get(&path).await;
        assert_eq!((view.status, view.backend()), (200, answer.backend()), "{prompt}");
        made.push(answer.backend().to_owned());
    }
    made.sort();
    made.dedup();
    assert!(1 < made.len(), "the pictures lie on several backends: {made:?}");
}

/// A widely used SDK asks for the queue without a name, and gives up if its prompt is in none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_in_particular_finds_every_prompt_in_the_queue_and_nothing_of_it() {
    let world = World::new(2).await;
    let _sockets = (world.socket("ada").await, world.socket("bob").await);
    let ada = world.submit("ada", &crate::support::slow(50, 5.0)).await;
    let bob = world.submit("bob", &crate::support::slow(50, 5.0)).await;
    assert_ne!(ada.backend(), bob.backend());
    let (ada, bob) = (ada.prompt_id(), bob.prompt_id());
    let queue = world.get("/queue").await;
    for prompt in [&ada, &bob] {
        assert!(queue.text().contains(prompt.as_str()), "{}", queue.text());
    }
    assert!(!queue.text().contains("EmptyImage") && !queue.text().contains("\"ada\""));
    let own = world.get("/api/queue?clientId=ada").await.text();
    assert!(own.contains(&ada) && own.contains("EmptyImage") && !own.contains(&bob));
}
