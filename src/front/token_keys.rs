//! Fetches the keys that sign tokens from where they are published (`auth.jwt.jwks_url`).
//!
//! They are fetched when that is configured, then every [`EVERY`], and soon again after a failure.
//! A token that names a key which is not known has them fetched too, so that a new key is known at
//! once: at most one fetch in [`UNKNOWN_EVERY`], however many such tokens come. Until a fetch
//! succeeds, the keys before stay. A set without a key of ours is a success: whoever publishes it
//! has taken back the keys before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Front;
use crate::auth::jwt::keys::KeySet;
use crate::config::url::Scheme;
use crate::config::{AuthMode, KeysUrl};
use crate::lock::{Lock, rank};
use crate::net::tls::{ClientTls, Trust};
use crate::net::{now, sleep};
use crate::ordered_watch::OrderedWatch;

const EVERY: Duration = Duration::from_mins(10);
const AFTER_FAILURE: Duration = Duration::from_secs(10);
const UNKNOWN_EVERY: Duration = Duration::from_mins(1);

/// How long a fetch may take.
const WITHIN: Duration = Duration::from_secs(10);

/// How long a request waits for the key of its token.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The largest set of keys, in bytes.
const BODY_MAX: usize = 1 << 20;

/// When keys are fetched, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct KeyFetcher {
    pace: Lock<Pace, { rank::TOKEN_KEYS }>,
    /// A token has a key that is not known.
    asked: Notify,
    /// How many fetches have ended.
    ended: OrderedWatch<u64>,
}

/// What is to be fetched because of tokens with unknown keys. Pure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Pace {
    /// When such a token had keys fetched last.
    last: Option<Instant>,
    is_fetching: bool,
}

/// What a token with an unknown key comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unknown {
    /// Keys are fetched for it.
    Fetch,
    /// They are being fetched already.
    Wait,
    /// They were fetched for another lately.
    Refuse,
}

/// The first fetch comes by itself: who comes before it waits for it, and asks for no other.
impl Default for Pace {
    fn default() -> Self {
        Self { last: None, is_fetching: true }
    }
}

impl Pace {
    fn unknown(&mut self, now: Instant) -> Unknown {
        let is_due = |last: Instant| UNKNOWN_EVERY <= now.saturating_duration_since(last);
        match (self.is_fetching, self.last.is_none_or(is_due)) {
            (true, _) => Unknown::Wait,
            (false, false) => Unknown::Refuse,
            (false, true) => {
                (self.last, self.is_fetching) = (Some(now), true);
                Unknown::Fetch
            }
        }
    }
}

impl KeyFetcher {
    /// A token has a key that is not known. Returns once its key may be there, or will not be.
    async fn look_up(&self) {
        let before = self.ended.get();
        match self.pace.lock().unknown(now()) {
            Unknown::Fetch => self.asked.notify_one(),
            Unknown::Wait => {}
            Unknown::Refuse => return,
        }
        let _ = timeout(WAIT_MAX, self.ended.wait_for(|ended| ended != before)).await;
    }

    /// Who has asked until now waits for this fetch, and needs no other.
    async fn begins(&self) {
        self.pace.lock().is_fetching = true;
        let _ = timeout(Duration::ZERO, self.asked.notified()).await;
    }

    fn has_ended(&self) {
        self.pace.lock().is_fetching = false;
        self.ended.change(|count| count.wrapping_add(1));
    }
}

/// Has the keys fetched that a request's token needs, if they may be there.
pub(super) async fn know_keys<B>(front: &Front, request: &Request<B>) {
    if front.shared.config().auth.mode != AuthMode::Jwt {
        return;
    }
    let gate = front.admission.tokens();
    if gate.keys_url().is_some() && gate.needs_another_key(request) {
        drop(gate);
        front.token_keys.look_up().await;
    }
}

/// Fetches keys for as long as the process runs.
pub(super) async fn run(front: Arc<Front>) {
    tokio::select! {
        biased;
        () = front.shared.tasks.stopping() => {}
        () = fetch_always(&front) => {}
    }
}

