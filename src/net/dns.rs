//! Asks DNS servers where the complete answer matters: every address, and how long it is valid.
//! Dialling a name needs neither and asks the system's resolver.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;

/// How long one server may take to answer, and how often it is tried.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// The records of a name. There are none if the name exists and has no record of this type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told<T> {
    pub records: Vec<T>,
    /// How long the answer is valid, as the server says.
    pub ttl: Duration,
}

/// The records, or the reason why there is no answer.
pub type Answer<T> = Result<Told<T>, String>;

/// The location of a service (RFC 2782).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Service {
    /// A name without a dot at its end. Empty if the service does not exist.
    pub target: String,
    pub port: u16,
}

/// Asks DNS servers. It does not cache anything.
#[derive(Debug)]
pub struct Resolver {
    /// One for each server. They are asked in order, each only if the one before had no answer that
    /// counts. Asked at the same time, the quickest would decide, also one that knows nothing.
    servers: Vec<TokioResolver>,
    /// The domains of the system in which a short name is looked up.
    search: Vec<String>,
    ndots: usize,
}

impl Resolver {
    /// Creates a resolver that asks this server, or the servers of the system if there is none.
    ///
    /// # Errors
    /// The system does not say which servers to ask.
    pub async fn new(server: Option<SocketAddr>) -> Result<Self, String> {
        let (config, options) = match server {
            Some(server) => (only(server), plain()),
            // This reads `/etc/resolv.conf` from a disk, which may be slow.
            None => {
                let read = tokio::task::spawn_blocking(read_system_conf).await;
                let read = read.map_err(|ended| ended.to_string())?;
                read.map_err(|error| format!("/etc/resolv.conf: {error}"))?
            }
        };
        Self::asking(&config, options)
    }

    fn asking(config: &ResolverConfig, mut options: ResolverOpts) -> Result<Self, String> {
        // No cache, so that the TTL of each answer is seen. The host's own table of names is not
        // used.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = ANSWER_WITHIN;
        options.attempts = ATTEMPTS;
        let search = match (config.search(), config.domain()) {
            ([], domain) => domain.iter().map(ToString::to_string).collect(),
            (search, _) => search.iter().map(ToString::to_string).collect(),
        };
        let ndots = options.ndots;
        let asks = |server: &NameServerConfig| {
            let config = ResolverConfig::from_name_servers(vec![server.clone()]);
            let builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.with_options(options.clone()).build().map_err(|error| error.to_string())
        };
        let servers: Result<Vec<_>, _> = config.name_servers().iter().map(asks).collect();
        Ok(Self { servers: servers?, search, ndots })
    }

    /// The IPv4 and the IPv6 addresses of a name. Both are looked up under the same full name: the
    /// first of the system's search list that exists.
    ///
    /// # Errors
    /// The name does not exist, or no server answered.
    pub async fn addresses(&self, name: &str) -> (Answer<IpAddr>, Answer<IpAddr>) {
        let mut names = self.candidates(name).into_iter();
        loop {
            let whole = names.next().unwrap_or_default();
            let (v4, v6) = tokio::join!(
                self.ask(&whole, RecordType::A, RData::ip_addr),
                self.ask(&whole, RecordType::AAAA, RData::ip_addr),
            );
            if names.len() == 0 || !(is_unknown(&v4) && is_unknown(&v6)) {
                return (v4.map_err(Failed::into_text), v6.map_err(Failed::into_text));
            }
        }
    }

    /// The locations of the services of a name.
    ///
    /// # Errors
    /// Those of [`Resolver::addresses`].
    pub async fn services(&self, name: &str) -> Answer<Service> {
        let mut names = self.candidates(name).into_iter();
        loop {
            let whole = names.next().unwrap_or_default();
            let told = self.ask(&whole, RecordType::SRV, |data| {
                let RData::SRV(srv) = data else { return None };
                let target = srv.target.to_ascii();
                let target = target.trim_end_matches('.').to_ascii_lowercase();
                Some(Service { target, port: srv.port })
            });
            let told = told.await;
            if names.len() == 0 || !is_unknown(&told) {
                return told.map_err(Failed::into_text);
            }
        }
    }

    /// The full names to look up for this name, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        candidates(name, self.ndots, &self.search)
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Told<T>, Failed> {
        let mut last = Err(Failed::Other("the system names no server to ask".to_owned()));
        for server in &self.servers {
            match ask_one(server, name, kind, &read).await {
                Said::Certain(told) => return told,
                Said::Perhaps(told) => last = told,
            }
        }
        last
    }
}

/// What one server said.
enum Said<T> {
    /// Records, or that there are none, by a server that knows the zone.
    Certain(Result<Told<T>, Failed>),
    /// A failure, or that there are none, by a server that may know nothing of the zone: routers
    /// say so of inner names. The next server may know more.
    Perhaps(Result<Told<T>, Failed>),
}

