//! The table of all configuration keys: name, kind and limits, default, and purpose.
//!
//! The types of the sections as written are generated from it, and so is [`KEYS`], which the tests
//! compare with `config/mooring.toml` and `docs/configuration.md`. A default is written as it would
//! be in the environment.
//!
//! The last column says when a new value takes effect: see [`Applied`].

use super::base_path::Base;
use super::choices::{Counts, Format, Mode, NamelessMay, OnError, Tags, Toggle};
use super::discovery::{DnsServer, HostAndPort, KubernetesService, ServiceName};
use super::headers::Headers;
use super::hosts::HostNames;
use super::key::Applied;
pub use super::key::Key;
use super::kinds::{BackendName, Count, FilePath, Kind, Limit, Positive, Size, Span, Switch};
use super::labels::Labels;
use super::listen::{Listen, ListenOrOff};
use super::lists::{Classes, SharedIds};
use super::proxy::{DefaultRole, GroupRoles, HeaderText};
use super::raw::{Section, Setting};
use super::secret::SecretFile;
use super::tls::{PemPath, ServerName};
use super::units::{DAY, GIB, H, KIB, MIB, MS, S};
use super::values::{BackendUrl, LogLevel, Networks, Origins, Token};

/// The sections that consist of named tables.
pub(super) const BACKENDS: &str = "backends";
pub(super) const DISCOVERY: &str = "discovery";

/// True for a section that consists of named tables.
pub(super) fn is_named(section: &str) -> bool {
    [BACKENDS, DISCOVERY].contains(&section)
}

