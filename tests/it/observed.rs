//! What a Prometheus sees: forms, the time of prompts, and as many series as before, however many
//! clients there are.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::Method;
use mooring::config::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::hosts::ask;
use crate::support::{Answer, World, network, send, slow, soon, until};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";

async fn scrape(world: &World, headers: &[(&str, &str)]) -> Answer {
    send(world.admin, Method::GET, "/metrics", headers, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_has_the_form_that_is_asked_for() {
    let world = World::new(1).await;
    let text = scrape(&world, &[]).await;
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let (text, counter) = (text.text(), "# TYPE mooring_submissions_total counter");
    assert!(text.lines().any(|line| line == counter) && !text.contains("# EOF"), "{text}");
    let open = scrape(&world, &[("accept", OPEN_METRICS)]).await;
    assert!(open.header("content-type").starts_with("application/openmetrics-text"));
    let (open, counter) = (open.text(), "# TYPE mooring_submissions counter");
    assert!(open.lines().any(|line| line == counter) && open.ends_with("# EOF\n"), "{open}");
    assert!(open.contains("mooring_build_info{version=\""), "{open}");
    #[cfg(target_os = "linux")]
    for name in
        ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "]
    {
        let value = open.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert!(0.0 < value.parse::<f64>().unwrap(), "{name}{value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_open_if_the_operator_says_so_and_nothing_else_is() {
    let world = |open_metrics| {
        World::with(1, move |config| {
            config.admin.token = Some(Secret::parse("s3cret").unwrap());
            config.admin.open_metrics = open_metrics;
        })
    };
    let closed = world(false).await;
    assert_eq!(scrape(&closed, &[]).await.status, 401);
    let open = world(true).await;
    assert_eq!(scrape(&open, &[]).await.status, 200);
    assert_eq!(scrape(&open, &[("authorization", "Bearer wrong")]).await.status, 200);
    // A page whose name leads here.
    let evil = ("host", "evil.example");
    let token = ("authorization", "Bearer s3cret");
    assert_eq!(ask(open.admin, "/metrics", &[evil]).await.status, 421);
    assert_eq!(ask(open.admin, "/metrics", &[evil, token]).await.status, 200);
    assert_eq!(scrape(&open, &[("origin", "http://evil.example")]).await.status, 403);
    for path in ["/api/v1/clients", "/metrics/", "/api/v1/reload"] {
        assert_eq!(open.admin_get(path).await.status, 401, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_prompt_is_counted_where_it_ran() {
    let world = World::new(2).await;
    world.all_up().await;
    let mut ada = world.socket("ada").await;
    let first = world.submit("ada", &slow(2, 0.2)).await;
    let second = world.submit("ada", &slow(2, 0.2)).await;
    let home = first.backend().to_owned();
    ada.until_end(&first.prompt_id()).await;
    ada.until_end(&second.prompt_id()).await;
    let ended =
        || world.gateway.shared.metrics.prompts_ended(mooring::routing::pending::End::Succeeded);
    until("both are counted", || ended() == 2).await;
    let text = scrape(&world, &[]).await.text();
    let value = |series: String| {
        let line = text.lines().find_map(|line| line.strip_prefix(series.as_str()));
        line.unwrap_or_else(|| panic!("{series} is missing in:\n{text}")).parse::<f64>().unwrap()
    };
    let of = |name: &str| value(format!("mooring_prompt_{name}{{backend=\"{home}\"}} "));
    assert_eq!((of("wait_seconds_count"), of("run_seconds_count")), (2.0, 2.0));
    // The second waited while the first ran. When a start is seen depends on the machine.
    let (waited, ran) = (of("wait_seconds_sum"), of("run_seconds_sum"));
    assert!(0.0 < waited && 0.0 < ran && 0.5 < waited + ran, "{waited} {ran}");
    let ends = format!("mooring_prompts_total{{backend=\"{home}\",end=\"completed\"}} ");
    assert_eq!(value(ends), 2.0);
}

/// The names of all series, with their labels.
async fn series(world: &World) -> BTreeSet<String> {
    let text = scrape(world, &[]).await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// Reads as this many clients on one connection, the numbers from `from` on.
async fn reads(front: SocketAddr, from: usize, clients: usize) {
    let mut requests = String::new();
    for number in from..from + clients {
        let close = if number + 1 == from + clients { "connection: close\r\n" } else { "" };
        requests += &format!(
            "GET /system_stats?clientId=visitor-{number} HTTP/1.1\r\nhost: {front}\r\n{close}\r\n"
        );
    }
    let mut connection = network().connect(&front.ip().to_string(), front.port()).await.unwrap();
    let (mut from_gateway, mut to_gateway) = tokio::io::split(&mut connection);
    let mut answers = Vec::new();
    let (sent, read) = tokio::join!(
        to_gateway.write_all(requests.as_bytes()),
        from_gateway.read_to_end(&mut answers)
    );
    sent.unwrap();
    read.unwrap();
    let answered = String::from_utf8_lossy(&answers).matches("HTTP/1.1 200 OK\r\n").count();
    assert_eq!(answered, clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_add_no_series() {
    let clients = 10_000;
    let world = World::with(2, move |config| config.affinity.max_clients = 2 * clients).await;
    world.all_up().await;
    let mut ada = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(1, 0.1)).await.prompt_id();
    ada.until_end(&prompt).await;
    soon("one's reads", reads(world.front, clients, 2)).await;
    let before = series(&world).await;
    for from in (0..clients).step_by(200) {
        soon("the reads", reads(world.front, from, 200)).await;
    }
    assert!(clients <= world.gateway.sessions.clients.len());
    let after = series(&world).await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(after.iter().all(|it| !it.contains("visitor-") && !it.contains("ada")));
}
