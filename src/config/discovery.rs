//! `[discovery.NAME]`: sources where backends are found that are not listed. Its kinds of values,
//! and how they combine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use serde_json::{Map, Value, json};

use super::BackendHeaders;
use super::kinds::{Faults, Kind, Shape};
use super::raw::{Item, Written};
use super::url::{self, Address, BadUrl};

/// A source of backends.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoveryConfig {
    /// 1 to 23 letters, digits or `.`, `_`, `-`, `:`.
    pub name: String,
    pub source: PlaceOfBackends,
    pub weight: NonZeroU32,
    /// `None` means no limit.
    pub max_pending: Option<NonZeroU32>,
    pub labels: Vec<String>,
    /// From `headers` and `headers_file`.
    pub headers: BackendHeaders,
}

/// How backends are found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlaceOfBackends {
    /// The addresses of a host name are backends, at this port. A name that ends with a dot is
    /// fully qualified.
    Addresses { host: String, port: u16, resolver: Option<SocketAddr> },
    /// The targets of the SRV records of a name are backends.
    Services { name: String, resolver: Option<SocketAddr> },
    /// The endpoints of a service are backends.
    Kubernetes(KubernetesRef),
}

/// A service of Kubernetes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KubernetesRef {
    /// `None` means the namespace of the gateway's own pod.
    pub namespace: Option<String>,
    pub service: String,
    /// `None` means the only port of the service.
    pub port: Option<KubernetesPort>,
}

/// One of a service's ports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KubernetesPort {
    Number(u16),
    Name(String),
}

impl fmt::Display for KubernetesPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The source that is configured.
///
/// # Errors
/// There is none, or more than one, or a DNS server that would not be used.
pub(super) fn source(
    dns: Option<Address>,
    srv: Option<String>,
    kubernetes: Option<KubernetesRef>,
    resolver: Option<SocketAddr>,
) -> Result<PlaceOfBackends, &'static str> {
    match (dns, srv, kubernetes, resolver) {
        (Some(Address { host, port }), None, None, resolver) => {
            Ok(PlaceOfBackends::Addresses { host, port, resolver })
        }
        (None, Some(name), None, resolver) => Ok(PlaceOfBackends::Services { name, resolver }),
        (None, None, Some(service), None) => Ok(PlaceOfBackends::Kubernetes(service)),
        (None, None, Some(_), Some(_)) => Err("`resolver` is for `dns` and `srv`"),
        (None, None, None, _) => Err("one of `dns`, `srv` and `kubernetes` is needed"),
        (_, _, _, _) => Err("only one of `dns`, `srv` and `kubernetes` is possible"),
    }
}

/// `NAME:PORT`, or empty.
#[derive(Debug)]
pub(super) struct HostAndPort;

impl Kind for HostAndPort {
    type Value = Option<Address>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let Some((name, _)) = text.rsplit_once(':') else {
            return Err(format!("`{text}` has no port, expected {}", self.takes()));
        };
        let address = url::host_and_port(text).map_err(|bad| bad.about(text))?;
        if address.host.parse::<IpAddr>().is_ok() {
            let what = "is an address and no name: write it as the `url` of a backend";
            return Err(format!("`{text}` {what}"));
        }
        Ok(Some(Address { host: whole(address.host, name), ..address }))
    }

    fn takes(&self) -> String {
        "a name and a port such as \"comfyui.example:8188\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^([^:/]+:[0-9]+)?$" })
    }
}

/// A name that ends with a dot is not searched for in the domains of the system.
fn whole(name: String, written: &str) -> String {
    if written.ends_with('.') { name + "." } else { name }
}

/// The name of SRV records, or empty.
#[derive(Debug)]
pub(super) struct ServiceName;

impl Kind for ServiceName {
    type Value = Option<String>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let name = url::host(text).map_err(|_| format!("`{text}` is not {}", self.takes()))?;
        // RFC 2782: `_Service._Proto.Name`.
        let mut labels = name.split('.');
        let has_underscore = |label: Option<&str>| label.is_some_and(|it| it.starts_with('_'));
        if !has_underscore(labels.next()) || !has_underscore(labels.next()) {
            return Err(format!("`{text}` is not {}", self.takes()));
        }
        Ok(Some(whole(name, text)))
    }

    fn takes(&self) -> String {
        "a name of SRV records such as \"_comfyui._tcp.example\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^(_[^.]+\._.+)?$" })
    }
}

/// `IP` or `IP:PORT` of a DNS server, or empty.
#[derive(Debug)]
pub(super) struct DnsServer;

/// RFC 1035 section 4.2.
const DNS_PORT: u16 = 53;

