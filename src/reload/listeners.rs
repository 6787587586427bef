//! Moves listeners. The new address is opened before the old one is closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tracing::{error, info};

use super::{NotReloaded, Place};
use crate::config::Config;
use crate::net::{Listener, Network};
use crate::server::door::Mover;

/// Moves the two doors.
#[derive(Debug)]
pub(super) struct Listeners {
    network: Arc<dyn Network>,
    front: Mover,
    admin: Mover,
}

/// What happens to a door.
#[derive(Debug)]
enum Move {
    Stays,
    Closes,
    /// It already listens at its new address.
    Ready(Arc<dyn Listener>),
    /// It takes over the listener that the other door still has and will leave.
    TakesOver(Arc<dyn Listener>),
}

/// A door, with its address in the old and in the new configuration.
#[derive(Clone, Copy, Debug)]
struct Course<'a> {
    key: &'static str,
    door: &'a Mover,
    from: Place,
    to: Place,
}

/// What happens to both doors.
#[derive(Debug)]
pub(super) struct Moves {
    front: Move,
    admin: Move,
}

impl Listeners {
    pub(super) fn new(network: Arc<dyn Network>, front: Mover, admin: Mover) -> Self {
        Self { network, front, admin }
    }

    /// Listens on the addresses of the new configuration.
    ///
    /// # Errors
    /// An address cannot be used. Then everything stays as it was.
    pub(super) async fn plan(&self, old: &Config, new: &Config) -> Result<Moves, NotReloaded> {
        let (from, to) = (Some(old.server.listen), Some(new.server.listen));
        let front = Course { key: "server.listen", door: &self.front, from, to };
        let (from, to) = (old.admin.listen, new.admin.listen);
        let admin = Course { key: "admin.listen", door: &self.admin, from, to };
        let moves = self.prepare(front, admin).await?;
        match self.prepare(admin, front).await {
            Ok(admin) => Ok(Moves { front: moves, admin }),
            Err(problem) => {
                let moves = Moves { front: moves, admin: Move::Stays };
                self.withdraw(moves, old).await;
                Err(problem)
            }
        }
    }

    async fn prepare(&self, course: Course<'_>, other: Course<'_>) -> Result<Move, NotReloaded> {
        let Course { key, door, from, to } = course;
        let Some(address) = to else {
            return Ok(if from.is_some() { Move::Closes } else { Move::Stays });
        };
        if from == to && !door.is_closed() {
            return Ok(Move::Stays);
        }
        let listened = match self.listen(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if let Some(listener) = left_at(other, address) {
                    return Ok(Move::TakesOver(listener));
                }
                self.make_room(door, from, address).await
            }
            listened => listened,
        };
        listened.map(Move::Ready).map_err(|error| {
            let why = match other.is_in_the_way(address) {
                true => format!("{error}: `{}` uses it, so move one after the other", other.key),
                false => error.to_string(),
            };
            NotReloaded::Bad(vec![format!("{key}: cannot listen on {address}: {why}")])
        })
    }

    /// The old address can prevent the new one: `0.0.0.0:8180` cannot be opened beside
    /// `127.0.0.1:8180`. Then the old listener is closed first, for a short time.
    async fn make_room(
        &self,
        door: &Mover,
        from: Place,
        to: SocketAddr,
    ) -> io::Result<Arc<dyn Listener>> {
        let in_the_way = from.filter(|from| from.port() == to.port());
        let Some(from) = in_the_way else { return self.listen(to).await };
        door.to(None).await;
        let listened = self.listen(to).await;
        if listened.is_err() {
            self.return_to(door, from).await;
        }
        listened
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<Arc<dyn Listener>> {
        Ok(Arc::from(self.network.listen(address).await?))
    }

    async fn return_to(&self, door: &Mover, address: SocketAddr) {
        match self.listen(address).await {
            Ok(listener) => door.to(Some(listener)).await,
            Err(error) => error!(%address, %error, "A listener was lost."),
        }
    }

    /// Undoes the plan.
    pub(super) async fn withdraw(&self, moves: Moves, old: &Config) {
        if let Move::Ready(listener) = moves.front {
            drop(listener);
            self.reopen(&self.front, Some(old.server.listen)).await;
        }
        if let Move::Ready(listener) = moves.admin {
            drop(listener);
            self.reopen(&self.admin, old.admin.listen).await;
        }
    }

    /// Listens on the old address again, unless it still does.
    async fn reopen(&self, door: &Mover, at: Place) {
        if let Some(address) = at
            && door.is_closed()
        {
            self.return_to(door, address).await;
        }
    }

    pub(super) async fn carry_out(&self, moves: Moves) {
        let takes_over = |it: &Move| matches!(it, Move::TakesOver(_));
        if takes_over(&moves.front) || takes_over(&moves.admin) {
            // Connections that arrive in between wait, so that none reaches the wrong listener.
            self.front.to(None).await;
            self.admin.to(None).await;
        }
        carry_out("front", &self.front, moves.front).await;
        carry_out("admin", &self.admin, moves.admin).await;
    }
}

impl Course<'_> {
    /// True if the door has a listener, or is to have one, that prevents another one at `address`.
    fn is_in_the_way(&self, address: SocketAddr) -> bool {
        let now = self.door.listener().map(|it| it.local_addr());
        let collides = |it: SocketAddr| {
            let is_any = it.ip().is_unspecified() || address.ip().is_unspecified();
            it.port() == address.port() && (is_any || it.ip() == address.ip())
        };
        [now, self.to].into_iter().flatten().any(collides)
    }
}

/// The listener at `address`, if the other door is to leave it.
fn left_at(other: Course<'_>, address: SocketAddr) -> Option<Arc<dyn Listener>> {
    let is_left = other.from != other.to && other.to != Some(address);
    other.door.listener().filter(|it| is_left && it.local_addr() == address)
}

async fn carry_out(name: &'static str, door: &Mover, planned: Move) {
    match planned {
        Move::Stays => {}
        Move::Closes => {
            door.to(None).await;
            info!(listener = name, "Listener closed.");
        }
        Move::Ready(listener) | Move::TakesOver(listener) => {
            let address = listener.local_addr();
            door.to(Some(listener)).await;
            info!(listener = name, %address, "Listener opened.");
        }
    }
}
