//! One write to user data, from before it is sent until its result at the home is known.
//!
//! It runs in a task of its own, because its sender may leave, as a page does that is closed; the
//! home's answer then still says when the changed data can be used again. If there is no answer,
//! the home may do the write later. Then the changed data is not used for as long again as an
//! answer may take.

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::read_anew::ReadAnew;
use crate::config::OnJournalError;
use crate::front::cache_key::{CacheKey, Group};
use crate::front::copies::NotMarked;
use crate::front::error::GatewayError;
use crate::front::forward::{Target, forward};
use crate::front::shares::holder;
use crate::front::writes::Outcome;
use crate::front::{Answer, Front, failover};
use crate::net::{now, sleep};
use crate::records::home::HomeServer;

/// How many writes may be open at the same time. This includes writes without an answer, and those
/// whose changes are being read again.
pub const SAVING_MAX: usize = 1024;

/// How many of them one address may have, so that a slow sender, or a silent home, does not keep
/// others from saving.
pub const SAVING_EACH_MAX: usize = SAVING_MAX / 4;

/// Sends a write to the home, and reads its changes again afterwards.
///
/// # Errors
/// It was not answered, or it was not sent: too many are open, the operator does not allow a write
/// that a crash could forget, or the process stops.
pub(super) async fn save(
    front: &Arc<Front>,
    home: Target,
    key: CacheKey,
    from: IpAddr,
    request: Request<Incoming>,
) -> Answer {
    let turn = front.saving.take(&holder(from)).ok_or(GatewayError::SavingFull)?;
    let anew = ReadAnew::after(&home, &key, from, &request);
    let mut write = Write::begin(front, home, key);
    write.is_marked().await?;
    let (tell, told) = oneshot::channel();
    front.shared.tasks.spawn(async move {
        if let Some(stale) = write.run(request, tell).await {
            anew.read(&write.front, stale).await;
        }
        drop((write, turn));
    });
    told.await.unwrap_or(Err(GatewayError::Stopping))
}

/// What the answer says about a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Heard {
    /// It was refused or never sent: nothing has changed.
    Refused,
    /// The home has completed it.
    Done,
    /// Nothing is known: the home may do it later.
    Nothing,
}

/// If a write took too long or its sender left, a proxy in front of the home may report a refusal
/// (408, and nginx's 499) or a missing answer (502 and above), although the home has received the
/// write.
fn heard(answer: &Answer) -> Heard {
    match answer {
        Ok(response) => match response.status().as_u16() {
            408 | 499 | 502.. => Heard::Nothing,
            400..500 => Heard::Refused,
            _ => Heard::Done,
        },
        Err(error) if failover::is_away(error) => Heard::Refused,
        Err(GatewayError::NoUserThere { .. }) => Heard::Refused,
        // The home gets no more of it, so it has done what it will do.
        Err(GatewayError::BodyBroken) => Heard::Done,
        Err(_) => Heard::Nothing,
    }
}

/// A write until its changes are known again. It is over when this is dropped, at the latest.
struct Write {
    front: Arc<Front>,
    home: Target,
    /// The identity of the server, for its copies.
    server: HomeServer,
    key: CacheKey,
    groups: Vec<Group>,
    /// The outcome if it were over now.
    outcome: Outcome,
    /// The home is working on it, as far as is known, or its changes were not read yet.
    is_at_work: bool,
    is_over: bool,
}

impl Write {
    /// From now on no copy is used of what it changes.
    fn begin(front: &Arc<Front>, home: Target, key: CacheKey) -> Self {
        let (front, server) = (Arc::clone(front), HomeServer::of(&home.backend));
        let groups = key.changes();
        front.writes.begin(&groups, now());
        front.copies.write_begins(&server, &groups);
        let outcome = Outcome::NotDone;
        Self { front, home, server, key, groups, outcome, is_at_work: true, is_over: false }
    }

    /// Waits until the note for a process that starts after a crash is on the disk.
    ///
    /// # Errors
    /// The disk failed, and the operator does not allow a write that a crash could forget.
    async fn is_marked(&self) -> Result<(), GatewayError> {
        match self.front.copies.is_marked(&self.server, &self.groups).await {
            Ok(()) => Ok(()),
            Err(NotMarked) => match self.front.shared.config().on_journal_error() {
                OnJournalError::Serve => Ok(()),
                OnJournalError::Refuse => Err(GatewayError::NotSavedUnmarked),
            },
        }
    }

    /// Sends it, and reports its result. Returns the copies of its writer that have ended. `None`
    /// if it changed nothing.
    async fn run(
        &mut self,
        request: Request<Incoming>,
        tell: oneshot::Sender<Answer>,
    ) -> Option<Vec<CacheKey>> {
        self.outcome = Outcome::MayBeDone;
        let answer = forward(&self.front.shared, &self.home, request).await;
        let heard = heard(&answer);
        // This comes before the writer gets the answer, so that it then reads what was saved.
        let stale = match heard {
            Heard::Refused => {
                self.outcome = Outcome::NotDone;
                self.ends()
            }
            Heard::Done => self.ends(),
            Heard::Nothing => {
                self.stops();
                Vec::new()
            }
        };
        let _the_writer_may_have_left = tell.send(answer);
        match heard {
            Heard::Refused => None,
            Heard::Done => Some(stale),
            Heard::Nothing => {
                self.until_it_is_done().await;
                Some(self.ends())
            }
        }
    }

    /// The home may do it later, and nobody will know: it gets as much time as an answer may take.
    async fn until_it_is_done(&self) {
        let within = self.front.shared.config().server.answer_timeout;
        tokio::select! {
            biased;
            () = self.front.shared.tasks.stopping() => {}
            () = sleep(within) => {}
        }
    }

    fn stops(&mut self) {
        if std::mem::take(&mut self.is_at_work) {
            self.front.writes.stops(&self.groups);
        }
    }

    /// The write is over. Returns the copies of its writer that have ended.
    fn ends(&mut self) -> Vec<CacheKey> {
        self.is_over = true;
        let stale = self.front.stale_cache.written(&self.key, self.outcome);
        self.front.copies.write_ends(&self.server, &self.groups, self.outcome);
        stale
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if !self.is_over {
            let _nobody_reads_anew = self.ends();
        }
        // This is last, because those who wait for it then look for a copy.
        self.stops();
    }
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};

    use super::*;
    use crate::body::ResponseBody;
    use crate::fleet::user_ids::NoUserId;

    #[test]
    fn only_the_home_says_what_came_of_a_write() {
        for (status, expected) in [
            (200, Heard::Done),
            (204, Heard::Done),
            (400, Heard::Refused),
            (409, Heard::Refused),
            (408, Heard::Nothing),
            (499, Heard::Nothing),
            (500, Heard::Done),
            (502, Heard::Nothing),
            (504, Heard::Nothing),
            (524, Heard::Nothing),
        ] {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            assert_eq!(heard(&Ok(response)), expected, "{status}");
        }
        let down = GatewayError::BackendDown { backend: "a".into() };
        assert_eq!(heard(&Err(down)), Heard::Refused);
        let nobody = GatewayError::NoUserThere { backend: "a".into(), source: NoUserId::NotMade };
        assert_eq!(heard(&Err(nobody)), Heard::Refused);
        assert_eq!(heard(&Err(GatewayError::BodyBroken)), Heard::Done);
    }
}