async fn ask_one<T>(
    server: &TokioResolver,
    name: &str,
    kind: RecordType,
    read: impl Fn(&RData) -> Option<T>,
) -> Said<T> {
    match server.lookup(name, kind).await {
        Ok(found) => {
            let answers = found.answers();
            // The records may include an alias. The answer is valid only as long as each of
            // them.
            let ttl = answers.iter().map(|it| it.ttl).min().unwrap_or_default();
            let of_kind = answers.iter().filter(|it| it.record_type() == kind);
            let records = of_kind.filter_map(|it| read(&it.data)).collect();
            Said::Certain(Ok(Told { records, ttl: Duration::from_secs(ttl.into()) }))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let why = format!("{name} {kind}: {}", none.response_code);
            if none.response_code == ResponseCode::NXDomain {
                return Said::Certain(Err(Failed::NoSuchName(why)));
            }
            if none.response_code != ResponseCode::NoError {
                return Said::Perhaps(Err(Failed::Other(why)));
            }
            let ttl = Duration::from_secs(none.negative_ttl.unwrap_or_default().into());
            let told = Ok(Told { records: Vec::new(), ttl });
            // Who knows the zone says where it begins (RFC 2308 section 2.2).
            if none.soa.is_some() { Said::Certain(told) } else { Said::Perhaps(told) }
        }
        Err(NetError::Dns(DnsError::ResponseCode(code))) => {
            Said::Perhaps(Err(Failed::Other(format!("{name} {kind}: {code}"))))
        }
        Err(error) => Said::Perhaps(Err(Failed::Other(format!("{name} {kind}: {error}")))),
    }
}

/// This server and no other, over UDP, and over TCP for what is too long.
fn only(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    // What it says does not exist does not exist: there is no other server to ask.
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    ResolverConfig::from_name_servers(vec![server])
}

/// Without EDNS: old servers and firewalls refuse it, and TCP takes what is longer.
fn plain() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.edns0 = false;
    options
}

/// Why there is no answer.
enum Failed {
    NoSuchName(String),
    Other(String),
}

impl Failed {
    fn into_text(self) -> String {
        match self {
            Self::NoSuchName(why) | Self::Other(why) => why,
        }
    }
}

fn is_unknown<T>(told: &Result<T, Failed>) -> bool {
    matches!(told, Err(Failed::NoSuchName(_)))
}

/// The full names that a name can be short for, by the system's search list (`resolv.conf`). Each
/// ends with a dot, so that it is not extended again. A name with at least `ndots` dots is tried
/// first as it is; any other one is tried so last. The result is never empty.
fn candidates(name: &str, ndots: usize, search: &[String]) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let itself = format!("{name}.");
    let within = search.iter().map(|domain| format!("{name}.{}.", domain.trim_matches('.')));
    let mut names: Vec<String> = within.collect();
    let first = if ndots <= name.matches('.').count() { 0 } else { names.len() };
    names.insert(first, itself);
    names
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    #[test]
    fn a_name_is_looked_for_along_the_search_list_and_each_name_is_whole() {
        let search = ["ns.svc.cluster.local".to_owned(), "lan.".to_owned()];
        let within = |name: &str| [format!("{name}.ns.svc.cluster.local."), format!("{name}.lan.")];
        let [one, two] = within("gpus");
        assert_eq!(candidates("gpus", 1, &search), [one, two, "gpus.".to_owned()]);
        let [one, two] = within("gpus.example");
        assert_eq!(
            candidates("gpus.example", 1, &search),
            ["gpus.example.".to_owned(), one.clone(), two.clone()]
        );
        assert_eq!(candidates("gpus.example", 5, &search), [one, two, "gpus.example.".to_owned()]);
        assert_eq!(candidates("gpus.example.", 5, &search), ["gpus.example."]);
        assert_eq!(candidates("gpus", 1, &[]), ["gpus."]);
    }

    /// What a server answers to each question: a code (RFC 1035 section 4.1.1), or an address.
    type Answers = Result<[u8; 4], u8>;

    async fn serve(socket: UdpSocket, answers: Answers) {
        let mut question = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut question).await.unwrap();
            let (code, count) = match answers {
                Ok(_) => (0, 1),
                Err(code) => (code, 0),
            };
            let mut answer = [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, count]].concat();
            answer.extend_from_slice(&[0; 4]);
            answer.extend_from_slice(&question[12..len]);
            if let Ok(address) = answers {
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend_from_slice(&address);
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    }

    /// What is found of a name if the first server and the second answer so.
    async fn found(first: Answers, second: Answers) -> Answer<IpAddr> {
        let here = (Ipv4Addr::LOCALHOST, 0);
        let sockets = [UdpSocket::bind(here).await.unwrap(), UdpSocket::bind(here).await.unwrap()];
        let servers = sockets.each_ref().map(|socket| only(socket.local_addr().unwrap()));
        let servers = servers.iter().flat_map(|config| config.name_servers().to_vec());
        let config = ResolverConfig::from_name_servers(servers.collect());
        let resolver = Resolver::asking(&config, plain()).unwrap();
        let [one, two] = sockets;
        tokio::select! {
            () = serve(one, first) => unreachable!(),
            () = serve(two, second) => unreachable!(),
            told = resolver.ask("gpus.lan.", RecordType::A, RData::ip_addr) => {
                told.map_err(Failed::into_text)
            }
        }
    }

    /// A router refuses inner names, or says that they have no address; the server of the network
    /// knows them.
    #[tokio::test]
    async fn the_next_server_is_asked_if_one_knows_nothing_of_a_name() {
        let known = Ok([10, 0, 0, 1]);
        const REFUSED: u8 = 5;
        const SERVFAIL: u8 = 2;
        for of_no_use in [Err(0), Err(REFUSED), Err(SERVFAIL)] {
            let told = found(of_no_use, known).await.unwrap();
            assert_eq!(told.records, [IpAddr::from([10, 0, 0, 1])], "after {of_no_use:?}");
        }
        let told = found(known, Ok([10, 0, 0, 2])).await.unwrap();
        assert_eq!(told.records, [IpAddr::from([10, 0, 0, 1])], "the first one comes first");
        assert!(found(Err(0), Err(0)).await.unwrap().records.is_empty());
        assert!(found(Err(REFUSED), Err(SERVFAIL)).await.is_err());
    }
}
