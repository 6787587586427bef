//! The proxies that are believed when they say who sends a request (`auth.mode = "header"`).

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;

use super::Front;
use super::admission::take_off;
use super::error::GatewayError;
use crate::auth::{Pass, ProxyRules, Refusal, proxy};
use crate::config::{AuthConfig, Cidr};

/// Who is believed when he says who sends a request, and by what. `None` is nobody.
#[derive(Clone, Debug, Default)]
pub(super) struct ProxyGate {
    /// Another one whenever something of it changes: who came in by these may stay while they are
    /// the same.
    rules: Option<Arc<ProxyRules>>,
    trusted: Vec<Cidr>,
}

impl ProxyGate {
    fn of(auth: &AuthConfig, trusted: &[Cidr]) -> Self {
        Self { rules: auth.proxy_rules().map(Arc::new), trusted: trusted.to_vec() }
    }

    /// The same as before where nothing has changed.
    #[must_use]
    pub(super) fn renewed(&self, auth: &AuthConfig, trusted: &[Cidr]) -> Self {
        let new = Self::of(auth, trusted);
        let is_same = new.rules == self.rules && new.trusted == self.trusted;
        if is_same { self.clone() } else { new }
    }

    /// By what somebody at this address is believed.
    #[must_use]
    pub(super) fn believes(&self, peer: IpAddr) -> Option<&Arc<ProxyRules>> {
        let is_trusted = self.trusted.iter().any(|proxies| proxies.contains(peer));
        self.rules.as_ref().filter(|_| is_trusted)
    }

    /// True for who came in by these rules while they are the same.
    #[must_use]
    pub(super) fn holds(&self, rules: &Arc<ProxyRules>) -> bool {
        self.rules.as_ref().is_some_and(|now| Arc::ptr_eq(now, rules))
    }
}

/// Says who sends a request, as a proxy says that is believed by these rules, and takes off it what
/// says so. `None` believes nobody.
///
/// # Errors
/// He may not come in, or not do this.
pub(super) fn admit<B>(
    front: &Front,
    rules: Option<&Arc<ProxyRules>>,
    request: &mut Request<B>,
) -> Result<Pass, GatewayError> {
    let lines = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let judged = rules
        .ok_or(Refusal::Missing)
        .and_then(|rules| proxy::judge(rules, request.method(), lines));
    let pass = judged.map_err(|refusal| {
        front.shared.metrics.guests.refused(refusal.as_str());
        match refusal {
            Refusal::OnlyReads | Refusal::NoRole => refusal.into(),
            Refusal::Missing | Refusal::Unknown | Refusal::Ambiguous | Refusal::BadName => {
                GatewayError::Unnamed
            }
        }
    })?;
    take_off(request, |name| rules.is_some_and(|rules| rules.has(name)));
    request.extensions_mut().insert(pass.clone());
    Ok(pass)
}
