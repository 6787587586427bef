//! The journal: what survives a restart. It keeps bindings, reservations, pending prompts, ends,
//! files.
//!
//! A change is *noted* where it is made and becomes *durable* a moment later: one writer takes all
//! notes since its last commit and commits them together ([`Batch`]), so a burst costs one commit.
//! Only what is acknowledged waits: a submission before its first byte is sent, and an answer with
//! a new binding before its head is sent.
//!
//! Bodies of prompts can carry API keys. Only those of prompts that wait in the gateway are stored,
//! until they have begun or ended, and sealed if there is a key ([`seal`]).
//!
//! - [`record`]: records of clients, prompts and files; `people`: records of their owners
//! - `large`: bodies that are written in parts; [`seal`]: how bodies are encrypted, and what has to
//!   fit at a start
//! - `batch`: changes that are written together, and the state that results
//! - [`leftovers`]: which servers are still waited for after a restart (pure)
//! - [`disk`]: the store on a disk; [`peek`] looks into it
//! - [`rows`]: records as rows, for a store in a database; [`lease`]: the right to act on them
//! - [`restore`]: from records to bindings and pending prompts (pure); [`renamed`]: files whose
//!   server's identity became known, or is no longer known
//!
//! # Invariants
//!
//! - A batch is committed whole or not at all, in the order in which batches were gathered.
//! - What waits for the disk is bounded. At the latest when `QUEUED_MAX` notes wait, a later note
//!   of a client, a prompt or a file replaces the earlier one, and the number of these is bounded.
//! - A store that fails loses nothing while the process lives: its batch is merged with later notes
//!   and tried again. The later note wins.

mod batch;
pub mod disk;
mod found;
mod large;
pub mod lease;
pub mod leftovers;
mod members;
mod names;
mod note;
mod noting;
mod operators;
pub mod peek;
mod people;
pub mod quarantine;
pub mod record;
pub mod renamed;
pub mod restore;
pub mod rows;
pub mod seal;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::error;

use crate::lock::{Guard, Lock, rank};
use crate::net::{Boxed, sleep};
use crate::ordered_watch::{OrderedWatch, Packed};
use crate::routing::ids::PromptId;
use crate::tasks::Tasks;
use large::Large;
use lease::Lease;
use note::Note;
use record::{Batch, Saved};
use seal::Seal;
use writer::Writer;

/// How long a commit is awaited. A disk that takes longer counts as failing.
pub const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// How long a large body is awaited, with those before it.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The pause before a failed commit is retried.
const RETRY: Duration = Duration::from_secs(1);

/// When this many notes wait, the caller that adds the next one gathers them, instead of the
/// writer. Otherwise all notes of one item would pile up while the writer waits for a slow disk.
const QUEUED_MAX: u64 = 65_536;

/// Where records are kept. [`disk::Disk`] is the one that survives; a simulation has its own.
pub trait Store: fmt::Debug + Send + 'static {
    /// Everything that was committed. Called once, before the first commit.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or is of a newer Mooring.
    fn load(&mut self) -> Result<Saved, JournalError>;

    /// Makes a batch durable, whole or not at all.
    fn commit(&mut self, batch: Arc<Batch>) -> Boxed<'_, Result<(), JournalError>>;

    /// The right to act on its records. `None` if no other process can have them.
    fn lease(&self) -> Option<Arc<Lease>> {
        None
    }
}

impl Store for Box<dyn Store> {
    fn load(&mut self) -> Result<Saved, JournalError> {
        (**self).load()
    }

