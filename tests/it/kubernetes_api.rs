//! The API server of the tests: lists and watches the endpoint slices of a service, as one of
//! Kubernetes 1.34 does, and fails as one does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mooring::discovery::Pod;
use mooring::net::{Listener, Network as _, Tcp};
use mooring::tasks::Tasks;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// A pod of the service.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) at: SocketAddr,
    pub(crate) is_ready: bool,
}

#[derive(Clone, Debug)]
enum Said {
    Line(String),
    Cut,
}

#[derive(Debug)]
struct State {
    version: u64,
    slices: BTreeMap<String, Value>,
    /// What changed, and since when: for watches that go on from before.
    changes: Vec<(u64, String)>,
    /// What is older is forgotten.
    oldest: u64,
    token: String,
    /// Answered to everything.
    refuses: Option<u16>,
    /// Paths and queries.
    asked: Vec<String>,
}

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct KubernetesApi {
    at: SocketAddr,
    state: Arc<Mutex<State>>,
    said: broadcast::Sender<Said>,
    account: TempDir,
    tasks: Tasks,
}

impl Drop for KubernetesApi {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

impl KubernetesApi {
    pub(crate) async fn start() -> Self {
        let account = TempDir::new().unwrap();
        let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(account.path().join("ca.crt"), signed.cert.pem()).unwrap();
        std::fs::write(account.path().join("token"), "first-token\n").unwrap();
        std::fs::write(account.path().join("namespace"), "comfyui").unwrap();
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        let listener = Tcp.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let state = State {
            version: 1000,
            slices: BTreeMap::new(),
            changes: Vec::new(),
            oldest: 0,
            token: "first-token".to_owned(),
            refuses: None,
            asked: Vec::new(),
        };
        let api = Self {
            at: listener.local_addr(),
            state: Arc::new(Mutex::new(state)),
            said: broadcast::channel(1_000).0,
            account,
            tasks: Tasks::default(),
        };
        let serving = Serving { state: Arc::clone(&api.state), said: api.said.clone() };
        let accept = accept(listener, Arc::new(config), serving, api.tasks.clone());
        let stopping = api.tasks.child_token();
        api.tasks.spawn(async move {
            tokio::select! {
                () = accept => {}
                () = stopping.cancelled() => {}
            }
        });
        api
    }

    /// What a pod is given.
    pub(crate) fn pod(&self) -> Pod {
        let server = Some((self.at.ip().to_string(), self.at.port()));
        Pod { server, account: self.account.path().to_owned() }
    }

    /// The token is another one from now on, for the pod too.
    pub(crate) fn rotate(&self, token: &str) {
        std::fs::write(self.account.path().join("token"), token).unwrap();
        self.state.lock().unwrap().token = token.to_owned();
    }

    /// A slice is so from now on: each of its endpoints has to have the same port.
    pub(crate) fn set(&self, slice: &str, endpoints: &[Endpoint], annotations: &Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let object = slice_of(slice, endpoints, annotations, state.version);
        let before = state.slices.insert(slice.to_owned(), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(&mut state, kind, &object);
    }

    pub(crate) fn remove(&self, slice: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        if let Some(mut object) = state.slices.remove(slice) {
            object["metadata"]["resourceVersion"] = version.to_string().into();
            self.tell(&mut state, "DELETED", &object);
        }
    }

    fn tell(&self, state: &mut State, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        let version = state.version;
        state.changes.push((version, line.clone()));
        let _ = self.said.send(Said::Line(line));
    }

    /// Other objects change, and a bookmark says how far everything is.
    pub(crate) fn bookmark(&self) {
        let mut state = self.state.lock().unwrap();
        state.version += 100;
        let object = json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": { "resourceVersion": state.version.to_string(), "creationTimestamp": null },
            "addressType": "", "endpoints": null, "ports": null,
        });
        let line = format!("{}\n", json!({ "type": "BOOKMARK", "object": object }));
        let _ = self.said.send(Said::Line(line));
    }

    /// All that was is forgotten; watches that are open are told so.
    pub(crate) fn expire(&self) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        state.oldest = state.version;
        let line = json!({ "type": "ERROR", "object": expired() });
        let _ = self.said.send(Said::Line(format!("{line}\n")));
    }

    /// All connections break off.
    pub(crate) fn cut(&self) {
        let _ = self.said.send(Said::Cut);
    }

    /// Everything is answered with this status from now on; watches end.
    pub(crate) fn refuse(&self, status: Option<u16>) {
        self.state.lock().unwrap().refuses = status;
        self.cut();
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How many watches are open.
    pub(crate) fn watches(&self) -> usize {
        self.said.receiver_count()
    }
}

