//! Works on the disk for the copies: two tasks with at most one thread each, and readers with a few
//! threads. A disk that hangs blocks only these.
//!
//! - The task for the doubts writes one small file in place. A write waits for it before it is
//!   sent.
//! - The task for the files writes and deletes copies. Nothing waits for it.

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{info, warn};

use super::DISK_WITHIN;
use super::doubts::Doubts;
use super::folder::{Folder, Opened};
use super::name::{Name, Owner};
use super::step::{Step, Written};
use super::table::Table;
use crate::lock::{Guard, Lock, rank};
use crate::net::sleep;
use crate::tasks::Tasks;

/// How many reads may run at the same time. The others wait.
const READERS_MAX: usize = 4;

/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// How long to wait before another attempt to delete a file.
const STUCK: Duration = Duration::from_secs(10);

/// What the tasks share with their callers.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) folder: Arc<Folder>,
    table: Lock<Table, { rank::COPIES }>,
    marks: ArcSwapOption<File>,
    /// There may be work for the files task.
    work: Notify,
    /// The doubts may have changed.
    doubts: Notify,
    /// Something was done.
    progress: Notify,
    pub(super) readers: Arc<Semaphore>,
    /// How many copies were read.
    reads: Arc<AtomicU64>,
}

impl Store {
    pub(super) fn new(folder: Folder, limit: u64) -> Arc<Self> {
        Arc::new(Self {
            folder: Arc::new(folder),
            table: Lock::new(Table::new(limit)),
            marks: ArcSwapOption::empty(),
            work: Notify::new(),
            doubts: Notify::new(),
            progress: Notify::new(),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            reads: Arc::default(),
        })
    }

