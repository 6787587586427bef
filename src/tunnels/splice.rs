//! Both directions of one tunnel, and its end.
//!
//! A page's socket may be silent for hours, so silence alone does not end it. If nothing arrives
//! from the client, it is pinged, as on our own sockets (promise S8). Its pong is passed on to the
//! backend, which ignores it (RFC 6455 section 5.5.3). A backend that loads a model answers nothing
//! for minutes. So a backend counts as gone only when its watch link is down.

use std::pin::pin;
use std::time::Duration;

use tokio::io::split;
use tokio::time::timeout;

use super::Farewell;
use super::pump::{Gauge, Pump, PumpEnd};
use crate::net::{Buffered, now, sleep};
use crate::ws::{Frame, Role};

/// How long a closing handshake may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// The time limits of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a client may be silent before it is pinged. After twice this time it counts as
    /// gone.
    pub ping: Duration,
    /// How long a side may go without reading what is sent to it.
    pub stall: Duration,
    /// How long one side may go on after the other has ended.
    pub linger: Duration,
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// One side has closed it.
    Closed,
    /// A connection broke, or one side read nothing for too long.
    Broken,
    /// Nothing arrived from the client for twice the ping interval.
    Silent,
    /// We closed it.
    Told(u16),
}

impl End {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Told(_) => "told",
        }
    }
}

/// The two connections, after their handshakes.
#[derive(Debug)]
pub struct Ends {
    pub client: Buffered,
    pub backend: Buffered,
}

/// Passes bytes both ways until one side ends, or until `told` says that the tunnel must end.
pub async fn splice(
    ends: Ends,
    patience: Patience,
    told: impl Future<Output = Farewell>,
    backend_is_down: impl Fn() -> bool,
) -> End {
    let (from_client, to_client) = split(ends.client.stream);
    let (from_backend, to_backend) = split(ends.backend.stream);
    let (up_gauge, down_gauge) = (Gauge::default(), Gauge::default());
    let mut up =
        Pump::new(from_client, (to_backend, Role::Client), ends.client.read, patience.stall);
    let mut down =
        Pump::new(from_backend, (to_client, Role::Server), ends.backend.read, patience.stall);
    let ended = {
        let mut run_up = pin!(up.run(&up_gauge));
        let mut run_down = pin!(down.run(&down_gauge));
        let watch = watch(patience.ping, &up_gauge, &down_gauge, backend_is_down);
        let said = tokio::select! {
            biased;
            farewell = told => Err(farewell),
            end = &mut run_up => {
                linger(end, patience, run_down.as_mut()).await;
                Ok(end)
            }
            end = &mut run_down => {
                linger(end, patience, run_up.as_mut()).await;
                Ok(end)
            }
            watched = watch => match watched {
                Alarm::ClientIsSilent => return End::Silent,
                Alarm::BackendIsDown => Err(Farewell::ServerIsDown),
            },
        };
        match said {
            Ok(PumpEnd::Over | PumpEnd::Closed) => return End::Closed,
            Ok(PumpEnd::Broken) => return End::Broken,
            Err(farewell) => {
                let last = Frame::close(farewell.code(), farewell.reason());
                up_gauge.ours.push(last.clone());
                down_gauge.ours.push(last);
                let both = async { tokio::join!(run_up, run_down) };
                let _ = timeout(FAREWELL, both).await;
                farewell
            }
        }
    };
    let _ = timeout(FAREWELL, up.drain()).await;
    End::Told(ended.code())
}

/// One side has ended. The other may go on for a while.
async fn linger(end: PumpEnd, patience: Patience, other: impl Future<Output = PumpEnd>) {
    if end == PumpEnd::Over {
        let _ = timeout(patience.linger, other).await;
    }
}

enum Alarm {
    ClientIsSilent,
    BackendIsDown,
}

/// Pings a client that is silent, until the client or the backend is gone.
async fn watch(
    ping: Duration,
    of_client: &Gauge,
    of_backend: &Gauge,
    backend_is_down: impl Fn() -> bool,
) -> Alarm {
    let mut pinged = now();
    loop {
        sleep(ping / 2).await;
        let now = now();
        let silent = now.saturating_duration_since(of_client.heard());
        if 2 * ping <= silent {
            return Alarm::ClientIsSilent;
        }
        if ping <= silent && ping <= now.duration_since(pinged) {
            pinged = now;
            of_backend.ours.push(Frame::ping(b""));
        }
        let is_mute = 2 * ping <= now.saturating_duration_since(of_backend.heard());
        if is_mute && backend_is_down() {
            return Alarm::BackendIsDown;
        }
    }
}
