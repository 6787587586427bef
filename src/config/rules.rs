//! Rules over several keys.
//!
//! A rule ignores keys that are wrong by themselves, and reports at the line that was written last.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::keys::BACKENDS;
use super::problems::Notes;
use super::suggest::nearest;
use super::units::{ShowDuration, ShowSize};
use super::{AuthMode, BackendConfig, Config, LogTo};

pub(super) fn check(config: &mut Config, notes: &mut Notes) {
    listeners(config, notes);
    tokens(config, notes);
    auth(config, notes);
    hosts(config, notes);
    deny(config, notes);
    super::proxy::check(config, notes);
    super::jwt::check_rules(config, notes);
    super::replicas::check_rules(config, notes);
    limits(config, notes);
    backends(&config.backends, notes);
    itself(config, notes);
    home(config, notes);
    copies(config, notes);
    logs(config, notes);
}

/// Two that write into one file do not know where the other was cut off by a full disk.
fn logs(config: &Config, notes: &mut Notes) {
    let keys = ["log.audit", "log.access"];
    let (LogTo::File(audit), LogTo::File(access)) = (&config.log.audit, &config.log.access) else {
        return;
    };
    if notes.are_good(&keys) && audit == access {
        let what = format!("both logs would be written into `{}`", audit.display());
        notes.report(notes.written(&keys), what);
    }
}

fn listeners(config: &Config, notes: &mut Notes) {
    let keys = ["server.listen", "admin.listen"];
    let Some(admin) = config.admin.listen else { return };
    if notes.are_good(&keys) && overlap(config.server.listen, admin) {
        let what = format!("both listeners would use {admin}");
        notes.report(notes.written(&keys), what);
    }
    let keys = ["admin.listen", "admin.token", "admin.token_file"];
    if notes.are_good(&keys) && is_for_others(admin) && config.admin.token.is_none() {
        let what =
            format!("other hosts can connect to {admin}: set `admin.token` or `admin.token_file`");
        notes.report("admin.listen", what);
    }
}

/// The token that may only look is of use beside the one that may act, and is another one.
fn tokens(config: &Config, notes: &mut Notes) {
    let keys = ["admin.read_token", "admin.read_token_file", "admin.token", "admin.token_file"];
    let (Some(looks), acts) = (&config.admin.read_token, &config.admin.token) else { return };
    if !notes.are_good(&keys) {
        return;
    }
    if acts.as_ref().is_some_and(|acts| acts.reveal() == looks.reveal()) {
        let what = "the same as `admin.token`: whoever has it could act";
        notes.report(notes.written(&keys[..2]), what);
    } else if acts.is_none() {
        let what = "has no effect without `admin.token`: everybody on this machine may act";
        notes.remark(notes.written(&keys[..2]), what);
    }
}

/// A gateway that listens for other hosts needs an explicit statement of who may come in; the
/// default is not enough.
fn auth(config: &Config, notes: &mut Notes) {
    let listen = config.server.listen;
    let keys = ["server.listen", "auth.mode"];
    if notes.are_good(&keys) && is_for_others(listen) && !notes.has_written("auth.mode") {
        let what = format!(
            "other hosts can connect to {listen}: set `auth.mode` to \"keys\" to let in only users \
             with their own keys, or to \"off\" to let in everybody who can connect"
        );
        notes.report("server.listen", what);
    }
}

/// A page can make its own name lead to this listener, and is let in like everybody else.
fn hosts(config: &Config, notes: &mut Notes) {
    let keys = ["server.listen", "server.hosts", "auth.mode"];
    let is_off = matches!(config.auth.mode, AuthMode::Off);
    if notes.are_good(&keys) && is_off && !config.server.checks_hosts() {
        let what = "web pages can reach this listener by a name of their own that leads here (DNS \
                    rebinding), and everybody is let in: list the gateway's names in \
                    `server.hosts`";
        notes.remark("server.listen", what);
    }
}

/// What is below the base path is meant without it. Whoever writes it all the same means something
/// that is never there.
fn deny(config: &Config, notes: &mut Notes) {
    let keys = ["server.base_path", "server.deny"];
    let base = config.server.base_path.to_string();
    if !notes.are_good(&keys) || config.server.base_path.is_root() {
        return;
    }
    for pattern in config.server.deny.iter().filter(|pattern| pattern.is_below(&base)) {
        let what = format!("`{pattern}`: write it without `server.base_path` ({base})");
        notes.report(notes.written(&keys), what);
    }
}

/// True if other hosts can connect to it. `::ffff:127.0.0.1` is loopback, as `127.0.0.1` is.
fn is_for_others(listen: SocketAddr) -> bool {
    !listen.ip().to_canonical().is_loopback()
}

/// True if the two sockets would conflict. Port 0 is a different port each time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (one, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    let is_any = one.is_unspecified() || other.is_unspecified();
    a.port() != 0 && a.port() == b.port() && (is_any || one == other)
}

