//! The tables that have names: backends, and places where backends are found.

use crate::config::keys::{BACKENDS, DISCOVERY, RawBackend, RawDiscovery};
use crate::config::problems::Notes;
use crate::config::raw::{RawNamed, RawPlace};
use crate::config::tls::{RawTls, check_backend};
use crate::config::url::ServerUrl;
use crate::config::{BackendConfig, DiscoveryConfig, ListedBy, discovery, secret};

pub(in crate::config) fn backends(raw: Vec<RawNamed>, notes: &mut Notes) -> Vec<BackendConfig> {
    raw.into_iter().filter_map(|raw| backend(raw, notes)).collect()
}

pub(super) fn places(raw: Vec<RawPlace>, notes: &mut Notes) -> Vec<DiscoveryConfig> {
    raw.into_iter().filter_map(|raw| place(raw, notes)).collect()
}

fn backend(raw: RawNamed, notes: &mut Notes) -> Option<BackendConfig> {
    let RawNamed { name, origin, backend } = raw;
    let RawBackend {
        url,
        weight,
        max_pending,
        labels,
        headers,
        headers_file,
        ca,
        server_name,
        insecure,
        client_cert,
        client_key,
    } = backend;
    let tls = RawTls { ca, server_name, insecure, client_cert, client_key };
    notes.wrote(&format!("{BACKENDS}.{name}"), &origin);
    let weight = weight.check(notes);
    let max_pending = max_pending.check(notes);
    let labels = labels.check(notes);
    let headers = secret::check(headers, headers_file, notes);
    let key = url.key.clone();
    let url = url.check(notes);
    let tls = check_backend(tls, url.as_ref().map(|url| url.scheme), notes);
    let Some(ServerUrl { address, scheme: _ }) = url else {
        // The only key without a default. If it is there and wrong, that was already reported.
        if notes.are_good(&[&key]) {
            notes.report_at(Some(origin), &key, "is missing");
        }
        return None;
    };
    let authority = address.to_string();
    Some(BackendConfig {
        name,
        host: address.host,
        port: address.port,
        authority,
        weight,
        max_pending,
        labels,
        headers,
        tls,
        listed_by: ListedBy::Configuration,
        identity: None,
    })
}

fn place(raw: RawPlace, notes: &mut Notes) -> Option<DiscoveryConfig> {
    let RawPlace { name, origin, place } = raw;
    let RawDiscovery {
        // Exactly one of these three must be set.
        dns,
        srv,
        kubernetes,
        resolver,
        weight,
        max_pending,
        labels,
        headers,
        headers_file,
    } = place;
    let key = format!("{DISCOVERY}.{name}");
    notes.wrote(&key, &origin);
    let keys = [&dns.key, &srv.key, &kubernetes.key, &resolver.key].map(Clone::clone);
    let keys = keys.each_ref().map(String::as_str);
    let weight = weight.check(notes);
    let max_pending = max_pending.check(notes);
    let labels = labels.check(notes);
    let headers = secret::check(headers, headers_file, notes);
    let (dns, srv) = (dns.check(notes), srv.check(notes));
    let (kubernetes, resolver) = (kubernetes.check(notes), resolver.check(notes));
    match discovery::source(dns, srv, kubernetes, resolver) {
        Ok(source) => Some(DiscoveryConfig { name, source, weight, max_pending, labels, headers }),
        Err(what) if notes.are_good(&keys) => {
            notes.report(&key, what);
            None
        }
        // An error in one of them was already reported.
        Err(_) => None,
    }
}
