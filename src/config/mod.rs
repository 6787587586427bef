//! The configuration: what operators can set, and the checked form that the rest of the program
//! sees.
//!
//! There are two types on purpose. `RawConfig` mirrors what is written, key by key, and accepts
//! anything that parses. [`Config`] holds only values that make sense together. Only `check`
//! converts one to the other. It reports *every* problem, so that an operator can correct a file in
//! one round. No other module mentions `RawConfig`.
//!
//! The table of all keys is [`keys::KEYS`]. To add one, add a line there, a field here, a line in
//! `check`, one in `config/mooring.toml` and one in `docs/configuration.md`; the compiler or a test
//! reports what is missing.

// Before the modules that use its macros.
#[macro_use]
mod sections;

mod auth;
mod base_path;
mod changes;
mod check;
mod choices;
mod cidr;
mod discovery;
mod file;
mod find;
mod folder;
mod headers;
mod hosts;
mod jwt;
mod key;
pub mod keys;
mod kinds;
mod labels;
mod layers;
mod limits;
mod listed;
mod listen;
mod lists;
mod live;
mod loading;
mod log_to;
mod nameless;
mod names;
mod one;
mod place;
mod problems;
mod proxy;
mod queue;
mod raw;
mod replicas;
mod rules;
mod schema;
mod seal_keys;
mod secret;
mod show;
mod shown;
mod suggest;
mod template;
mod tls;
mod units;
pub mod url;
mod user;
mod values;
mod written;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

pub use base_path::{BasePath, PlaceBelow};
pub use changes::{Change, changes};
pub use cidr::{BadCidr, Cidr};
pub use discovery::{DiscoveryConfig, KubernetesPort, KubernetesRef, PlaceOfBackends};
pub use find::find;
pub use headers::BackendHeaders;
pub use hosts::{BadHostName, HostName};
pub use jwt::{JwtConfig, KeysCa, KeysUrl};
pub use key::Applied;
pub use kinds::Shape;
pub use labels::labels;
pub use limits::LimitsConfig;
pub use listed::ListedBy;
pub use live::LiveConfig;
pub use loading::{Checked, Doors, Sources, check, doors, effective, files, load, users_file};
pub use log_to::{AccessFormat, LogTo};
pub use nameless::{Nameless, Place};
pub use one::{BackendSecrets, SecretFiles, kept_backend, one_backend, unread_backend};
pub use problems::{Origin, Problem, Problems};
pub use queue::{QueueConfig, QueueVerdict};
pub use replicas::{ReplicasConfig, StoreTls, StoreUrl};
pub use schema::schema;
pub use seal_keys::SealKey;
pub use show::Effective;
pub use template::template;
pub use tls::{BackendTls, ListenerTls, PemFile};
pub use units::{ShowDuration, ShowSize, duration};
pub use values::Secret;

use crate::auth::{Role, UserName, UserTable};
use crate::comfy::deny::DenyPattern;

/// The checked configuration. Durations and sizes are within the limits that
/// `docs/configuration.md` gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub server: ServerConfig,
    pub server_tls: ListenerTls,
    pub admin: AdminConfig,
    pub admin_tls: ListenerTls,
    pub auth: AuthConfig,
    pub affinity: AffinityConfig,
    pub fleet: FleetConfig,
    pub prompts: PromptsConfig,
    pub files: FilesConfig,
    pub sockets: SocketsConfig,
    pub isolation: IsolationConfig,
    pub state: StateConfig,
    pub replicas: ReplicasConfig,
    pub log: LogConfig,
    pub queue: QueueConfig,
    pub limits: LimitsConfig,
    /// In the order of names, which is that of [`crate::routing::ids::BackendId`]. Invariant: at
    /// most [`Config::BACKENDS_MAX`], and no name and no authority twice. There is at least one,
    /// unless there is a discovery.
    pub backends: Vec<BackendConfig>,
    /// In the order of names.
    pub discovery: Vec<DiscoveryConfig>,
}

