//! `mooring doctor`: what is wrong between a browser and Mooring.
//!
//! It sends what a browser sends, byte by byte, because a library would mend what a proxy breaks.
//! Nothing that it sends changes anything: methods that the path does not have, and one socket.

mod findings;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::args::{DoctorArgs, PageUrl};
use super::{EXIT_FAILURE, EXIT_USAGE, say};
use crate::config::url::{Address, Scheme};
use crate::net::tls::{ClientTls, Trust};
use crate::net::{Network, Stream, Tcp, now};
use findings::{ASKED, Answered, Finding, Seen, Socket, Verdict};

/// How long an answer may take. Mooring answers what is asked here at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The size of the upload that is announced. ComfyUI takes 100 MB by default.
const UPLOAD_MB: u64 = 100;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The opening handshake of a browser (RFC 6455 section 4.1). The key need not be a new one: nobody
/// is to be told apart by it.
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// An empty pong (RFC 6455 section 5.5.3), masked as all frames of a client.
const PONG: &[u8] = &[0x8a, 0x80, 0, 0, 0, 0];

/// `mooring doctor URL`.
pub(super) async fn doctor(args: &DoctorArgs) -> ExitCode {
    let site = match Site::of(args) {
        Ok(site) => site,
        Err(why) => {
            say::note(&format!("mooring: {why}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let findings = examine(&Tcp, &site, args.idle).await;
    if args.json {
        let all: Value = findings.iter().map(Finding::as_json).collect();
        say::line(&format!("{all:#}"));
    } else {
        findings.iter().flat_map(lines).for_each(|line| say::line(&line));
    }
    let is_wrong = findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
    if is_wrong { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS }
}

/// A finding for people, with its fix below.
fn lines(finding: &Finding) -> Vec<String> {
    let Finding { about, verdict, what, fix } = finding;
    let first = format!("{:7}  {about:10}  {}", verdict.as_str(), say::plain(what));
    let fix = Some(fix).filter(|fix| !fix.is_empty());
    [first].into_iter().chain(fix.map(|fix| format!("{:7}  fix: {fix}", ""))).collect()
}

/// What a browser knows of the address.
struct Site {
    address: Address,
    tls: Option<ClientTls>,
    /// As browsers write it: without the usual port.
    host: String,
    origin: String,
    folder: String,
}

impl Site {
    fn of(args: &DoctorArgs) -> Result<Self, String> {
        let PageUrl { server, folder } = &args.url;
        let tls = match (server.scheme, &args.ca) {
            (Scheme::Http, Some(_)) => return Err("--ca is for https".to_owned()),
            (Scheme::Http, None) => None,
            (Scheme::Https, None) => Some(ClientTls::new(Trust::Web, None, None)?),
            (Scheme::Https, Some(path)) => {
                let unread = |error| format!("`{}` cannot be read: {error}", path.display());
                let text = std::fs::read(path).map_err(unread)?;
                Some(ClientTls::new(Trust::Authorities(&text), None, None)?)
            }
        };
        let (scheme, address) = (server.scheme, server.address.clone());
        let written = address.to_string();
        let usual = format!(":{}", scheme.default_port());
        let host = written.strip_suffix(&usual).unwrap_or(&written).to_owned();
        let origin = format!("{}://{host}", scheme.as_str());
        Ok(Self { address, tls, host, origin, folder: folder.clone() })
    }

    /// The head of a request, with these lines in addition.
    fn head(&self, method: &str, path: &str, lines: &str) -> String {
        let Self { host, folder, .. } = self;
        format!("{method} {folder}{path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")
    }

    /// The head of a request that a page of this address sends with a body of so many bytes.
    ///
    /// It has no `Sec-Fetch-Site`, which browsers send only over TLS and to this machine: with it
    /// Mooring does not look at `Host`.
    fn of_page(&self, length: u64) -> String {
        let origin = &self.origin;
        let lines = format!(
            "Origin: {origin}\r\nContent-Length: {length}\r\nConnection: close\r\n\
             Content-Type: application/octet-stream\r\n"
        );
        self.head("POST", ASKED, &lines)
    }

    async fn connect(&self, network: &dyn Network) -> io::Result<Stream> {
        let Address { host, port } = &self.address;
        let stream = network.connect_within(host, *port, ANSWER_WITHIN).await?;
        match &self.tls {
            Some(tls) => Box::pin(tls.connect(stream, host)).await,
            None => Ok(stream),
        }
    }

    /// Sends a head; what comes back. The connection is kept if it has become a socket.
    async fn ask(&self, network: &dyn Network, head: &str) -> (Seen, Option<Opened>) {
        let connected = timeout(ANSWER_WITHIN, self.connect(network)).await;
        let stream = connected.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()));
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => return (Seen::Failed(format!("cannot connect: {error}")), None),
        };
        let mut received = Vec::new();
        let read = read_answer(&mut stream, head, &mut received);
        let read = timeout(ANSWER_WITHIN, read).await;
        match (parse(&received), read) {
            (Some((answer, rest)), _) if answer.status == 101 => {
                let has_spoken = rest < received.len();
                (Seen::Answer(answer), Some(Opened { stream, has_spoken }))
            }
            (Some((answer, _)), _) => (Seen::Answer(answer), None),
            (None, Err(_late)) => (Seen::Silence, None),
            (None, Ok(Err(error))) => {
                (Seen::Failed(format!("the connection broke: {error}")), None)
            }
            (None, Ok(Ok(()))) => {
                (Seen::Failed("the connection ended without an answer in HTTP".to_owned()), None)
            }
        }
    }
}

/// A connection that has become a socket.
struct Opened {
    stream: Stream,
    /// Whether bytes came with the answer.
    has_spoken: bool,
}

async fn examine(network: &dyn Network, site: &Site, idle: Duration) -> Vec<Finding> {
    let (seen, _) = site.ask(network, &site.head("GET", ASKED, "Connection: close\r\n")).await;
    let mut findings = findings::reach(&seen);
    let is_barred = |it: &Finding| it.verdict == Verdict::Wrong && it.about != "ready";
    if findings.iter().any(is_barred) {
        return findings;
    }
    let (seen, _) = site.ask(network, &site.of_page(0)).await;
    findings.push(findings::origin(&seen));
    let (seen, _) = site.ask(network, &site.of_page(UPLOAD_MB * 1_000_000)).await;
    findings.extend(findings::upload(&seen, UPLOAD_MB));
    let lines = format!("Origin: {}\r\n{UPGRADE}", site.origin);
    let (seen, opened) = site.ask(network, &site.head("GET", "/ws", &lines)).await;
    findings.push(findings::upgrade(&seen));
    match opened {
        Some(opened) if !idle.is_zero() => {
            findings.push(findings::socket(watch(opened, idle).await));
        }
        Some(_) => {}
        None => findings.push(Finding::unknown("idle", "no socket opens")),
    }
    findings
}

/// Sends the head, and reads until the end, or until it is a socket.
async fn read_answer(stream: &mut Stream, head: &str, received: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    while received.len() < ANSWER_BYTES_MAX {
        let is_over = stream.read_buf(received).await? == 0;
        if is_over || parse(received).is_some_and(|(answer, _)| answer.status == 101) {
            break;
        }
    }
    Ok(())
}

/// The answer in these bytes, and where its body begins. `None` if the head is not there.
fn parse(received: &[u8]) -> Option<(Answered, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(received).ok()? else { return None };
    let header = |name: &str| {
        let found = head.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name));
        found.map(|it| String::from_utf8_lossy(it.value).into_owned())
    };
    let (code, location) = (header("mooring-error"), header("location"));
    let is_html = header("content-type").is_some_and(|it| it.starts_with("text/html"));
    let body = String::from_utf8_lossy(&received[body_at..]).into_owned();
    let body = json_in(&body).to_owned();
    Some((Answered { status: head.code?, code, location, is_html, body }, body_at))
}

