//! Who works on the disk for the copies: two tasks, each with one thread at most, and readers with
//! a few. A disk that hangs keeps these and nobody else.
//!
//! - The one of the doubts is waited for before a write is sent. It writes one small file in place.
//! - The one of the files puts and deletes. Nobody waits for it.

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

/// How many may read at one time; others wait for their turn.
const READERS_MAX: usize = 4;

/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// How long what cannot be deleted is left alone.
const STUCK: Duration = Duration::from_secs(10);

/// What the tasks share with those that ask.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) folder: Arc<Folder>,
    table: Lock<Table, { rank::COPIES }>,
    marks: ArcSwapOption<File>,
    /// There is something to do for the one of the files.
    work: Notify,
    /// There may be other doubts.
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

    /// The table was changed.
    pub(super) fn changed(&self) {
        self.work.notify_one();
        self.doubts.notify_one();
        self.progress.notify_waiters();
    }

    /// Waits until `ready` says something of the table. Cancel safe.
    pub(super) async fn until<T>(&self, ready: impl Fn(&Table) -> Option<T>) -> T {
        loop {
            // Before the look: it hears of everything that is done from here on.
            let progress = self.progress.notified();
            if let Some(found) = ready(&self.table()) {
                return found;
            }
            progress.await;
        }
    }

    /// Reads a copy when it is its turn. Cancel safe: one that hangs keeps its turn.
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

    /// Waits for a turn for as long as others get theirs. `None` if a disk lets all of them wait.
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
        // If the folder was made anew meanwhile, this was not in it.
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

/// What a file says; `None` if it is damaged.
type Read = Option<crate::front::conditional::Whole>;

/// A panic in it is a failure as any other: nobody knows how far it came.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// The pause after a failure. True if the process stops meanwhile.
async fn rests(stop: &Tasks) -> bool {
    tokio::select! {
        biased;
        () = stop.stopping() => true,
        () = sleep(RETRY) => false,
    }
}

/// Says once that something fails, and once that it does no more.
#[derive(Default)]
struct Trouble(bool);

impl Trouble {
    fn tell(&mut self, folder: &Folder, error: Option<&io::Error>) {
        let path = folder.dir().display();
        match error {
            Some(error) if !self.0 => {
                warn!(%path, %error, "Copies for when the home is away cannot be kept up.");
            }
            None if self.0 => info!(%path, "Copies for when the home is away are kept up again."),
            Some(_) | None => {}
        }
        self.0 = error.is_some();
    }
}
