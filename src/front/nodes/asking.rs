//! Gets the nodes of backends other than the caller's, and decides how long a page waits for them.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::cache::NodeAnswer;
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::net::{now, sleep};

/// How much later than the caller's backend another backend may answer, if there is an older answer
/// of it.
const LATER_AT_MOST: Duration = Duration::from_millis(100);

/// How often another backend is asked for one page. A request that is already running may have
/// begun before an upload there.
const ASKED_MAX: usize = 2;

/// The nodes of another backend: its last answer if that is recent, or a new one. The request
/// continues for the next page if nobody waits for it any more. Once the caller's own backend has
/// answered, a page does not wait for a busy backend that has answered since its last upload.
pub(super) async fn nodes_of(
    front: &Arc<Front>,
    backend: Arc<Backend>,
    own_is_here: &CancellationToken,
) -> (Arc<Backend>, Option<NodeAnswer>) {
    let nodes = &front.nodes;
    let waited = async {
        let mut asked = 0;
        loop {
            let mut arrived = std::pin::pin!(nodes.arrived.notified());
            arrived.as_mut().enable();
            let writes = writes_on(&backend);
            if let Some(said) = nodes.fresh(backend.id, writes, backend.restarted()) {
                return Some(said);
            }
            if !nodes.is_asked(backend.id) {
                if asked == ASKED_MAX {
                    return None;
                }
                asked += 1;
                ask_for_nodes(front, &backend, writes);
            }
            arrived.await;
        }
    };
    let limit = front.shared.config().fleet.list_timeout;
    let enough = async {
        own_is_here.cancelled().await;
        sleep(LATER_AT_MOST).await;
        match nodes.unchanged(backend.id, writes_on(&backend), backend.restarted()) {
            Some(said) => said,
            None => pending().await,
        }
    };
    let said = tokio::select! {
        biased;
        said = timeout(limit, waited) => said.ok().flatten(),
        said = enough => Some(said),
    };
    let said = said.or_else(|| nodes.last(backend.id));
    (backend, said)
}

/// Asks a backend, unless a request is running already.
fn ask_for_nodes(front: &Arc<Front>, backend: &Arc<Backend>, writes: u64) {
    if !front.nodes.is_to_ask(backend.id) {
        return;
    }
    let (front, backend) = (Arc::clone(front), Arc::clone(backend));
    front.clone().shared.tasks.spawn(async move {
        let _ = asked(&front, &backend, writes).await;
    });
}

async fn asked(front: &Front, backend: &Backend, writes: u64) -> Option<NodeAnswer> {
    let limit = front.shared.config().server.answer_timeout;
    let began = now();
    let said = backend.get("/object_info", limit).await.ok();
    let body = said.filter(|(status, _)| *status == 200).map(|(_, body)| body);
    front.nodes.answered(backend.id, body, (began, writes))
}

/// What a backend answers from now on. `None` if it does not answer.
pub(super) async fn answer_of(front: &Arc<Front>, backend: &Arc<Backend>) -> Option<NodeAnswer> {
    loop {
        let mut arrived = std::pin::pin!(front.nodes.arrived.notified());
        arrived.as_mut().enable();
        if front.nodes.is_to_ask(backend.id) {
            let (tell, told) = oneshot::channel();
            let (here, there) = (Arc::clone(front), Arc::clone(backend));
            // In a task of its own: who waits for it may give up, and pages use it too.
            front.shared.tasks.spawn(async move {
                let said = asked(&here, &there, writes_on(&there)).await;
                let _left: Result<(), _> = tell.send(said);
            });
            return told.await.ok().flatten();
        }
        // One that is running may have begun before what is to be known.
        arrived.await;
    }
}

/// How often a file was written on a backend. Earlier answers of the backend do not contain it.
pub(super) fn writes_on(backend: &Backend) -> u64 {
    backend.writes.load(Ordering::Relaxed)
}
