//! The watch link: one socket of our own to each backend. It shows health, queue length and
//! restarts at once, so that nothing has to be polled while it is open.
//!
//! If a link answers no ping, its backend may be loading a model, with its interpreter locked. So
//! this counts as one failure only after [`FleetConfig::patience`], and only a failed probe over
//! HTTP counts as the next.
//!
//! [`FleetConfig::patience`]: crate::config::FleetConfig::patience

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::time::timeout;
use tracing::debug;

use super::api::ApiError;
use super::backend::{Backend, Common, SaidOfItself};
use crate::comfy::answers;
use crate::comfy::event::{self, Event};
use crate::config::FleetConfig;
use crate::net::{now, sleep};
use crate::ws::{self, Channel, Frame, Limits, Opcode};

/// Enough for any `status`; other broadcasts are read and dropped.
const LIMITS: Limits = Limits { message: 64 << 20 };

/// The pauses after failed attempts; the last one repeats.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// A link that lasted this long is dialled again at once; if one did not, many others may have
/// failed too.
const STEADY: Duration = Duration::from_secs(1);

/// Watches one backend until it leaves.
pub(super) async fn watch(backend: Arc<Backend>, common: Common) {
    let watch = Watch { backend: Arc::clone(&backend), common };
    tokio::select! {
        biased;
        () = watch.run() => {}
        () = backend.leaves() => {}
    }
}

struct Watch {
    backend: Arc<Backend>,
    common: Common,
}

