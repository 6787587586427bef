//! Whether the server accepts new connections. A server may keep its old connections and accept no
//! new ones: "Accept failed" of asyncio on Windows, or a process without free descriptors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::faults::Listening;
use super::{Shared, http};
use crate::net::{Listener, sleep};

/// Accepts connections until the process dies.
pub(super) async fn accept(shared: Arc<Shared>, listener: Box<dyn Listener>) {
    let address = listener.local_addr();
    let mut listener = Some(listener);
    loop {
        let changed = shared.faults_changed.notified();
        tokio::pin!(changed);
        // From here on no change is missed.
        changed.as_mut().enable();
        match shared.faults().listening {
            Listening::Open => {
                let open = match listener.take() {
                    Some(open) => open,
                    None => again(&shared, address).await,
                };
                tokio::select! {
                    accepted = open.accept() => if let Ok((stream, _peer)) = accepted {
                        shared.spawn(http::serve(Arc::clone(&shared), stream));
                    },
                    () = changed => {}
                }
                listener = Some(open);
            }
            Listening::Closed => {
                listener = None;
                changed.await;
            }
            Listening::Deaf => changed.await,
        }
    }
}

/// Listens on the same address again, as soon as that is possible.
async fn again(shared: &Shared, address: SocketAddr) -> Box<dyn Listener> {
    loop {
        if let Ok(listener) = shared.network.listen(address).await {
            return listener;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