impl Kind for DnsServer {
    type Value = Option<SocketAddr>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let with_port = || text.parse::<SocketAddr>().ok().filter(|it| it.port() != 0);
        let at = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT)).ok();
        at.or_else(with_port).map(Some).ok_or_else(|| format!("`{text}` is not {}", self.takes()))
    }

    fn takes(&self) -> String {
        "an address IP or IP:PORT".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// `{ namespace, service, port }`; `namespace/service:port` in the environment and in flags.
#[derive(Debug)]
pub(super) struct KubernetesService;

impl Kind for KubernetesService {
    type Value = Option<KubernetesRef>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let (namespace, rest) = match text.split_once('/') {
            Some((namespace, rest)) => (Some(namespace), rest),
            None => (None, text),
        };
        let (service, port) = match rest.split_once(':') {
            Some((service, port)) => (service, Some(port)),
            None => (rest, None),
        };
        let namespace = namespace.map(|it| label("namespace", it)).transpose()?;
        let (service, port) = (label("service", service)?, port.map(port_of).transpose()?);
        Ok(Some(KubernetesRef { namespace, service, port }))
    }

    fn takes(&self) -> String {
        "{ namespace, service, port }, or \"NAMESPACE/SERVICE:PORT\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "namespace": { "type": "string" },
                    "service": { "type": "string" },
                    "port": { "anyOf": [
                        { "type": "integer", "minimum": 1, "maximum": 65535 },
                        { "type": "string" },
                    ]},
                },
                "required": ["service"],
                "additionalProperties": false,
            },
        ]})
    }

    fn shown(&self, item: &Item) -> Value {
        let Item::Table(entries) = item else { return super::shown::value(Self::SHAPE, item) };
        let shown = entries.iter().map(|(key, it)| {
            let is_number = matches!(it.item, Item::Number(_));
            let shape = if is_number { Shape::Number } else { Shape::Text };
            (key.clone(), super::shown::value(shape, &it.item))
        });
        Value::Object(shown.collect::<Map<_, _>>())
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        let at = |what| vec![(written.origin.clone(), what)];
        let Item::Table(entries) = &written.item else {
            return self.text(written).and_then(|text| self.parse(&text)).map_err(at);
        };
        let (mut namespace, mut service, mut port) = (None, None, None);
        for (key, Written { item, .. }) in entries {
            match (key.as_str(), item) {
                ("namespace", Item::Text(text)) => {
                    namespace = Some(label("namespace", text).map_err(at)?);
                }
                ("service", Item::Text(text)) => {
                    service = Some(label("service", text).map_err(at)?);
                }
                ("port", Item::Text(text)) => port = Some(port_of(text).map_err(at)?),
                ("port", Item::Number(number)) => {
                    port = Some(port_of(&number.to_string()).map_err(at)?);
                }
                _other => {
                    let what = format!("`{key}` is not of {}", self.takes());
                    return Err(at(what));
                }
            }
        }
        let Some(service) = service else {
            return Err(at("`service` is missing".to_owned()));
        };
        Ok(Some(KubernetesRef { namespace, service, port }))
    }
}

/// RFC 1123: names of namespaces and services. Other text would not be safe in a URL path.
fn label(what: &str, text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = (1..=63).contains(&text.len())
        && text.bytes().all(is_good)
        && !text.starts_with('-')
        && !text.ends_with('-');
    match is_label {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("`{text}` is not the name of a {what}: lower case letters, digits and `-`"))
        }
    }
}

