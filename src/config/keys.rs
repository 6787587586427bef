//! Which keys are there? The one table of them: name, kind and limits, default, and why.
//!
//! The types of the sections as written are made from it, and so is [`KEYS`], which the tests hold
//! against `config/mooring.toml` and `docs/configuration.md`. A default is written as it would
//! stand in the environment.
//!
//! The last column says what a reload does with a new value: see [`Applied`].

use super::choices::{Counts, Format, NamelessMay, OnError, Tags, Toggle};
use super::headers::Headers;
use super::key::Applied;
pub use super::key::Key;
use super::kinds::{BackendName, Count, FilePath, Kind, Limit, Positive, Size, Span, Switch};
use super::listen::{Listen, ListenOrOff};
use super::lists::{Classes, SharedIds};
use super::raw::{RawNamed, Section, Setting};
use super::secret::SecretFile;
use super::values::{BackendUrl, LogLevel, Networks, Origins, Token};

/// The section of named tables.
pub(super) const BACKENDS: &str = "backends";

const MS: u64 = 1;
const S: u64 = 1_000;
const H: u64 = 3_600 * S;
const DAY: u64 = 24 * H;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Whether two configurations have another value of one key.
macro_rules! differs {
    // Backends are compared as a whole.
    (backend $name:ident $applied:ident) => {
        |_, _| false
    };
    ($section:ident $name:ident ByValue) => {
        |_, _| false
    };
    ($section:ident $name:ident $applied:ident) => {
        |old, new| old.$section.$name != new.$section.$name
    };
}

