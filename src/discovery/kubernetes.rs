//! Watches the endpoint slices of a service: first a list, then what changes.
//!
//! A watch is silent while nothing changes, so a dead connection looks like a quiet one. Therefore
//! each watch is asked to end after a minute, and a watch that is silent for longer is given up.
//! The next watch continues where the last one ended, without a new list, unless the server has
//! forgotten that version (410).

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::api_server::{ApiServer, Pod, Trouble};
use super::desk::Desk;
use super::lines::Lines;
use super::slices::{Event, Page, Slices};
use crate::config::{KubernetesPort, KubernetesRef};
use crate::fleet::api::encode_segment;
use crate::net::{now, sleep};

/// How long the server is asked to keep a watch open.
const WATCH: Duration = Duration::from_secs(60);

/// How long a watch may be silent.
const SILENT_MAX: Duration = Duration::from_secs(75);

/// Slices per page of a list.
const PAGE: usize = 500;

/// The pauses after failures in a row. The last one is used for all further failures.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// A watch that lasted at least this long was not a failure. The time of the list does not count.
const STEADY: Duration = Duration::from_secs(1);

/// Watches until the task is ended.
pub(super) async fn watch(desk: Desk, pod: &Arc<Pod>, service: &KubernetesRef) {
    let mut watch = Watch::new(desk, pod, service.port.clone());
    let mut failures = 0;
    loop {
        match watch.round(service).await {
            Ok(Watched::For(time)) if STEADY <= time => {
                failures = 0;
                continue;
            }
            Ok(Watched::For(_)) => {}
            // A single failure of this kind is normal: the watch was interrupted for too long.
            Ok(Watched::Not) if failures == 0 => {}
            Ok(Watched::Not) => watch.desk.failed("the API server has forgotten what it listed"),
            Err(trouble) => watch.desk.failed(&trouble.to_string()),
        }
        sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
        failures += 1;
    }
}

/// The result of a round.
enum Watched {
    For(Duration),
    /// The server has forgotten the version of the list (410).
    Not,
}

struct Watch {
    desk: Desk,
    api: ApiServer,
    port: Option<KubernetesPort>,
    slices: Slices,
    /// The version where the next watch continues. `None` if a list is needed.
    version: Option<String>,
}

impl Watch {
    fn new(desk: Desk, pod: &Arc<Pod>, port: Option<KubernetesPort>) -> Self {
        let api = ApiServer { network: desk.network(), tasks: desk.tasks(), pod: Arc::clone(pod) };
        Self { desk, api, port, slices: Slices::default(), version: None }
    }

    /// Lists if necessary, and watches until the watch ends.
    async fn round(&mut self, service: &KubernetesRef) -> Result<Watched, Trouble> {
        let path = match &service.namespace {
            Some(namespace) => path(namespace, &service.service),
            None => path(&self.api.namespace().await?, &service.service),
        };
        let version = match self.version.clone() {
            Some(version) => version,
            None => self.list(&path).await?,
        };
        let (seconds, from) = (WATCH.as_secs(), encode_segment(&version));
        let watched = format!(
            "{path}&watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}\
             &resourceVersion={from}"
        );
        let opened = self.api.stream(&watched).await;
        if let Err(Trouble::Refused { status: StatusCode::GONE, .. }) = opened {
            self.version = None;
            return Ok(Watched::Not);
        }
        let (body, began) = (opened?, now());
        self.desk.is_well();
        match self.read(body).await? {
            Goes::On => Ok(Watched::For(now().duration_since(began))),
            Goes::Anew => Ok(Watched::Not),
        }
    }

    /// Reads all slices again, and reports the servers in them.
    async fn list(&mut self, path: &str) -> Result<String, Trouble> {
        let mut slices = Slices::default();
        let mut more = String::new();
        loop {
            let page = self.api.whole(&format!("{path}&limit={PAGE}{more}")).await?;
            match slices.page(&page)? {
                Page::More(token) => more = format!("&continue={}", encode_segment(&token)),
                Page::Last(version) => {
                    self.slices = slices;
                    self.version = Some(version.clone());
                    self.hand_in()?;
                    return Ok(version);
                }
            }
        }
    }