async fn fetch_always(front: &Front) {
    let mut failed = false;
    loop {
        let fetcher = &front.token_keys;
        front.admission.asks_for_fetched_keys().await;
        let Some(url) = front.shared.config().auth.jwt.jwks_url.clone() else {
            sleep(AFTER_FAILURE).await;
            continue;
        };
        fetcher.begins().await;
        let fetched = timeout(WITHIN, fetch(front, &url)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("nothing came in time".to_owned()));
        front.shared.metrics.guests.fetched_keys(if fetched.is_ok() { "ok" } else { "failed" });
        let pause = match fetched {
            Ok(keys) if keys.is_empty() => {
                if !std::mem::replace(&mut failed, true) {
                    warn!(%url, "No key is published that can sign tokens: no token lets in.");
                }
                front.admission.replace_keys(&url.to_string(), &Arc::new(keys));
                AFTER_FAILURE
            }
            Ok(keys) => {
                if std::mem::replace(&mut failed, false)
                    || front.admission.tokens().keys().is_empty()
                {
                    info!(%url, keys = keys.len(), "The keys that sign tokens were fetched.");
                }
                front.admission.replace_keys(&url.to_string(), &Arc::new(keys));
                EVERY
            }
            Err(problem) => {
                if !std::mem::replace(&mut failed, true) {
                    warn!(%url, problem, "The keys that sign tokens were not fetched.");
                }
                AFTER_FAILURE
            }
        };
        fetcher.has_ended();
        let url = url.to_string();
        tokio::select! {
            () = sleep(pause) => {}
            () = fetcher.asked.notified() => {}
            () = front.admission.fetches_elsewhere(&url) => {}
        }
    }
}

/// The name of the server as browsers send it: strict servers know no other.
fn host_of(url: &KeysUrl) -> String {
    let all = url.server.address.to_string();
    let usual = match url.server.scheme {
        Scheme::Http => ":80",
        Scheme::Https => ":443",
    };
    all.strip_suffix(usual).map_or_else(|| all.clone(), ToOwned::to_owned)
}

/// Redirects are not followed: a key comes from where the operator said, and nowhere else.
async fn fetch(front: &Front, url: &KeysUrl) -> Result<KeySet, String> {
    let (host, port) = (&url.server.address.host, url.server.address.port);
    let stream = front.shared.network.connect_within(host, port, WITHIN).await;
    let stream = stream.map_err(|error| format!("cannot be reached: {error}"))?;
    let stream = match url.server.scheme {
        Scheme::Http => stream,
        Scheme::Https => {
            let ca = front.shared.config().auth.jwt.ca.clone();
            let trust = ca.as_ref().map_or(Trust::Web, |ca| Trust::Authorities(ca.text.as_bytes()));
            let tls = ClientTls::new(trust, None, None)?;
            let secured = tls.connect(stream, host).await;
            secured.map_err(|error| format!("cannot be trusted: {error}"))?
        }
    };
    let broken = |error: hyper::Error| format!("does not answer: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    front.shared.tasks.spawn(async move {
        // Who reads the answer hears of how it ends.
        let _ = connection.await;
    });
    let request = Request::get(&url.path)
        .header(HOST, host_of(url))
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("mooring/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if answer.status() != StatusCode::OK {
        return Err(format!("answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
    let body = body.map_err(|error| format!("does not answer whole: {error}"))?.to_bytes();
    KeySet::published(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_port_only_where_it_is_not_the_usual_one() {
        for (url, host) in [
            ("https://login.example/keys", "login.example"),
            ("https://login.example:443/keys", "login.example"),
            ("http://127.0.0.1/keys", "127.0.0.1"),
            ("https://[::1]:8443/keys", "[::1]:8443"),
            ("https://login.example:80/keys", "login.example:80"),
        ] {
            assert_eq!(host_of(&url.parse().unwrap()), host, "{url}");
        }
    }

    #[test]
    fn unknown_keys_have_keys_fetched_once_a_minute_however_many_come() {
        let (mut pace, start) = (Pace::default(), now());
        assert_eq!(pace.unknown(start), Unknown::Wait, "the first fetch comes by itself");
        pace.is_fetching = false;
        assert_eq!(pace.unknown(start), Unknown::Fetch);
        assert_eq!(pace.unknown(start), Unknown::Wait, "it is on its way");
        pace.is_fetching = false;
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in 0..60 {
            assert_eq!(pace.unknown(at(seconds)), Unknown::Refuse, "{seconds}");
        }
        assert_eq!(pace.unknown(at(60)), Unknown::Fetch);
        pace.is_fetching = false;
        assert_eq!(pace.unknown(at(119)), Unknown::Refuse);
        assert_eq!(pace.unknown(at(120)), Unknown::Fetch);
    }
}
