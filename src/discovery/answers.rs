//! Turns answers of DNS servers into backends, and decides when to ask again. Pure.
//!
//! If a name does not exist or cannot be looked up, what was found earlier stays. If a name exists
//! and has no address, the fleet is empty: that is the meaning of an answer without records (RFC
//! 2308 section 2.2).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::found::{Server, name as backend_name};
use crate::config::BackendConfig;
use crate::config::url::Address;
use crate::net::dns::{Answer, Service, Told};

/// The shortest time between two lookups, whatever the TTL of the records is.
pub const AGAIN_MIN: Duration = Duration::from_secs(5);

/// The longest time between two lookups. A TTL can be weeks.
pub const AGAIN_MAX: Duration = Duration::from_secs(3_600);

/// The result of one round of lookups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Round {
    /// The servers that exist now. `None` means that the earlier result stays.
    pub servers: Option<Vec<Server>>,
    /// When to ask again.
    pub again: Duration,
    /// What went wrong. There may still be a result.
    pub trouble: Option<String>,
}

/// The answers for the IPv4 and the IPv6 addresses of one name.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub v4: Answer<IpAddr>,
    pub v6: Answer<IpAddr>,
}

/// The last successful answers for the addresses of one name.
#[derive(Clone, Debug, Default)]
struct Known {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

/// The result for the addresses of one name.
struct Looked {
    addresses: Option<Vec<IpAddr>>,
    ttl: Option<Duration>,
    trouble: Option<String>,
}

impl Known {
    /// Takes new answers. If one kind of address cannot be looked up, its earlier result stays,
    /// provided that the other kind has an address.
    fn take(&mut self, answers: Addresses) -> Looked {
        let Addresses { v4, v6 } = answers;
        let has_some =
            |answer: &Answer<IpAddr>| answer.as_ref().is_ok_and(|told| !told.records.is_empty());
        let is_told = (v4.is_ok() && v6.is_ok()) || has_some(&v4) || has_some(&v6);
        let ttls = [&v4, &v6].map(|answer| answer.as_ref().ok().map(|told| told.ttl));
        let ttl = ttls.into_iter().flatten().min();
        let trouble = [&v4, &v6].into_iter().find_map(|answer| answer.as_ref().err().cloned());
        if !is_told {
            return Looked { addresses: None, ttl: None, trouble };
        }
        for (known, answer) in [(&mut self.v4, v4), (&mut self.v6, v6)] {
            if let Ok(told) = answer {
                *known = told.records;
            }
        }
        let mut addresses = [self.v4.clone(), self.v6.clone()].concat();
        addresses.sort_unstable();
        addresses.dedup();
        Looked { addresses: Some(addresses), ttl, trouble }
    }
}

/// How long to wait until the next lookup.
fn again(ttl: Option<Duration>, trouble: Option<&String>) -> Duration {
    match (ttl, trouble) {
        (Some(ttl), None) => ttl.clamp(AGAIN_MIN, AGAIN_MAX),
        (_, Some(_)) | (None, None) => AGAIN_MIN,
    }
}

/// The addresses of a name, each of which is a server: what the lookups have given so far.
#[derive(Debug)]
pub struct OfName {
    /// The name of the discovery.
    place: String,
    port: u16,
    known: Known,
}

impl OfName {
    /// `before` is what was found last, perhaps by an earlier process. It is used until there are
    /// answers.
    #[must_use]
    pub fn new(place: &str, port: u16, before: &[BackendConfig]) -> Self {
        let mut known = Known::default();
        let is_its = |it: &&BackendConfig| {
            it.port == port && it.name == backend_name(&format!("{place}-{}", it.host))
        };
        for ip in before.iter().filter(is_its).filter_map(|it| it.host.parse().ok()) {
            match ip {
                IpAddr::V4(_) => known.v4.push(ip),
                IpAddr::V6(_) => known.v6.push(ip),
            }
        }
        Self { place: place.to_owned(), port, known }
    }

    /// Takes the answers of one round.
    pub fn take(&mut self, answers: Addresses) -> Round {
        let Looked { addresses, ttl, trouble } = self.known.take(answers);
        let server = |ip: IpAddr| Server {
            name: format!("{}-{ip}", self.place),
            host: ip.to_string(),
            port: self.port,
            ..Server::default()
        };
        let servers = addresses.map(|all| all.into_iter().map(server).collect());
        Round { servers, again: again(ttl, trouble.as_ref()), trouble }
    }
}

/// The targets of SRV records, each of which is a server: what the lookups have given so far.
#[derive(Debug, Default)]
pub struct OfServices {
    /// For each target and port, its addresses and the address in use.
    known: BTreeMap<Service, (Known, Option<IpAddr>)>,
    /// The addresses that were found last, perhaps by an earlier process, by the names of the
    /// backends. They are used for targets that cannot be looked up at first.
    before: BTreeMap<String, IpAddr>,
}

impl OfServices {
    /// `before` is what was found last.
    #[must_use]
    pub fn new(before: &[BackendConfig]) -> Self {
        let address = |it: &BackendConfig| Some((it.name.clone(), it.host.parse().ok()?));
        Self { before: before.iter().filter_map(address).collect(), ..Self::default() }
    }

