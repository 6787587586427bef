//! The proxies that may name the user of a request (`auth.mode = "header"`).

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;

use super::admission::take_off;
use super::error::GatewayError;
use super::{Front, audited};
use crate::auth::{Pass, ProxyRules, Refusal, proxy};
use crate::config::{AuthConfig, Cidr};

/// Who may name the user of a request, and by which rules. `None` means nobody.
#[derive(Clone, Debug, Default)]
pub(super) struct ProxyGate {
    /// Replaced whenever something in it changes. A user who came in by these rules may stay while
    /// they are the same.
    rules: Option<Arc<ProxyRules>>,
    trusted: Vec<Cidr>,
}

impl ProxyGate {
    fn of(auth: &AuthConfig, trusted: &[Cidr]) -> Self {
        Self { rules: auth.proxy_rules().map(Arc::new), trusted: trusted.to_vec() }
    }

    /// The same rules as before if nothing has changed.
    #[must_use]
    pub(super) fn renewed(&self, auth: &AuthConfig, trusted: &[Cidr]) -> Self {
        let new = Self::of(auth, trusted);
        let is_same = new.rules == self.rules && new.trusted == self.trusted;
        if is_same { self.clone() } else { new }
    }

    /// The rules for somebody at this address.
    #[must_use]
    pub(super) fn believes(&self, peer: IpAddr) -> Option<&Arc<ProxyRules>> {
        let is_trusted = self.trusted.iter().any(|proxies| proxies.contains(peer));
        self.rules.as_ref().filter(|_| is_trusted)
    }

    /// True for a user who came in by these rules, while they are in effect.
    #[must_use]
    pub(super) fn holds(&self, rules: &Arc<ProxyRules>) -> bool {
        self.rules.as_ref().is_some_and(|now| Arc::ptr_eq(now, rules))
    }
}

/// Finds the user that a trusted proxy names by these rules, and removes the headers. With `None`
/// nobody is trusted.
///
/// # Errors
/// The user may not come in, or may not do this.
pub(super) fn admit<B>(
    (front, peer): (&Front, IpAddr),
    rules: Option<&Arc<ProxyRules>>,
    request: &mut Request<B>,
) -> Result<Pass, GatewayError> {
    let lines = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let judged = rules
        .ok_or(Refusal::Missing)
        .and_then(|rules| proxy::judge(rules, request.method(), lines));
    let pass = judged.map_err(|refusal| {
        front.shared.metrics.guests.refused(refusal.as_str());
        audited::not_let_in(front, refusal, audited::address_of(front, peer, request));
        match refusal {
            Refusal::OnlyReads | Refusal::NoRole | Refusal::NoKeys => refusal.into(),
            Refusal::Missing | Refusal::Unknown | Refusal::Ambiguous | Refusal::BadName => {
                GatewayError::Unnamed
            }
        }
    })?;
    take_off(request, |name| rules.is_some_and(|rules| rules.has(name)));
    request.extensions_mut().insert(pass.clone());
    Ok(pass)
}
