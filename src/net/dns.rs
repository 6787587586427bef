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
    resolver: TokioResolver,
    /// The domains of the system in which a short name is looked up.
    search: Vec<String>,
}

impl Resolver {
    /// Creates a resolver that asks this server, or the servers of the system if there is none.
    ///
    /// # Errors
    /// The system does not say which servers to ask.
    pub async fn new(server: Option<SocketAddr>) -> Result<Self, String> {
        let (config, mut options) = match server {
            Some(server) => (only(server), ResolverOpts::default()),
            // This reads `/etc/resolv.conf` from a disk, which may be slow.
            None => {
                let read = tokio::task::spawn_blocking(read_system_conf).await;
                let read = read.map_err(|ended| ended.to_string())?;
                read.map_err(|error| format!("/etc/resolv.conf: {error}"))?
            }
        };
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
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(|error| error.to_string())?;
        Ok(Self { resolver, search })
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
        candidates(name, self.resolver.options().ndots, &self.search)
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Told<T>, Failed> {
        match self.resolver.lookup(name, kind).await {
            Ok(found) => {
                let answers = found.answers();
                // The records may include an alias. The answer is valid only as long as each of
                // them.
                let ttl = answers.iter().map(|it| it.ttl).min().unwrap_or_default();
                let of_kind = answers.iter().filter(|it| it.record_type() == kind);
                let records = of_kind.filter_map(|it| read(&it.data)).collect();
                Ok(Told { records, ttl: Duration::from_secs(ttl.into()) })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let why = format!("{name} {kind}: {}", none.response_code);
                if none.response_code == ResponseCode::NoError {
                    let ttl = Duration::from_secs(none.negative_ttl.unwrap_or_default().into());
                    return Ok(Told { records: Vec::new(), ttl });
                }
                let is_unknown = none.response_code == ResponseCode::NXDomain;
                Err(if is_unknown { Failed::NoSuchName(why) } else { Failed::Other(why) })
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                Err(Failed::Other(format!("{name} {kind}: {code}")))
            }
            Err(error) => Err(Failed::Other(format!("{name} {kind}: {error}"))),
        }
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
}