fn slice_of(name: &str, endpoints: &[Endpoint], annotations: &Value, version: u64) -> Value {
    let port = endpoints.first().map_or(8188, |it| it.at.port());
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|it| {
            assert_eq!(it.at.port(), port, "a slice has one port for all");
            json!({
                "addresses": [it.at.ip().to_string()],
                "conditions": {
                    "ready": it.is_ready, "serving": it.is_ready, "terminating": !it.is_ready,
                },
                "nodeName": "gpu-node-1",
                "targetRef": {
                    "kind": "Pod", "name": it.pod, "namespace": "comfyui", "uid": it.uid,
                },
                "zone": "eu-1a",
            })
        })
        .collect();
    json!({
        "metadata": {
            "name": name,
            "generateName": "comfyui-",
            "namespace": "comfyui",
            "uid": format!("uid-of-{name}"),
            "resourceVersion": version.to_string(),
            "generation": 1,
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": "comfyui",
            },
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "comfyui", "uid": "uid-of-service",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
    })
}

fn expired() -> Value {
    status(410, "Expired", "too old resource version: 1000 (1042)")
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

#[derive(Clone, Debug)]
struct Serving {
    state: Arc<Mutex<State>>,
    said: broadcast::Sender<Said>,
}

async fn accept(
    listener: Box<dyn Listener>,
    config: Arc<ServerConfig>,
    serving: Serving,
    tasks: Tasks,
) {
    let acceptor = TlsAcceptor::from(config);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, serving, stopping) =
            (acceptor.clone(), serving.clone(), tasks.child_token());
        tasks.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let serving = serving.clone();
                async move { Ok::<_, Infallible>(serving.answer(&request)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}

impl Serving {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let uri = request.uri().to_string();
        let authorization = request.headers().get("authorization");
        let token = authorization.and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
        let outcome = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(uri.clone());
            self.outcome(&state, &uri, &token)
        };
        match outcome {
            Outcome::Whole(code, body) => {
                let body = Frame::data(Bytes::from(body.to_string()));
                let body = StreamBody::new(stream::iter([Ok(body)]).boxed());
                Response::builder().status(code).body(body).unwrap()
            }
            Outcome::Watch(said) => Response::new(StreamBody::new(said)),
        }
    }

    fn outcome(&self, state: &State, uri: &str, token: &str) -> Outcome {
        if token != format!("Bearer {}", state.token) {
            return Outcome::Whole(401, status(401, "Unauthorized", "Unauthorized"));
        }
        let forbidden = "endpointslices.discovery.k8s.io is forbidden: User \
                         \"system:serviceaccount:comfyui:mooring\" cannot list resource \
                         \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \
                         \"comfyui\"";
        if let Some(code) = state.refuses {
            return Outcome::Whole(code, status(code, "Forbidden", forbidden));
        }
        let path = "/apis/discovery.k8s.io/v1/namespaces/comfyui/endpointslices?labelSelector=\
                    kubernetes.io%2Fservice-name%3Dcomfyui";
        let Some(query) = uri.strip_prefix(path) else {
            return Outcome::Whole(404, status(404, "NotFound", "not found"));
        };
        if !query.contains("watch=true") {
            let list = json!({
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": { "resourceVersion": state.version.to_string() },
                "items": state.slices.values().collect::<Vec<_>>(),
            });
            return Outcome::Whole(200, list);
        }
        assert!(query.contains("allowWatchBookmarks=true") && query.contains("timeoutSeconds="));
        let from = query.split("resourceVersion=").nth(1).unwrap();
        let from: u64 = from.split('&').next().unwrap().parse().unwrap();
        if from < state.oldest {
            return Outcome::Whole(410, expired());
        }
        let missed = state.changes.iter().filter(|(version, _)| from < *version);
        let missed: Vec<Said> = missed.map(|(_, line)| Said::Line(line.clone())).collect();
        Outcome::Watch(watched(missed, self.said.subscribe()))
    }
}

enum Outcome {
    Whole(u16, Value),
    Watch(BoxStream<'static, io::Result<Frame<Bytes>>>),
}

fn watched(
    missed: Vec<Said>,
    said: broadcast::Receiver<Said>,
) -> BoxStream<'static, io::Result<Frame<Bytes>>> {
    let live = stream::unfold(said, |mut said| async move {
        let next = said.recv().await.ok()?;
        Some((next, said))
    });
    let frame = |said: Said| match said {
        Said::Line(line) => Ok(Frame::data(Bytes::from(line))),
        Said::Cut => Err(io::Error::other("cut")),
    };
    stream::iter(missed).chain(live).map(frame).boxed()
}
