//! The simulated network as one host sees it, behind the seam of the real one.
//!
//! Two things are put right that the simulator simplifies. A SYN that is lost is sent again, as
//! any TCP does; the simulator calls it a refusal, and a refusal proves that a process is gone.
//! And where the simulator answers a SYN through a cut line, the answer waits for the line.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use ::turmoil::net::{TcpListener, TcpStream};
use mooring::net::{Boxed, Listener, Network, Stream, sleep};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// After this long without an answer a SYN is sent again.
const SYN_AGAIN: Duration = Duration::from_millis(500);

/// Which lines drop what is sent, and how often any of them has begun to.
#[derive(Debug, Default)]
pub(super) struct Weather {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: BTreeSet<(String, String)>,
    cuts: u64,
}

impl Weather {
    pub(super) fn cut(&self, from: &str, to: &str) {
        let mut state = self.state.lock().unwrap();
        state.cut.insert((from.to_owned(), to.to_owned()));
        state.cuts += 1;
    }

    pub(super) fn mend(&self, from: &str, to: &str) {
        self.state.lock().unwrap().cut.remove(&(from.to_owned(), to.to_owned()));
    }

    fn cuts(&self) -> u64 {
        self.state.lock().unwrap().cuts
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.state.lock().unwrap().cut.contains(&(from.to_owned(), to.to_owned()))
    }
}

/// The links that a gateway holds: which client's, to which backend. Seen on the wire and not
/// asked of the gateway, so that those still closing count.
#[derive(Debug, Default)]
pub(super) struct Links {
    open: Mutex<BTreeMap<(String, String), u32>>,
    doubled: Mutex<Vec<String>>,
}

impl Links {
    /// Where two links of one client to one backend were open at once, since last asked.
    pub(super) fn take_doubled(&self) -> Vec<String> {
        std::mem::take(&mut self.doubled.lock().unwrap())
    }

    fn opened(&self, name: &(String, String)) {
        let mut open = self.open.lock().unwrap();
        let count = open.entry(name.clone()).or_default();
        *count += 1;
        if 1 < *count {
            let (backend, client) = name;
            let what = format!("{client} has {count} links to {backend} at once");
            self.doubled.lock().unwrap().push(what);
        }
    }

    fn closed(&self, name: &(String, String)) {
        if let Some(count) = self.open.lock().unwrap().get_mut(name) {
            *count -= 1;
        }
    }
}

/// Whether a host lives. When it is killed its connections end in the order in which they were
/// made; a runtime that is dropped ends them in an order that differs from run to run.
#[derive(Debug, Default)]
pub(super) struct Power {
    cut: Notify,
    plugs: Mutex<Plugs>,
}

#[derive(Debug, Default)]
struct Plugs {
    is_off: bool,
    next: u64,
    streams: BTreeMap<u64, Plug>,
    /// How many lives the host has had, with this one.
    life: u32,
    /// Which life took a connection, by the address of its other end.
    taken_in: BTreeMap<SocketAddr, u32>,
}

/// A connection, until its host dies.
type Plug = Arc<Mutex<Option<TcpStream>>>;

impl Power {
    /// Asks the host to die. It does in its next step, and does nothing any more.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Runs on the host, from the beginning of each of its lives.
    pub(super) async fn supply(&self) {
        {
            let mut plugs = self.plugs.lock().unwrap();
            plugs.is_off = false;
            plugs.life += 1;
        }
        self.cut.notified().await;
        let streams = {
            let mut plugs = self.plugs.lock().unwrap();
            plugs.is_off = true;
            std::mem::take(&mut plugs.streams)
        };
        for stream in streams.values() {
            stream.lock().unwrap().take();
        }
    }

    /// Returns at once while the host lives, and never when it does not.
    pub(super) async fn is_on(&self) {
        if self.plugs.lock().unwrap().is_off {
            std::future::pending::<()>().await;
        }
    }

    fn took(&self, peer: SocketAddr) {
        let mut plugs = self.plugs.lock().unwrap();
        let life = plugs.life;
        plugs.taken_in.insert(peer, life);
    }

    /// Which life of this host took the connection of that address. What is heard on it was said
    /// in that life, however late it arrives.
    pub(super) fn life_that_took(&self, peer: SocketAddr) -> Option<u32> {
        self.plugs.lock().unwrap().taken_in.get(&peer).copied()
    }

