//! An address where connections are accepted. It can be changed while the process runs; open
//! connections stay.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::net::{Listener, Stream};

/// When a listener is closed, its waiting connections are accepted first. If none comes for this
/// long, there are no more.
const QUIET: Duration = Duration::from_millis(5);

/// Connections are accepted from a listener that is to be closed for at most this long.
const LEFT_WITHIN: Duration = Duration::from_millis(100);

/// A connection and its peer.
pub type Accepted = (Stream, SocketAddr);

/// A place where connections are accepted. The accept loop owns it.
pub struct Door {
    /// `None` while it is closed.
    listener: Option<Arc<dyn Listener>>,
    moves: mpsc::Receiver<Move>,
    /// Connections that were accepted from a listener which has been closed since.
    waiting: VecDeque<Accepted>,
}

/// Moves a [`Door`]. If it is dropped, the door stays where it is.
#[derive(Debug)]
pub struct Mover {
    moves: mpsc::Sender<Move>,
    /// The listener of the door. The door owns it: this weak reference does not keep the address in
    /// use.
    at: ArcSwapOption<Weak<dyn Listener>>,
}

#[derive(Debug)]
struct Move {
    to: Option<Arc<dyn Listener>>,
    /// Told when the previous listener is closed, so that its address is free.
    done: oneshot::Sender<()>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Door {
    /// A door that accepts from `listener`, or a closed one, and its mover.
    #[must_use]
    pub fn new(listener: Option<Arc<dyn Listener>>) -> (Self, Mover) {
        let (mover, moves) = mpsc::channel(1);
        let mover = Mover { moves: mover, at: ArcSwapOption::new(weak(listener.as_ref())) };
        (Self { listener, moves, waiting: VecDeque::new() }, mover)
    }

    /// The next connection. It is cancel safe, except during a move, which is completed before
    /// anything is accepted.
    ///
    /// # Errors
    /// Those of [`Listener::accept`]. The caller can wait for the next connection after an error.
    pub async fn accept(&mut self) -> io::Result<Accepted> {
        loop {
            if let Some(accepted) = self.waiting.pop_front() {
                return Ok(accepted);
            }
            tokio::select! {
                biased;
                to = next_move(&mut self.moves) => self.change(to).await,
                accepted = next_of(self.listener.as_deref()) => return accepted,
            }
        }
    }

    async fn change(&mut self, Move { to, done }: Move) {
        let before = std::mem::replace(&mut self.listener, to);
        // The system would drop connections that it has accepted and that we have not taken.
        let collect = async {
            while let Ok(Ok(accepted)) = timeout(QUIET, next_of(before.as_deref())).await {
                self.waiting.push_back(accepted);
            }
        };
        // Under load there is always another connection, so the time is limited.
        let _ = timeout(LEFT_WITHIN, collect).await;
        drop(before);
        // The task that asked for the move may have given up.
        let _ = done.send(());
    }
}

fn weak(listener: Option<&Arc<dyn Listener>>) -> Option<Arc<Weak<dyn Listener>>> {
    listener.map(|it| Arc::new(Arc::downgrade(it)))
}

/// The next move. It never comes once the mover is dropped. Cancel safe.
async fn next_move(moves: &mut mpsc::Receiver<Move>) -> Move {
    match moves.recv().await {
        Some(asked) => asked,
        None => pending().await,
    }
}

async fn next_of(listener: Option<&dyn Listener>) -> io::Result<Accepted> {
    match listener {
        Some(listener) => listener.accept().await,
        None => pending().await,
    }
}

impl Mover {
    /// Moves the door to `to`, or closes it. Returns when the previous listener is closed.
    pub async fn to(&self, to: Option<Arc<dyn Listener>>) {
        let (done, is_done) = oneshot::channel();
        self.at.store(weak(to.as_ref()));
        if self.moves.send(Move { to, done }).await.is_ok() {
            // If the accept loop has ended in the meantime, its listener is closed.
            let _ = is_done.await;
        }
    }

    /// Where the door listens; `None` if it is closed.
    #[must_use]
    pub fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.at.load().as_ref()?.upgrade()
    }

    /// True if the door listens nowhere.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.listener().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Network as _, Tcp};

    async fn listener() -> Arc<dyn Listener> {
        Arc::from(Tcp.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap())
    }

    async fn dial(to: SocketAddr) -> io::Result<Stream> {
        Tcp.connect("127.0.0.1", to.port()).await
    }

    #[tokio::test]
    async fn who_had_connected_before_a_move_is_served() {
        let (first, second) = (listener().await, listener().await);
        let (old, new) = (first.local_addr(), second.local_addr());
        let (mut door, mover) = Door::new(Some(first));
        let _one = dial(old).await.unwrap();
        door.accept().await.unwrap();
        let _waiting = dial(old).await.unwrap();
        let accept = async { [door.accept().await.unwrap().1, door.accept().await.unwrap().1] };
        let moved = async {
            mover.to(Some(second)).await;
            assert!(dial(old).await.is_err(), "nobody listens there any more");
            dial(new).await.unwrap()
        };
        // The move first: it finds somebody who waits.
        let both = async { tokio::join!(moved, accept) };
        let (_moved, peers) =
            timeout(Duration::from_secs(20), both).await.expect("both are served");
        assert_ne!(peers[0], peers[1]);
    }

    #[tokio::test]
    async fn who_moves_a_door_knows_where_it_is_and_keeps_no_address_occupied() {
        let open = listener().await;
        let address = open.local_addr();
        let (door, mover) = Door::new(Some(open));
        assert_eq!(mover.listener().map(|it| it.local_addr()), Some(address));
        drop(door);
        assert!(mover.is_closed() && dial(address).await.is_err());
    }

    #[tokio::test]
    async fn a_closed_door_can_be_opened_and_closed_again() {
        let (mut door, mover) = Door::new(None);
        let open = listener().await;
        let address = open.local_addr();
        let accept = async {
            loop {
                door.accept().await.unwrap();
            }
        };
        let moves = async {
            assert!(mover.is_closed());
            mover.to(Some(open)).await;
            let _stream = dial(address).await.unwrap();
            assert!(!mover.is_closed());
            mover.to(None).await;
            assert!(dial(address).await.is_err());
        };
        tokio::select! {
            () = accept => {}
            () = moves => {}
        }
    }
}
