//! The table of all configuration keys: name, kind and limits, default, and purpose.
//!
//! The types of the sections as written are generated from it, and so is [`KEYS`], which the tests
//! compare with `config/mooring.toml` and `docs/configuration.md`. A default is written as it would
//! be in the environment.
//!
//! The last column says when a new value takes effect: see [`Applied`].

mod joined;
mod kept;
mod limits;
mod named;
mod queue;

use super::base_path::Base;
use super::choices::{Mode, Tags, Toggle};
use super::hosts::HostNames;
use super::jwt::{Claim, CookieName, JwksUrl, PlainText};
use super::key::Applied;
pub use super::key::Key;
pub(super) use super::key::{BACKENDS, DISCOVERY, is_named};
use super::kinds::{BackendName, Count, FilePath, Kind, Positive, Size, Span, Switch};
use super::listen::{Listen, ListenOrOff};
use super::lists::{Classes, DenyPatterns, SharedIds};
use super::proxy::{DefaultRole, GroupRoles, HeaderText};
use super::raw::{Section, Setting};
use super::secret::SecretFile;
use super::tls::PemPath;
use super::units::{DAY, GIB, H, KIB, MIB, MS, S};
use super::user::UserText;
use super::values::{Networks, Origins, Token};
use joined::{joined, total};
use kept::{KEPT_KEYS, KEPT_SECTIONS};
pub(super) use kept::{
    RawIsolation, RawLog, RawReplicas, RawState, isolation, log, replicas, state,
};
use limits::{LIMIT_KEYS, LIMIT_SECTIONS};
pub(super) use limits::{RawLimits, limits};
use named::{NAMED_KEYS, NAMED_SECTIONS};
pub(super) use named::{RawBackend, RawDiscovery, backend, discovery};
use queue::{QUEUE_KEYS, QUEUE_SECTIONS};
pub(super) use queue::{RawQueue, queue};

/// Every section with its description, in the order of the documentation.
pub const SECTIONS: &[(&str, &str)] = &joined::<{ total(ALL_SECTIONS) }, _>(ALL_SECTIONS);

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &joined::<{ total(ALL_KEYS) }, _>(ALL_KEYS);

const ALL_SECTIONS: [&[(&str, &str)]; 5] =
    [PLAIN_SECTIONS, KEPT_SECTIONS, QUEUE_SECTIONS, LIMIT_SECTIONS, NAMED_SECTIONS];

const ALL_KEYS: [&[Key]; 5] = [PLAIN_KEYS, KEPT_KEYS, QUEUE_KEYS, LIMIT_KEYS, NAMED_KEYS];

