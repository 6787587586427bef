//! Questions to DNS servers whose answers have to be known in full: every address, and for how long
//! it holds. Dialling a name needs neither, and asks the system.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::proto::{ProtoError, ProtoErrorKind};

/// How long one server may take, and how often it is asked before it is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// What was told of a name: none if the name is there and has no such record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told<T> {
    pub records: Vec<T>,
    /// For how long that holds, as the server says.
    pub ttl: Duration,
}

/// What was told, or why nothing was.
pub type Answer<T> = Result<Told<T>, String>;

/// Where a service is (RFC 2782).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Service {
    /// A name without the dot at its end; empty if there is no such service.
    pub target: String,
    pub port: u16,
}

/// Asks DNS servers. It remembers nothing.
#[derive(Debug)]
pub struct Resolver(TokioResolver);

impl Resolver {
    /// One that asks this server, or those of the system.
    ///
    /// # Errors
    /// The system does not say which servers are to be asked.
    pub async fn new(server: Option<SocketAddr>) -> Result<Self, String> {
        let mut builder = match server {
            Some(server) => {
                let mut config = ResolverConfig::new();
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    config.add_name_server(NameServerConfig::new(server, protocol));
                }
                TokioResolver::builder_with_config(config, TokioConnectionProvider::default())
            }
            // It reads `/etc/resolv.conf`, on a disk that may take its time.
            None => {
                let read = tokio::task::spawn_blocking(TokioResolver::builder_tokio).await;
                let read = read.map_err(|ended| ended.to_string())?;
                read.map_err(|error| format!("/etc/resolv.conf: {error}"))?
            }
        };
        let options: &mut ResolverOpts = builder.options_mut();
        // What an answer holds for is to be seen, and a table of this host is no answer.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = ANSWER_WITHIN;
        options.attempts = ATTEMPTS;
        Ok(Self(builder.build()))
    }

    /// The IPv4 and the IPv6 addresses of a name. Both are of one name of the system's search list:
    /// the first that exists.
    ///
    /// # Errors
    /// It does not exist, or nobody says whether it does.
    pub async fn addresses(&self, name: &str) -> (Answer<IpAddr>, Answer<IpAddr>) {
        let mut names = self.candidates(name).into_iter();
        loop {
            let whole = names.next().unwrap_or_default();
            let (v4, v6) = tokio::join!(
                self.ask(&whole, RecordType::A, |data| data.as_a().map(|ip| IpAddr::V4(ip.0))),
                self.ask(&whole, RecordType::AAAA, |data| data
                    .as_aaaa()
                    .map(|ip| IpAddr::V6(ip.0))),
            );
            if names.len() == 0 || !(is_unknown(&v4) && is_unknown(&v6)) {
                return (v4.map_err(Failed::into_text), v6.map_err(Failed::into_text));
            }
        }
    }

    /// Where the services of a name are.
    ///
    /// # Errors
    /// As [`Resolver::addresses`].
    pub async fn services(&self, name: &str) -> Answer<Service> {
        let mut names = self.candidates(name).into_iter();
        loop {
            let whole = names.next().unwrap_or_default();
            let told = self.ask(&whole, RecordType::SRV, |data| {
                let srv = data.as_srv()?;
                let target = srv.target().to_ascii();
                let target = target.trim_end_matches('.').to_ascii_lowercase();
                Some(Service { target, port: srv.port() })
            });
            let told = told.await;
            if names.len() == 0 || !is_unknown(&told) {
                return told.map_err(Failed::into_text);
            }
        }
    }

    /// The names that are asked for in place of this one, in their order.
    fn candidates(&self, name: &str) -> Vec<String> {
        let config = self.0.config();
        let mut search: Vec<String> = config.search().iter().map(ToString::to_string).collect();
        if search.is_empty() {
            search.extend(config.domain().map(ToString::to_string));
        }
        candidates(name, self.0.options().ndots, &search)
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Told<T>, Failed> {
        match self.0.lookup(name, kind).await {
            Ok(found) => {
                // An alias is one of them, and holds only as long as it says itself.
                let ttl = found.records().iter().map(Record::ttl).min().unwrap_or_default();
                let of_kind = found.records().iter().filter(|it| it.record_type() == kind);
                let records = of_kind.filter_map(|it| read(it.data())).collect();
                Ok(Told { records, ttl: Duration::from_secs(ttl.into()) })
            }
            Err(error) => match error.proto().map(ProtoError::kind) {
                Some(ProtoErrorKind::NoRecordsFound {
                    response_code: ResponseCode::NoError,
                    negative_ttl,
                    ..
                }) => {
                    let ttl = Duration::from_secs(negative_ttl.unwrap_or_default().into());
                    Ok(Told { records: Vec::new(), ttl })
                }
                Some(ProtoErrorKind::NoRecordsFound { response_code, .. }) => {
                    let why = format!("{name} {kind}: {response_code}");
                    let is_unknown = *response_code == ResponseCode::NXDomain;
                    Err(if is_unknown { Failed::NoSuchName(why) } else { Failed::Other(why) })
                }
                Some(_) | None => Err(Failed::Other(format!("{name} {kind}: {error}"))),
            },
        }
    }
}

/// Why nothing was told.
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

/// What a name may be short for, by the search list of the system (`resolv.conf`): each with a dot
/// at its end, so that it is taken as it stands. One with so many dots is tried as it is first, any
/// other one last. Never empty.
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
