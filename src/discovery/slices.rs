//! Turns endpoint slices of Kubernetes (`discovery.k8s.io/v1`) into servers. Pure.
//!
//! A service has several slices. An endpoint may be in two of them while it moves from one to the
//! other. A server with IPv4 and IPv6 addresses is in a slice of each kind. It is recognised as one
//! server by its uid.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::found::{Own, Server};
use crate::config::{KubernetesPort, labels};

/// Annotations of a slice that override the configuration, for all of its endpoints.
pub const WEIGHT: &str = "mooring/weight";
pub const MAX_PENDING: &str = "mooring/max-pending";
pub const LABELS: &str = "mooring/labels";

/// The slices of one service, in their last known state.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    by_name: BTreeMap<String, Slice>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Metadata,
    /// IPv4, IPv6 or FQDN.
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    resource_version: String,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    /// All of them belong to the same endpoint. Only the first one is to be used.
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Option<Conditions>,
    #[serde(default)]
    target_ref: Option<TargetRef>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    /// A missing value means true. If a service publishes addresses that are not ready, all of them
    /// are reported as ready, also those that are still starting or are ending.
    ready: Option<bool>,
    /// Whether the pod is ready, whatever its service publishes.
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    name: Option<String>,
    uid: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default)]
    items: Option<Vec<Slice>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: String,
    r#continue: Option<String>,
}

/// What a page says, besides its slices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Page {
    /// There are more pages, under this token.
    More(String),
    /// It was the last page. The watch begins at this version.
    Last(String),
}

/// The content of one line of a watch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Something changed. The watch continues at this version.
    Changed(String),
    /// Nothing changed. The watch continues at this version.
    Bookmark(String),
    /// The server has forgotten the version, so a new list is needed.
    Expired,
    /// The server ends the watch, with this reason.
    Failed(String),
}

/// The answer is not that of an API server.
#[derive(Debug, thiserror::Error)]
#[error("the answer of the API server is not understood: {0}")]
pub struct Junk(#[from] serde_json::Error);

/// Every list and object has a version. An answer without one is something else, such as the error
/// page of a proxy. It must not be taken for a list without slices.
fn version(said: String) -> Result<String, Junk> {
    if said.is_empty() {
        Err(serde_json::Error::custom("there is no resourceVersion").into())
    } else {
        Ok(said)
    }
}

impl Slices {
    /// Adds a page of a list.
    ///
    /// # Errors
    /// The text is not a page of a list.
    pub fn page(&mut self, text: &[u8]) -> Result<Page, Junk> {
        let List { metadata, items } = serde_json::from_slice(text)?;
        for slice in items.unwrap_or_default() {
            self.by_name.insert(slice.metadata.name.clone(), slice);
        }
        match metadata.r#continue.filter(|token| !token.is_empty()) {
            Some(token) => Ok(Page::More(token)),
            None => Ok(Page::Last(version(metadata.resource_version)?)),
        }
    }

    /// Applies a line of a watch.
    ///
    /// # Errors
    /// The text is not a line of a watch.
    pub fn event(&mut self, line: &[u8]) -> Result<Event, Junk> {
        #[derive(Deserialize)]
        struct Line<'a> {
            r#type: &'a str,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            code: u16,
            message: String,
        }
        #[derive(Deserialize)]
        struct Bookmark {
            #[serde(default)]
            metadata: Metadata,
        }
        let Line { r#type, object } = serde_json::from_slice(line)?;
        match r#type {
            "ADDED" | "MODIFIED" => {
                let slice: Slice = serde_json::from_str(object.get())?;
                let changed = Event::Changed(version(slice.metadata.resource_version.clone())?);
                self.by_name.insert(slice.metadata.name.clone(), slice);
                Ok(changed)
            }
            "DELETED" => {
                let Bookmark { metadata } = serde_json::from_str(object.get())?;
                let changed = Event::Changed(version(metadata.resource_version)?);
                self.by_name.remove(&metadata.name);
                Ok(changed)
            }
            "BOOKMARK" => {
                let Bookmark { metadata } = serde_json::from_str(object.get())?;
                Ok(Event::Bookmark(version(metadata.resource_version)?))
            }
            // `ERROR`, and types that are not known yet.
            _other => {
                const GONE: u16 = 410;
                let Status { code, message } = serde_json::from_str(object.get())?;
                let failed = || Event::Failed(format!("{code} {message}"));
                Ok(if code == GONE { Event::Expired } else { failed() })
            }
        }
    }

    /// The servers that are ready, and what is wrong in the slices.
    #[must_use]
    pub fn servers(
        &self,
        place: &str,
        port: Option<&KubernetesPort>,
    ) -> (Vec<Server>, Vec<String>) {
        let (mut servers, mut remarks) = (Vec::new(), Vec::new());
        // IPv4 comes before IPv6: if a server is in several slices, the first one counts.
        let mut slices: Vec<&Slice> = self.by_name.values().collect();
        slices.sort_by_key(|slice| (&slice.address_type, &slice.metadata.name));
        let mut seen = std::collections::BTreeSet::new();
        for slice in slices {
            let own = slice.own(&mut remarks);
            let port = match slice.port(port) {
                Ok(Some(port)) => port,
                // A slice without endpoints may have no port.
                Ok(None) => continue,
                Err(what) => {
                    remarks.push(what);
                    continue;
                }
            };
            let ready = slice.endpoints.iter().flatten().filter(|it| it.is_ready());
            for (name, host, identity) in ready.filter_map(|it| it.server(place)) {
                let is_first = identity.as_ref().is_none_or(|it| seen.insert(Arc::clone(it)));
                if is_first {
                    let own = own.clone();
                    servers.push(Server { name, host, port, identity, own });
                }
            }
        }
        (servers, remarks)
    }
}