sections! { PLAIN_SECTIONS, PLAIN_KEYS:
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
        /// The size of the request line and the headers together. ComfyUI accepts 8 KiB per line.
        max_header_bytes: Size { min: 8 * KIB, max: MIB } = "16KiB", Live;
        /// How many headers a request may have. ComfyUI has the same limit.
        max_headers: Count { min: 16, max: 1024 } = "128", Live;
        /// How long a connection is kept open without a request. It should be longer than in
        /// proxies in front of Mooring, so that they do not send a request on a connection that
        /// Mooring is closing.
        idle_timeout: Span { min: S, max: H } = "180s", Live;
        /// How long a body may make no progress before it is given up.
        body_timeout: Span { min: S, max: H } = "60s", Live;
        /// How long a backend may take to begin its answer. The time counts from the last byte that
        /// was sent to it.
        answer_timeout: Span { min: S, max: DAY } = "300s", Live;
        /// Pages of other origins that may call Mooring; they get CORS answers. Applications
        /// (`app://obsidian.md`) and `null` can be listed too.
        allowed_origins: Origins = "", Live;
        /// Proxies in front of Mooring whose `X-Forwarded-*` headers are trusted.
        trusted_proxies: Networks = "", Live;
        /// The host names of Mooring, such as `comfy.example.org` or `*.example.org`. They protect
        /// against pages that point their own name to Mooring. On a loopback address only
        /// `localhost`, IP addresses and these names are accepted; on other addresses every name,
        /// until one is listed.
        hosts: HostNames = "", Live;
        /// Paths that are refused to everybody with 403, each with all that is below it and in
        /// every spelling: `/pack/admin`. `*` is any part of a segment, `**` any number of
        /// segments. Paths are those below `base_path`.
        deny: DenyPatterns = "", Live;
        /// Node classes that no graph may have, such as nodes that run commands or take any path. A
        /// graph with one is refused with 400, as ComfyUI refuses a class that it does not have.
        deny_nodes: Classes = "", Live;
        /// How long a stop may take. Everything that is still open then is closed.
        drain_timeout: Span { min: 0, max: DAY } = "30s", Live;
        /// How long, as a part of `drain_timeout`, the listeners stay open while readiness fails,
        /// so that balancers send new clients elsewhere.
        drain_delay: Span { min: 0, max: H } = "5s", Live;
        /// For a sidecar: how long a stop first waits for pending prompts, while everything is
        /// still served.
        drain_pending: Span { min: 0, max: DAY } = "0s", Live;
        /// Lets clients use routes that install, update and restart, as those of ComfyUI-Manager;
        /// if users are required, only operators.
        allow_manager: Switch = "false", Live;
        /// Lets clients read the log and the folder paths of their own backend (`/internal`); if
        /// users are required, only operators.
        allow_logs: Switch = "false", Live;
        /// Lets clients unload the models of their backend (`/free`); if users are required, only
        /// operators. Otherwise the answer is 200 and nothing is done.
        allow_free: Switch = "false", Live;
        /// Lets clients start and stop a server's scan for assets, and remove assets whose files
        /// are gone; if users are required, only operators.
        allow_asset_scans: Switch = "false", Live;
        /// The backend that keeps settings, workflows and the page. If it is empty, the first
        /// backend by name is chosen and remembered.
        home: BackendName = "", Live;
        /// The path under which Mooring is reached, such as `/comfy/`. Proxies in front must not
        /// remove it.
        base_path: Base = "", Live;
        /// Adds a script to the page, so that each of its tabs is a client of its own.
        page_script: Toggle = "on", Live;
        /// Adds a line to the page that shows where one's jobs are and how the servers are. It
        /// needs `page_script`.
        page_extension: Toggle = "on", Live;
        /// Simple reads are copied from connection to connection as bytes. `off` sends them through
        /// the HTTP library, like all other requests.
        passthrough: Toggle = "on", Live;
        /// Memory for the last good copies of the home's page and user data; 0 keeps none.
        stale_cache: Size { min: 0, max: 64 * GIB } = "64MiB", Live;
        /// Memory for files of the page with a hash in their name, compressed too; 0 keeps none.
        asset_cache: Size { min: 0, max: 64 * GIB } = "64MiB", Live;
    }
    /// TLS at the listener for clients. Without a certificate it uses plain HTTP.
    ["server.tls"] RawServerTls server_tls {
        /// A file with the certificate of the listener, followed by its chain.
        cert: PemPath = "", Live;
        /// A file with the key of that certificate. Both are read again when they change.
        key: PemPath = "", Live;
        /// A file with certificates of authorities. If it is given, only clients with a certificate
        /// from one of them are let in.
        client_ca: PemPath = "", Live;
    }
    /// The listener for operators.
    ["admin"] RawAdmin admin {
        /// Where operators, metrics and health checks connect. `off` opens no such listener.
        listen: ListenOrOff = "127.0.0.1:8181", Live;
        /// Operators send it as `Authorization: Bearer`, or the key of a user with the role
        /// `operator` instead. It is needed if other hosts can connect.
        token: Token = "", Live;
        /// A file that contains the token, so that it is not in the configuration.
        token_file: SecretFile = "", ByValue;
        /// Who sends this instead may only look: reads, events, the dashboard without actions, with
        /// hashes in place of clientIds and ids of prompts.
        read_token: Token = "", Live;
        /// A file that contains that token, so that it is not in the configuration.
        read_token_file: SecretFile = "", ByValue;
        /// The folder with the secrets of backends that are added at run time. If it is empty,
        /// these backends cannot have secrets.
        secrets_dir: FilePath = "", Live;
        /// Answers `GET /metrics` without the token, under own names and addresses only.
        open_metrics: Switch = "false", Live;
    }
    /// TLS at the listener for operators, with the same keys.
    ["admin.tls"] RawAdminTls admin_tls {
        /// Like `server.tls.cert`.
        cert: PemPath = "", Live;
        /// Like `server.tls.key`.
        key: PemPath = "", Live;
        /// Like `server.tls.client_ca`.
        client_ca: PemPath = "", Live;
    }
    /// Who is let in at the listener for clients.
    ["auth"] RawAuth auth {
        /// `off` lets everybody in who can reach the listener. `keys` lets in the users of
        /// `users_file`, with a key, or with a name and a password on the login page. `header` lets
        /// in the users that a proxy of `server.trusted_proxies` names in `header`. `jwt` lets in
        /// the users that a signed token names. It must be set if `server.listen` is not on
        /// loopback.
        mode: Mode = "off", Live;
        /// The file of users, which `mooring users` creates and changes. It is required with
        /// `keys`, and it is read again within a second after a change.
        users_file: FilePath = "", Live;
        /// How long a browser stays logged in.
        session_lifetime: Span { min: 60 * S, max: 30 * DAY } = "12h", Live;
        /// A file with at least 32 characters that nobody can guess. They sign the sessions of
        /// browsers. If it is empty, a key in `state.dir` is used. Gateways with the same file of
        /// users and the same key accept each other's sessions.
        session_key_file: SecretFile = "", Live;
        /// With `header`: the header in which the proxy sends the user's name, such as
        /// `Remote-User`. The proxy must remove this header from the requests of clients.
        header: HeaderText = "", Live;
        /// With `header`: the header with the user's groups, separated by commas, such as
        /// `Remote-Groups`.
        groups_header: HeaderText = "", Live;
        /// The roles of members of groups. A user in several groups gets the highest role.
        group_roles: GroupRoles = "", Live;
        /// The role of users who are in none of these groups. `none` does not let them in.
        default_role: DefaultRole = "artist", Live;
        /// `on` sends each user's requests with `Comfy-User` to servers that run with
        /// `--multi-user`, so that these keep settings and workflows of each user apart. The user
        /// is found there by name, and made if there is none.
        comfy_user: Toggle = "off", Live;
        /// At a start, this user gets the clients of the time without users (0.1 or `off`), their
        /// prompts, and the files that they made. Without it no user sees these prompts.
        adopt: UserText = "", Restart;
    }
    /// Which tokens let in their users, where `auth.mode` is `jwt`.
    ["auth.jwt"] RawAuthJwt auth_jwt {
        /// What `iss` of a token has to be, letter for letter. It is needed.
        issuer: PlainText = "", Live;
        /// What `aud` of a token has to be, or to have in its list. It is needed.
        audience: PlainText = "", Live;
        /// A file with the public keys that sign tokens, as a JWK Set or as PEM. This or `jwks_url`
        /// is needed.
        keys_file: SecretFile = "", Live;
        /// The URL of these keys, as a JWK Set. They are fetched every 10 minutes, and at most once
        /// a minute for a token with an unknown key.
        jwks_url: JwksUrl = "", Live;
        /// The certificate authorities that are trusted at `jwks_url` (PEM), instead of the public
        /// ones.
        ca: PemPath = "", Live;
        /// The cookie in which browsers send their token. If it is empty, only
        /// `Authorization: Bearer` counts. No backend gets this cookie, whatever `auth.mode` is,
        /// and none sets it.
        cookie: CookieName = "", Live;
        /// The claim that holds the name of the user.
        user_claim: Claim = "sub", Live;
        /// The claim that holds what the user may do, a text or a list: groups of
        /// `auth.group_roles`, or, if that is empty, `viewer`, `artist` or `operator`. A token
        /// without it has `auth.default_role`; one in which nothing is known does not let in.
        role_claim: PlainText = "", Live;
    }
    /// How long clients and their bindings are kept.
    ["affinity"] RawAffinity affinity {
        /// A client is forgotten when it had no socket, no request and no work for this long.
        lease: Span { min: S, max: 30 * DAY } = "10m", Live;
        /// How long an upload keeps its backend for the prompt that uses it.
        reservation: Span { min: S, max: 30 * DAY } = "10m", Live;
        /// How long the socket to a backend stays open after the client's last socket has closed.
        link_linger: Span { min: 0, max: H } = "30s", Live;
        /// How many clients are known at the same time. A new client replaces the one that was idle
        /// longest. If all have a socket, work or a reservation, the new one is refused.
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
        /// an idle backend is always preferred to a busy one.
        input_bytes: Size { min: MIB, max: 64 * GIB } = "256MiB", Live;
        /// A backend whose node packs the client has used is preferred, even if its queue is this
        /// many prompts longer.
        session_margin: Count { min: 0, max: 1_000 } = "1", Live;
    }
    /// Health of the backends, and connections to them.
    ["fleet"] RawFleet fleet {
        /// How often a silent backend is probed.
        probe_interval: Span { min: 100 * MS, max: H } = "5s", Live;
        /// How long a backend may take to answer a probe.
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
        /// How often a new connection to a backend is tried while new connections work. While they
        /// fail, one is tried at each `probe_interval`.
        dial_interval: Span { min: 100 * MS, max: H } = "30s", Live;
        /// How long an unused connection to a backend is kept. ComfyUI closes it after 60 seconds
        /// or more.
        pool_idle: Span { min: 0, max: 59 * S } = "30s", Live;
        /// How many unused connections are kept for each backend. The limit applies to simple reads
        /// and to all other requests separately.
        max_idle_connections: Count { min: 0, max: 10_000 } = "64", Live;
        /// How long one backend may delay a list that is made from several backends. After that it
        /// is left out, and the answer names it.
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
        /// Whether the gateway is ready while there is no backend at all. This is for fleets whose
        /// backends start only when they are needed. A discovered backend that has not served yet
        /// does not count.
        ready_when_empty: Switch = "false", Live;
    }
    /// Submissions, and what is remembered of them.
    ["prompts"] RawPrompts prompts {
        /// The largest submission. A larger one is answered with 413.
        max_body: Size { min: KIB, max: 4 * GIB } = "100MiB", Live;
        /// How many bytes of bodies all requests together may hold in memory. Further requests are
        /// answered with 503.
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
        /// How long a submission waits for its outcome. Then the client is told that the outcome is
        /// unknown.
        answer_limit: Span { min: S, max: H } = "45s", Live;
        /// How long a submission waits for the client's socket to its backend.
        link_timeout: Span { min: 100 * MS, max: 10 * 60 * S } = "5s", Live;
        /// How many pending prompts a client may have. More are refused.
        max_pending_per_client: Count { min: 1, max: 1_000_000 } = "1000", Live;
        /// With `queue.depth`: a prompt is not sent again when so many backends have died that had
        /// it, also if it had not begun: it may be what kills them. With 1 it is never sent again.
        attempts: Count { min: 1, max: 100 } = "2", Live;
    }
    /// Names of files, and copies of them.
    ["files"] RawFiles files {
        /// When the name of a file contains its backend: with `ambiguous` if another backend has a
        /// file of the same name, with `never` not at all.
        tag: Tags = "ambiguous", Restart;
        /// How many names of files are remembered. One takes about 420 bytes.
        ledger: Count { min: 1, max: 100_000_000 } = "1000000", Restart;
        /// How long they are remembered.
        ledger_age: Span { min: 60 * S, max: 3650 * DAY } = "7d", Restart;
        /// Lets users have outputs and previews that nobody is known to have made: those from
        /// before users were required, and those that no event, history or job has named. `false`
        /// hides them from all users.
        share_unknown: Switch = "true", Restart;
        /// How many assets are remembered, with their owners, for as long as names of files. One
        /// takes about 600 bytes.
        assets: Count { min: 1, max: 100_000_000 } = "200000", Restart;
        /// The largest file that is copied to another backend for a prompt that uses it.
        copy_bytes: Size { min: KIB, max: 64 * GIB } = "1GiB", Live;
        /// How long such a copy may make no progress, and how long its answer may take.
        copy_timeout: Span { min: S, max: H } = "30s", Live;
        /// How many files are copied for one prompt. A prompt that needs more is refused.
        copies_per_prompt: Count { min: 0, max: 10_000 } = "64", Live;
    }
    /// WebSockets of both sides.
    ["sockets"] RawSockets sockets {
        /// How often the other end of a socket is pinged.
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
}
