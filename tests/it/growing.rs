//! A fleet that is found grows from none to three and shrinks to none, under two hundred prompts.

use std::time::Duration;

use mooring::sim::{Options, Sim};

use crate::support::{Answer, Socket, World, network, quick, until};

pub(crate) async fn sim(name: &str) -> Sim {
    Sim::start(network(), Options::named(name)).await.unwrap()
}

pub(crate) fn names(world: &World) -> Vec<String> {
    world.gateway.shared.fleet.iter().map(|it| it.name().to_string()).collect()
}

/// Waits until the fleet is just these.
pub(crate) async fn has(world: &World, expected: &[&str]) {
    until(&format!("the fleet is {expected:?}"), || names(world) == expected).await;
}

pub(crate) fn is_failing(world: &World, place: &str) -> bool {
    world.gateway.shared.metrics.discoveries.is_failing(place)
}

/// Submits, again as long as there is no backend, as a client does that heeds `retry-after`.
pub(crate) async fn submitted(world: &World, client: &str, color: u32) -> Answer {
    loop {
        let answer = world.submit(client, &quick(color)).await;
        if answer.status == 200 {
            return answer;
        }
        let code = answer.header("mooring-error").to_owned();
        // One that was found just now is asked first whether it is there.
        assert!(["fleet_empty", "no_backend"].contains(&code.as_str()), "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn is_refused(world: &World) {
    let refused = world.submit("stranger", &quick(1)).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "fleet_empty"));
}

/// `there` makes the source tell of these.
pub(crate) async fn grow_and_shrink(
    world: &World,
    sims: [&Sim; 3],
    mut there: impl FnMut(&[&Sim]),
) {
    is_refused(world).await;
    let mut sockets: Vec<Socket> = Vec::new();
    for client in 0..4 {
        sockets.push(world.socket(&format!("client{client}")).await);
    }
    there(&sims[..1]);
    let mut prompts = Vec::new();
    for number in 0..200_u32 {
        if number == 60 {
            there(&sims);
            until("there are three", || world.gateway.shared.fleet.len() == 3).await;
            world.all_up().await;
            // Whoever has a backend keeps it while no queue is shorter: these have none yet.
            for client in 4..10 {
                sockets.push(world.socket(&format!("client{client}")).await);
            }
        }
        let client = number as usize % sockets.len();
        let taken = submitted(world, &format!("client{client}"), number).await;
        prompts.push((client, taken.prompt_id()));
    }
    there(&[]);
    for (client, prompt) in &prompts {
        let seen = sockets[*client].until_end(prompt).await;
        assert!(seen.contains(&"execution_success".to_owned()), "{prompt}: {seen:?}");
    }
    has(world, &[]).await;
    let worked = sims.iter().filter(|sim| !sim.ledger().finished.is_empty()).count();
    assert_eq!(worked, 3, "all of them had some");
    is_refused(world).await;
}
