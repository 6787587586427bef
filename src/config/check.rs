//! Checks the configuration as written and converts it to the form that is used.
//!
//! Each section is destructured without `..`: a new key does not compile until it is checked here.
//! A wrong value is noted, and its default replaces it until everything is checked. Rules over
//! several keys are in [`super::rules`].

mod tables;

pub(super) use tables::backends;

use super::keys::{
    BACKENDS, RawAdmin, RawAdminTls, RawAffinity, RawFiles, RawFleet, RawIsolation, RawLog,
    RawPrompts, RawServer, RawServerTls, RawSockets, RawState,
};
use super::problems::Notes;
use super::raw::RawConfig;
use super::seal_keys;
use super::secret;
use super::tls::check_listener;
use super::{
    AdminConfig, AffinityConfig, Config, Doors, FilesConfig, FleetConfig, IsolationConfig,
    LogConfig, PromptsConfig, ServerConfig, SocketsConfig, StateConfig, StateDir, auth,
};

/// Only the two listeners, for callers that only want to find the gateway.
pub(super) fn doors(raw: RawConfig, notes: &mut Notes) -> Doors {
    Doors {
        front: raw.server.listen.check(notes),
        front_cert: raw.server_tls.cert.check(notes),
        base_path: raw.server.base_path.check(notes),
        admin: admin(raw.admin, notes),
        admin_cert: raw.admin_tls.cert.check(notes),
    }
}

pub(super) fn check(raw: RawConfig, notes: &mut Notes) -> Config {
    let RawConfig {
        server: raw_server,
        server_tls: RawServerTls { cert, key, client_ca },
        admin: raw_admin,
        admin_tls: RawAdminTls { cert: admin_cert, key: admin_key, client_ca: admin_client_ca },
        auth: raw_auth,
        auth_jwt: raw_jwt,
        affinity: raw_affinity,
        fleet: raw_fleet,
        prompts: raw_prompts,
        files: raw_files,
        sockets: raw_sockets,
        isolation: raw_isolation,
        state: raw_state,
        replicas: raw_replicas,
        log: raw_log,
        queue: raw_queue,
        limits: raw_limits,
        backends: raw_backends,
        discovery: raw_discovery,
    } = raw;
    if raw_backends.is_empty() && raw_discovery.is_empty() && !notes.may_hide_backends() {
        let what = "at least one is needed: write `[backends.NAME]` with a `url`, or \
                    `--backend URL`";
        notes.report(BACKENDS, what);
    }
    Config {
        server: server(raw_server, notes),
        server_tls: check_listener(cert, key, client_ca, notes),
        admin: admin(raw_admin, notes),
        admin_tls: check_listener(admin_cert, admin_key, admin_client_ca, notes),
        auth: auth::check(raw_auth, raw_jwt, notes),
        affinity: affinity(raw_affinity, notes),
        fleet: fleet(raw_fleet, notes),
        prompts: prompts(raw_prompts, notes),
        files: files(raw_files, notes),
        sockets: sockets(raw_sockets, notes),
        isolation: isolation(raw_isolation, notes),
        state: state(raw_state, notes),
        replicas: super::replicas::check(raw_replicas, notes),
        log: log(raw_log, notes),
        queue: super::queue::check(raw_queue, notes),
        limits: super::limits::check(raw_limits, notes),
        backends: backends(raw_backends, notes),
        discovery: tables::places(raw_discovery, notes),
    }
}