impl Slice {
    /// The port to use. `None` if there is no endpoint that needs it.
    fn port(&self, wanted: Option<&KubernetesPort>) -> Result<Option<u16>, String> {
        if self.endpoints.as_ref().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let slice = &self.metadata.name;
        let is_tcp = |port: &&Port| port.protocol.as_deref().is_none_or(|it| it == "TCP");
        let tcp: Vec<&Port> = self.ports.iter().flatten().filter(is_tcp).collect();
        let is_meant = |port: &&&Port| match wanted {
            None => true,
            Some(KubernetesPort::Number(number)) => port.port == Some(*number),
            Some(KubernetesPort::Name(name)) => port.name.as_deref() == Some(name),
        };
        let mut meant = tcp.iter().filter(is_meant).filter_map(|port| port.port);
        match (meant.next(), meant.next(), wanted) {
            (Some(port), None, _) | (Some(port), Some(_), Some(_)) => Ok(Some(port)),
            (Some(_), Some(_), None) => {
                Err(format!("the slice {slice} has several ports: name one of them"))
            }
            (None, _, Some(wanted)) => Err(format!("the slice {slice} has no port {wanted}")),
            (None, _, None) => Err(format!("the slice {slice} has no port")),
        }
    }

    fn own(&self, remarks: &mut Vec<String>) -> Own {
        Own {
            weight: self.annotation(WEIGHT, 1, 1_000, remarks).and_then(NonZeroU32::new),
            max_pending: self.annotation(MAX_PENDING, 0, 1_000_000, remarks),
            labels: self.labels(remarks),
        }
    }

    fn labels(&self, remarks: &mut Vec<String>) -> Option<Vec<String>> {
        let text = self.metadata.annotations.as_ref()?.get(LABELS)?;
        let read = labels(text);
        if let Err(what) = &read {
            let slice = &self.metadata.name;
            remarks.push(format!("the slice {slice} has the annotation {LABELS}: {what}"));
        }
        read.ok()
    }

    fn annotation(&self, key: &str, min: u32, max: u32, remarks: &mut Vec<String>) -> Option<u32> {
        let text = self.metadata.annotations.as_ref()?.get(key)?;
        let number = text.trim().parse().ok().filter(|it| (min..=max).contains(it));
        if number.is_none() {
            let slice = &self.metadata.name;
            let text: String = text.chars().take(40).collect();
            remarks.push(format!(
                "the slice {slice} has the annotation {key}: {text:?}, which is not a whole number \
                 from {min} to {max}"
            ));
        }
        number
    }
}

impl Endpoint {
    /// An endpoint that is terminating is not ready any more.
    fn is_ready(&self) -> bool {
        let Conditions { ready, serving, terminating } = self.conditions.unwrap_or_default();
        ready.unwrap_or(true) && serving.unwrap_or(true) && !terminating.unwrap_or(false)
    }