/// Why the watch link could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("/ws {0}: is this a ComfyUI?")]
    Handshake(#[source] ws::ConnectError),
    #[error("its address leads back to this gateway")]
    Ourselves,
    #[error("the socket's first message is not ComfyUI's `status`")]
    NoStatus,
    #[error("GET {path}: {error}")]
    Ask { path: &'static str, error: ApiError },
    #[error("ComfyUI {0} is too old: prompt ids need 0.3.45 or newer")]
    Unsupported(String),
    #[error("the socket broke")]
    Broken,
    #[error("no pong for {} s", .0.as_secs())]
    Silent(Duration),
}

impl Trouble {
    fn of_handshake(error: ws::ConnectError) -> Self {
        match error {
            // Only we say so, and only to a watch link of our own (`front::upgrade`).
            ws::ConnectError::Refused(StatusCode::LOOP_DETECTED) => Self::Ourselves,
            error @ (ws::ConnectError::Refused(_) | ws::ConnectError::Failed(_)) => {
                Self::Handshake(error)
            }
        }
    }
}

impl Watch {
    /// The current limits: a reload may have changed them.
    fn limits(&self) -> FleetConfig {
        self.common.live.get().fleet.clone()
    }

    async fn run(&self) {
        let mut failures = 0;
        loop {
            match self.open().await {
                Ok(channel) => {
                    self.backend.breaker.passed();
                    self.backend.passed();
                    let opened = now();
                    let trouble = self.read(channel).await;
                    self.backend.failed(trouble.to_string());
                    if STEADY <= now().duration_since(opened) {
                        // At once: a backend that only lost the socket is back within a moment.
                        failures = 0;
                        continue;
                    }
                }
                Err(trouble) => self.backend.failed(trouble.to_string()),
            }
            sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
            failures += 1;
        }
    }

    /// Dials, checks that it is a supported ComfyUI, and reads what it reports about itself.
    async fn open(&self) -> Result<Channel, Trouble> {
        let limit = self.limits().probe_timeout;
        match timeout(limit, self.open_untimed()).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Trouble::Timeout(limit)),
        }
    }

    async fn open_untimed(&self) -> Result<Channel, Trouble> {
        let backend = &self.backend;
        let limit = self.limits().connect_timeout;
        let dialled = backend.dialler.dial(limit).await;
        let stream = dialled.map_err(|error| {
            if error.kind() == ErrorKind::ConnectionRefused {
                backend.refused(now());
            }
            match error.kind() == ErrorKind::TimedOut {
                true => Trouble::Timeout(limit),
                false => Trouble::Connect(error),
            }
        })?;
        backend.answered();
        if let Some(machine) = stream.peer() {
            backend.reached(machine, now());
        }
        let path = format!("/ws?clientId={}", self.common.own_watch.id());
        let headers = backend.headers();
        let mut channel =
            ws::connect_with(stream, &backend.authority, &path, headers.as_map(), LIMITS)
                .await
                .map_err(Trouble::of_handshake)?;
        self.first_status(&mut channel).await?;
        self.learn().await?;
        Ok(channel)
    }

    async fn first_status(&self, channel: &mut Channel) -> Result<(), Trouble> {
        let Some(Ok(frame)) = channel.next().await else { return Err(Trouble::NoStatus) };
        let Event::Status { queue_remaining: Some(_), has_sid: true } = event::read(&frame.payload)
        else {
            return Err(Trouble::NoStatus);
        };
        // Asked over HTTP too: a socket that opens does not prove that requests are answered.
        let path = "/prompt";
        let ask = |error| Trouble::Ask { path, error };
        let body = self.backend.get_ok(path, self.limits().probe_timeout).await;
        let count = answers::queue_remaining(&body.map_err(ask)?)
            .map_err(|junk| ask(ApiError::Junk(junk)))?;
        self.backend.reopened(saturate(count));
        self.backend.status_came(saturate(count), now());
        Ok(())
    }

    async fn learn(&self) -> Result<(), Trouble> {
        let path = "/system_stats";
        let ask = |error| Trouble::Ask { path, error };
        let limit = self.limits().probe_timeout;
        let stats = self.backend.get_ok(path, limit).await.map_err(ask)?;
        let version = answers::system_version(&stats).map_err(|junk| ask(ApiError::Junk(junk)))?;
        if !version.takes_prompt_id() {
            return Err(Trouble::Unsupported(version.to_string()));
        }
        self.backend.devices.learned(&stats, now());
        // Some forks lack the route although they are new enough.
        let features = self.backend.get_ok("/features", limit).await.ok();
        let features = features
            .filter(|body| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok())
            .and_then(|body| String::from_utf8(body.to_vec()).ok());
        debug!(backend = %self.backend.name(), %version, "Backend reported its version.");
        // Servers before 0.3.40 do not report it, and each version had its own frontend.
        let frontend = answers::frontend_version(&stats).unwrap_or_else(|| version.to_string());
        let said = SaidOfItself { version, frontend: frontend.into() };
        self.backend.learned(said, features.map(Arc::from));
        Ok(())
    }

    /// Reads until the link ends; returns why.
    async fn read(&self, mut channel: Channel) -> Trouble {
        let mut heard = now();
        loop {
            let Ok(received) = timeout(self.limits().probe_interval, channel.next()).await else {
                match self.idle(&mut channel, heard).await {
                    Ok(()) => continue,
                    Err(trouble) => return trouble,
                }
            };
            let Some(Ok(frame)) = received else { return Trouble::Broken };
            heard = now();
            self.heard(&frame, heard);
            self.backend.passed();
        }
    }

    /// Handles a broadcast. Most are about prompts without a client, and only a worker sends those.
    fn heard(&self, frame: &Frame, now: Instant) {
        match frame.opcode {
            Opcode::Text => match event::read(&frame.payload) {
                Event::Status { queue_remaining: Some(count), .. } => {
                    self.backend.status_came(saturate(count), now);
                }
                Event::Start { .. }
                | Event::Cached { .. }
                | Event::Executing { .. }
                | Event::Executed { .. }
                | Event::Progress { .. }
                | Event::ProgressState { .. }
                | Event::Success { .. }
                | Event::Failed { .. }
                | Event::Blocked { .. }
                | Event::Interrupted { .. } => self.backend.worker_lives(),
                Event::Status { queue_remaining: None, .. }
                | Event::FeatureFlags
                | Event::Logs
                | Event::Seeding
                | Event::Seeded
                | Event::Other => {}
            },
            Opcode::Binary => self.backend.worker_lives(),
            Opcode::Ping | Opcode::Pong | Opcode::Close => {}
        }
    }

    /// Nothing came for one interval: pings, and counts failures in two steps.
    async fn idle(&self, channel: &mut Channel, heard: Instant) -> Result<(), Trouble> {
        let silent = now().duration_since(heard);
        let patience = self.limits().patience;
        if self.backend.pool.has_uploads() && silent < self.limits().grace {
            // It may be hashing an upload, and then sends nothing.
            return self.ping(channel).await;
        }
        if self.limits().probe_interval + patience <= silent {
            self.backend.failed(Trouble::Silent(silent).to_string());
            return match self.backend.get_ok("/prompt", self.limits().probe_timeout).await {
                // It answers, but not on this link: dial again.
                Ok(_) => Err(Trouble::Silent(silent)),
                Err(error) => Err(Trouble::Ask { path: "/prompt", error }),
            };
        }
        self.ping(channel).await
    }

    async fn ping(&self, channel: &mut Channel) -> Result<(), Trouble> {
        let ping = channel.send(Frame::ping(b"mooring"));
        match timeout(self.limits().patience, ping).await {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(_)) => Err(Trouble::Broken),
        }
    }
}

fn saturate(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
