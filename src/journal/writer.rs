//! The one writer of the journal: it commits what was noted since its last commit.

use std::sync::Arc;

use tracing::{error, info};

use super::{Bodies, Gathered, Kept, Progress, RETRY, Store};
use crate::net::sleep;
use crate::tasks::Tasks;

/// Commits the notes, batch by batch.
pub(super) struct Writer<H> {
    pub(super) kept: Arc<Kept>,
    pub(super) store: H,
}

impl<H: Store> Writer<H> {
    pub(super) async fn run(mut self, stop: Tasks) {
        let heart = stop.hearts().heart("journal");
        loop {
            let is_last = tokio::select! {
                biased;
                () = heart.idle(self.kept.work.notified()) => false,
                () = stop.stopping() => true,
            };
            let is_committed = heart.idle(self.commit_gathered()).await;
            if is_last && (!is_committed || !self.has_more()) {
                return;
            }
            if !is_committed {
                tokio::select! {
                    biased;
                    () = sleep(RETRY) => self.kept.work.notify_one(),
                    () = stop.stopping() => {}
                }
            }
        }
    }

    /// True if parts of bodies are still to be written.
    fn has_more(&self) -> bool {
        self.kept.gathered().large.is_any()
    }

    /// Returns true if all gathered notes are durable, but for what is left of large bodies.
    async fn commit_gathered(&mut self) -> bool {
        let (batch, number) = {
            let mut gathered = self.kept.gathered();
            let number = self.kept.gather(&mut gathered);
            let Gathered { large, batch, .. } = &mut *gathered;
            large.gather(batch);
            if gathered.batch.is_empty() {
                // What was counted since had been taken before it was.
                self.kept.progress.set(Progress { durable: number, is_failing: false });
                return true;
            }
            gathered.in_commit = gathered.batch.len();
            (Arc::new(std::mem::take(&mut gathered.batch)), number)
        };
        let committed = self.store.commit(Arc::clone(&batch)).await;
        self.kept.gathered().in_commit = 0;
        let was_failing = self.kept.progress.get().is_failing;
        match committed {
            Ok(()) => {
                self.kept.gathered().large.is_committed();
                self.kept.bodies.change(|Bodies(count)| Bodies(count + 1));
                self.kept.progress.set(Progress { durable: number, is_failing: false });
                if self.has_more() {
                    self.kept.work.notify_one();
                }
                if was_failing {
                    info!("The journal can be written again; no record was lost.");
                }
                true
            }
            Err(error) => {
                self.kept.gathered().batch.put_under(&batch);
                let durable = self.kept.progress.get().durable;
                self.kept.progress.set(Progress { durable, is_failing: true });
                if !was_failing {
                    error!(%error, "The journal cannot be written: a crash would now lose work.");
                }
                false
            }
        }
    }
}