    fn server(&self, place: &str) -> Option<(String, String, Option<Arc<str>>)> {
        let host = self.addresses.first().filter(|host| !host.is_empty())?.clone();
        let target = self.target_ref.clone().unwrap_or_default();
        let named = target.name.filter(|name| !name.is_empty());
        let name = named.unwrap_or_else(|| format!("{place}-{host}"));
        let identity = target.uid.filter(|uid| !uid.is_empty());
        Some((name, host, identity.map(Arc::from)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::{prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::*;

    /// A slice in the form that a Kubernetes controller writes.
    fn slice(name: &str, version: u64, endpoints: &Value) -> Value {
        json!({
            "metadata": {
                "name": name, "namespace": "comfyui", "resourceVersion": version.to_string(),
                "labels": { "kubernetes.io/service-name": "comfyui" },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "http", "port": 8188, "protocol": "TCP" }],
        })
    }

    fn endpoint(pod: &str, ip: &str) -> Value {
        json!({
            "addresses": [ip],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": "gpu-1",
            "targetRef": { "kind": "Pod", "name": pod, "uid": format!("uid-of-{pod}") },
        })
    }

    fn listed(items: &Value) -> Slices {
        let mut slices = Slices::default();
        let list = json!({
            "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
            "metadata": { "resourceVersion": "1042" }, "items": items,
        });
        let page = slices.page(list.to_string().as_bytes()).unwrap();
        assert_eq!(page, Page::Last("1042".to_owned()));
        slices
    }

    fn told(slices: &Slices) -> Vec<String> {
        let (servers, remarks) = slices.servers("gpus", None);
        assert_eq!(remarks, Vec::<String>::new());
        servers.iter().map(|it| format!("{} {}:{}", it.name, it.host, it.port)).collect()
    }

    fn event(slices: &mut Slices, kind: &str, object: &Value) -> Event {
        let line = json!({ "type": kind, "object": object }).to_string();
        slices.event(line.as_bytes()).unwrap()
    }

    #[test]
    fn a_watch_changes_what_was_listed() {
        let one = slice("s-1", 1040, &json!([endpoint("a", "10.0.0.1")]));
        let mut slices = listed(&json!([one]));
        assert_eq!(told(&slices), ["a 10.0.0.1:8188"]);
        let two = slice("s-2", 1043, &json!([endpoint("b", "10.0.0.2")]));
        assert_eq!(event(&mut slices, "ADDED", &two), Event::Changed("1043".to_owned()));
        let none = slice("s-1", 1044, &Value::Null);
        assert_eq!(event(&mut slices, "MODIFIED", &none), Event::Changed("1044".to_owned()));
        assert_eq!(told(&slices), ["b 10.0.0.2:8188"]);
        assert_eq!(event(&mut slices, "DELETED", &two), Event::Changed("1043".to_owned()));
        assert_eq!(told(&slices), Vec::<String>::new());
        let bookmark = json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "",
            "metadata": { "resourceVersion": "2000", "creationTimestamp": null },
            "endpoints": null, "ports": null,
        });
        let expected = Event::Bookmark("2000".to_owned());
        assert_eq!(event(&mut slices, "BOOKMARK", &bookmark), expected);
        let gone = json!({ "kind": "Status", "code": 410, "message": "too old", "metadata": {} });
        assert_eq!(event(&mut slices, "ERROR", &gone), Event::Expired);
        let other = json!({ "kind": "Status", "code": 500, "message": "no", "metadata": {} });
        assert_eq!(event(&mut slices, "ERROR", &other), Event::Failed("500 no".to_owned()));
        assert!(slices.event(b"<html>").is_err());
    }

    #[test]
    fn a_list_may_have_several_pages() {
        let mut slices = Slices::default();
        let page = |name: &str, ip: &str, more: &str| {
            let items = json!([slice(name, 1, &json!([endpoint(name, ip)]))]);
            let metadata = json!({ "resourceVersion": "7", "continue": more });
            json!({ "metadata": metadata, "items": items }).to_string()
        };
        let first = slices.page(page("a", "10.0.0.1", "token").as_bytes()).unwrap();
        assert_eq!(first, Page::More("token".to_owned()));
        let last = slices.page(page("b", "10.0.0.2", "").as_bytes()).unwrap();
        assert_eq!(last, Page::Last("7".to_owned()));
        assert_eq!(told(&slices), ["a 10.0.0.1:8188", "b 10.0.0.2:8188"]);
    }

    #[test]
    fn only_who_is_ready_is_a_server_and_everybody_once() {
        let mut unready = endpoint("b", "10.0.0.2");
        unready["conditions"] = json!({ "ready": false, "serving": true, "terminating": false });
        let mut starting = endpoint("f", "10.0.0.7");
        let mut ending = endpoint("e", "10.0.0.6");
        starting["conditions"] = json!({ "ready": true, "serving": false, "terminating": false });
        ending["conditions"] = json!({ "ready": true, "serving": true, "terminating": true });
        let mut unknown = endpoint("c", "10.0.0.3");
        unknown["conditions"] = json!({});
        let nameless = json!({ "addresses": ["10.0.0.4", "10.0.0.5"] });
        let first = endpoint("a", "10.0.0.1");
        let all = json!([first, unready, starting, unknown, nameless, ending]);
        let four = slice("s-1", 1, &all);
        let mut six = slice("s-0", 2, &json!([endpoint("a", "fd00::1"), endpoint("d", "fd00::2")]));
        six["addressType"] = "IPv6".into();
        let expected =
            ["a 10.0.0.1:8188", "c 10.0.0.3:8188", "gpus-10.0.0.4 10.0.0.4:8188", "d fd00::2:8188"];
        assert_eq!(told(&listed(&json!([four, six]))), expected);
    }

    #[test]
    fn the_port_is_the_one_that_is_meant() {
        let mut one = slice("s", 1, &json!([endpoint("a", "10.0.0.1")]));
        one["ports"] = json!([
            { "name": "metrics", "port": 9000, "protocol": "TCP" },
            { "name": "http", "port": 8188, "protocol": "TCP" },
            { "name": "dns", "port": 53, "protocol": "UDP" },
        ]);
        let slices = listed(&json!([one]));
        let port = |wanted: Option<KubernetesPort>| {
            let (servers, remarks) = slices.servers("gpus", wanted.as_ref());
            servers.first().map(|it| it.port).ok_or(remarks)
        };
        let named = |name: &str| Some(KubernetesPort::Name(name.to_owned()));
        assert_eq!(port(named("http")), Ok(8188));
        assert_eq!(port(Some(KubernetesPort::Number(9000))), Ok(9000));
        let several = vec!["the slice s has several ports: name one of them".to_owned()];
        assert_eq!(port(None), Err(several));
        assert_eq!(port(named("dns")), Err(vec!["the slice s has no port dns".to_owned()]));
    }

    #[test]
    fn what_has_no_version_is_no_list_and_no_object() {
        for text in ["{}", r#"{"kind":"Status","code":0}"#, r#"{"items":null,"metadata":{}}"#] {
            assert!(Slices::default().page(text.as_bytes()).is_err(), "{text}");
        }
        let line = br#"{"type":"BOOKMARK","object":{"metadata":{"name":"s"}}}"#;
        assert!(Slices::default().event(line).is_err());
    }

    #[test]
    fn annotations_go_over_the_configuration_for_all_of_a_slice() {
        let mut one = slice("s", 1, &json!([endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2")]));
        one["metadata"]["annotations"] = json!({
            WEIGHT: "3", MAX_PENDING: "0", LABELS: "video, h100", "other": "x",
        });
        let (servers, _) = listed(&json!([one])).servers("gpus", None);
        let labels = Some(vec!["video".to_owned(), "h100".to_owned()]);
        let own = Own { weight: NonZeroU32::new(3), max_pending: Some(0), labels };
        assert!(servers.iter().all(|it| it.own == own) && servers.len() == 2);
        one["metadata"]["annotations"] = json!({ WEIGHT: "0", MAX_PENDING: "-1", LABELS: "a b" });
        let (servers, remarks) = listed(&json!([one])).servers("gpus", None);
        assert!(servers.iter().all(|it| it.own == Own::default()));
        assert_eq!(remarks.len(), 3, "{remarks:?}");
        assert!(remarks[0].contains("mooring/weight: \"0\", which is not a whole number from 1"));
        assert!(remarks[2].contains("mooring/labels: `a b`: a label has 1 to 63"), "{remarks:?}");
    }

    proptest! {
        /// However the endpoints move between slices, a watch ends with the same servers as a list.
        #[test]
        fn a_watch_comes_to_what_a_list_says(
            changes in vec((0..3_usize, vec(0..5_u8, 0..3)), 0..12),
        ) {
            let names = ["s-0", "s-1", "s-2"];
            let object = |name: &str, pods: &[u8]| {
                let pods: BTreeSet<&u8> = pods.iter().collect();
                let endpoints: Vec<Value> = pods
                    .iter()
                    .map(|pod| endpoint(&format!("p{pod}"), &format!("10.0.0.{pod}")))
                    .collect();
                slice(name, 1, &endpoints.into())
            };
            let (mut watched, mut last) = (Slices::default(), BTreeMap::new());
            for (name, pods) in &changes {
                let object = object(names[*name], pods);
                if pods.is_empty() {
                    last.remove(names[*name]);
                    event(&mut watched, "DELETED", &object);
                } else {
                    last.insert(names[*name], object.clone());
                    event(&mut watched, "MODIFIED", &object);
                }
            }
            let all: Value = last.values().cloned().collect();
            prop_assert_eq!(told(&watched), told(&listed(&all)));
            let pods: BTreeSet<String> = told(&watched).into_iter().collect();
            prop_assert_eq!(pods.len(), told(&watched).len(), "everybody once");
        }
    }
}