sections! {
    /// The listener for clients.
    ["server"] RawServer server {
        /// Where browsers and scripts connect.
        listen: Listen = "127.0.0.1:8180", Live;
        /// How many threads serve; 0 means one for each core.
        workers: Count { min: 0, max: 1024 } = "0", Restart;
        /// How many connections clients may have open at one time. More are closed at once.
        max_connections: Count { min: 1, max: 1_000_000 } = "10000", Live;
        /// The time from the first byte of a request to the end of its headers.
        header_timeout: Span { min: 100 * MS, max: H } = "10s", Live;
        /// The size of the request line and the headers together. ComfyUI takes 8 KiB a line.
        max_header_bytes: Size { min: 8 * KIB, max: MIB } = "16KiB", Live;
        /// How many headers a request may have. ComfyUI has the same limit.
        max_headers: Count { min: 16, max: 1024 } = "128", Live;
        /// How long a connection is kept open without a request. It should be longer than in
        /// proxies in front of Mooring, so that they do not send a request on a connection that
        /// Mooring just closes.
        idle_timeout: Span { min: S, max: H } = "180s", Live;
        /// How long a body may stand still before it is given up.
        body_timeout: Span { min: S, max: H } = "60s", Live;
        /// How long a backend may take to begin its answer. The time counts from the last byte that
        /// was sent to it.
        answer_timeout: Span { min: S, max: DAY } = "300s", Live;
        /// Pages of other origins that may call Mooring; they get CORS answers. Applications
        /// (`app://obsidian.md`) and `null` can be listed too.
        allowed_origins: Origins = "", Live;
        /// Proxies in front of Mooring whose `X-Forwarded-*` headers are believed.
        trusted_proxies: Networks = "", Live;
        /// The names by which Mooring is asked, such as `comfy.example.org` or `*.example.org`,
        /// against pages that make their own names lead here. On a loopback address only
        /// `localhost`, addresses and these are answered; elsewhere every name, until one is
        /// listed.
        hosts: HostNames = "", Live;
        /// How long a stop takes at most. Whatever is still open then is closed.
        drain_timeout: Span { min: 0, max: DAY } = "30s", Live;
        /// How long, as a part of `drain_timeout`, the listeners stay open while readiness fails,
        /// so that balancers send new clients elsewhere.
        drain_delay: Span { min: 0, max: H } = "5s", Live;
        /// For a sidecar: how long a stop first waits for pending prompts, while everything is
        /// still served.
        drain_pending: Span { min: 0, max: DAY } = "0s", Live;
        /// Lets clients use routes that install, update and restart, as those of ComfyUI-Manager.
        allow_manager: Switch = "false", Live;
        /// Lets clients read the log of their own backend and where its folders are (`/internal`).
        allow_logs: Switch = "false", Live;
        /// Lets clients unload the models of their backend (`/free`). Otherwise the answer is 200
        /// and nothing is done.
        allow_free: Switch = "false", Live;
        /// Lets clients start and stop a server's scan for assets, and remove assets whose files
        /// are gone.
        allow_asset_scans: Switch = "false", Live;
        /// The backend that keeps settings, workflows and the page. If it is empty, it is the first
        /// by name, and from then on that one is remembered.
        home: BackendName = "", Live;
        /// The path under which Mooring is reached, such as `/comfy/`. Proxies in front must not
        /// remove it.
        base_path: Base = "", Live;
        /// Adds a script to the page, so that each of its tabs is a client of its own.
        page_script: Toggle = "on", Live;
        /// Simple reads are copied from connection to connection as bytes. `off` sends them through
        /// the HTTP library, as all others.
        passthrough: Toggle = "on", Live;
        /// Memory for the last good copies of the home's page and user data; 0 keeps none.
        stale_cache: Size { min: 0, max: 64 * GIB } = "64MiB", Live;
        /// Memory for files of the page with a hash in their name, compressed too; 0 keeps none.
        asset_cache: Size { min: 0, max: 64 * GIB } = "64MiB", Live;
    }
    /// TLS at the listener for clients. Without a certificate it speaks plain HTTP.
    ["server.tls"] RawServerTls server_tls {
        /// A file with the certificate of the listener, and behind it those up to its authority.
        cert: PemPath = "", Live;
        /// A file with the key of that certificate. Both are read again when they change.
        key: PemPath = "", Live;
        /// A file with certificates of authorities. If it is given, only clients with a certificate
        /// of one of them come in.
        client_ca: PemPath = "", Live;
    }
    /// The listener for operators.
    ["admin"] RawAdmin admin {
        /// Where operators, metrics and health checks connect. `off` opens no such listener.
        listen: ListenOrOff = "127.0.0.1:8181", Live;
        /// Operators send it as `Authorization: Bearer`. It is needed if other hosts can connect.
        token: Token = "", Live;
        /// A file that holds the token, so that it does not stand in the configuration.
        token_file: SecretFile = "", ByValue;
        /// The folder that holds the secrets of backends that are added at run time. If it is
        /// empty, those have none.
        secrets_dir: FilePath = "", Live;
    }
    /// TLS at the listener for operators, by the same keys.
    ["admin.tls"] RawAdminTls admin_tls {
        /// As `server.tls.cert`.
        cert: PemPath = "", Live;
        /// As `server.tls.key`.
        key: PemPath = "", Live;
        /// As `server.tls.client_ca`.
        client_ca: PemPath = "", Live;
    }
    /// Who is let in at the listener for clients.
    ["auth"] RawAuth auth {
        /// `off` lets everybody in who reaches the listener. `keys` lets in the users of
        /// `users_file`, each with a key of his own, or with a name and a password on the login
        /// page. `header` lets in whom a proxy of `server.trusted_proxies` names in `header`. It
        /// has to be written somewhere if `server.listen` is not on loopback.
        mode: Mode = "off", Live;
        /// The file of users, which `mooring users` makes and changes. It is needed with `keys`,
        /// and read again within a second of each change.
        users_file: FilePath = "", Live;
        /// How long a browser stays logged in.
        session_lifetime: Span { min: 60 * S, max: 30 * DAY } = "12h", Live;
        /// A file with 32 characters or more that nobody can guess, which sign the sessions of
        /// browsers. If it is empty, a key in `state.dir` does. Several gateways that have the same
        /// file of users and this one take each other's sessions.
        session_key_file: SecretFile = "", Live;
        /// With `header`: where the proxy says the name of the user, such as `Remote-User`. It has
        /// to take this header off what clients send.
        header: HeaderText = "", Live;
        /// With `header`: where it says the user's groups, divided by commas, such as
        /// `Remote-Groups`.
        groups_header: HeaderText = "", Live;
        /// What the members of a group may do. Who is in several may do the most of these.
        group_roles: GroupRoles = "", Live;
        /// What those may do who are in none of these groups. `none` lets them not in.
        default_role: DefaultRole = "artist", Live;
    }
    /// How long clients and their bindings are kept.
    ["affinity"] RawAffinity affinity {
        /// A client is forgotten when it had no socket, no request and no work for this long.
        lease: Span { min: S, max: 30 * DAY } = "10m", Live;
        /// How long an upload keeps its backend for the prompt that uses it.
        reservation: Span { min: S, max: 30 * DAY } = "10m", Live;
        /// How long the socket to a backend stays open after the client's last socket has closed.
        link_linger: Span { min: 0, max: H } = "30s", Live;
        /// How many clients are known at one time. For a new one the longest idle is forgotten. If
        /// all have a socket, work or a reservation, the new one is refused.
        max_clients: Count { min: 1, max: 10_000_000 } = "100000", Live;
        /// clientIds that many people use. Each address that uses one is a client of its own.
        shared_ids: SharedIds = "", Live;
        /// A backend that has a prompt's files already is preferred, even if its queue is this many
        /// prompts longer.
        input_margin: Count { min: 0, max: 1_000 } = "1", Live;
        /// A backend to which the client has sockets of node packs open is preferred, even if its
        /// queue is this many prompts longer.
        tunnel_margin: Count { min: 0, max: 1_000 } = "1", Live;
        /// Copying this many bytes counts as much as one waiting prompt. If there is less to copy,
        /// an idle backend always goes before a busy one.
        input_bytes: Size { min: MIB, max: 64 * GIB } = "256MiB", Live;
        /// A backend whose node packs the client has used is preferred, even if its queue is this
        /// many prompts longer.
        session_margin: Count { min: 0, max: 1_000 } = "1", Live;
    }
    /// Health of the backends, and connections to them.
    ["fleet"] RawFleet fleet {
        /// How often a silent backend is asked whether it is there.
        probe_interval: Span { min: 100 * MS, max: H } = "5s", Live;
        /// How long a backend may take to answer that question.
        probe_timeout: Span { min: 100 * MS, max: H } = "10s", Live;
        /// After this many good probes in a row a backend is up.
        rise: Positive { max: 100 } = "1", Live;
        /// After this many bad probes in a row a backend is down.
        fall: Positive { max: 100 } = "2", Live;
        /// How much longer a backend may be silent while it loads a model.
        patience: Span { min: 0, max: H } = "10s", Live;
        /// How long it may take to open a connection to a backend. It should be longer than one
        /// second, after which a lost first segment is sent again (RFC 6298).
        connect_timeout: Span { min: 10 * MS, max: 60 * S } = "2s", Live;
        /// How often a new connection to a backend is tried while it works. While it takes none, it
        /// is tried at each `probe_interval`.
        dial_interval: Span { min: 100 * MS, max: H } = "30s", Live;
        /// How long an unused connection to a backend is kept. ComfyUI closes it after 60 seconds
        /// or more.
        pool_idle: Span { min: 0, max: 59 * S } = "30s", Live;
        /// How many unused connections are kept for each backend. The number holds for simple reads
        /// and for all other requests separately.
        max_idle_connections: Count { min: 0, max: 10_000 } = "64", Live;
        /// How long one backend may delay a list that is made of several. After that it is left
        /// out, and the answer names it.
        list_timeout: Span { min: 100 * MS, max: 5 * 60 * S } = "3s", Live;
        /// After this much silence of a running prompt its backend is suspect: it gets new work
        /// only if no other has room.
        suspect_after: Span { min: S, max: DAY } = "120s", Live;
        /// How long a backend may take, after the start of a prompt, to report which of its nodes
        /// are cached. If it takes longer it is wedged, and gets no work.
        start_limit: Span { min: S, max: DAY } = "5m", Live;
        /// After this much silence of a running prompt its backend is wedged. 0 means never,
        /// because a node may wait for an API, a video or a download.
        silent_limit: Span { min: 0, max: 7 * DAY } = "0s", Live;
        /// How long a backend may be away or wedged before its prompts are presumed lost.
        grace: Span { min: S, max: 7 * DAY } = "60s", Live;
        /// Whether the gateway is ready while there is no backend at all. It is for fleets whose
        /// backends start only when somebody asks for one. A backend that a discovery found, and
        /// that has not served yet, does not count as one.
        ready_when_empty: Switch = "false", Live;
    }
    /// Submissions, and what is remembered of them.
    ["prompts"] RawPrompts prompts {
        /// The largest submission. A larger one is answered with 413.
        max_body: Size { min: KIB, max: 4 * GIB } = "100MiB", Live;
        /// How many bytes of bodies all requests together may hold in memory. More are answered
        /// with 503.
        max_bodies_total: Size { min: KIB, max: 1024 * GIB } = "512MiB", Live;
        /// How many prompts are remembered after their end, so that their results are found.
        ledger_prompts: Count { min: 1, max: 100_000_000 } = "100000", Restart;
        /// How long they are remembered.
        ledger_age: Span { min: 60 * S, max: 3650 * DAY } = "7d", Restart;
        /// When a pending prompt had no event for this long, its backend is asked about it.
        silent_after: Span { min: S, max: DAY } = "30s", Live;
        /// How long a request for the history waits for the entry of a prompt that has just ended.
        history_wait: Span { min: 0, max: 60 * S } = "1s", Live;
        /// Memory for entries of ended prompts, for lists and histories; 0 keeps none.
        history_cache: Size { min: 0, max: 64 * GIB } = "256MiB", Live;
        /// How long a submission waits for its outcome. Then it is told that the outcome is
        /// unknown.
        answer_limit: Span { min: S, max: H } = "45s", Live;
        /// How long a submission waits for the client's socket to its backend.
        link_timeout: Span { min: 100 * MS, max: 10 * 60 * S } = "5s", Live;
        /// How many pending prompts a client may have. More are refused.
        max_pending_per_client: Count { min: 1, max: 1_000_000 } = "1000", Live;
    }
    /// Names of files, and copies of them.
    ["files"] RawFiles files {
        /// When a file's name says its backend: `ambiguous` is if another backend has a file of the
        /// same name, `never` is not at all.
        tag: Tags = "ambiguous", Restart;
        /// How many names of files are remembered. One takes about 420 bytes.
        ledger: Count { min: 1, max: 100_000_000 } = "1000000", Restart;
        /// How long they are remembered.
        ledger_age: Span { min: 60 * S, max: 3650 * DAY } = "7d", Restart;
        /// How many assets are remembered, with their owners, for as long as names of files. One
        /// takes about 600 bytes.
        assets: Count { min: 1, max: 100_000_000 } = "200000", Restart;
        /// The largest file that is copied to another backend for a prompt that uses it.
        copy_bytes: Size { min: KIB, max: 64 * GIB } = "1GiB", Live;
        /// How long such a copy may stand still, and how long its answer may take.
        copy_timeout: Span { min: S, max: H } = "30s", Live;
        /// How many files are copied for one prompt. A prompt that needs more is refused.
        copies_per_prompt: Count { min: 0, max: 10_000 } = "64", Live;
    }
    /// WebSockets of both sides.
    ["sockets"] RawSockets sockets {
        /// How often the other end of a socket is asked whether it is there.
        ping_interval: Span { min: S, max: H } = "20s", Live;
        /// The largest message from a client. A larger one closes its socket with 1009.
        max_from_client: Size { min: KIB, max: GIB } = "4MiB", Live;
        /// The largest message from a backend.
        max_from_backend: Size { min: MIB, max: GIB } = "64MiB", Live;
        /// How many bytes of previews and progress wait for one browser socket. Beyond that the
        /// oldest are dropped.
        queue_bytes: Size { min: 64 * KIB, max: GIB } = "2MiB", Live;
        /// How many bytes of starts, outputs and ends wait for one browser socket. Beyond that the
        /// socket is closed.
        queue_critical: Size { min: 64 * KIB, max: 4 * GIB } = "64MiB", Live;
        /// The same for all browser sockets together. Beyond that each may keep 1 MiB.
        queue_bytes_total: Size { min: MIB, max: 1024 * GIB } = "512MiB", Live;
        /// How many browser sockets a client may have at one time. More are refused.
        max_per_client: Count { min: 1, max: 1_000_000 } = "16", Live;
        /// A new socket is told of prompts that ended within this time before it opened.
        replay_window: Span { min: 0, max: DAY } = "60s", Live;
        /// How many bytes of events are kept for one client, to be sent again.
        log_bytes: Size { min: 64 * KIB, max: 4 * GIB } = "32MiB", Live;
        /// How many bytes of events are kept for all clients together. Beyond that the prompts that
        /// ended first are dropped.
        log_bytes_total: Size { min: MIB, max: 1024 * GIB } = "256MiB", Live;
        /// A socket that got no text for this long is told that Mooring is alive.
        alive_after: Span { min: S, max: H } = "8s", Live;
        /// Node classes that send results, and not previews, as pictures over the socket.
        output_classes: Classes = "SaveImageWebsocket,ETN_SendImageWebSocket", Live;
        /// How long a new socket to a backend waits for the end of the old one.
        close_wait: Span { min: 100 * MS, max: 10 * 60 * S } = "10s", Live;
        /// How many sockets of node packs are passed through at one time. More are refused.
        max_tunnels: Count { min: 0, max: 1_000_000 } = "1000", Live;
        /// The same for one client.
        max_tunnels_per_client: Count { min: 0, max: 1_000_000 } = "16", Live;
    }
    /// What clients see of one another.
    ["isolation"] RawIsolation isolation {
        /// Which prompts `queue_remaining` counts: the client's own, or all of its backend.
        status: Counts = "own", Live;
        /// What somebody may do who does not say who he is. `by_id`: act on the prompts whose ids
        /// he names. `none`: nothing. `all`: everything, to everybody's prompts. `auto` is `by_id`
        /// for requests from this machine while `server.listen` is on loopback, and `none` for all
        /// others and for requests that a proxy passes on. So nobody gains rights by leaving his
        /// name out.
        nameless: NamelessMay = "auto", Live;
    }
    /// What survives a restart.
    ["state"] RawState state {
        /// Where bindings and prompts are kept over a restart; `none` keeps them nowhere. If it is
        /// empty, it is the unit's `StateDirectory` under systemd, and otherwise `mooring/PORT` in
        /// the user's state folder.
        dir: FilePath = "", Restart;
        /// What happens while the journal cannot be written: `serve` goes on, `refuse` refuses
        /// prompts. The same while copies cannot be marked, for saving what they are copies of.
        on_error: OnError = "serve", Live;
        /// Disk space in that folder for copies of settings and saved workflows, which are read
        /// while the home is away; 0 keeps none, and so does `server.stale_cache` of 0.
        copies: Size { min: 0, max: 64 * GIB } = "64MiB", Live;
    }
    /// The log, on standard error.
    ["log"] RawLog log {
        /// `text` writes lines for people, `json` one JSON object a line.
        format: Format = "text", Restart;
        /// What is logged. `RUST_LOG` overrides it.
        level: LogLevel = "info", Live;
    }
    /// The ComfyUI servers, one table for each.
    ["backends"] RawBackend backend {
        /// Where the ComfyUI server listens. It is needed.
        url: BackendUrl = "", Live;
        /// Its share of the work, compared with the other backends.
        weight: Positive { max: 1000 } = "1", Live;
        /// How many prompts may wait and run there. Beyond that it gets no more. 0 means no limit.
        max_pending: Limit { max: 1_000_000 } = "0", Live;
        /// What it is for, in words of yours, such as `"video"`. They are shown, and decide nothing
        /// yet.
        labels: Labels = "", Live;
        /// Headers that go with everything that is sent to it: `"Authorization: Bearer ..."`. They
        /// replace a client's headers of the same name, and are never shown.
        headers: Headers = "", Live;
        /// A file with more headers, one in each line, so that they do not stand in the
        /// configuration.
        headers_file: SecretFile = "", ByValue;
        /// For `https://`: a file with certificates of authorities, or its own. Without it the
        /// authorities of the web are trusted (Mozilla's list).
        ca: PemPath = "", Live;
        /// For `https://`: the name that its certificate is for, if it is not that of the URL.
        server_name: ServerName = "", Live;
        /// For `https://`: takes every certificate. Whoever is on the way to it reads and changes
        /// all that is said.
        insecure: Switch = "false", Live;
        /// For `https://`: a file with a certificate to show to it, and those behind it.
        client_cert: PemPath = "", Live;
        /// The key of that certificate.
        client_key: PemPath = "", Live;
    }
    /// Where backends are found that nobody lists, one table for each place.
    ["discovery"] RawDiscovery discovery {
        /// The addresses of this name (A, AAAA) are backends, at this port. One of `dns`, `srv`
        /// and `kubernetes` is needed.
        dns: HostAndPort = "", Live;
        /// The targets of the SRV records of this name are backends, at their ports.
        srv: ServiceName = "", Live;
        /// The DNS server that is asked. If it is empty, those of the system are
        /// (`/etc/resolv.conf`).
        resolver: DnsServer = "", Live;
        /// The endpoints of this service of Kubernetes are backends. Without `namespace` it is in
        /// that of the gateway's pod. Without `port` the service has only one.
        kubernetes: KubernetesService = "", Live;
        /// The share of the work that each backend gets that is found there.
        weight: Positive { max: 1000 } = "1", Live;
        /// How many prompts may wait and run on each of them. Beyond that it gets no more. 0 means
        /// no limit.
        max_pending: Limit { max: 1_000_000 } = "0", Live;
        /// Labels of each of them, as in `backends.NAME.labels`.
        labels: Labels = "", Live;
        /// Headers that go with everything that is sent to them, as in `backends.NAME.headers`.
        headers: Headers = "", Live;
        /// A file with more headers, one in each line, so that they do not stand in the
        /// configuration.
        headers_file: SecretFile = "", ByValue;
    }
}