    /// Takes the services that exist, and the answers for the addresses of each target.
    pub fn take(
        &mut self,
        services: Answer<Service>,
        mut answers: BTreeMap<String, Addresses>,
    ) -> Round {
        let Told { records, ttl } = match services {
            Ok(told) => told,
            Err(trouble) => {
                return Round { servers: None, again: AGAIN_MIN, trouble: Some(trouble) };
            }
        };
        let (mut ttls, mut troubles) = (vec![ttl], Vec::new());
        // RFC 2782: the target `.` means that the service does not exist.
        let there = records.into_iter().filter(|it| !it.target.is_empty());
        let mut before = std::mem::take(&mut self.known);
        for service in there {
            let restored = || {
                let name = backend_name(&name_of(&service));
                (Known::default(), self.before.get(&name).copied())
            };
            let (mut known, mut used) = before.remove(&service).unwrap_or_else(restored);
            // Two ports of one target need only one lookup.
            let looked = answers.get_mut(&service.target).map(|it| known.take(it.clone()));
            if let Some(Looked { addresses, ttl, trouble }) = looked {
                ttls.extend(ttl);
                troubles.extend(trouble);
                if let Some(addresses) = addresses {
                    // One server may have several addresses. The one in use is kept.
                    let stays = used.filter(|it| addresses.contains(it));
                    used = stays.or_else(|| addresses.first().copied());
                }
            }
            self.known.insert(service, (known, used));
        }
        let trouble = troubles.into_iter().next();
        let servers = self
            .known
            .iter()
            .filter_map(|(service, (_, used))| Some(service_at(service, (*used)?)));
        let servers = Some(servers.collect());
        Round { servers, again: again(ttls.into_iter().min(), trouble.as_ref()), trouble }
    }
}

fn service_at(service: &Service, ip: IpAddr) -> Server {
    let (name, port) = (name_of(service), service.port);
    Server { name, host: ip.to_string(), port, ..Server::default() }
}

fn name_of(service: &Service) -> String {
    let Service { target, port } = service;
    Address { host: target.clone(), port: *port }.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::config::Config;

    fn told<T>(records: Vec<T>, ttl: u64) -> Answer<T> {
        Ok(Told { records, ttl: Duration::from_secs(ttl) })
    }

    fn ips(all: &[&str], ttl: u64) -> Answer<IpAddr> {
        told(all.iter().map(|it| it.parse().unwrap()).collect(), ttl)
    }

    fn failed() -> Answer<IpAddr> {
        Err("SERVFAIL".to_owned())
    }

    /// The hosts after a round, the seconds until the next one, and whether there was trouble.
    fn of(round: &Round) -> (Option<Vec<&str>>, u64, bool) {
        let hosts = round.servers.as_ref();
        let hosts = hosts.map(|all| all.iter().map(|it| it.host.as_str()).collect());
        (hosts, round.again.as_secs(), round.trouble.is_some())
    }

    #[test]
    fn every_address_is_a_server_for_as_long_as_the_records_hold() {
        let mut name = OfName::new("gpus", 8188, &[]);
        let round = name.take(Addresses {
            v4: ips(&["10.0.0.2", "10.0.0.1", "10.0.0.1"], 30),
            v6: ips(&["fd00::1"], 20),
        });
        assert_eq!(of(&round), (Some(vec!["10.0.0.1", "10.0.0.2", "fd00::1"]), 20, false));
        let names: Vec<_> = round.servers.unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["gpus-10.0.0.1", "gpus-10.0.0.2", "gpus-fd00::1"]);
        let round = name.take(Addresses { v4: ips(&["10.0.0.2"], 0), v6: ips(&[], 900) });
        assert_eq!(of(&round), (Some(vec!["10.0.0.2"]), 5, false), "5 s at least");
        let round = name.take(Addresses { v4: ips(&[], 9_000), v6: ips(&[], 9_000) });
        assert_eq!(of(&round), (Some(vec![]), 3_600, false), "a name without addresses");
    }

    #[test]
    fn what_is_not_told_stays_as_it_was() {
        let mut name = OfName::new("gpus", 8188, &[]);
        let none = name.take(Addresses { v4: failed(), v6: failed() });
        assert_eq!(of(&none), (None, 5, true), "nothing was ever told");
        name.take(Addresses { v4: ips(&["10.0.0.1"], 30), v6: ips(&["fd00::1"], 30) });
        let both = name.take(Addresses { v4: failed(), v6: failed() });
        assert_eq!(of(&both), (None, 5, true));
        let one = name.take(Addresses { v4: ips(&["10.0.0.2"], 30), v6: failed() });
        assert_eq!(of(&one), (Some(vec!["10.0.0.2", "fd00::1"]), 5, true));
        let none = name.take(Addresses { v4: ips(&[], 30), v6: failed() });
        assert_eq!(of(&none), (None, 5, true), "half an answer does not empty a fleet");
    }

    fn service(target: &str, port: u16) -> Service {
        Service { target: target.to_owned(), port }
    }