/// `[server]`: the listener for clients.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// Threads; 0 means one for each core.
    pub workers: usize,
    pub max_connections: usize,
    pub header_timeout: Duration,
    /// Bytes, at least 8192: the least that hyper can work with.
    pub max_header_bytes: u64,
    pub max_headers: usize,
    pub idle_timeout: Duration,
    pub body_timeout: Duration,
    pub answer_timeout: Duration,
    /// As browsers write them in `Origin`: lower case, no default port.
    pub allowed_origins: Vec<String>,
    pub trusted_proxies: Vec<Cidr>,
    /// Names of the gateway besides those of this machine alone.
    pub hosts: Vec<HostName>,
    /// Paths that are refused to everybody.
    pub deny: Vec<DenyPattern>,
    /// Node classes that no graph may have.
    pub deny_nodes: Vec<String>,
    pub drain_timeout: Duration,
    /// Invariant: at most `drain_timeout`.
    pub drain_delay: Duration,
    /// Comes before `drain_delay`; 0 waits for no prompt.
    pub drain_pending: Duration,
    pub allow_manager: bool,
    pub allow_logs: bool,
    pub allow_free: bool,
    pub allow_asset_scans: bool,
    /// The name of a backend that exists or may be discovered, or empty: see
    /// [`crate::routing::home`].
    pub home: String,
    /// The prefix of all paths of clients.
    pub base_path: BasePath,
    pub page_script: OnOff,
    /// It has no effect without `page_script`.
    pub page_extension: OnOff,
    pub passthrough: OnOff,
    /// Bytes; 0 is off.
    pub stale_cache: u64,
    /// Bytes; 0 is off.
    pub asset_cache: u64,
}

impl ServerConfig {
    /// True for a proxy whose headers about its clients are believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|proxies| proxies.contains(peer))
    }
}

/// Whether an optional feature is on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnOff {
    On,
    Off,
}

/// `[admin]`: the listener for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    /// `None` means off. Invariant: it is on loopback, or there is a token.
    pub listen: Option<SocketAddr>,
    /// From `token` or `token_file`.
    pub token: Option<Secret>,
    /// From `read_token` or `read_token_file`: who sends it may only look. Invariant: it is not
    /// `token`. It has no effect without one.
    pub read_token: Option<Secret>,
    /// The folder for secrets of backends that are added at run time. `None` allows no secrets.
    pub secrets_dir: Option<PathBuf>,
    /// Metrics are for everybody who can connect.
    pub open_metrics: bool,
}

/// `[auth]`: who is let in at the listener for clients.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthConfig {
    /// Invariant: it was written explicitly, or `server.listen` is on loopback.
    pub mode: AuthMode,
    /// Invariant: set with [`AuthMode::Keys`].
    pub users_file: Option<PathBuf>,
    /// The users when the configuration was read; empty without [`AuthMode::Keys`].
    pub users: Arc<UserTable>,
    pub session_lifetime: Duration,
    pub session_key_file: Option<PathBuf>,
    /// What stands in that file; `None` without it, or without [`AuthMode::Keys`].
    pub session_key: Option<Secret>,
    /// Not empty with [`AuthMode::Header`]; the effective value of these four is
    /// [`Self::proxy_rules`].
    pub header: Option<HeaderName>,
    pub groups_header: Option<HeaderName>,
    pub group_roles: Vec<(String, Role)>,
    /// `None` lets nobody in who is in none of these groups.
    pub default_role: Option<Role>,
    /// Servers with several users are told who sends a request.
    pub comfy_user: OnOff,
    /// Invariant: one of `users` with [`AuthMode::Keys`]. The effective value is [`Self::adopter`].
    pub adopt: Option<UserName>,
    pub jwt: Box<JwtConfig>,
}

impl AuthConfig {
    /// These users, each with a key of his own, and the rest as it is if nobody writes anything.
    #[must_use]
    pub fn keys(users: UserTable) -> Self {
        Self {
            mode: AuthMode::Keys,
            users_file: None,
            users: Arc::new(users),
            session_lifetime: Duration::from_hours(12),
            session_key_file: None,
            session_key: None,
            header: None,
            groups_header: None,
            group_roles: Vec::new(),
            default_role: Some(Role::Artist),
            comfy_user: OnOff::Off,
            adopt: None,
            jwt: Box::default(),
        }
    }
}

/// How callers at the listener for clients prove who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthMode {
    /// Everybody is let in who reaches the listener.
    Off,
    /// Only users are let in, each with their own key or password.
    Keys,
    /// Who is let in is said by a proxy of `server.trusted_proxies`, in `auth.header`.
    Header,
    /// A token that is signed says who is let in.
    Jwt,
}

