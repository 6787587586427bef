//! The keys of the sections that consist of named tables.

use super::super::discovery::{DnsServer, HostAndPort, KubernetesService, ServiceName};
use super::super::headers::Headers;
use super::super::key::{Applied, Key};
use super::super::kinds::{Kind, Limit, Positive, Switch};
use super::super::labels::Labels;
use super::super::raw::{Section, Setting};
use super::super::secret::SecretFile;
use super::super::tls::{PemPath, ServerName};
use super::super::values::BackendUrl;

sections! { NAMED_SECTIONS, NAMED_KEYS:
    /// The ComfyUI servers, one table for each.
    ["backends"] RawBackend backend {
        /// Where the ComfyUI server listens. It is needed.
        url: BackendUrl = "", Live;
        /// Its share of the work, compared with the other backends.
        weight: Positive { max: 1000 } = "1", Live;
        /// How many prompts may wait and run there. Beyond that it gets no more. 0 means no limit.
        max_pending: Limit { max: 1_000_000 } = "0", Live;
        /// Labels of your choice that say what it is for, such as `"video"`. They are only shown,
        /// and have no effect yet.
        labels: Labels = "", Live;
        /// Headers that are sent with everything to it: `"Authorization: Bearer ..."`. They replace
        /// a client's headers of the same name, and are never shown.
        headers: Headers = "", Live;
        /// A file with more headers, one per line, so that they are not in the configuration.
        headers_file: SecretFile = "", ByValue;
        /// For `https://`: a file with certificates of authorities, or with the backend's own
        /// certificate. Without it the public authorities are trusted (Mozilla's list).
        ca: PemPath = "", Live;
        /// For `https://`: the host name in its certificate, if it differs from that of the URL.
        server_name: ServerName = "", Live;
        /// For `https://`: accepts every certificate. Anybody on the network in between can read
        /// and change the data.
        insecure: Switch = "false", Live;
        /// For `https://`: a file with a client certificate for it, followed by its chain.
        client_cert: PemPath = "", Live;
        /// The key of that certificate.
        client_key: PemPath = "", Live;
    }
    /// Sources that backends are discovered from, one table for each.
    ["discovery"] RawDiscovery discovery {
        /// The addresses of this name (A, AAAA) are backends, at this port. One of `dns`, `srv`
        /// and `kubernetes` is needed.
        dns: HostAndPort = "", Live;
        /// The targets of the SRV records of this name are backends, at their ports.
        srv: ServiceName = "", Live;
        /// The DNS server to use. If it is empty, those of the system are used
        /// (`/etc/resolv.conf`).
        resolver: DnsServer = "", Live;
        /// The endpoints of this Kubernetes service are backends. Without `namespace` it is in the
        /// namespace of the gateway's pod. Without `port` the service must have only one port.
        kubernetes: KubernetesService = "", Live;
        /// The share of the work of each backend that is found there.
        weight: Positive { max: 1000 } = "1", Live;
        /// How many prompts may wait and run on each of them. Beyond that it gets no more. 0 means
        /// no limit.
        max_pending: Limit { max: 1_000_000 } = "0", Live;
        /// Labels of each of them, as in `backends.NAME.labels`.
        labels: Labels = "", Live;
        /// Headers that are sent with everything to them, as in `backends.NAME.headers`.
        headers: Headers = "", Live;
        /// A file with more headers, one per line, so that they are not in the configuration.
        headers_file: SecretFile = "", ByValue;
    }
}