fn port_of(text: &str) -> Result<KubernetesPort, String> {
    if !text.is_empty() && text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse::<u16>().ok().filter(|number| *number != 0);
        let bad = || BadUrl::BadPort { port: text.to_owned() }.to_string();
        return number.map(KubernetesPort::Number).ok_or_else(bad);
    }
    label("port", text).map(KubernetesPort::Name)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources, load};

    use super::*;

    fn loaded(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        let report = load(&sources).map_err(|problems| problems.to_string());
        report.map_err(|it| it.replace(&file.path().display().to_string(), "FILE"))
    }

    fn source_of(text: &str) -> PlaceOfBackends {
        let config = loaded(&format!("[discovery.gpus]\n{text}\n")).unwrap();
        config.discovery.into_iter().next().unwrap().source
    }

    #[track_caller]
    fn check(text: &str, problem: &str) {
        let report = loaded(&format!("[discovery.gpus]\n{text}\n")).unwrap_err();
        assert_eq!(report, format!("1 problem in the configuration\n  {problem}"), "{text}");
    }

    #[test]
    fn a_place_is_a_name_of_addresses_or_of_services_or_a_service_of_kubernetes() {
        let (host, port, resolver) = ("comfyui.example".to_owned(), 8188, None);
        assert_eq!(
            source_of("dns = \"ComfyUI.example:8188\""),
            PlaceOfBackends::Addresses { host, port, resolver }
        );
        let resolver = Some("127.0.0.1:5353".parse().unwrap());
        let host = "comfyui.example.".to_owned();
        assert_eq!(
            source_of("dns = \"comfyui.example.:8188\"\nresolver = \"127.0.0.1:5353\""),
            PlaceOfBackends::Addresses { host, port, resolver }
        );
        let (name, resolver) = ("_comfyui._tcp.example".to_owned(), "[::1]:53".parse().ok());
        assert_eq!(
            source_of("srv = \"_comfyui._tcp.example\"\nresolver = \"::1\""),
            PlaceOfBackends::Services { name, resolver }
        );
        let service = |namespace: Option<&str>, port| {
            let (namespace, service) = (namespace.map(str::to_owned), "comfyui".to_owned());
            PlaceOfBackends::Kubernetes(KubernetesRef { namespace, service, port })
        };
        let number = Some(KubernetesPort::Number(8188));
        let table = "kubernetes = { namespace = \"ns\", service = \"comfyui\", port = 8188 }";
        assert_eq!(source_of(table), service(Some("ns"), number.clone()));
        assert_eq!(source_of("kubernetes = \"ns/comfyui:8188\""), service(Some("ns"), number));
        let named = Some(KubernetesPort::Name("http".to_owned()));
        let table = "kubernetes = { service = \"comfyui\", port = \"http\" }";
        assert_eq!(source_of(table), service(None, named));
        assert_eq!(source_of("kubernetes = \"comfyui\""), service(None, None));
    }

    #[test]
    fn what_is_no_place_says_why() {
        check(
            "weight = 2",
            "FILE:1: discovery.gpus: one of `dns`, `srv` and `kubernetes` is needed",
        );
        check(
            "dns = \"a:1\"\nsrv = \"_a._tcp.b\"",
            "FILE:1: discovery.gpus: only one of `dns`, `srv` and `kubernetes` is possible",
        );
        check(
            "kubernetes = \"a\"\nresolver = \"10.0.0.1\"",
            "FILE:1: discovery.gpus: `resolver` is for `dns` and `srv`",
        );
        check(
            "dns = \"a\"",
            "FILE:2: discovery.gpus.dns: `a` has no port, expected a name and a port such as \
             \"comfyui.example:8188\"",
        );
        check(
            "dns = \"10.0.0.1:8188\"",
            "FILE:2: discovery.gpus.dns: `10.0.0.1:8188` is an address and no name: write it as \
             the `url` of a backend",
        );
        check(
            "dns = \"a:0\"",
            "FILE:2: discovery.gpus.dns: `a:0`: `0` is not a port from 1 to 65535",
        );
        check(
            "srv = \"comfyui.example\"",
            "FILE:2: discovery.gpus.srv: `comfyui.example` is not a name of SRV records such as \
             \"_comfyui._tcp.example\"",
        );
        check(
            "dns = \"a:1\"\nresolver = \"dns.example\"",
            "FILE:3: discovery.gpus.resolver: `dns.example` is not an address IP or IP:PORT",
        );
        check(
            "kubernetes = { namespace = \"x\" }",
            "FILE:2: discovery.gpus.kubernetes: `service` is missing",
        );
        check(
            "kubernetes = { service = \"x\", port = 70000 }",
            "FILE:2: discovery.gpus.kubernetes: `70000` is not a port from 1 to 65535",
        );
        check(
            "kubernetes = { service = \"a/../b\" }",
            "FILE:2: discovery.gpus.kubernetes: `a/../b` is not the name of a service: lower case \
             letters, digits and `-`",
        );
        check(
            "kubernetes = { service = \"x\", ports = 1 }",
            "FILE:2: discovery.gpus.kubernetes: `ports` is not of { namespace, service, port }, \
             or \"NAMESPACE/SERVICE:PORT\"",
        );
        let long = loaded(&format!("[discovery.{}]\ndns = \"a:1\"\n", "x".repeat(24)));
        assert!(long.unwrap_err().contains("the name of a discovery has 1 to 23 letters"));
    }

    #[test]
    fn with_a_discovery_no_backend_needs_to_be_listed_and_none_without_one() {
        let config = loaded("[discovery.gpus]\ndns = \"a:1\"\n").unwrap();
        assert!(config.backends.is_empty() && config.server.home.is_empty());
        let named = loaded("[server]\nhome = \"comfyui-0\"\n[discovery.gpus]\ndns = \"a:1\"\n");
        assert_eq!(named.unwrap().server.home, "comfyui-0");
        assert!(loaded("").unwrap_err().contains("at least one is needed"));
        let wrong = loaded("[discovery.gpus]\ndns = \"a\"\n").unwrap_err();
        assert!(!wrong.contains("at least one is needed"), "{wrong}");
    }
}
