//! What makes a backend's URL `https://`: whom to trust to be it, and what to show it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{PemPath, Print, about, read};
use crate::config::kinds::{Kind, Shape, Switch};
use crate::config::problems::Notes;
use crate::config::raw::Setting;
use crate::config::url::Scheme;
use crate::net::tls::client::{Shown, server_name};
use crate::net::tls::{ClientTls, Trust};

/// How a backend is spoken to under TLS.
#[derive(Clone)]
pub struct BackendTls {
    written: WrittenTls,
    /// Of what stands in the files.
    print: Print,
    /// What to dial with, or why that cannot be had: its files could not be read.
    client: Result<ClientTls, String>,
}

/// What is written of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct WrittenTls {
    ca: Option<PathBuf>,
    server_name: Option<String>,
    insecure: bool,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

/// By what is written, and by what stands in the files.
impl PartialEq for BackendTls {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
            && self.print == other.print
            && self.client.is_ok() == other.client.is_ok()
    }
}

impl fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BackendTls").field(&self.written).finish()
    }
}

/// Which key is at fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Ca,
    ServerName,
    ClientCert,
    ClientKey,
}

impl BackendTls {
    /// As kept with the keys of `[backends.NAME]`, where its files cannot be read: nothing can be
    /// said to it before they can.
    #[must_use]
    pub fn unread(kept: &Value) -> Option<Self> {
        let is_https = kept.get("url")?.as_str()?.starts_with("https://");
        let path = |key: &str| kept.get(key).and_then(Value::as_str).map(PathBuf::from);
        let written = WrittenTls {
            ca: path("ca"),
            server_name: kept.get("server_name").and_then(Value::as_str).map(str::to_owned),
            insecure: kept.get("insecure") == Some(&Value::Bool(true)),
            client_cert: path("client_cert"),
            client_key: path("client_key"),
        };
        let why = "its certificates could not be read; a reload tries again".to_owned();
        let unread = Self { written, print: [0; 32], client: Err(why) };
        is_https.then_some(unread)
    }

    /// What to dial with.
    ///
    /// # Errors
    /// Why it cannot be dialled.
    pub fn client(&self) -> Result<&ClientTls, &str> {
        self.client.as_ref().map_err(String::as_str)
    }

    /// True if nobody has to show that he is the server.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        self.written.insecure
    }

    /// True if something of it stands in files.
    #[must_use]
    pub fn stands_in_files(&self) -> bool {
        let WrittenTls { ca, client_cert, client_key, server_name: _, insecure: _ } = &self.written;
        ca.is_some() || client_cert.is_some() || client_key.is_some()
    }

    /// What is written of it, with the keys of `[backends.NAME]`.
    #[must_use]
    pub fn places(&self) -> Map<String, Value> {
        let WrittenTls { ca, server_name, insecure, client_cert, client_key } = &self.written;
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let file = |path: &Option<PathBuf>| path.as_ref().map(|path| json!(absolute(path)));
        let entries = [
            ("ca", file(ca)),
            ("server_name", server_name.as_ref().map(|it| json!(it))),
            ("insecure", insecure.then_some(Value::Bool(true))),
            ("client_cert", file(client_cert)),
            ("client_key", file(client_key)),
        ];
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    fn of(written: WrittenTls) -> Result<Self, (Part, String)> {
        let mut digest = Sha256::new();
        let mut text = |part, path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            let text = read(path).map_err(|what| (part, what))?;
            digest.update(text.len().to_be_bytes());
            digest.update(text.as_bytes());
            Ok(Some(text))
        };
        let ca = text(Part::Ca, &written.ca)?;
        let cert = text(Part::ClientCert, &written.client_cert)?;
        let key = text(Part::ClientKey, &written.client_key)?;
        let print = digest.finalize().into();
        let named = written.server_name.as_deref();
        if let Some(name) = named {
            server_name(name).map_err(|what| (Part::ServerName, what))?;
        }
        let trust = match &ca {
            _ if written.insecure => Trust::Anybody,
            Some(ca) => Trust::Authorities(ca.as_bytes()),
            None => Trust::Web,
        };
        // Each by itself first, so that it is known which of them is at fault.
        let told = |part, path: &Option<PathBuf>, what: String| {
            let path = path.as_deref().unwrap_or(Path::new(""));
            (part, about(path, &what))
        };
        let alone = ClientTls::new(trust, named, None);
        let alone = alone.map_err(|what| told(Part::Ca, &written.ca, what))?;
        let client = match cert.as_ref().zip(key.as_ref()) {
            None => alone,
            Some((certificates, key)) => {
                let (certificates, key) = (certificates.as_bytes(), key.as_bytes());
                let bad_cert = |what| told(Part::ClientCert, &written.client_cert, what);
                crate::net::tls::pem::certificates(certificates).map_err(bad_cert)?;
                ClientTls::new(trust, named, Some(Shown { certificates, key }))
                    .map_err(|what| told(Part::ClientKey, &written.client_key, what))?
            }
        };
        Ok(Self { written, print, client: Ok(client) })
    }
}