    /// Reads a watch to its end.
    async fn read(&mut self, mut body: Incoming) -> Result<Goes, Trouble> {
        let mut lines = Lines::default();
        loop {
            // It ended, broke off or is silent: the next watch continues where it was.
            let Ok(Some(Ok(frame))) = timeout(SILENT_MAX, body.frame()).await else {
                return Ok(Goes::On);
            };
            let Ok(data) = frame.into_data() else { continue };
            let whole = lines.push(&data);
            let whole = whole.map_err(|_| Trouble::NoAnswer("a line has no end".to_owned()))?;
            for line in whole {
                match self.take(&line)? {
                    Goes::On => {}
                    Goes::Anew => return Ok(Goes::Anew),
                }
            }
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<Goes, Trouble> {
        match self.slices.event(line).inspect_err(|_| self.version = None)? {
            Event::Changed(version) => {
                self.version = Some(version);
                self.hand_in()?;
            }
            Event::Bookmark(version) => self.version = Some(version),
            Event::Expired => {
                self.version = None;
                return Ok(Goes::Anew);
            }
            Event::Failed(why) => {
                self.version = None;
                return Err(Trouble::NoAnswer(why));
            }
        }
        Ok(Goes::On)
    }

    fn hand_in(&mut self) -> Result<(), Trouble> {
        let (servers, remarks) = self.slices.servers(self.desk.place(), self.port.as_ref());
        remarks.iter().for_each(|remark| self.desk.remark(remark));
        self.desk.found(&servers).map_err(|why| {
            // The slices are listed again, until there is room.
            self.version = None;
            Trouble::NoAnswer(why)
        })
    }
}

/// Whether a watch continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Goes {
    On,
    Anew,
}

/// The path of the slices of a service. Both names were checked and need no escape.
fn path(namespace: &str, service: &str) -> String {
    let namespace = encode_segment(namespace);
    format!(
        "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=\
         kubernetes.io%2Fservice-name%3D{service}"
    )
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;

    use super::*;
    use crate::config::{Config, Sources, load};
    use crate::journal::Journal;
    use crate::net::{Boxed, Listener, Network, Stream};
    use crate::session::Sessions;
    use crate::shared::Shared;
    use crate::tasks::Tasks;

    /// An API server that answers a list, and is silent to a watch.
    #[derive(Debug)]
    struct Silent {
        config: Arc<ServerConfig>,
        asked: Arc<Mutex<Vec<String>>>,
        tasks: Tasks,
    }

    impl Network for Silent {
        fn connect<'a>(&'a self, _: &'a str, _: u16) -> Boxed<'a, io::Result<Stream>> {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let (config, asked) = (Arc::clone(&self.config), Arc::clone(&self.asked));
            self.tasks.spawn(async move {
                let _ = serve(theirs, config, asked).await;
            });
            Box::pin(async move { Ok(Stream::simulated(ours)) })
        }

        fn listen(&self, _: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
            Box::pin(std::future::pending())
        }
    }

    async fn serve(
        stream: DuplexStream,
        config: Arc<ServerConfig>,
        asked: Arc<Mutex<Vec<String>>>,
    ) -> io::Result<()> {
        let mut stream = TlsAcceptor::from(config).accept(stream).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        let is_watch = line.contains("watch=true");
        asked.lock().unwrap().push(line);
        let list = r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#;
        let answer = match is_watch {
            true => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            false => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len()),
        };
        stream.write_all(answer.as_bytes()).await?;
        std::future::pending().await
    }

    fn config() -> Config {
        let flags = vec![("discovery.gpus.kubernetes".to_owned(), "ns/comfyui".to_owned())];
        load(&Sources { flags, ..Sources::default() }).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_says_nothing_for_too_long_is_opened_anew_and_goes_on_from_there() {
        let account = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(vec!["10.0.0.1".to_owned()]).unwrap();
        std::fs::write(account.path().join("ca.crt"), signed.cert.pem()).unwrap();
        std::fs::write(account.path().join("token"), "t").unwrap();
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        let (tasks, asked) = (Tasks::default(), Arc::<Mutex<Vec<String>>>::default());
        let (config, server) = (config(), Arc::new(server));
        let network =
            Arc::new(Silent { config: server, asked: Arc::clone(&asked), tasks: tasks.clone() });
        let place = config.discovery[0].clone();
        let shared = Shared::new(config, network, tasks.clone(), Journal::in_memory());
        let desk = Desk::new(&Sessions::new(shared), &place);
        let server = Some(("10.0.0.1".to_owned(), 443));
        let pod = Arc::new(Pod { server, account: account.path().to_owned() });
        let began = now();
        let service = KubernetesRef {
            namespace: Some("ns".to_owned()),
            service: "comfyui".to_owned(),
            port: None,
        };
        tasks.spawn(async move { watch(desk, &pod, &service).await });
        while asked.lock().unwrap().len() < 3 {
            sleep(Duration::from_secs(1)).await;
        }
        let took = now().duration_since(began);
        assert!((SILENT_MAX..SILENT_MAX * 2).contains(&took), "{took:?}");
        let asked = asked.lock().unwrap().clone();
        let watches: Vec<bool> = asked.iter().map(|it| it.contains("watch=true")).collect();
        assert_eq!(watches, [false, true, true], "{asked:?}");
        assert!(asked[2].contains("resourceVersion=7"), "{asked:?}");
    }
}