    fn commit(&mut self, batch: Arc<Batch>) -> Boxed<'_, Result<(), JournalError>> {
        (**self).commit(batch)
    }

    fn lease(&self) -> Option<Arc<Lease>> {
        (**self).lease()
    }
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot use {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is used by another process", path = path.display())]
    InUse { path: PathBuf },
    #[error(
        "{path} is damaged: {what}; move it away to start without what it holds",
        path = path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error(
        "{path} was written by a newer Mooring: {what} has format {found}, this one reads up to \
         {known}; start the newer one, or move the file away to start without what it holds",
        path = path.display()
    )]
    Newer { path: PathBuf, what: String, found: u64, known: u64 },
    #[error("writing to {path} failed: {what}", path = path.display())]
    Write { path: PathBuf, what: String },
    #[error(
        "the bodies of {count} prompts that wait are sealed in the journal, and \
         `state.seal_key_file` {lacks}: put the key back (its id is {ids}), or set \
         `state.on_unopened` to `lose` for one start, which loses these prompts and nothing else"
    )]
    Sealed { count: usize, lacks: &'static str, ids: String },
    #[error(
        "the bodies of {count} prompts in the journal are not what was sealed there, that of \
         {prompt} for one: set `state.on_unopened` to `lose` for one start, which loses these \
         prompts and nothing else"
    )]
    Changed { count: usize, prompt: PromptId },
    /// A store that is no file.
    #[error("{what}")]
    Store { what: String },
}

/// The notes are not durable: the store fails or is too slow.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the journal cannot be written")]
pub struct NotDurable;

/// The journal, as the rest of the gateway sees it.
///
/// Without a store it does nothing: the gateway's own tables hold everything.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    kept: Option<Arc<Kept>>,
    /// With what bodies are sealed.
    seal: Option<Arc<Seal>>,
}

#[derive(Debug)]
struct Kept {
    /// Notes in the order in which they were made. Noting takes no lock: it happens under the locks
    /// of a client, a prompt or a file, and must not make anybody wait.
    notes: mpsc::Sender<Note>,
    /// How many notes were ever made: the number of the last one.
    noted: AtomicU64,
    /// How many notes were gathered.
    taken: AtomicU64,
    gathered: Lock<Gathered, { rank::JOURNAL }>,
    work: Notify,
    progress: OrderedWatch<Progress>,
    /// How often a large body became whole, or is not needed any more.
    bodies: OrderedWatch<Bodies>,
    lease: Option<Arc<Lease>>,
}

/// Notes that are gathered, and not yet taken by the writer.
#[derive(Debug)]
struct Gathered {
    notes: mpsc::Receiver<Note>,
    batch: Batch,
    large: Large,
    /// How many records the writer is committing.
    in_commit: usize,
}

/// How far the writer has come.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// All notes up to this number are durable.
    durable: u64,
    is_failing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Bodies(u64);

impl Packed for Bodies {
    fn pack(self) -> u64 {
        self.0
    }

    fn unpack(word: u64) -> Self {
        Self(word)
    }
}

impl Packed for Progress {
    fn pack(self) -> u64 {
        self.durable << 1 | u64::from(self.is_failing)
    }

    fn unpack(word: u64) -> Self {
        Self { durable: word >> 1, is_failing: word & 1 == 1 }
    }
}

impl Journal {
    /// A journal in memory, which ends with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// A journal in `store`, with its writer. The writer is not one of the gateway's supervised
    /// tasks: it must also commit the last notes of those tasks. It ends with `writers`.
    #[must_use]
    pub fn open(store: impl Store, writers: &Tasks) -> Self {
        let (notes, noted) = mpsc::channel();
        let (batch, large) = (Batch::default(), Large::default());
        let gathered = Gathered { notes: noted, batch, large, in_commit: 0 };
        let kept = Arc::new(Kept {
            notes,
            noted: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            gathered: Lock::new(gathered),
            work: Notify::new(),
            progress: OrderedWatch::new(Progress { durable: 0, is_failing: false }),
            bodies: OrderedWatch::new(Bodies(0)),
            lease: store.lease(),
        });
        let writer = Writer { kept: Arc::clone(&kept), store };
        writers.spawn_critical("journal", writer.run(writers.clone()));
        Self { kept: Some(kept), seal: None }
    }

    /// The same journal, which seals bodies from now on.
    #[must_use]
    pub fn sealed(self, seal: Option<Seal>) -> Self {
        Self { seal: seal.map(Arc::new), ..self }
    }

