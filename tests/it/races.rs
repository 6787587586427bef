//! Races that drop work elsewhere: first contacts, releases, sockets that overlap.
#![expect(clippy::disallowed_methods, reason = "every handle is awaited right here")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mooring::front::route::of_client;
use mooring::net::now;
use mooring::routing::ids::ClientId;
use mooring::session::control::{self, Force};

use crate::support::{World, fraction, quick, slow, soon};

/// T63.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_first_contacts_of_one_client_give_one_binding() {
    let rounds = fraction("rounds of 64 first contacts", 1000, 50);
    let world = World::new(3).await;
    for round in 0..rounds {
        let id = ClientId::parse(&format!("new-{round}")).unwrap();
        let contacts = join_all((0..64).map(|_| {
            let (gateway, id) = (Arc::clone(&world.gateway), id.clone());
            tokio::spawn(async move { of_client(&gateway.sessions, &id).unwrap().backend.id })
        }))
        .await;
        let backends: BTreeSet<_> = contacts.into_iter().map(Result::unwrap).collect();
        assert_eq!(backends.len(), 1, "round {round}: {backends:?}");
    }
    let bound: u32 = world.gateway.shared.fleet.iter().map(|it| it.report(now()).bound).sum();
    assert_eq!(bound as usize, rounds, "one binding for each client");
}

/// T58: ComfyUI forgets the newer socket when the older one closes; the link does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_reopens_before_the_old_one_closes_loses_nothing() {
    let rounds = fraction("sockets reopened early", 200, 20);
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    for round in 0..rounds {
        let color = u32::try_from(round).unwrap();
        let prompt = if round % 3 == 0 {
            world.submit("ada", &slow(3, 0.03)).await.prompt_id()
        } else {
            world.submit("ada", &quick(color)).await.prompt_id()
        };
        // At a random moment of the prompt.
        tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 40_000)).await;
        let newer = world.socket("ada").await;
        if round % 2 == 0 {
            socket.cut();
        } else {
            socket.close().await;
        }
        socket = newer;
        let seen = socket.until_end(&prompt).await;
        for kind in ["execution_start", "executed", "execution_success"] {
            assert!(seen.iter().any(|it| it == kind), "round {round}: {kind} missing: {seen:?}");
        }
    }
    assert_eq!(world.sim("a").sids().iter().filter(|sid| *sid == "ada").count(), 1);
}

/// T64: a release races with a new prompt; whichever is first, nothing pending is let go of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_races_with_a_new_prompt_lets_go_of_no_work() {
    let rounds = fraction("releases against new prompts", 10_000, 500);
    let world = Arc::new(World::new(2).await);
    let mut socket = world.socket("ada").await;
    let id = ClientId::parse("ada").unwrap();
    let client = world.gateway.sessions.clients.get(&id).unwrap();
    for round in 0..rounds {
        let submitting = {
            let world = Arc::clone(&world);
            let color = u32::try_from(round).unwrap();
            tokio::spawn(async move { world.submit("ada", &quick(color)).await })
        };
        let releasing = {
            let (gateway, client) = (Arc::clone(&world.gateway), Arc::clone(&client));
            tokio::spawn(async move { control::reset(&gateway.sessions, &client, Force::Safe) })
        };
        let (answer, released) =
            soon("both", async { (submitting.await.unwrap(), releasing.await.unwrap()) }).await;
        if let Err(still) = released {
            assert!(0 < still.pending, "refused for no reason");
        }
        let prompt = answer.prompt_id();
        let seen = socket.until_end(&prompt).await;
        assert!(seen.iter().any(|it| it == "execution_success"), "round {round}: {seen:?}");
    }
    let executed: u32 =
        world.sims.iter().map(|sim| sim.ledger().executed.values().sum::<u32>()).sum();
    assert_eq!(executed as usize, rounds, "each prompt ran once");
}