    fn plug(&self, stream: TcpStream) -> (u64, Plug) {
        let mut plugs = self.plugs.lock().unwrap();
        let plug = Arc::new(Mutex::new((!plugs.is_off).then_some(stream)));
        plugs.next += 1;
        let number = plugs.next;
        plugs.streams.insert(number, Arc::clone(&plug));
        (number, plug)
    }

    fn pull(&self, number: u64) {
        let pulled = self.plugs.lock().unwrap().streams.remove(&number);
        drop(pulled);
    }
}

/// The network of the host of that name.
#[derive(Clone, Debug)]
pub(super) struct Simulated {
    pub(super) host: String,
    pub(super) weather: Arc<Weather>,
    pub(super) links: Arc<Links>,
    pub(super) power: Arc<Power>,
}

impl Simulated {
    fn wire(&self, stream: TcpStream, peer: &str, link: Link) -> Stream {
        let (number, plug) = self.power.plug(stream);
        let (links, power) = (Arc::clone(&self.links), Arc::clone(&self.power));
        let peer = peer.to_owned();
        Stream::simulated(Buffered { number, plug, power, peer, links, link })
    }

    async fn dial(&self, host: &str, port: u16) -> io::Result<Stream> {
        self.dial_from(host, port).await.map(|(stream, _)| stream)
    }

    /// A new connection, and the address that it comes from.
    pub(super) async fn dial_from(
        &self,
        host: &str,
        port: u16,
    ) -> io::Result<(Stream, SocketAddr)> {
        loop {
            self.power.is_on().await;
            let cuts = self.weather.cuts();
            match TcpStream::connect((host, port)).await {
                Ok(stream) => {
                    while self.weather.is_cut(host, &self.host) {
                        sleep(SYN_AGAIN).await;
                    }
                    let from = stream.local_addr()?;
                    return Ok((self.wire(stream, host, Link::Unknown), from));
                }
                Err(error) => {
                    let is_lost = self.weather.is_cut(&self.host, host)
                        || self.weather.is_cut(host, &self.host)
                        || cuts != self.weather.cuts();
                    if error.kind() != io::ErrorKind::ConnectionRefused || !is_lost {
                        return Err(error);
                    }
                    sleep(SYN_AGAIN).await;
                }
            }
        }
    }
}

impl Network for Simulated {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(self.dial(host, port))
    }

    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            let local = listener.local_addr()?;
            let network = self.clone();
            Ok(Box::new(Listening { listener, local, network }) as Box<dyn Listener>)
        })
    }
}

struct Listening {
    listener: TcpListener,
    local: SocketAddr,
    network: Simulated,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listening({})", self.local)
    }
}

impl Listener for Listening {
    fn accept(&self) -> Boxed<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            let (stream, peer) = self.listener.accept().await?;
            self.network.power.is_on().await;
            self.network.power.took(peer);
            Ok((self.network.wire(stream, "", Link::Not), peer))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// What the first bytes said of a connection that was dialled.
enum Link {
    Unknown,
    Of((String, String)),
    Not,
}

/// A connection. If it opens a link, it is counted until it is dropped.
struct Buffered {
    number: u64,
    plug: Plug,
    power: Arc<Power>,
    peer: String,
    links: Arc<Links>,
    link: Link,
}

impl Buffered {
    /// Does something with the connection, and nothing more once the host is dead.
    fn poll<T>(&self, act: impl FnOnce(Pin<&mut TcpStream>) -> Poll<T>) -> Poll<T> {
        match &mut *self.plug.lock().unwrap() {
            Some(stream) => act(Pin::new(stream)),
            None => Poll::Pending,
        }
    }

    fn look(&mut self, written: &[u8]) {
        if matches!(self.link, Link::Unknown) {
            let head = String::from_utf8_lossy(written);
            let client = head
                .strip_prefix("GET /ws?clientId=")
                .and_then(|rest| rest.split_once(' '))
                .map(|(client, _)| client.to_owned());
            self.link = match client {
                Some(client) => {
                    let name = (self.peer.clone(), client);
                    self.links.opened(&name);
                    Link::Of(name)
                }
                None => Link::Not,
            };
        }
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.power.pull(self.number);
        if let Link::Of(name) = &self.link {
            self.links.closed(name);
        }
    }
}

impl AsyncRead for Buffered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.look(buf);
        this.poll(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}