macro_rules! sections {
    ($(
        #[doc = $about:literal]
        [$section:literal] $raw:ident $with:ident {
            $(
                $(#[doc = $why:literal])+
                $name:ident: $kind:ident $({ $($limit:ident: $value:expr),+ })? = $default:literal,
                    $applied:ident;
            )+
        }
    )+) => {
        /// Every section, and what it is about, in the order of the documentation.
        pub const SECTIONS: &[(&str, &str)] = &[$(($section, $about)),+];

        /// Every key there is, in the order of the documentation.
        pub const KEYS: &[Key] = &[$($(
            Key {
                section: $section,
                name: stringify!($name),
                default: $default,
                shape: <$kind as Kind>::SHAPE,
                applied: Applied::$applied,
                differs: differs!($with $name $applied),
                why: concat!($($why),+),
                is_secret: <$kind as Kind>::IS_SECRET,
                schema: || Kind::schema(&$kind $({ $($limit: $value),+ })?),
                takes: || Kind::takes(&$kind $({ $($limit: $value),+ })?),
            },
        )+)+];

        $(
            #[derive(Debug)]
            pub(super) struct $raw {
                $($(#[doc = $why])+ pub(super) $name: Setting<$kind>,)+
            }

            /// Takes its keys out of what was written; `prefix` begins their full names.
            pub(super) fn $with(prefix: &str, section: &mut Section) -> $raw {
                $raw {
                    $($name: Setting {
                        key: format!("{prefix}.{}", stringify!($name)),
                        kind: $kind $({ $($limit: $value),+ })?,
                        default: $default,
                        written: section.remove(&format!("{prefix}.{}", stringify!($name))),
                    },)+
                }
            }
        )+
    };
}

/// The configuration as written: every key optional, none checked.
#[derive(Debug)]
pub(super) struct RawConfig {
    pub(super) server: RawServer,
    pub(super) admin: RawAdmin,
    pub(super) affinity: RawAffinity,
    pub(super) fleet: RawFleet,
    pub(super) prompts: RawPrompts,
    pub(super) files: RawFiles,
    pub(super) sockets: RawSockets,
    pub(super) isolation: RawIsolation,
    pub(super) state: RawState,
    pub(super) log: RawLog,
    /// In the order of names.
    pub(super) backends: Vec<RawNamed>,
}

sections! {
    /// The listener for clients.
    ["server"] RawServer server {
        /// Where browsers and scripts connect.
        listen: Listen = "127.0.0.1:8180", Live;
        /// Threads that serve; 0 is one for each core.
        workers: Count { min: 0, max: 1024 } = "0", Restart;
        /// Connections of clients at one time; more are closed at once.
        max_connections: Count { min: 1, max: 1_000_000 } = "10000", Live;
        /// From the first byte of a request to the end of its headers.
        header_timeout: Span { min: 100 * MS, max: H } = "10s", Live;
        /// Request line and headers together; the server behind us takes 8 KiB a line.
        max_header_bytes: Size { min: 8 * KIB, max: MIB } = "16KiB", Live;
        /// Headers of one request; the limit of the server behind us.
        max_headers: Count { min: 16, max: 1024 } = "128", Live;
        /// How long a connection may be kept alive without a request; longer than proxies in front
        /// of us keep theirs, so that none sends a request on one that we just close.
        idle_timeout: Span { min: S, max: H } = "180s", Live;
        /// How long no byte of a body may move before it is given up.
        body_timeout: Span { min: S, max: H } = "60s", Live;
        /// How long a backend may take until its answer begins, from the last byte that was sent to
        /// it.
        answer_timeout: Span { min: S, max: DAY } = "300s", Live;
        /// Web pages of other origins that may call us; they get CORS answers. Also those of
        /// applications (`app://obsidian.md`), and `null`.
        allowed_origins: Origins = "", Live;
        /// Proxies in front of us whose `X-Forwarded-*` headers are believed.
        trusted_proxies: Networks = "", Live;
        /// How long a stop takes at most, from the signal until what is left is closed.
        drain_timeout: Span { min: 0, max: DAY } = "30s", Live;
        /// How much of that the listeners stay open, not ready, until nobody sends new clients.
        drain_delay: Span { min: 0, max: H } = "5s", Live;
        /// As a sidecar: how long a stop waits before that, still serving, for pending prompts.
        drain_pending: Span { min: 0, max: DAY } = "0s", Live;
        /// Lets clients use routes that install, update and restart (ComfyUI-Manager's, others').
        allow_manager: Switch = "false", Live;
        /// Lets clients read the log of their own backend, and where its folders are (`/internal`).
        allow_logs: Switch = "false", Live;
        /// Lets clients unload their backend's models (`/free`); else it is 200 and nothing done.
        allow_free: Switch = "false", Live;
        /// Lets clients start and stop scans of a server's assets, and prune them.
        allow_asset_scans: Switch = "false", Live;
        /// The backend that keeps settings, workflows and the page; empty is the first by name.
        home: BackendName = "", Live;
        /// Puts a script first into the page, so that each of its tabs is a client of its own.
        page_script: Toggle = "on", Live;
        /// Reads that are only passed on are passed on as bytes; `off` is the slower way for all.
        passthrough: Toggle = "on", Live;
        /// The last good copies of the home backend's page and user data; 0 keeps none.
        stale_cache: Size { min: 0, max: 64 * GIB } = "64MiB", Live;
    }
    /// The listener for operators.
    ["admin"] RawAdmin admin {
        /// Where operators, metrics and health checks connect; `off` closes that door.
        listen: ListenOrOff = "127.0.0.1:8181", Live;
        /// Asked for as `Authorization: Bearer`; needed where others than this host can connect.
        token: Token = "", Live;
        /// A file that holds the token, so that it stands in no configuration.
        token_file: SecretFile = "", ByValue;
        /// The folder of the secrets of backends that are added at run time; empty allows none.
        secrets_dir: FilePath = "", Live;
    }
    /// How long clients and their bindings are kept.
    ["affinity"] RawAffinity affinity {
        /// A client without socket or contact for this long is forgotten.
        lease: Span { min: S, max: 30 * DAY } = "10m", Live;
        /// How long an upload keeps its backend for the prompt that uses it.
        reservation: Span { min: S, max: 30 * DAY } = "10m", Live;
        /// How long the socket to a backend stays after the client's last one has gone.
        link_linger: Span { min: 0, max: H } = "30s", Live;
        /// Clients known at one time; new ones are refused beyond it.
        max_clients: Count { min: 1, max: 10_000_000 } = "100000", Live;
        /// clientIds that many use at a time: each address that uses one is a client of its own.
        shared_ids: SharedIds = "", Live;
        /// How many prompts longer the queue of a backend may be at most that has a prompt's files
        /// already.
        input_margin: Count { min: 0, max: 1_000 } = "1", Live;
        /// The same for the backend to which a client has sockets of node packs open.
        tunnel_margin: Count { min: 0, max: 1_000 } = "1", Live;
        /// So many bytes that would have to be copied weigh as much as one prompt that waits: for
        /// less, an idle backend is always taken before a busy one.
        input_bytes: Size { min: MIB, max: 64 * GIB } = "256MiB", Live;
        /// How many prompts longer the queue of a backend may be whose node packs a client used.
        session_margin: Count { min: 0, max: 1_000 } = "1", Live;
    }
    /// Health of the backends, and connections to them.
    ["fleet"] RawFleet fleet {
        /// How often a backend that says nothing is asked whether it is there.
        probe_interval: Span { min: 100 * MS, max: H } = "5s", Live;
        /// How long it may take to answer that.
        probe_timeout: Span { min: 100 * MS, max: H } = "10s", Live;
        /// Good probes in a row that make a backend up.
        rise: Positive { max: 100 } = "1", Live;
        /// Bad probes in a row that make a backend down.
        fall: Positive { max: 100 } = "2", Live;
        /// How much longer a backend may be silent while it loads a model.
        patience: Span { min: 0, max: H } = "10s", Live;
        /// How long opening a connection to a backend may take; above the second after which a
        /// lost first segment is sent again (RFC 6298).
        connect_timeout: Span { min: 10 * MS, max: 60 * S } = "2s", Live;
        /// How often a new connection to a backend is tried while its sockets are open; while it
        /// takes none, at each `probe_interval`.
        dial_interval: Span { min: 100 * MS, max: H } = "30s", Live;
        /// How long an unused connection is kept; below the 60s or more after which backends close.
        pool_idle: Span { min: 0, max: 59 * S } = "30s", Live;
        /// Unused connections kept for each backend: so many for reads that are only passed on,
        /// and so many for all else.
        max_idle_connections: Count { min: 0, max: 10_000 } = "64", Live;
        /// How long one backend may delay a list of several; after that it is left out and named.
        list_timeout: Span { min: 100 * MS, max: 5 * 60 * S } = "3s", Live;
        /// Silence of a running prompt after which its backend is suspect: it gets new work only
        /// while no other has room.
        suspect_after: Span { min: S, max: DAY } = "120s", Live;
        /// How long after the start of a prompt its backend may take to say what of it is cached;
        /// one that takes longer is wedged, and takes no work.
        start_limit: Span { min: S, max: DAY } = "5m", Live;
        /// Silence of a running prompt after which its backend is wedged; 0 is never, because a
        /// node may wait for an API, a video or a download.
        silent_limit: Span { min: 0, max: 7 * DAY } = "0s", Live;
        /// How long a backend may be away or wedged until its prompts are presumed lost.
        grace: Span { min: S, max: 7 * DAY } = "60s", Live;
    }
    /// Submissions, and what is remembered of them.
    ["prompts"] RawPrompts prompts {
        /// The largest submission; more is answered with 413.
        max_body: Size { min: KIB, max: 4 * GIB } = "100MiB", Live;
        /// Bodies held in memory over all requests; more is answered with 503.
        max_bodies_total: Size { min: KIB, max: 1024 * GIB } = "512MiB", Live;
        /// Prompts remembered after their end, so that their results are found.
        ledger_prompts: Count { min: 1, max: 100_000_000 } = "100000", Restart;
        /// How long they are remembered.
        ledger_age: Span { min: 60 * S, max: 3650 * DAY } = "7d", Restart;
        /// A pending prompt without an event for this long is asked about.
        silent_after: Span { min: S, max: DAY } = "30s", Live;
        /// How long a question for the history waits for the entry of a prompt that has just ended.
        history_wait: Span { min: 0, max: 60 * S } = "1s", Live;
        /// Entries of ended prompts kept in memory for lists and histories; 0 keeps none.
        history_cache: Size { min: 0, max: 64 * GIB } = "256MiB", Live;
        /// How long a submission waits for its outcome before it is told that it is unknown.
        answer_limit: Span { min: S, max: H } = "45s", Live;
        /// How long a submission waits for the client's socket to its backend.
        link_timeout: Span { min: 100 * MS, max: 10 * 60 * S } = "5s", Live;
        /// Pending prompts of one client; more are refused.
        max_pending_per_client: Count { min: 1, max: 1_000_000 } = "1000", Live;
    }
    /// Names of files, and copies of them.
    ["files"] RawFiles files {
        /// When names carry their backend: where another backend's file has the plain name, or
        /// `never`.
        tag: Tags = "ambiguous", Restart;
        /// Names of files remembered; one takes about 420 bytes.
        ledger: Count { min: 1, max: 100_000_000 } = "1000000", Restart;
        /// How long they are remembered.
        ledger_age: Span { min: 60 * S, max: 3650 * DAY } = "7d", Restart;
        /// Assets remembered, as long as names are, with whose they are; one takes about 600 bytes.
        assets: Count { min: 1, max: 100_000_000 } = "200000", Restart;
        /// The largest file that is copied to another backend for a prompt that uses it.
        copy_bytes: Size { min: KIB, max: 64 * GIB } = "1GiB", Live;
        /// How long no byte of such a copy may move, and how long its answer may take.
        copy_timeout: Span { min: S, max: H } = "30s", Live;
        /// Files copied for one prompt; more refuse it.
        copies_per_prompt: Count { min: 0, max: 10_000 } = "64", Live;
    }
    /// WebSockets of both sides.
    ["sockets"] RawSockets sockets {
        /// How often each end of a socket is asked whether it is there.
        ping_interval: Span { min: S, max: H } = "20s", Live;
        /// The largest message from a client; more closes its socket with 1009.
        max_from_client: Size { min: KIB, max: GIB } = "4MiB", Live;
        /// The largest message from a backend.
        max_from_backend: Size { min: MIB, max: GIB } = "64MiB", Live;
        /// Previews and progress queued for one browser socket; beyond it the oldest go.
        queue_bytes: Size { min: 64 * KIB, max: GIB } = "2MiB", Live;
        /// Starts, outputs and ends queued for one browser socket; beyond it the socket is closed.
        queue_critical: Size { min: 64 * KIB, max: 4 * GIB } = "64MiB", Live;
        /// The same for all browser sockets together; beyond it each may keep 1 MiB.
        queue_bytes_total: Size { min: MIB, max: 1024 * GIB } = "512MiB", Live;
        /// Browser sockets of one client at one time; more are refused.
        max_per_client: Count { min: 1, max: 1_000_000 } = "16", Live;
        /// Prompts that ended this long before a socket opens are told to it.
        replay_window: Span { min: 0, max: DAY } = "60s", Live;
        /// Events kept for one client to be sent again.
        log_bytes: Size { min: 64 * KIB, max: 4 * GIB } = "32MiB", Live;
        /// Events kept for all clients together; beyond it the prompts that ended first go.
        log_bytes_total: Size { min: MIB, max: 1024 * GIB } = "256MiB", Live;
        /// A socket that got no text for this long is told that we are alive.
        alive_after: Span { min: S, max: H } = "8s", Live;
        /// Node classes whose pictures over the socket are results and not previews.
        output_classes: Classes = "SaveImageWebsocket,ETN_SendImageWebSocket", Live;
        /// How long the end of an old socket to a backend is awaited before a new one is opened.
        close_wait: Span { min: 100 * MS, max: 10 * 60 * S } = "10s", Live;
        /// Sockets of node packs that are passed through at one time; more are refused.
        max_tunnels: Count { min: 0, max: 1_000_000 } = "1000", Live;
        /// The same for one client.
        max_tunnels_per_client: Count { min: 0, max: 1_000_000 } = "16", Live;
    }
    /// What clients see of one another.
    ["isolation"] RawIsolation isolation {
        /// Whose prompts `queue_remaining` counts: the client's own, or all of its backend.
        status: Counts = "own", Live;
        /// What somebody may do who does not say who he is: `by_id` is to act on the prompts whose
        /// ids he names, `none` is nothing, `all` is everything to everybody's. `auto` is `by_id`
        /// for who comes from this machine while `server.listen` is on loopback, and `none` for
        /// all others, those that a proxy speaks for included: leaving the name out must not be
        /// the stronger role.
        nameless: NamelessMay = "auto", Live;
    }
    /// What survives a restart.
    ["state"] RawState state {
        /// Where bindings and prompts are kept over a restart; `none` is nowhere. Empty is the
        /// unit's `StateDirectory` under systemd, else `mooring/PORT` in the user's state folder.
        dir: FilePath = "", Restart;
        /// What happens while the journal cannot be written: `serve` goes on, `refuse` takes no
        /// prompts.
        on_error: OnError = "serve", Live;
    }
    /// The log, on standard error.
    ["log"] RawLog log {
        /// Lines for people, or one JSON object a line.
        format: Format = "text", Restart;
        /// What is logged; `RUST_LOG` goes over it.
        level: LogLevel = "info", Live;
    }
    /// The ComfyUI servers, one table for each.
    ["backends"] RawBackend backend {
        /// Where the ComfyUI server listens. Needed.
        url: BackendUrl = "", Live;
        /// Its share of the work compared with the others.
        weight: Positive { max: 1000 } = "1", Live;
        /// Prompts waiting and running there beyond which no more are placed; 0 is no limit.
        max_pending: Limit { max: 1_000_000 } = "0", Live;
        /// Headers that go with everything that is said to it, in place of a client's of the same
        /// name: `"Authorization: Bearer ..."`. Never shown.
        headers: Headers = "", Live;
        /// A file with more of them, one in each line, so that they stand in no configuration.
        headers_file: SecretFile = "", ByValue;
    }
}