    pub(super) fn table(&self) -> Guard<'_, Table, { rank::COPIES }> {
        self.table.lock()
    }

    /// Tells the tasks that the table has changed.
    pub(super) fn changed(&self) {
        self.work.notify_one();
        self.doubts.notify_one();
        self.progress.notify_waiters();
    }

    /// Waits until `ready` returns a value for the table. Cancel safe.
    pub(super) async fn until<T>(&self, ready: impl Fn(&Table) -> Option<T>) -> T {
        loop {
            // Registered before the check, so that nothing that happens from here on is missed.
            let progress = self.progress.notified();
            if let Some(found) = ready(&self.table()) {
                return found;
            }
            progress.await;
        }
    }

    /// Reads a copy when it is its turn. Cancel safe: a read that hangs keeps its place.
    ///
    /// # Errors
    /// It cannot be read, or the disk takes too long.
    pub(super) async fn read(&self, name: Name, owner: Owner) -> io::Result<Read> {
        let turn = self.turn().await.ok_or(io::ErrorKind::TimedOut)?;
        let (folder, reads) = (Arc::clone(&self.folder), Arc::clone(&self.reads));
        let read = tokio::task::spawn_blocking(move || {
            let read = folder.read(name, owner);
            reads.fetch_add(1, Ordering::Relaxed);
            drop(turn);
            read
        });
        let read = timeout(DISK_WITHIN, read).await.map_err(|_| io::ErrorKind::TimedOut)?;
        read.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }

    /// Waits for a place as long as others make progress. `None` if the disk blocks all of them.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let mut turn = pin!(Arc::clone(&self.readers).acquire_owned());
        loop {
            let reads = self.reads.load(Ordering::Relaxed);
            match timeout(DISK_WITHIN, &mut turn).await {
                Ok(turn) => return turn.ok(),
                Err(_elapsed) if self.reads.load(Ordering::Relaxed) == reads => return None,
                Err(_elapsed) => {}
            }
        }
    }

    pub(super) fn start(self: &Arc<Self>, tasks: &Tasks) {
        tasks.spawn(Arc::clone(self).keep_doubts(tasks.clone()));
        tasks.spawn(Arc::clone(self).keep_files(tasks.clone()));
    }

    async fn keep_doubts(self: Arc<Self>, stop: Tasks) {
        let mut trouble = Trouble::default();
        loop {
            let doubts = self.table().next_doubts();
            let (Some(doubts), Some(marks)) = (doubts, self.marks.load_full()) else {
                tokio::select! {
                    biased;
                    () = self.doubts.notified() => continue,
                    () = stop.stopping() => return,
                }
            };
            let outcome = self.mark(marks, doubts).await;
            self.work.notify_one();
            self.progress.notify_waiters();
            trouble.tell(&self.folder, outcome.as_ref().err());
            if outcome.is_err() && rests(&stop).await {
                return;
            }
        }
    }

    async fn mark(&self, marks: Arc<File>, doubts: Doubts) -> io::Result<()> {
        let (folder, file) = (Arc::clone(&self.folder), Arc::clone(&marks));
        let written = doubts.clone();
        let outcome = on_a_thread(move || folder.mark(&file, &written)).await;
        let mut table = self.table();
        // If the folder was created again in the meantime, this file was not in it.
        if self.marks.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, &marks)) {
            table.doubts_done(outcome.is_ok().then_some(doubts));
        }
        outcome
    }

    async fn keep_files(self: Arc<Self>, stop: Tasks) {
        let mut trouble = Trouble::default();
        loop {
            let (step, is_stuck) = {
                let mut table = self.table();
                (table.next(), table.is_stuck())
            };
            let Some(step) = step else {
                tokio::select! {
                    biased;
                    () = self.work.notified() => {}
                    () = stop.stopping() => return,
                    () = sleep(STUCK), if is_stuck => self.table().try_again(),
                }
                continue;
            };
            let outcome = self.perform(step).await;
            self.doubts.notify_one();
            self.progress.notify_waiters();
            trouble.tell(&self.folder, outcome.as_ref().err());
            if outcome.is_err() && rests(&stop).await {
                return;
            }
        }
    }

    async fn perform(&self, step: Step) -> io::Result<()> {
        let folder = Arc::clone(&self.folder);
        match step {
            Step::Open { is_needed } => {
                self.opened(on_a_thread(move || folder.open(is_needed)).await)
            }
            Step::Remove(names) => {
                let gone = names.clone();
                let outcome = on_a_thread(move || folder.remove(&gone)).await;
                match &outcome {
                    Ok(()) => self.table().removed(&names),
                    Err(_) => self.table().not_removed(&names),
                }
                outcome
            }
            Step::Put { name, owner, at, whole, before } => {
                let put = on_a_thread(move || folder.put((name, owner), at, &whole, before)).await;
                self.put(name, at, put)
            }
            Step::Confirm { name, owner, at } => {
                match on_a_thread(move || folder.confirm((name, owner), at)).await {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.table().end(name);
                        Ok(())
                    }
                    outcome => outcome,
                }
            }
        }
    }

    fn opened(&self, opened: io::Result<Option<Opened>>) -> io::Result<()> {
        match opened {
            Ok(Some(Opened { files, doubts, marks })) => {
                let mut table = self.table();
                self.marks.store(Some(Arc::new(marks)));
                table.opened(Some((files, doubts)));
                Ok(())
            }
            Ok(None) => {
                self.table().opened(None);
                Ok(())
            }
            Err(error) => {
                self.table().not_opened();
                Err(error)
            }
        }
    }

    fn put(&self, name: Name, at: u64, put: io::Result<Written>) -> io::Result<()> {
        let mut table = self.table();
        match put {
            Ok(written) => {
                table.put_done(name, at, written);
                Ok(())
            }
            Err(error) => {
                table.put_failed(name);
                if error.kind() == io::ErrorKind::NotFound {
                    table.lost_folder();
                }
                Err(error)
            }
        }
    }
}

/// The content of a file. `None` if it is damaged.
type Read = Option<crate::front::conditional::Whole>;

/// A panic counts as a failure, because it is not known what was done before it.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// Pauses after a failure. True if the process stops in the meantime.
async fn rests(stop: &Tasks) -> bool {
    tokio::select! {
        biased;
        () = stop.stopping() => true,
        () = sleep(RETRY) => false,
    }
}

/// Logs once that something fails, and once that it works again.
#[derive(Default)]
struct Trouble(bool);

impl Trouble {
    fn tell(&mut self, folder: &Folder, error: Option<&io::Error>) {
        let path = folder.dir().display();
        match error {
            Some(error) if !self.0 => {
                warn!(%path, %error, "Copies for the time when the home is away cannot be stored.");
            }
            None if self.0 => info!(%path, "Copies for the time when the home is away work again."),
            Some(_) | None => {}
        }
        self.0 = error.is_some();
    }
}