/// The name that a server's certificate is for, or nothing.
#[derive(Debug)]
pub(in crate::config) struct ServerName;

impl Kind for ServerName {
    type Value = Option<String>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        server_name(text).map(|_| Some(text.to_owned()))
    }

    fn takes(&self) -> String {
        "a host name or an IP address".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// The keys of a backend that are about TLS.
#[derive(Debug)]
pub(in crate::config) struct RawTls {
    pub(in crate::config) ca: Setting<PemPath>,
    pub(in crate::config) server_name: Setting<ServerName>,
    pub(in crate::config) insecure: Setting<Switch>,
    pub(in crate::config) client_cert: Setting<PemPath>,
    pub(in crate::config) client_key: Setting<PemPath>,
}

/// `None` for a backend of plain HTTP. `scheme` is that of its URL, if that is one.
pub(in crate::config) fn check(
    raw: RawTls,
    scheme: Option<Scheme>,
    notes: &mut Notes,
) -> Option<BackendTls> {
    let RawTls { ca, server_name, insecure, client_cert, client_key } = raw;
    let keys = [&ca.key, &server_name.key, &insecure.key, &client_cert.key, &client_key.key];
    let keys = keys.map(Clone::clone);
    let [ca_key, name_key, insecure_key, cert_key, key_key] = keys.each_ref().map(String::as_str);
    let written = WrittenTls {
        ca: ca.check(notes),
        server_name: server_name.check(notes),
        insecure: insecure.check(notes),
        client_cert: client_cert.check(notes),
        client_key: client_key.check(notes),
    };
    if !notes.are_good(&keys.each_ref().map(String::as_str)) {
        return None;
    }
    match scheme? {
        Scheme::Http => {
            let WrittenTls { ca, server_name, insecure, client_cert, client_key } = &written;
            let is_set = [
                ca.is_some(),
                server_name.is_some(),
                *insecure,
                client_cert.is_some(),
                client_key.is_some(),
            ];
            for (key, _) in keys.iter().zip(is_set).filter(|(_, is_set)| *is_set) {
                notes.report(key, "is for a `url` that begins with `https://`");
            }
            return None;
        }
        Scheme::Https => {}
    }
    if written.insecure && written.ca.is_some() {
        let what = format!("nobody is asked for a certificate of `{ca_key}` then: leave one out");
        notes.report(insecure_key, what);
        return None;
    }
    for (one, is_there, other) in [
        (cert_key, written.client_cert.is_some() && written.client_key.is_none(), key_key),
        (key_key, written.client_key.is_some() && written.client_cert.is_none(), cert_key),
    ] {
        if is_there {
            notes.report(one, format!("is of no use without `{other}`"));
            return None;
        }
    }
    if written.insecure {
        let what = "whoever is on the way to it can read and change all that is said; give `ca` \
                    instead";
        notes.remark(insecure_key, what);
    }
    BackendTls::of(written)
        .map_err(|(part, what)| {
            let key = match part {
                Part::Ca => ca_key,
                Part::ServerName => name_key,
                Part::ClientCert => cert_key,
                Part::ClientKey => key_key,
            };
            notes.report(key, what);
        })
        .ok()
}