fn limits(config: &Config, notes: &mut Notes) {
    let (one, all) = (config.prompts.max_body, config.prompts.max_bodies_total);
    at_most(notes, ["prompts.max_body", "prompts.max_bodies_total"], [one, all], ShowSize);
    if config.queue.is_used() {
        let (one, all) = (config.prompts.max_body, config.queue.bytes);
        at_most(notes, ["prompts.max_body", "queue.bytes"], [one, all], ShowSize);
    }
    let (some, critical) = (config.sockets.queue_bytes, config.sockets.queue_critical);
    at_most(notes, ["sockets.queue_bytes", "sockets.queue_critical"], [some, critical], ShowSize);
    let (one, all) = (config.sockets.log_bytes, config.sockets.log_bytes_total);
    at_most(notes, ["sockets.log_bytes", "sockets.log_bytes_total"], [one, all], ShowSize);
    let (delay, all) = (config.server.drain_delay, config.server.drain_timeout);
    at_most(notes, ["server.drain_delay", "server.drain_timeout"], [delay, all], ShowDuration);
    // A prompt must not be presumed lost while its submission still waits for its answer.
    let (answer, grace) = (config.prompts.answer_limit, config.fleet.grace);
    at_most(notes, ["prompts.answer_limit", "fleet.grace"], [answer, grace], ShowDuration);
    let (linger, lease) = (config.affinity.link_linger, config.affinity.lease);
    at_most(notes, ["affinity.link_linger", "affinity.lease"], [linger, lease], ShowDuration);
}

/// Checks that the first of two keys is not larger than the second.
fn at_most<T: PartialOrd, S: std::fmt::Display>(
    notes: &mut Notes,
    keys: [&str; 2],
    [small, large]: [T; 2],
    show: impl Fn(T) -> S,
) {
    if notes.are_good(&keys) && large < small {
        let (small, large) = (show(small), show(large));
        let what = format!("`{}` ({small}) is larger than `{}` ({large})", keys[0], keys[1]);
        notes.report(notes.written(&keys), what);
    }
}

fn backends(backends: &[BackendConfig], notes: &mut Notes) {
    let (count, max) = (backends.len(), Config::BACKENDS_MAX);
    if max < count {
        notes.report(BACKENDS, format!("{count} are too many, at most {max} are allowed"));
    }
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for backend in backends {
        let key = format!("{BACKENDS}.{}.url", backend.name);
        if let Some(first) = seen.insert(&backend.authority, &backend.name) {
            let first_key = format!("{BACKENDS}.{first}.url");
            let what = format!("`{}` is listed twice", backend.authority);
            let key = notes.written(&[&first_key, &key]).to_owned();
            let other = if key == first_key { &backend.name } else { first };
            notes.report(&key, format!("{what}, also as `{BACKENDS}.{other}`"));
        }
    }
}

/// True if the backend's address is this listener. Other addresses of this machine, and its names,
/// are recognised only when the backend is watched (`fleet::own_watch`).
pub(super) fn is_at(backend: &BackendConfig, listen: SocketAddr) -> bool {
    let ip = match backend.host.as_str() {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        host => host.parse::<IpAddr>(),
    };
    ip.is_ok_and(|ip| {
        let (ip, ours) = (ip.to_canonical(), listen.ip().to_canonical());
        // The unspecified address is every one for who listens, and this machine for who dials.
        let is_local = |it: IpAddr| it.is_loopback() || it.is_unspecified();
        let is_here = ip == ours
            || (ours.is_unspecified() && is_local(ip))
            || (ip.is_unspecified() && is_local(ours));
        is_here && listen.port() == backend.port
    })
}

/// A gateway that is its own backend would send requests to itself until no connection is left.
fn itself(config: &Config, notes: &mut Notes) {
    let doors =
        [("server.listen", Some(config.server.listen)), ("admin.listen", config.admin.listen)];
    for backend in &config.backends {
        for (key, listen) in doors {
            let is_us = listen.is_some_and(|listen| is_at(backend, listen));
            if is_us && notes.are_good(&[key]) {
                let what = format!("`{}` is this gateway itself (`{key}`)", backend.authority);
                notes.report(&format!("{BACKENDS}.{}.url", backend.name), what);
            }
        }
    }
}

/// Copies on the disk are made from those in memory.
fn copies(config: &Config, notes: &mut Notes) {
    let keys = ["server.stale_cache", "state.copies"];
    let is_meant = notes.has_written(keys[1]) && 0 < config.state.copies;
    if is_meant && notes.are_good(&keys) && config.server.stale_cache == 0 {
        let what = "there are no copies on the disk: `server.stale_cache` is 0";
        notes.remark(notes.written(&keys), what);
    }
}

/// Without a name the home is chosen at the start. If backends are discovered, the one of that name
/// may still be found.
fn home(config: &Config, notes: &mut Notes) {
    let names = || config.backends.iter().map(|it| it.name.as_str());
    let home = &config.server.home;
    let may_be_found = !config.discovery.is_empty();
    if !home.is_empty() && !names().any(|name| name == home) && !may_be_found {
        let is_written = notes.has_written(&format!("{BACKENDS}.{home}"));
        if is_written {
            // The backend is there and wrong, which is reported at its own line.
            return;
        }
        let hint = nearest(home, names())
            .map_or_else(String::new, |name| format!(", did you mean `{name}`?"));
        notes.report("server.home", format!("there is no backend `{home}`{hint}"));
    }
}