    fn at(target: &str, v4: Answer<IpAddr>) -> (String, Addresses) {
        (target.to_owned(), Addresses { v4, v6: ips(&[], 60) })
    }

    #[test]
    fn a_target_is_a_server_at_its_port_and_at_one_address() {
        let mut services = OfServices::default();
        let all = || told(vec![service("a", 1), service("a", 2), service("b", 1)], 30);
        let round = services.take(
            all(),
            BTreeMap::from([at("a", ips(&["10.0.0.2", "10.0.0.9"], 40)), at("b", failed())]),
        );
        let servers = |round: &Round| -> Vec<String> {
            let servers = round.servers.iter().flatten();
            servers.map(|it| format!("{} {}:{}", it.name, it.host, it.port)).collect()
        };
        assert_eq!(servers(&round), ["a:1 10.0.0.2:1", "a:2 10.0.0.2:2"]);
        assert_eq!((round.again.as_secs(), round.trouble.is_some()), (5, true));
        let round = services.take(
            all(),
            BTreeMap::from([
                at("a", ips(&["10.0.0.1", "10.0.0.2"], 40)),
                at("b", ips(&["10.0.0.3"], 10)),
            ]),
        );
        let expected = ["a:1 10.0.0.2:1", "a:2 10.0.0.2:2", "b:1 10.0.0.3:1"];
        assert_eq!(servers(&round), expected, "the address in use stays in use");
        assert_eq!((round.again.as_secs(), round.trouble.is_some()), (10, false));
        let round = services.take(Err("NXDOMAIN".to_owned()), BTreeMap::new());
        assert_eq!((round.servers, round.trouble.is_some()), (None, true));
        let round = services.take(all(), BTreeMap::from([at("a", failed()), at("b", failed())]));
        assert_eq!(servers(&round), expected, "targets that are not told of stay");
        let round = services.take(told(vec![service("", 0)], 30), BTreeMap::new());
        assert_eq!(round.servers, Some(vec![]), "the service is not there");
    }

    fn found_before(name: &str, host: &str) -> BackendConfig {
        let mut it = Config::for_backends(&[("a", "http://h:8188")]).unwrap().backends.remove(0);
        (it.name, it.host) = (name.to_owned(), host.to_owned());
        it
    }

    #[test]
    fn what_was_found_before_a_restart_stands_in_for_what_is_not_told_at_first() {
        let before = [
            found_before("gpus-10.0.0.1", "10.0.0.1"),
            found_before("gpus-fd00::1", "fd00::1"),
            found_before("others-10.0.0.9", "10.0.0.9"),
        ];
        let mut name = OfName::new("gpus", 8188, &before);
        let half = name.take(Addresses { v4: ips(&["10.0.0.2"], 30), v6: failed() });
        assert_eq!(of(&half), (Some(vec!["10.0.0.2", "fd00::1"]), 5, true));
        let mut services = OfServices::new(&[found_before("a:1", "10.0.0.7")]);
        let told_of = told(vec![service("a", 1), service("b", 1)], 30);
        let round = services.take(told_of, BTreeMap::from([at("a", failed()), at("b", failed())]));
        assert_eq!(of(&round), (Some(vec!["10.0.0.7"]), 5, true));
    }

    proptest! {
        /// Whatever fails in between, the next complete answer is the result.
        #[test]
        fn a_whole_answer_is_taken_as_it_is(
            rounds in vec((option::of(vec(0..4_u8, 0..3)), option::of(vec(0..4_u8, 0..3))), 0..6),
            last in (vec(0..4_u8, 0..3), vec(0..4_u8, 0..3)),
        ) {
            let v4 = |all: Vec<u8>| {
                told(all.into_iter().map(|it| [10, 0, 0, it].into()).collect(), 9)
            };
            let v6 = |all: Vec<u8>| {
                let ip = |it: u8| IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(it)]);
                told(all.into_iter().map(ip).collect(), 9)
            };
            let mut name = OfName::new("x", 1, &[]);
            for (four, six) in rounds {
                let whole = four.is_some() && six.is_some();
                let answers = Addresses {
                    v4: four.map_or_else(failed, v4),
                    v6: six.map_or_else(failed, v6),
                };
                let round = name.take(answers);
                prop_assert_eq!(round.trouble.is_none(), whole);
                prop_assert!((AGAIN_MIN..=AGAIN_MAX).contains(&round.again));
                if !whole && let Some(servers) = &round.servers {
                    prop_assert!(!servers.is_empty(), "half an answer never empties a fleet");
                }
            }
            let mut expected: Vec<String> =
                last.0.iter().map(|it| format!("10.0.0.{it}")).collect();
            expected.extend(last.1.iter().map(|it| {
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(*it)]).to_string()
            }));
            expected.sort();
            expected.dedup();
            let round = name.take(Addresses { v4: v4(last.0), v6: v6(last.1) });
            let mut hosts: Vec<String> =
                round.servers.unwrap().into_iter().map(|it| it.host).collect();
            hosts.sort();
            prop_assert_eq!(hosts, expected);
        }
    }
}
