//! A panic in a task is never silent, and ends no more than it must.

use std::net::SocketAddr;

use mooring::config::Config;
use mooring::run::{self, Parts};
use mooring::tasks::Tasks;

use crate::support::{World, network, soon, until};

fn config() -> Config {
    let mut config = Config::for_backends(&[("a", "http://127.0.0.1:9")]).unwrap();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.listen = None;
    config
}

/// Nobody else does what such a task did, so the process ends, and its successor has the journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_the_process_needs_ends_it_by_a_panic() {
    let tasks = Tasks::default();
    tasks.spawn_critical("needed", async { panic!("as asked") });
    let running = run::run(config(), network(), tasks.clone(), Parts::default());
    let ended = soon("the end of the process", running).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("the task \"needed\" ended"), "{error}");
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_one_client_ends_alone_and_is_counted() {
    let world = World::new(1).await;
    world.gateway.tasks.spawn(async { panic!("as asked") });
    until("it is counted", || world.gateway.tasks.panics() == 1).await;
    let metrics = world.admin_get("/metrics").await.text();
    assert!(metrics.contains("\nmooring_task_panics_total 1\n"), "{metrics}");
    assert_eq!(world.get("/queue?clientId=ada").await.status, 200);
}
