//! Backends that ask for a key, and proxies that keep connections.

use std::time::Duration;

use http::Method;
use mooring::config::{self, Config, Sources};
use mooring::sim::{Options, Sim};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Cases;
use crate::support::{World, network, quick, send, soon};

fn load(more: &[(&str, &str)]) -> Result<Config, String> {
    let mut flags = vec![("backends.x.url".to_owned(), "http://127.0.0.1:9".to_owned())];
    flags.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    config::load(&Sources { flags, ..Sources::default() }).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_said_with_everything_however_it_is_written() {
    let mut cases = Cases::default();
    for (name, wanted, written) in [
        ("ComfyUI-Login", "Bearer $2b$12$Q/x.y", "Authorization: Bearer $2b$12$Q/x.y"),
        ("RunPod, in capitals", "Bearer rpa_1", "AUTHORIZATION:Bearer rpa_1"),
        ("Basic, of a proxy", "Basic dTpw", "authorization:   Basic dTpw  "),
        ("a colon in it", "Token a:b=c", "Authorization: Token a:b=c\nX-Pod: 1"),
    ] {
        let sim = Sim::start(network(), Options::named("a")).await.unwrap();
        sim.set_faults(|faults| wanted.clone_into(&mut faults.wants));
        let headers = load(&[("backends.x.headers", written)]).unwrap().backends.remove(0).headers;
        let world = World::over(vec![sim], |config| config.backends[0].headers = headers).await;
        world.all_up().await;
        let mut socket = world.socket("ada").await;
        // Who comes through a proxy with a login of its own says that, and it is not passed on.
        let own = [("authorization", "Basic another"), ("comfy-client-id", "ada")];
        let read = send(world.front, Method::GET, "/object_info", &own, "").await.status;
        let answer = world.submit("ada", &quick(1)).await;
        socket.until_end(&answer.prompt_id()).await;
        let seen = world.sim("a").requests();
        let all = seen.iter().all(|it| {
            let said: Vec<_> = it.headers.get_all("authorization").iter().collect();
            said == [wanted]
        });
        cases.case(name, (read, all), (200, true));
    }
    for (name, written, word) in [
        ("no colon", "Bearer s3cret", "Name: value"),
        ("a name of ours", "Host: s3cret", "Host"),
        ("twice", "X-Key: s3cret\nx-key: s3cret", "twice"),
        ("nothing behind it", "Authorization:", "Authorization"),
        ("Japanese", "X-Key: 秘s3cret", "X-Key"),
    ] {
        let said = load(&[("backends.x.headers", written)]).err().unwrap_or_default();
        cases.case(name, (said.contains(word), said.contains("s3cret")), (true, false));
    }
    cases.end(9);
}

/// Proxies close what is idle after 60 s (nginx, AWS), 90 s (Traefik, cloudflared, Go) or 120 s
/// (Caddy): whoever closes first must not be us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_a_proxy_keeps_is_kept() {
    let idle = load(&[]).unwrap().server.idle_timeout;
    let mut cases = Cases::default();
    for (name, theirs) in
        [("nginx", 60), ("Traefik", 90), ("cloudflared", 90), ("undici", 4), ("Caddy", 120)]
    {
        cases.case(name, Duration::from_secs(theirs) + Duration::from_secs(5) < idle, true);
    }
    let world = World::new(1).await;
    world.all_up().await;
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    for (name, first, second) in [
        ("reads that are passed on", "GET /system_stats HTTP/1.1", "GET /embeddings HTTP/1.1"),
        ("one of each way", "GET /system_stats HTTP/1.1", "GET /queue HTTP/1.1"),
        ("a refusal in between", "GET /manager/reboot HTTP/1.1", "GET /system_stats HTTP/1.1"),
        ("a body in between", "POST /interrupt HTTP/1.1\r\nContent-Length: 2", "GET / HTTP/1.1"),
        (
            "HTTP/1.0 that asks for it",
            "GET /system_stats HTTP/1.0\r\nConnection: Keep-Alive",
            "GET /queue HTTP/1.0\r\nConnection: keep-alive",
        ),
    ] {
        let mut stream = network().connect(&host, port).await.unwrap();
        let mut answers = 0;
        for head in [first, second] {
            let body = if head.starts_with("POST") { "{}" } else { "" };
            let request = format!("{head}\r\nHost: x\r\n\r\n{body}");
            soon("an answer", async {
                stream.write_all(request.as_bytes()).await.unwrap();
                answers += u32::from(whole_answer(&mut stream).await);
            })
            .await;
        }
        cases.case(name, answers, 2);
    }
    cases.end(10);
}

/// Reads one answer with a length to its end.
async fn whole_answer(stream: &mut mooring::net::Stream) -> bool {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).to_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let is_over = match length.and_then(|it| it.trim().parse::<usize>().ok()) {
                Some(length) => head.len() + 4 + length <= read.len(),
                None => text.ends_with("0\r\n\r\n"),
            };
            if is_over {
                return true;
            }
        }
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return false;
        }
    }
}