    /// False if nothing is kept; callers then need not make records.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Waits until everything that was noted before this call is durable.
    ///
    /// # Errors
    /// The store fails. The notes are kept and tried again.
    pub async fn durable(&self) -> Result<(), NotDurable> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let number = kept.noted.load(Ordering::SeqCst);
        let settled = kept.progress.wait_for(|it| number <= it.durable || it.is_failing);
        match timeout(COMMIT_WITHIN, settled).await {
            Ok(progress) if number <= progress.durable => Ok(()),
            Ok(_failing) => Err(NotDurable),
            Err(_elapsed) => {
                kept.hangs(number);
                Err(NotDurable)
            }
        }
    }

    /// The same, and until the body of this prompt is, which may be written in parts.
    ///
    /// # Errors
    /// As above.
    pub async fn durable_body(&self, prompt: &PromptId) -> Result<(), NotDurable> {
        self.durable().await?;
        let Some(kept) = &self.kept else { return Ok(()) };
        let is_whole = async {
            let number = kept.gathered().large.number_of(prompt);
            while number.is_some() {
                let Bodies(before) = kept.bodies.get();
                if kept.gathered().large.number_of(prompt) != number {
                    return;
                }
                kept.bodies.wait_for(|it| it.0 != before).await;
            }
        };
        tokio::select! {
            biased;
            () = is_whole => Ok(()),
            _failing = kept.progress.wait_for(|it| it.is_failing) => Err(NotDurable),
            () = sleep(BODY_WITHIN) => Err(NotDurable),
        }
    }

    /// The right to send prompts. `None` if it cannot be lost.
    #[must_use]
    pub fn lease(&self) -> Option<&Arc<Lease>> {
        self.kept.as_ref()?.lease.as_ref()
    }

    /// False while the store fails.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| !kept.progress.get().is_failing)
    }

    /// How many records are not yet durable.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| {
            let queued = usize::try_from(kept.queued()).unwrap_or(usize::MAX);
            let gathered = kept.gathered();
            queued + gathered.batch.len() + gathered.in_commit
        })
    }

    fn note(&self, note: impl FnOnce() -> Note) {
        let Some(kept) = &self.kept else { return };
        // Cannot fail: the receiver lives as long as `self`.
        let _ = kept.notes.send(note());
        kept.noted.fetch_add(1, Ordering::SeqCst);
        if QUEUED_MAX < kept.queued() {
            kept.gather(&mut kept.gathered());
        }
        kept.work.notify_one();
    }
}

impl Kept {
    /// The store does not answer: no caller waits for it any more until it has committed something.
    fn hangs(&self, number: u64) {
        let was_failing = self.progress.get().is_failing;
        // Not if a commit has just succeeded: nothing would reset the flag afterwards.
        let is_late = |it: Progress| it.is_failing || it.durable < number;
        self.progress.change(|it| Progress { is_failing: is_late(it), ..it });
        if !was_failing {
            let secs = COMMIT_WITHIN.as_secs();
            error!(secs, "The journal is not written in time: a crash would now lose work.");
        }
    }

    /// Puts the queued notes into the batch, later notes over earlier ones. Returns the number of
    /// the last note in it.
    fn gather(&self, gathered: &mut Gathered) -> u64 {
        // Each note is sent before it is counted, so all counted ones are in the channel.
        let noted = self.noted.load(Ordering::SeqCst);
        while let Ok(note) = gathered.notes.try_recv() {
            self.taken.fetch_add(1, Ordering::SeqCst);
            let is_body = matches!(note, Note::Body(_, None));
            gathered.put(note);
            if is_body {
                self.bodies.change(|Bodies(count)| Bodies(count + 1));
            }
        }
        noted
    }

    fn queued(&self) -> u64 {
        let taken = self.taken.load(Ordering::SeqCst);
        self.noted.load(Ordering::SeqCst).saturating_sub(taken)
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn gathered(&self) -> Guard<'_, Gathered, { rank::JOURNAL }> {
        self.gathered.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::record::{BindingRecord, BodyRecord};
    use super::*;
    use crate::net::now;
    use crate::routing::ids::ClientId;
    use crate::tasks::heartbeat::{LOOKS_MAX, SILENT_AFTER};

    /// Keeps batches in memory; fails while it is told to.
    #[derive(Clone, Debug, Default)]
    struct Memory {
        batches: Arc<std::sync::Mutex<Vec<Batch>>>,
        fails: Arc<AtomicBool>,
        hangs: Arc<AtomicBool>,
        goes_on: Arc<Notify>,
    }

    impl Store for Memory {
        fn load(&mut self) -> Result<Saved, JournalError> {
            Ok(Saved::default())
        }

        fn commit(&mut self, batch: Arc<Batch>) -> Boxed<'_, Result<(), JournalError>> {
            Box::pin(async move {
                if self.hangs.load(Ordering::Relaxed) {
                    self.goes_on.notified().await;
                }
                if self.fails.load(Ordering::Relaxed) {
                    let (path, what) = (PathBuf::from("memory"), "told to".to_owned());
                    return Err(JournalError::Write { path, what });
                }
                self.batches.lock().unwrap().push((*batch).clone());
                Ok(())
            })
        }
    }

