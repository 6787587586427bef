//! Browsers that come and go at any moment lose nothing (promise S3): over 100 clients with
//! prompts that wait, run and end, each start, output and end is seen, and on one socket once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mooring::tasks::Tasks;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::support::{PATIENCE, Socket, World, slow, until};

/// Reconnects of one client.
const RECONNECTS: usize = 10;

const PROMPTS: usize = 2;

/// What must be seen of each prompt.
const LASTING: [&str; 4] = ["execution_start", "executed", "execution_success", "last word"];

#[tokio::test]
async fn a_thousand_reconnects_lose_no_start_no_output_and_no_end() {
    let reconnects = 1_000;
    let world = Arc::new(World::new(3).await);
    world.all_up().await;
    let clients = Tasks::default();
    for number in 0..reconnects / RECONNECTS {
        let world = Arc::clone(&world);
        clients.spawn(async move { Visitor::new(number).visit(&world).await });
    }
    let left = clients.drain(10 * PATIENCE).await;
    assert_eq!(left, 0, "every visitor saw everything");
    let done =
        world.gateway.shared.metrics.prompts_ended(mooring::routing::pending::End::Succeeded);
    assert_eq!(done, (reconnects / RECONNECTS * PROMPTS) as u64, "no visitor failed");
    until("nobody is there any more", || world.gateway.shared.metrics.sockets.get() == 0).await;
}

/// One browser that reloads its page all the time.
struct Visitor {
    name: String,
    random: StdRng,
    /// The lasting events of each prompt that were seen on any socket.
    seen: BTreeMap<String, BTreeSet<String>>,
}

impl Visitor {
    fn new(number: usize) -> Self {
        let random = StdRng::seed_from_u64(number as u64);
        Self { name: format!("visitor{number}"), random, seen: BTreeMap::new() }
    }

    async fn visit(mut self, world: &World) {
        let mut socket = world.socket(&self.name).await;
        for _ in 0..PROMPTS {
            let prompt = world.submit(&self.name, &slow(10, 0.05)).await.prompt_id();
            self.seen.insert(prompt, BTreeSet::new());
        }
        for _ in 0..RECONNECTS {
            let events = self.random.random_range(0..20);
            self.look(&mut socket, events).await;
            if self.random.random_bool(0.5) {
                socket.cut();
            } else {
                socket.close().await;
            }
            socket = world.socket(&self.name).await;
        }
        let mut on_this = Told::default();
        while !self.is_complete() {
            let event = socket.event().await;
            self.take(&event, &mut on_this);
        }
    }

    /// Reads so many events, or as many as come in a while.
    async fn look(&mut self, socket: &mut Socket, events: usize) {
        let mut on_this = Told::default();
        let while_long = Duration::from_millis(self.random.random_range(1..60));
        let _ = tokio::time::timeout(while_long, async {
            for _ in 0..events {
                let event = socket.event().await;
                self.take(&event, &mut on_this);
            }
        })
        .await;
    }

    fn take(&mut self, event: &Value, on_this: &mut Told) {
        let Some(prompt) = event["data"]["prompt_id"].as_str() else { return };
        let kind = match event["type"].as_str().unwrap_or_default() {
            "executing" if event["data"]["node"].is_null() => "last word",
            kind => kind,
        };
        if !LASTING.contains(&kind) {
            return;
        }
        let seen = self.seen.get_mut(prompt).expect("it is one of its own");
        seen.insert(kind.to_owned());
        let is_first = on_this.0.insert((prompt.to_owned(), kind.to_owned()));
        assert!(is_first, "{} was told {kind} of {prompt} twice on one socket", self.name);
    }

    fn is_complete(&self) -> bool {
        self.seen.values().all(|seen| seen.len() == LASTING.len())
    }
}

/// What was told on one socket.
#[derive(Default)]
struct Told(BTreeSet<(String, String)>);