/// `[affinity]`: how long clients and their bindings are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct AffinityConfig {
    pub lease: Duration,
    pub reservation: Duration,
    /// Invariant: at most `lease`.
    pub link_linger: Duration,
    pub max_clients: usize,
    /// Prompts.
    pub shared_ids: Vec<String>,
    pub input_margin: usize,
    /// Prompts.
    pub tunnel_margin: usize,
    /// Bytes, at least one.
    pub input_bytes: u64,
    pub session_margin: usize,
}

/// `[fleet]`: health of the backends and connections to them.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetConfig {
    pub probe_interval: Duration,
    pub probe_timeout: Duration,
    pub rise: NonZeroU32,
    pub fall: NonZeroU32,
    pub patience: Duration,
    pub connect_timeout: Duration,
    pub dial_interval: Duration,
    pub pool_idle: Duration,
    pub max_idle_connections: usize,
    pub list_timeout: Duration,
    pub suspect_after: Duration,
    pub start_limit: Duration,
    /// Zero means never.
    pub silent_limit: Duration,
    pub grace: Duration,
    pub ready_when_empty: bool,
}

/// `[prompts]`: submissions, and what is remembered of them.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptsConfig {
    /// Bytes.
    pub max_body: u64,
    /// Bytes. Invariant: at least `max_body`.
    pub max_bodies_total: u64,
    pub ledger_prompts: usize,
    pub ledger_age: Duration,
    pub silent_after: Duration,
    pub history_wait: Duration,
    /// Bytes; 0 is off.
    pub history_cache: u64,
    pub answer_limit: Duration,
    pub link_timeout: Duration,
    pub max_pending_per_client: usize,
    pub attempts: usize,
}

/// `[files]`: names of files, and copies of them.
#[derive(Clone, Debug, PartialEq)]
pub struct FilesConfig {
    pub tag: FileTags,
    pub ledger: usize,
    pub ledger_age: Duration,
    pub share_unknown: bool,
    pub assets: usize,
    /// Bytes.
    pub copy_bytes: u64,
    pub copy_timeout: Duration,
    pub copies_per_prompt: usize,
}

/// When the name of a file carries its backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileTags {
    /// If the plain name belongs to another backend's file.
    Ambiguous,
    Never,
}

/// `[sockets]`: WebSockets of both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketsConfig {
    pub ping_interval: Duration,
    /// Bytes of one message.
    pub max_from_client: u64,
    /// Bytes of one message.
    pub max_from_backend: u64,
    /// Bytes of previews and progress for one browser socket.
    pub queue_bytes: u64,
    /// Bytes of starts, outputs and ends for one browser socket. Invariant: at least `queue_bytes`.
    pub queue_critical: u64,
    /// Bytes for all browser sockets.
    pub queue_bytes_total: u64,
    pub max_per_client: usize,
    pub replay_window: Duration,
    /// Bytes for one client.
    pub log_bytes: u64,
    /// Bytes for all clients. Invariant: at least `log_bytes`.
    pub log_bytes_total: u64,
    pub alive_after: Duration,
    pub output_classes: Vec<String>,
    pub close_wait: Duration,
    pub max_tunnels: usize,
    pub max_tunnels_per_client: usize,
}

/// `[state]`: what survives a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct StateConfig {
    pub dir: StateDir,
    /// `None`: depends on where the state is kept; see [`Config::on_journal_error`].
    pub on_error: Option<OnJournalError>,
    /// Bytes of copies of user data in that folder; 0 keeps none. The effective value is
    /// [`Config::copies_on_disk`].
    pub copies: u64,
    pub seal_key_file: Option<PathBuf>,
    /// From that file. If it is empty, bodies are written as they are.
    pub seal_keys: Vec<SealKey>,
    pub on_unopened: OnUnopened,
}

/// The folder for what survives a restart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StateDir {
    /// Named by the operator, or by systemd. If it cannot be used, the gateway does not start.
    Written(PathBuf),
    /// Named by nobody. If it cannot be used, everything is kept in memory, and a log line says so.
    Default(PathBuf),
    /// There is no default place. The same as [`Self::Nowhere`], but nobody asked for it.
    Unset,
    /// The operator asked for none.
    Nowhere,
}

