//! How a simulated backend misbehaves. All of it can be switched while it runs.

use std::time::Duration;

use serde::Deserialize;

/// What is wrong with a backend. The default is nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Waits so long before each HTTP answer.
    pub latency_ms: u64,
    pub hang: Hang,
    /// Answers every HTTP request with this status and a line of text; 0 is off.
    pub status: u16,
    /// Answers every HTTP request with a page that is not ComfyUI's, and refuses sockets.
    pub junk: bool,
    pub submit: SubmitFault,
    /// How many submissions the submit fault hits; 0 is all of them.
    pub submit_count: u32,
    /// Event types that are not sent.
    pub drop_events: Vec<String>,
    /// Event types that are sent twice.
    pub double_events: Vec<String>,
    /// `executing` null is not sent.
    pub no_last_word: bool,
    /// How long a prompt that was taken from the queue waits for its start; an interrupt in that
    /// time is lost.
    pub start_delay_ms: u64,
    /// How long the history lags behind the end.
    pub history_delay_ms: u64,
    /// How long an upload is hashed before it is answered. That is done on the event loop (0.33,
    /// `upload_from_temp_path`), so nothing else is answered or sent meanwhile.
    pub hash_ms: u64,
    /// It hashes at this moment.
    pub hashes: bool,
    pub worker_dies: WorkerDies,
    /// Answers 401 to whoever does not say exactly this in `Authorization`; empty asks for nothing.
    pub wants: String,
    /// When it changes, connections are closed as soon as they answer nothing.
    pub close_connections: u64,
    /// Sockets are refused with 500.
    pub refuse_sockets: bool,
    /// Node classes that it does not have.
    pub lacks: Vec<String>,
    /// Pings are not answered, and nothing is written to sockets.
    pub mute_sockets: bool,
    pub listening: Listening,
}

/// What becomes of new connections. The old ones live on.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Listening {
    #[default]
    Open,
    /// Nobody listens any more: they are refused.
    Closed,
    /// The system takes them, and nobody else ever does.
    Deaf,
}

/// When its worker thread dies. The server goes on without it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum WorkerDies {
    #[default]
    Never,
    /// After the next `execution_start`, as by a graph that cannot be read (`execution.py`,
    /// `set_prompt`): the prompt stays what runs, until the process is another one.
    AtAStart,
    /// Before it takes the next prompt. It lives again when this is switched off.
    BetweenPrompts,
}

/// Requests that are never answered.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Hang {
    #[default]
    None,
    /// Every one, and sockets as well.
    All,
    /// `POST /prompt` only.
    Submit,
    /// `POST /queue` only, and after it was done.
    AfterQueue,
}

/// What happens to a submission.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum SubmitFault {
    #[default]
    None,
    /// The connection breaks after the body was read; nothing is queued.
    ResetBeforeEnqueue,
    /// It is queued, and the connection breaks without an answer.
    ResetAfterEnqueue,
    /// It is queued, and the answer is cut in half.
    CutAnswer,
    /// 500, and it is queued all the same.
    Error500Enqueued,
    Error500NotEnqueued,
    /// 502 of something in between; nothing is queued.
    BadGateway,
    /// The process dies after the body was read; nothing is queued.
    CrashBeforeEnqueue,
    /// It is queued, and the process dies.
    CrashAfterEnqueue,
    /// It is queued, and never answered.
    NoAnswer,
}

impl Faults {
    #[must_use]
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    /// `None` leaves no gap.
    #[must_use]
    pub fn start_delay(&self) -> Option<Duration> {
        (0 < self.start_delay_ms).then(|| Duration::from_millis(self.start_delay_ms))
    }

    #[must_use]
    pub fn history_delay(&self) -> Duration {
        Duration::from_millis(self.history_delay_ms)
    }

    /// The fault of the next submission; a counted one wears off.
    pub fn take_submit(&mut self) -> SubmitFault {
        let fault = self.submit;
        if 0 < self.submit_count {
            self.submit_count -= 1;
            if self.submit_count == 0 {
                self.submit = SubmitFault::None;
            }
        }
        fault
    }
}
