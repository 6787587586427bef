//! More names than there may be clients.

use http::Method;
use mooring::config::Config;
use mooring::sim::{Options, Sim};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::process::Daemon;
use crate::support::{World, network, quick, send, slow, soon};

fn few(config: &mut Config) {
    config.affinity.max_clients = 20;
}

/// A flood of reads under new names must not refuse those who come to work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_looked_makes_room_and_who_works_or_listens_stays() {
    let world = World::with(2, few).await;
    let mut ada = world.socket("ada").await;
    let bob = world.submit("bob", &slow(100, 20.0)).await;
    for number in 0..200 {
        let read = world.get(&format!("/queue?clientId=passer-by-{number}")).await;
        assert_eq!(read.status, 200);
        assert!(world.gateway.sessions.clients.len() <= 20);
    }
    let newcomer = world.submit("cyd", &quick(1)).await;
    assert_eq!(newcomer.status, 200, "{}", newcomer.text());
    let known = world.admin_get("/api/v1/clients").await.text();
    for client in ["ada", "bob", "cyd"] {
        assert!(known.contains(&format!("\"{client}\"")), "{client} in {known}");
    }
    let job = world.submit("ada", &quick(2)).await.prompt_id();
    ada.until_end(&job).await;
    let queue = world.get("/queue?clientId=bob").await;
    assert_eq!(queue.backend(), bob.backend(), "bob is where his prompt is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_full_of_work_refuses_newcomers_until_some_of_it_ends() {
    let world = World::with(1, |config| config.affinity.max_clients = 2).await;
    let ada = world.socket("ada").await;
    let _bob = world.socket("bob").await;
    for _ in 0..3 {
        let refused = world.submit("cyd", &quick(1)).await;
        assert_eq!((refused.status, refused.header("mooring-error")), (503, "too_many_clients"));
    }
    ada.close().await;
    loop {
        // A table without room is looked through once a second.
        let taken = world.submit("cyd", &quick(1)).await;
        if taken.status == 200 {
            break;
        }
    }
}

/// Too few descriptors for the connections that are allowed: what is over is closed at once, and
/// nobody who is there notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_are_raised_to_the_hard_limit_and_never_used_up() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with_descriptors(&sim, &folder, (40, 200));
    let mut connections = Vec::new();
    for _ in 0..100 {
        let connection = network().connect("127.0.0.1", daemon.front.port()).await;
        connections.push(connection.unwrap());
    }
    let mut closed = 0;
    for connection in connections.iter_mut().rev().take(32) {
        let read = soon("it is closed", connection.read(&mut [0])).await;
        closed += usize::from(matches!(read, Ok(0) | Err(_)));
    }
    assert_eq!(closed, 32, "200 descriptors are enough for 68");
    let alive = send(daemon.admin, Method::GET, "/livez", &[], "").await;
    assert_eq!(alive.status, 200);
    let first = &mut connections[0];
    first.write_all(b"GET /queue?clientId=ada HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    soon("it is answered", first.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}