impl StateDir {
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Written(path) | Self::Default(path) => Some(path),
            Self::Unset | Self::Nowhere => None,
        }
    }
}

/// What happens to new prompts while the journal cannot be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnJournalError {
    /// They are accepted; a crash would lose them.
    Serve,
    /// They are refused.
    Refuse,
}

/// What a start does with bodies that no key opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnUnopened {
    /// It does not start.
    Refuse,
    /// Their prompts are lost.
    Lose,
}

/// `[isolation]`: what clients see of one another.
#[derive(Clone, Debug, PartialEq)]
pub struct IsolationConfig {
    pub status: StatusCounts,
    /// `None`: depends on where the front listens; see [`Config::nameless`].
    pub nameless: Option<Nameless>,
}

/// Whose prompts are counted in `queue_remaining`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusCounts {
    Own,
    Backend,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    pub format: LogFormat,
    /// Directives for `EnvFilter`.
    pub level: String,
    pub audit: LogTo,
    pub access: LogTo,
    pub access_format: AccessFormat,
}

impl LogConfig {
    /// The log alone, for people.
    #[must_use]
    pub fn text(level: &str) -> Self {
        Self {
            format: LogFormat::Text,
            level: level.to_owned(),
            audit: LogTo::Off,
            access: LogTo::Off,
            access_format: AccessFormat::Json,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `[backends.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// 1 to 63 letters, digits or `.`, `_`, `-`, `:`.
    pub name: String,
    /// A name in lower case or an IP address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// `host:port` as it stands in `Host`: IPv6 in brackets.
    pub authority: String,
    pub weight: NonZeroU32,
    /// `None` means no limit.
    pub max_pending: Option<NonZeroU32>,
    /// The operator's labels for it.
    pub labels: Vec<String>,
    /// From `headers` and `headers_file`.
    pub headers: BackendHeaders,
    /// `None` is plain HTTP.
    pub tls: Option<BackendTls>,
    pub listed_by: ListedBy,
    /// Which server this is, if it was discovered and its discovery said so: another server may get
    /// the same address later.
    pub identity: Option<Arc<str>>,
}

impl Config {
    /// The key of this gateway's listener that `backend` points to, if it points to one.
    #[must_use]
    pub fn is_itself(&self, backend: &BackendConfig) -> Option<&'static str> {
        let admin = self.admin.listen.filter(|listen| rules::is_at(backend, *listen));
        match rules::is_at(backend, self.server.listen) {
            true => Some("server.listen"),
            false => admin.map(|_| "admin.listen"),
        }
    }

    /// What happens to new prompts while the journal cannot be written. In a store the journal can
    /// be cut off while another process writes it: then nothing is to be sent without it.
    #[must_use]
    pub fn on_journal_error(&self) -> OnJournalError {
        self.state.on_error.unwrap_or(match self.replicas.store {
            Some(_) => OnJournalError::Refuse,
            None => OnJournalError::Serve,
        })
    }

    /// The folder of copies of user data; `None` without a state directory.
    #[must_use]
    pub fn copies_folder(&self) -> Option<PathBuf> {
        self.state.dir.path().map(|dir| dir.join("copies"))
    }

    /// Bytes of copies of user data in the state directory; 0 keeps none. They are made from the
    /// copies in memory, so without those there are none.
    #[must_use]
    pub fn copies_on_disk(&self) -> u64 {
        if self.server.stale_cache == 0 { 0 } else { self.state.copies }
    }

    /// The most backends that may be wanted.
    pub const BACKENDS_MAX: usize = 1_000;

    /// The most backends including those that drain: a whole fleet may replace another.
    pub const MEMBERS_MAX: usize = 2 * Self::BACKENDS_MAX;

    /// The defaults with these backends (name and URL).
    ///
    /// # Errors
    /// What is wrong with a name or a URL, or that there are none.
    pub fn for_backends(backends: &[(&str, &str)]) -> Result<Self, Problems> {
        let flags = backends
            .iter()
            .map(|(name, url)| (format!("backends.{name}.url"), (*url).to_owned()))
            .collect();
        load(&Sources { flags, ..Sources::default() })
    }
}
