//! Settings, saved workflows, users: read from the home or from its copies, written to the home
//! alone (promise R9).
//!
//! What is written through us changes what was copied. So its copies end, and what the writer sees
//! is read anew in the background: the newest workflow is there when the home is away, although
//! nobody has opened it since it was saved.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRAILER,
    TRANSFER_ENCODING,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;

use super::Front;
use super::caller::Caller;
use super::conditional::Conditional;
use super::copies::NotMarked;
use super::error::GatewayError;
use super::forward::{Target, forward, send, to_backend};
use super::home::{self, Asked};
use super::stale_cache::{CacheKey, Found};
use super::writes::Outcome;
use super::{Answer, failover, headers};
use crate::body::{RequestBody, ResponseBody};
use crate::config::OnJournalError;
use crate::net::{now, sleep, unix_millis};
use crate::records::home::HomeServer;
use crate::routing::decision::Reason;

/// How many answers are read anew after one write.
const READ_ANEW_MAX: usize = 16;

/// How many writes may have theirs read anew at one time.
pub const READING_MAX: usize = 64;

/// How many writes may be waited for of which nothing was heard.
pub const UNHEARD_MAX: usize = 1024;

/// Settings, saved workflows, users.
///
/// # Errors
/// The home backend does not answer, and there is no copy; a write has none.
pub async fn user_data(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
    let key = CacheKey::own(path, query, request.headers());
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return home::read(front, key, caller.address, request).await;
    }
    let home = home::target(&front.shared).map_err(|error| not_saved(front, error))?;
    if request.method().is_safe() {
        return forward(&front.shared, &home, request).await;
    }
    front.notice_home(home.backend.id);
    let headers = request.headers().clone();
    let from = caller.address;
    let mut write = Write::begin(front, home, key, from);
    write.is_marked().await?;
    write.heard = Heard::Nothing;
    let answer = forward(&front.shared, &write.home, request).await;
    write.heard = heard(&answer);
    let stale = write.ends();
    if answer.as_ref().is_ok_and(|response| response.status().is_success()) {
        read_anew(&write, headers, stale);
    }
    answer.map_err(|error| not_saved(front, error))
}

/// What was heard of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Heard {
    /// It was refused, or never sent.
    Refused,
    /// The home has done with it, and may have done it.
    Done,
    /// Nothing: the home may do it later.
    Nothing,
    /// The same, and the home is gone: at least it is not busy with it.
    Lost,
}

/// A proxy before the home may say of a write that took too long, or whose sender left, that it was
/// refused (408, and nginx's 499) or that there is no answer (502 and above), although the home has
/// it.
fn heard(answer: &Answer) -> Heard {
    match answer {
        Ok(response) => match response.status().as_u16() {
            408 | 499 | 502.. => Heard::Nothing,
            400..500 => Heard::Refused,
            _ => Heard::Done,
        },
        Err(error) if failover::is_away(error) => Heard::Refused,
        Err(GatewayError::Lost { .. }) => Heard::Lost,
        Err(_) => Heard::Nothing,
    }
}

/// A write on its way. If its client leaves before the answer, it may be done all the same.
struct Write {
    front: Arc<Front>,
    home: Target,
    key: CacheKey,
    from: IpAddr,
    /// What would become of it if nothing more were heard.
    heard: Heard,
    /// Until it is over.
    held: Option<Held>,
}

/// What nothing is known of while it is written. It ends when this is dropped.
struct Held {
    front: Arc<Front>,
    /// Which server is written to, for its copies.
    server: HomeServer,
    key: CacheKey,
    outcome: Outcome,
    is_at_work: bool,
    is_over: bool,
}

impl Write {
    /// From here on nothing is given of what it changes.
    fn begin(front: &Arc<Front>, home: Target, key: CacheKey, from: IpAddr) -> Self {
        let (front, server) = (Arc::clone(front), HomeServer::of(&home.backend));
        let held = Some(Held::new(&front, server, key.clone()));
        Self { front, home, key, from, heard: Heard::Refused, held }
    }

    /// Waits until the disk says so too, for who starts after a crash.
    ///
    /// # Errors
    /// It does not, and the operator wants nothing then that a crash would forget.
    async fn is_marked(&self) -> Result<(), GatewayError> {
        let server = HomeServer::of(&self.home.backend);
        match self.front.copies.is_marked(&server, &self.key.changes()).await {
            Ok(()) => Ok(()),
            Err(NotMarked) => match self.front.shared.config().state.on_error {
                OnJournalError::Serve => Ok(()),
                OnJournalError::Refuse => Err(GatewayError::NotSavedUnmarked),
            },
        }
    }

    /// It is over, or nobody waits for it any more. Returns the copies that its writer had and that
    /// are not good any more.
    fn ends(&mut self) -> Vec<CacheKey> {
        let Some(mut held) = self.held.take() else { return Vec::new() };
        held.outcome = match self.heard {
            Heard::Refused => Outcome::NotDone,
            Heard::Done | Heard::Nothing | Heard::Lost => Outcome::MayBeDone,
        };
        match self.heard {
            Heard::Refused | Heard::Done => return held.end(),
            Heard::Nothing => {}
            Heard::Lost => held.stops(),
        }
        held.until_it_is_done();
        Vec::new()
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let _nobody_reads_anew = self.ends();
    }
}