/// The part from the first to the last brace: a proxy may send the body in chunks.
fn json_in(body: &str) -> &str {
    let found = body.find('{').zip(body.rfind('}'));
    found.and_then(|(from, to)| body.get(from..=to)).unwrap_or_default()
}

/// Leaves a socket silent, but for pongs, which browsers send too.
async fn watch(opened: Opened, idle: Duration) -> Socket {
    let Opened { mut stream, has_spoken } = opened;
    let began = now();
    let mut buffer = [0; 4096];
    if !has_spoken {
        match timeout(ANSWER_WITHIN, stream.read(&mut buffer)).await {
            Err(_late) => return Socket::Mute,
            Ok(Ok(0) | Err(_)) => return Socket::Ended { after_s: 0 },
            Ok(Ok(_)) => {}
        }
    }
    let stays = async {
        while stream.read(&mut buffer).await.is_ok_and(|length| 0 < length) {
            if stream.write_all(PONG).await.is_err() || stream.flush().await.is_err() {
                break;
            }
        }
    };
    match timeout(idle, stays).await {
        Err(_still_open) => Socket::Stayed { for_s: idle.as_secs() },
        Ok(()) => Socket::Ended { after_s: now().duration_since(began).as_secs() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_code_and_its_json() {
        let head = b"HTTP/1.1 421 x\r\nMooring-Error: foreign_host\r\n\r\n";
        let bytes = [&head[..], b"1a\r\n{\"a\": 1}\r\n0\r\n"].concat();
        let (answer, body_at) = parse(&bytes).unwrap();
        assert_eq!((answer.status, answer.code.as_deref()), (421, Some("foreign_host")));
        assert_eq!((answer.body.as_str(), body_at), ("{\"a\": 1}", head.len()));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nA: b\r\n"), None);
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.2\r\n"), None);
        assert_eq!(json_in("} {"), "");
    }

    #[test]
    fn a_fix_stands_below_what_it_mends() {
        let finding = Finding {
            about: "idle",
            verdict: Verdict::Wrong,
            what: "closed\u{1b}[2J".to_owned(),
            fix: "Wait.",
        };
        let shown = ["wrong    idle        closed\u{fffd}[2J", "         fix: Wait."];
        assert_eq!(lines(&finding), shown);
    }
}
