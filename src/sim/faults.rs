//! Faults of a simulated backend. All can be switched while it runs.

use std::time::Duration;

use serde::Deserialize;

/// The active faults. The default is none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The wait before each HTTP answer.
    pub latency_ms: u64,
    pub hang: Hang,
    /// Requests of this kind, as `POST /prompt`, are held until this changes, and done then.
    pub holds: Box<str>,
    /// Requests of this kind are done, and answered only when this changes.
    pub holds_answers: Box<str>,
    /// Answers every HTTP request with this status and a line of text; 0 means off.
    pub status: u16,
    /// Answers every HTTP request with a page that is not ComfyUI's, and refuses sockets.
    pub junk: bool,
    pub submit: SubmitFault,
    /// How many submissions the submit fault affects; 0 means all.
    pub submit_count: u32,
    /// Event types that are not sent.
    pub drop_events: Vec<String>,
    /// Event types that are sent twice.
    pub double_events: Vec<String>,
    /// The closing `executing` null is not sent.
    pub no_last_word: bool,
    /// The time between taking a prompt from the queue and its start. An interrupt in that time is
    /// lost.
    pub start_delay_ms: u64,
    /// The delay between the end of a prompt and its history entry.
    pub history_delay_ms: u64,
    /// The time that hashing an upload takes, before the answer. It runs on the event loop (0.33,
    /// `upload_from_temp_path`), so nothing else is answered or sent meanwhile.
    pub hash_ms: u64,
    /// It is hashing at this moment.
    pub hashes: bool,
    pub worker_dies: WorkerDies,
    /// Answers 401 unless `Authorization` has exactly this value; empty means no check.
    pub wants: String,
    /// When this changes, each connection is closed once it has no request.
    pub close_connections: u64,
    /// Sockets are refused with 500.
    pub refuse_sockets: bool,
    /// Node classes that it lacks.
    pub lacks: Vec<String>,
    /// Pings are not answered, and nothing is written to sockets.
    pub mute_sockets: bool,
    pub listening: Listening,
    /// What `/system_stats` lists as `devices`; null for the processor, as recorded.
    pub devices: Box<serde_json::Value>,
}

/// What happens to new connections. Existing ones continue.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Listening {
    #[default]
    Open,
    /// Nobody listens: new connections are refused.
    Closed,
    /// The system accepts new connections, but the server never does.
    Deaf,
}

/// When its worker thread dies. The server continues without it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum WorkerDies {
    #[default]
    Never,
    /// After the next `execution_start`, as with a graph that cannot be read (`execution.py`,
    /// `set_prompt`): the prompt stays listed as running until the process is restarted.
    AtAStart,
    /// Before it takes the next prompt. It returns to life when this is switched off.
    BetweenPrompts,
}

/// Requests that are never answered.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Hang {
    #[default]
    None,
    /// Every request, and sockets as well.
    All,
    /// `POST /prompt` only.
    Submit,
    /// Only `POST /queue`, and only after its effect.
    AfterQueue,
    /// What is saved in settings and files of users; it is done when this is switched off.
    Saving,
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
    /// It is queued, but the answer is 500.
    Error500Enqueued,
    Error500NotEnqueued,
    /// 502 from a proxy; nothing is queued.
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

    /// `None` for no delay.
    #[must_use]
    pub fn start_delay(&self) -> Option<Duration> {
        (0 < self.start_delay_ms).then(|| Duration::from_millis(self.start_delay_ms))
    }

    #[must_use]
    pub fn history_delay(&self) -> Duration {
        Duration::from_millis(self.history_delay_ms)
    }

    /// The fault of the next submission; a counted fault ends after its count.
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