impl Held {
    fn new(front: &Arc<Front>, server: HomeServer, key: CacheKey) -> Self {
        let (front, groups) = (Arc::clone(front), key.changes());
        front.writes.begin(&groups);
        front.copies.write_begins(&server, &groups);
        let outcome = Outcome::NotDone;
        Self { front, server, key, outcome, is_at_work: true, is_over: false }
    }

    /// Nobody works on it any more.
    fn stops(&mut self) {
        if std::mem::take(&mut self.is_at_work) {
            self.front.writes.stops(&self.key.changes());
        }
    }

    /// It is over. Returns the copies that its writer had, and that are not good any more.
    fn end(&mut self) -> Vec<CacheKey> {
        self.is_over = true;
        self.stops();
        let stale = self.front.stale_cache.written(&self.key, self.outcome);
        self.front.copies.write_ends(&self.server, &self.key.changes(), self.outcome);
        stale
    }

    /// The home may do it later, and nobody will hear: it has as long as an answer may take. If too
    /// many are waited for, or the process stops, it is over at once.
    fn until_it_is_done(self) {
        let Ok(turn) = Arc::clone(&self.front.unheard).try_acquire_owned() else { return };
        if Handle::try_current().is_err() {
            return;
        }
        let tasks = self.front.shared.tasks.clone();
        let within = self.front.shared.config().server.answer_timeout;
        tasks.clone().spawn(async move {
            tokio::select! {
                biased;
                () = tasks.stopping() => {}
                () = sleep(within) => {}
            }
            drop((self, turn));
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_over {
            let _nobody_reads_anew = self.end();
        }
    }
}

/// The home is busy with a write to what is read: whoever reads asks again.
pub fn busy(front: &Front, error: GatewayError) -> GatewayError {
    match front.shared.records.home_name() {
        Some(name) if error.status() != StatusCode::SERVICE_UNAVAILABLE => {
            GatewayError::BackendDown { backend: name.to_string() }
        }
        Some(_) | None => error,
    }
}

/// Nothing was sent, and that is what the writer has to know.
fn not_saved(front: &Front, error: GatewayError) -> GatewayError {
    if !failover::is_away(&error) {
        return error;
    }
    let is_off = matches!(error, GatewayError::BackendOff { .. });
    // Where there never was a home, there is no backend either, and that is what to say.
    let Some(name) = front.shared.records.home_name() else { return error };
    GatewayError::NotSaved { backend: name.to_string(), is_off }
}

/// Reads anew what a write has changed, as far as its writer sees it.
fn read_anew(write: &Write, mut headers: HeaderMap, mut stale: Vec<CacheKey>) {
    let front = Arc::clone(&write.front);
    let Ok(turn) = Arc::clone(&front.reading_anew).try_acquire_owned() else { return };
    if !front.stale_cache.is_on() {
        return;
    }
    for path in write.key.written_paths() {
        let key = write.key.at(&path);
        if !stale.contains(&key) {
            stale.push(key);
        }
    }
    stale.truncate(READ_ANEW_MAX);
    let of_the_write = [
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        EXPECT,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        RANGE,
        TRAILER,
        TRANSFER_ENCODING,
    ];
    for name in of_the_write {
        headers.remove(name);
    }
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let (home, from) = (write.home.clone(), write.from);
    front.shared.tasks.clone().spawn(async move {
        for key in stale {
            read_one(&front, &home, &headers, key, from).await;
        }
        drop(turn);
    });
}

async fn read_one(
    front: &Arc<Front>,
    home: &Target,
    headers: &HeaderMap,
    key: CacheKey,
    from: IpAddr,
) {
    let Ok(mut request) = Request::builder().uri(key.target()).body(()) else { return };
    request.headers_mut().clone_from(headers);
    let (parts, ()) = request.into_parts();
    let (writes, now) = front.writes.number_before(|| front.shared.home());
    if now.is_none_or(|now| now.id != home.backend.id) {
        return;
    }
    let asked = Asked::of(&home.backend, from, writes);
    let request = to_backend(home, parts, RequestBody::Empty);
    // What fails is not copied, and that is all.
    let Ok(response) = send(&front.shared, home, request).await else { return };
    let mut body = home::passed(front, key, &asked, response).into_body();
    while let Some(Ok(_frame)) = body.frame().await {}
}

/// The copy on the disk, marked as such, for what is user data.
pub async fn kept_copy(
    front: &Front,
    key: &CacheKey,
    conditional: &Conditional,
) -> Option<Response<ResponseBody>> {
    let (writes, home) = front.writes.number_before(|| front.shared.records.home_server());
    let (at, mut whole) = front.copies.get(&home?, key).await?;
    let age = Duration::from_millis(unix_millis().saturating_sub(at));
    if let Some(home) = front.shared.home() {
        headers::mark(&mut whole.headers, &home, Reason::Home);
    }
    // The next one is given it from memory; if it is older than this machine runs, from the disk.
    if let Some(since) = now().checked_sub(age) {
        front.stale_cache.put(key.clone(), whole.clone(), since, writes);
    }
    home::stale(front, Found::Whole(whole), age, conditional)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_home_says_what_became_of_a_write() {
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
        assert_eq!(heard(&Err(GatewayError::BodyBroken)), Heard::Nothing);
    }
}