fn server(raw: RawServer, notes: &mut Notes) -> ServerConfig {
    let RawServer {
        listen,
        workers,
        max_connections,
        header_timeout,
        max_header_bytes,
        max_headers,
        idle_timeout,
        body_timeout,
        answer_timeout,
        allowed_origins,
        trusted_proxies,
        hosts,
        deny,
        deny_nodes,
        drain_timeout,
        drain_delay,
        drain_pending,
        allow_manager,
        allow_logs,
        allow_free,
        allow_asset_scans,
        home,
        base_path,
        page_script,
        page_extension,
        passthrough,
        stale_cache,
        asset_cache,
    } = raw;
    ServerConfig {
        listen: listen.check(notes),
        workers: workers.check(notes),
        max_connections: max_connections.check(notes),
        header_timeout: header_timeout.check(notes),
        max_header_bytes: max_header_bytes.check(notes),
        max_headers: max_headers.check(notes),
        idle_timeout: idle_timeout.check(notes),
        body_timeout: body_timeout.check(notes),
        answer_timeout: answer_timeout.check(notes),
        allowed_origins: allowed_origins.check(notes),
        trusted_proxies: trusted_proxies.check(notes),
        hosts: hosts.check(notes),
        deny: deny.check(notes),
        deny_nodes: deny_nodes.check(notes),
        drain_timeout: drain_timeout.check(notes),
        drain_delay: drain_delay.check(notes),
        drain_pending: drain_pending.check(notes),
        allow_manager: allow_manager.check(notes),
        allow_logs: allow_logs.check(notes),
        allow_free: allow_free.check(notes),
        allow_asset_scans: allow_asset_scans.check(notes),
        home: home.check(notes),
        base_path: base_path.check(notes),
        page_script: page_script.check(notes),
        page_extension: page_extension.check(notes),
        passthrough: passthrough.check(notes),
        stale_cache: stale_cache.check(notes),
        asset_cache: asset_cache.check(notes),
    }
}

fn admin(raw: RawAdmin, notes: &mut Notes) -> AdminConfig {
    let RawAdmin {
        listen,
        token,
        token_file,
        read_token,
        read_token_file,
        secrets_dir,
        open_metrics,
    } = raw;
    AdminConfig {
        listen: listen.check(notes),
        token: secret::check(token, token_file, notes),
        read_token: secret::check(read_token, read_token_file, notes),
        secrets_dir: secrets_dir.check(notes),
        open_metrics: open_metrics.check(notes),
    }
}

fn affinity(raw: RawAffinity, notes: &mut Notes) -> AffinityConfig {
    let RawAffinity {
        lease,
        reservation,
        link_linger,
        max_clients,
        shared_ids,
        input_margin,
        tunnel_margin,
        input_bytes,
        session_margin,
    } = raw;
    AffinityConfig {
        lease: lease.check(notes),
        reservation: reservation.check(notes),
        link_linger: link_linger.check(notes),
        max_clients: max_clients.check(notes),
        shared_ids: shared_ids.check(notes),
        input_margin: input_margin.check(notes),
        tunnel_margin: tunnel_margin.check(notes),
        input_bytes: input_bytes.check(notes),
        session_margin: session_margin.check(notes),
    }
}

fn fleet(raw: RawFleet, notes: &mut Notes) -> FleetConfig {
    let RawFleet {
        probe_interval,
        probe_timeout,
        rise,
        fall,
        patience,
        connect_timeout,
        dial_interval,
        pool_idle,
        max_idle_connections,
        list_timeout,
        suspect_after,
        start_limit,
        silent_limit,
        grace,
        ready_when_empty,
    } = raw;
    FleetConfig {
        probe_interval: probe_interval.check(notes),
        probe_timeout: probe_timeout.check(notes),
        rise: rise.check(notes),
        fall: fall.check(notes),
        patience: patience.check(notes),
        connect_timeout: connect_timeout.check(notes),
        dial_interval: dial_interval.check(notes),
        pool_idle: pool_idle.check(notes),
        max_idle_connections: max_idle_connections.check(notes),
        list_timeout: list_timeout.check(notes),
        suspect_after: suspect_after.check(notes),
        start_limit: start_limit.check(notes),
        silent_limit: silent_limit.check(notes),
        grace: grace.check(notes),
        ready_when_empty: ready_when_empty.check(notes),
    }
}

