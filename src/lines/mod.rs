//! Logs of lines beside the log of the process: to standard output, or to a file.
//!
//! Whoever has a line never waits: it goes through a bounded queue to one task, which writes on a
//! thread that may wait for a disk. A line that has no room in the queue, or that the disk does not
//! take, is counted as lost. It never holds up what it is about.

mod sink;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tracing::{error, info};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::tasks::Tasks;
pub use sink::{NotOpened, Sink};

/// How many lines may wait for the disk, and how many bytes they may have.
const WAITING_MAX: usize = 4_096;
const BYTES_MAX: usize = 8 << 20;

/// How many lines are written in one step.
const BATCH: usize = 256;

/// Takes lines, if they go anywhere.
#[derive(Debug)]
pub struct Lines {
    queue: OnceLock<mpsc::Sender<String>>,
    about: About,
}

/// What a log is called, how many of its lines were lost, and how many bytes wait.
#[derive(Clone, Debug)]
struct About {
    name: &'static str,
    lost: Counter,
    waiting: Arc<AtomicUsize>,
}

impl Lines {
    /// Takes nothing until it is started.
    #[must_use]
    pub fn new(name: &'static str, lost: Counter) -> Self {
        let waiting = Arc::default();
        Self { queue: OnceLock::new(), about: About { name, lost, waiting } }
    }

    /// Begins to write. It ends with `tasks`, after what came until then.
    pub fn start(&self, sink: Sink, tasks: &Tasks) {
        let (queue, lines) = mpsc::channel(WAITING_MAX);
        if self.queue.set(queue).is_ok() {
            tasks.spawn(write(lines, sink, self.about.clone(), tasks.clone()));
        }
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.get().is_some()
    }

    /// Takes a line, which ends with `\n`. It is made only if it goes somewhere.
    pub fn put(&self, line: impl FnOnce() -> String) {
        let Some(queue) = self.queue.get() else { return };
        let Ok(room) = queue.try_reserve() else { return self.lose() };
        let line = line();
        let waiting = &self.about.waiting;
        if BYTES_MAX < waiting.fetch_add(line.len(), Ordering::Relaxed) + line.len() {
            waiting.fetch_sub(line.len(), Ordering::Relaxed);
            return self.lose();
        }
        room.send(line);
    }

    /// Counts a line that is not written.
    pub fn lose(&self) {
        self.about.lost.inc();
    }

    /// How many lines were not written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.about.lost.get()
    }
}

/// Now, as RFC 3339 says it.
#[must_use]
pub fn timestamp() -> String {
    let mut text = String::new();
    // Nothing but memory can fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// Writes lines until the process ends, and then those that wait.
async fn write(mut lines: mpsc::Receiver<String>, mut sink: Sink, about: About, tasks: Tasks) {
    let mut is_failing = false;
    loop {
        let mut batch = Vec::new();
        let count = tokio::select! {
            biased;
            // First, so that it is seen also while lines come without end.
            () = tasks.stopping() => {
                lines.close();
                lines.recv_many(&mut batch, BATCH).await
            }
            count = lines.recv_many(&mut batch, BATCH) => count,
        };
        if count == 0 {
            return;
        }
        let bytes = batch.iter().map(String::len).sum();
        let written = tokio::task::spawn_blocking(move || {
            let written = sink.write(&batch);
            (sink, written)
        });
        about.waiting.fetch_sub(bytes, Ordering::Relaxed);
        let Ok((same, written)) = written.await else { return };
        sink = same;
        match written {
            Ok(()) if is_failing => info!("The {} is written again.", about.name),
            Ok(()) => {}
            Err(failed) => {
                about.lost.inc_by(failed.lost);
                if !is_failing {
                    error!(error = %failed.error, "The {} cannot be written.", about.name);
                }
                is_failing = true;
                continue;
            }
        }
        is_failing = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_one_of_rfc_3339() {
        let time = timestamp();
        assert!(time.ends_with('Z') && time.as_bytes().get(10) == Some(&b'T'), "{time}");
    }

    #[tokio::test]
    async fn a_line_that_has_no_room_is_counted_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (lines, tasks) = (Lines::new("access log", Counter::default()), Tasks::default());
        lines.put(|| unreachable!("it goes nowhere"));
        lines.start(Sink::file("log.access", path.clone()).unwrap(), &tasks);
        // Nothing is written before this task waits for something.
        for _ in 0..WAITING_MAX {
            lines.put(|| "a line\n".to_owned());
        }
        lines.put(|| unreachable!("it has no room"));
        assert_eq!(lines.lost(), 1);
        tasks.stop();
        assert_eq!(tasks.drain(Duration::from_secs(20)).await, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), WAITING_MAX);
    }
}
