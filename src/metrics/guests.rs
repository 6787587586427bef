//! What is counted of those who want to come in.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{ByOutcome, ByReason};

#[derive(Debug, Default)]
pub struct GuestMetrics {
    refused: Family<ByReason, Counter>,
    logins: Family<ByOutcome, Counter>,
    key_fetches: Family<ByOutcome, Counter>,
    users: Gauge,
    last_read_success: Gauge,
}

impl GuestMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "auth_refused",
            "Requests of somebody who may not come in, or not do that",
            self.refused.clone(),
        );
        registry.register("auth_logins", "Logins that were tried", self.logins.clone());
        registry.register(
            "auth_key_fetches",
            "Fetches of the keys that sign tokens",
            self.key_fetches.clone(),
        );
        registry.register("auth_users", "Users who may come in", self.users.clone());
        registry.register(
            "auth_users_last_read_success",
            "1 if the users that were read last are those in use",
            self.last_read_success.clone(),
        );
    }

    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ByReason { reason }).inc();
    }

    /// Somebody tried to log in on the page for that.
    pub fn tried(&self, outcome: &'static str) {
        self.logins.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// The keys that sign tokens were fetched, or not.
    pub fn fetched_keys(&self, outcome: &'static str) {
        self.key_fetches.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// So many users may come in from now on.
    pub fn may_come(&self, users: usize) {
        self.users.set(i64::try_from(users).unwrap_or(i64::MAX));
        self.last_read_success.set(1);
    }

    /// The file of users could not be read; those before stay.
    pub fn unread(&self) {
        self.last_read_success.set(0);
    }
}