    fn client(name: &str) -> ClientId {
        ClientId::parse(name).unwrap()
    }

    fn binding(backend: &str) -> Option<BindingRecord> {
        Some(BindingRecord::new(backend, "http://x", 1, None))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_noted_while_a_commit_runs_is_committed_together() {
        let (store, writers) = (Memory::default(), Tasks::default());
        let journal = Journal::open(store.clone(), &writers);
        for name in ["a", "b", "c"] {
            journal.note_binding(&client(name), binding("one"));
        }
        journal.note_binding(&client("a"), binding("two"));
        assert_eq!(journal.durable().await, Ok(()));
        let batches = store.batches.lock().unwrap().clone();
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].clients[&client("a")], binding("two"), "the latest counts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_written_in_parts_and_delays_nobody_else() {
        let (store, writers) = (Memory::default(), Tasks::default());
        let journal = Journal::open(store.clone(), &writers);
        let prompt = PromptId::parse("p").unwrap();
        let text = "é".repeat(large::PART + 7);
        let body = BodyRecord::of_text(text.clone());
        journal.note_body(&prompt, || body.clone());
        journal.note_binding(&client("a"), binding("one"));
        assert_eq!(journal.durable().await, Ok(()));
        let batches = store.batches.lock().unwrap().clone();
        let first = &batches[0];
        assert_eq!((first.clients.len(), first.parts.len(), first.bodies.len()), (1, 1, 0));
        assert_eq!(journal.durable_body(&prompt).await, Ok(()));
        let batches = store.batches.lock().unwrap().clone();
        assert_eq!(batches.len(), 3);
        assert!(batches.iter().all(|it| it.parts.len() == 1));
        let after = |batches: &[Batch]| {
            batches.iter().fold(Saved::default(), |saved, batch| saved.after(batch))
        };
        let mut saved = after(&batches);
        assert_eq!(saved.join_parts(), [(prompt.clone(), 3)].into());
        assert_eq!(saved.bodies, [(prompt.clone(), body)]);
        let mut killed = after(&batches[..2]);
        assert_eq!(killed.join_parts(), [(prompt.clone(), 2)].into());
        assert_eq!(killed.bodies, [], "it was not whole");

        // Another process has written it, and this one deletes it.
        let (store, writers) = (Memory::default(), Tasks::default());
        let journal = Journal::open(store.clone(), &writers);
        journal.has_parts(&prompt, 3);
        journal.forget_body(&prompt);
        assert_eq!(journal.durable().await, Ok(()));
        let batches = store.batches.lock().unwrap().clone();
        assert_eq!(batches[0].parts.len(), 3);
        assert!(batches[0].parts.values().all(Option::is_none));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_written_to_its_end_when_the_writer_is_stopped() {
        let (store, writers) = (Memory::default(), Tasks::default());
        let journal = Journal::open(store.clone(), &writers);
        let prompt = PromptId::parse("p").unwrap();
        journal.note_body(&prompt, || BodyRecord::of_text("x".repeat(3 * large::PART)));
        assert_eq!(writers.drain(COMMIT_WITHIN).await, 0);
        let last = store.batches.lock().unwrap().last().cloned().unwrap();
        assert!(last.bodies.contains_key(&prompt));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_loses_nothing_and_later_notes_go_over_earlier_ones() {
        let (store, writers) = (Memory::default(), Tasks::default());
        store.fails.store(true, Ordering::Relaxed);
        let journal = Journal::open(store.clone(), &writers);
        journal.note_binding(&client("a"), binding("one"));
        journal.note_binding(&client("b"), binding("one"));
        assert_eq!(journal.durable().await, Err(NotDurable));
        assert!(!journal.is_well());
        journal.note_binding(&client("a"), None);
        assert_eq!(journal.durable().await, Err(NotDurable), "at once, while it fails");
        store.fails.store(false, Ordering::Relaxed);
        while !journal.is_well() {
            sleep(RETRY).await;
        }
        let batches = store.batches.lock().unwrap().clone();
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].clients[&client("a")], None);
        assert_eq!(batches[0].clients[&client("b")], binding("one"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_waited_for_once_and_said_to_fail_until_it_goes_on() {
        let (store, writers) = (Memory::default(), Tasks::default());
        store.hangs.store(true, Ordering::Relaxed);
        let journal = Journal::open(store.clone(), &writers);
        journal.note_binding(&client("a"), binding("one"));
        let began = now();
        assert_eq!(journal.durable().await, Err(NotDurable));
        assert_eq!(now().duration_since(began), COMMIT_WITHIN);
        assert!(!journal.is_well());
        assert_eq!(journal.durable().await, Err(NotDurable));
        assert_eq!(now().duration_since(began), COMMIT_WITHIN, "at once");
        store.hangs.store(false, Ordering::Relaxed);
        store.goes_on.notify_one();
        while !journal.is_well() {
            sleep(RETRY).await;
        }
        assert_eq!(journal.durable().await, Ok(()));
        assert_eq!(store.batches.lock().unwrap()[0].clients[&client("a")], binding("one"));
    }

    /// A disk that does not answer is no reason to restart: reads, sockets and events go on, and a
    /// new process would wait for the same disk. `mooring_journal_failing` tells.
    #[tokio::test(start_paused = true)]
    async fn the_writer_is_not_silent_while_it_waits_for_work_or_for_its_disk() {
        let (store, writers) = (Memory::default(), Tasks::default());
        let journal = Journal::open(store.clone(), &writers);
        let silent = async || {
            for _ in 0..=LOOKS_MAX {
                writers.hearts().look();
                sleep(SILENT_AFTER / LOOKS_MAX).await;
            }
            writers.hearts().silent()
        };
        assert!(silent().await.is_empty(), "there is nothing to write");
        assert_eq!(writers.hearts().names(), ["journal"]);
        store.fails.store(true, Ordering::Relaxed);
        journal.note_binding(&client("a"), binding("one"));
        assert!(silent().await.is_empty(), "it tries again");
        store.hangs.store(true, Ordering::Relaxed);
        assert!(silent().await.is_empty(), "it waits for its disk");
        store.hangs.store(false, Ordering::Relaxed);
        store.fails.store(false, Ordering::Relaxed);
        store.goes_on.notify_one();
        assert!(silent().await.is_empty());
        assert_eq!(journal.durable().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_note_is_committed_when_the_writer_is_stopped() {
        let (store, writers) = (Memory::default(), Tasks::default());
        let journal = Journal::open(store.clone(), &writers);
        journal.note_binding(&client("a"), binding("one"));
        assert_eq!(writers.drain(COMMIT_WITHIN).await, 0);
        assert_eq!(store.batches.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_noted_again_and_again_while_nobody_writes_is_held_once() {
        let (store, writers) = (Memory::default(), Tasks::default());
        store.fails.store(true, Ordering::Relaxed);
        let journal = Journal::open(store.clone(), &writers);
        // The writer gets no turn meanwhile, because this loop never awaits.
        for _ in 0..3 * QUEUED_MAX {
            journal.note_binding(&client("a"), binding("one"));
        }
        let waiting = u64::try_from(journal.waiting()).unwrap();
        assert!(waiting <= QUEUED_MAX + 1, "{waiting}");
        journal.note_binding(&client("a"), binding("last"));
        store.fails.store(false, Ordering::Relaxed);
        assert_eq!(journal.durable().await, Ok(()));
        let batches = store.batches.lock().unwrap().clone();
        assert_eq!(batches[0].clients[&client("a")], binding("last"));
    }

    #[tokio::test]
    async fn in_memory_everything_is_as_durable_as_it_gets() {
        let journal = Journal::in_memory();
        journal.note_binding(&client("a"), binding("one"));
        assert_eq!((journal.durable().await, journal.waiting()), (Ok(()), 0));
    }
}
