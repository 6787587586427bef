//! The jobs API (`GET /api/jobs`, `GET /api/jobs/{id}`, the cancels), made from queues and
//! histories. ComfyUI has it since 0.6.0, and the status `cancelled` since about 0.26.
//!
//! - [`query`]: the query of a list, and ComfyUI's error texts for it
//! - [`page`]: which prompts are on a page of the list, and the answer
//! - [`job`]: one prompt as a job, in the list and by itself
//! - `preview`: the preview output of a prompt, and the number of its outputs
//! - `checked`: corrects the members that pages check
//! - [`cancel`]: the body of `POST /api/jobs/cancel`
//!
//! The objects are those of 0.33, which every page that knows the API can read, whatever server the
//! prompt ran on. Additional members of a newer server's objects are kept. An interrupted prompt is
//! `cancelled` for clients that know this status.

pub mod cancel;
mod checked;
pub mod job;
pub mod page;
mod preview;
pub mod query;

use crate::routing::pending::End;

/// The answer for an unknown prompt; its status is 404.
pub const NOT_FOUND: &str = r#"{"error": "Job not found"}"#;

/// The status of a prompt, in the words of the jobs API.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Status {
    Pending,
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    /// In the order in which ComfyUI names them.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::InProgress, Self::Completed, Self::Failed, Self::Cancelled];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status with that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// The status of a prompt with this end; `None` if ComfyUI would no longer know the prompt.
    #[must_use]
    pub fn of_end(end: End) -> Option<Self> {
        match end {
            End::Succeeded => Some(Self::Completed),
            End::Failed | End::Lost(_) => Some(Self::Failed),
            End::Interrupted => Some(Self::Cancelled),
            End::Deleted => None,
        }
    }

    /// True if the status is final.
    #[must_use]
    pub fn is_ended(self) -> bool {
        match self {
            Self::Pending | Self::InProgress => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// The status that clients see for an interrupted prompt.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Interrupted {
    /// As on servers without the status `cancelled`.
    #[default]
    Failed,
    Cancelled,
}

impl Interrupted {
    /// The status that clients see.
    #[must_use]
    pub fn told(self, status: Status) -> Status {
        match (self, status) {
            (Self::Failed, Status::Cancelled) => Status::Failed,
            (
                Self::Failed | Self::Cancelled,
                Status::Pending
                | Status::InProgress
                | Status::Completed
                | Status::Failed
                | Status::Cancelled,
            ) => status,
        }
    }
}

/// How a job is written for a client.
#[derive(Clone, Copy, Debug)]
pub struct Telling {
    pub interrupted: Interrupted,
    /// When the prompt was submitted, in milliseconds since 1970: its `create_time` if its server
    /// gives none. If one job lacks that number, pages show no jobs.
    pub taken_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::pending::Loss;

    #[test]
    fn every_end_has_a_status_but_deletion() {
        assert_eq!(Status::of_end(End::Succeeded), Some(Status::Completed));
        assert_eq!(Status::of_end(End::Interrupted), Some(Status::Cancelled));
        assert_eq!(Status::of_end(End::Lost(Loss::Vanished)), Some(Status::Failed));
        assert_eq!(Status::of_end(End::Deleted), None);
    }

    #[test]
    fn only_an_interrupted_prompt_is_told_in_two_ways() {
        for status in Status::ALL {
            assert_eq!(Status::named(status.name()), Some(status));
            assert_eq!(Interrupted::Cancelled.told(status), status);
            let is_same = Interrupted::Failed.told(status) == status;
            assert_eq!(is_same, status != Status::Cancelled);
        }
        assert_eq!(Status::named("Pending"), None);
    }
}