fn prompts(raw: RawPrompts, notes: &mut Notes) -> PromptsConfig {
    let RawPrompts {
        max_body,
        max_bodies_total,
        ledger_prompts,
        ledger_age,
        silent_after,
        history_wait,
        history_cache,
        answer_limit,
        link_timeout,
        max_pending_per_client,
        attempts,
    } = raw;
    PromptsConfig {
        max_body: max_body.check(notes),
        max_bodies_total: max_bodies_total.check(notes),
        ledger_prompts: ledger_prompts.check(notes),
        ledger_age: ledger_age.check(notes),
        silent_after: silent_after.check(notes),
        history_wait: history_wait.check(notes),
        history_cache: history_cache.check(notes),
        answer_limit: answer_limit.check(notes),
        link_timeout: link_timeout.check(notes),
        max_pending_per_client: max_pending_per_client.check(notes),
        attempts: attempts.check(notes),
    }
}

fn files(raw: RawFiles, notes: &mut Notes) -> FilesConfig {
    let RawFiles { tag, ledger, ledger_age, share_unknown, assets, .. } = raw;
    let RawFiles { copy_bytes, copy_timeout, copies_per_prompt, .. } = raw;
    FilesConfig {
        tag: tag.check(notes),
        ledger: ledger.check(notes),
        ledger_age: ledger_age.check(notes),
        share_unknown: share_unknown.check(notes),
        assets: assets.check(notes),
        copy_bytes: copy_bytes.check(notes),
        copy_timeout: copy_timeout.check(notes),
        copies_per_prompt: copies_per_prompt.check(notes),
    }
}

fn sockets(raw: RawSockets, notes: &mut Notes) -> SocketsConfig {
    let RawSockets {
        ping_interval,
        max_from_client,
        max_from_backend,
        queue_bytes,
        queue_critical,
        queue_bytes_total,
        max_per_client,
        replay_window,
        log_bytes,
        log_bytes_total,
        alive_after,
        output_classes,
        close_wait,
        max_tunnels,
        max_tunnels_per_client,
    } = raw;
    SocketsConfig {
        ping_interval: ping_interval.check(notes),
        max_from_client: max_from_client.check(notes),
        max_from_backend: max_from_backend.check(notes),
        queue_bytes: queue_bytes.check(notes),
        queue_critical: queue_critical.check(notes),
        queue_bytes_total: queue_bytes_total.check(notes),
        max_per_client: max_per_client.check(notes),
        replay_window: replay_window.check(notes),
        log_bytes: log_bytes.check(notes),
        log_bytes_total: log_bytes_total.check(notes),
        alive_after: alive_after.check(notes),
        output_classes: output_classes.check(notes),
        close_wait: close_wait.check(notes),
        max_tunnels: max_tunnels.check(notes),
        max_tunnels_per_client: max_tunnels_per_client.check(notes),
    }
}

fn isolation(raw: RawIsolation, notes: &mut Notes) -> IsolationConfig {
    let RawIsolation { status, nameless } = raw;
    IsolationConfig { status: status.check(notes), nameless: nameless.check(notes) }
}

fn state(raw: RawState, notes: &mut Notes) -> StateConfig {
    let RawState { dir, on_error, copies, seal_key_file, on_unopened } = raw;
    let dir = dir.check(notes).map_or(StateDir::Unset, StateDir::Written);
    let (on_error, copies) = (on_error.check(notes), copies.check(notes));
    let key = seal_key_file.key.clone();
    let seal_key_file = seal_key_file.check(notes);
    let seal_keys = seal_key_file.as_ref().map_or(Ok(Vec::new()), |path| {
        seal_keys::read(path).map_err(|what| format!("`{}` {what}", path.display()))
    });
    let seal_keys = seal_keys.unwrap_or_else(|what| {
        notes.report(&key, what);
        Vec::new()
    });
    let on_unopened = on_unopened.check(notes);
    StateConfig { dir, on_error, copies, seal_key_file, seal_keys, on_unopened }
}

fn log(raw: RawLog, notes: &mut Notes) -> LogConfig {
    let RawLog { format, level, audit, access, access_format } = raw;
    LogConfig {
        format: format.check(notes),
        level: level.check(notes),
        audit: audit.check(notes),
        access: access.check(notes),
        access_format: access_format.check(notes),
    }
}
