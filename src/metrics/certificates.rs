//! Until when the certificates of the listeners hold.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of what is told of one listener.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByListener {
    listener: &'static str,
    of: &'static str,
}

#[derive(Debug, Default)]
pub struct CertificateMetrics {
    not_after: Family<ByListener, Gauge>,
}

impl CertificateMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_not_after_seconds",
            "When the certificate of the listener ends, or the first of its chain, in seconds \
             since 1970",
            self.not_after.clone(),
        );
    }

    /// What a listener shows ends then: its own certificate, and the first of all of its chain.
    /// `None` is a listener of plain HTTP.
    pub fn ends(&self, listener: &'static str, own_and_chain: Option<(i64, i64)>) {
        let label = |of| ByListener { listener, of };
        match own_and_chain {
            Some((own, chain)) => {
                self.not_after.get_or_create(&label("own")).set(own);
                self.not_after.get_or_create(&label("chain")).set(chain);
            }
            None => ["own", "chain"].into_iter().for_each(|of| {
                self.not_after.remove(&label(of));
            }),
        }
    }
}
