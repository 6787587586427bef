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
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

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
use crate::net::{now, unix_millis};
use crate::records::home::HomeServer;
use crate::routing::decision::Reason;

/// How many answers are read anew after one write.
const READ_ANEW_MAX: usize = 16;

/// How many writes may have theirs read anew at one time.
pub const READING_MAX: usize = 64;

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
    write.outcome = Outcome::MayBeDone;
    let answer = forward(&front.shared, &write.home, request).await;
    if is_as_before(&answer) {
        write.outcome = Outcome::NotDone;
    }
    let stale = write.ends();
    if answer.as_ref().is_ok_and(|response| response.status().is_success()) {
        read_anew(&write, headers, stale);
    }
    answer.map_err(|error| not_saved(front, error))
}

/// True if it is sure that nothing was written: it was refused, or never sent. A proxy before the
/// home may say of a write that took too long, or whose sender left, that it was refused (408, and
/// nginx's 499), although the home has it.
fn is_as_before(answer: &Answer) -> bool {
    match answer {
        Ok(response) => {
            let status = response.status();
            status.is_client_error() && ![408, 499].contains(&status.as_u16())
        }
        Err(error) => failover::is_away(error),
    }
}

/// A write on its way. If its client leaves before the answer, it may have been done all the same.
struct Write {
    front: Arc<Front>,
    home: Target,
    /// Which server that is, for its copies.
    server: HomeServer,
    key: CacheKey,
    from: IpAddr,
    /// What would become of it if nothing more were heard.
    outcome: Outcome,
    is_over: bool,
}

impl Write {
    /// From here on nothing is given of what it changes.
    fn begin(front: &Arc<Front>, home: Target, key: CacheKey, from: IpAddr) -> Self {
        let (front, server) = (Arc::clone(front), HomeServer::of(&home.backend));
        let groups = key.changes();
        front.writes.begin(&groups);
        front.copies.write_begins(&server, &groups);
        Self { front, home, server, key, from, outcome: Outcome::NotDone, is_over: false }
    }

    /// Waits until the disk says so too, for who starts after a crash.
    ///
    /// # Errors
    /// It does not, and the operator wants nothing then that a crash would forget.
    async fn is_marked(&self) -> Result<(), GatewayError> {
        match self.front.copies.is_marked(&self.server, &self.key.changes()).await {
            Ok(()) => Ok(()),
            Err(NotMarked) => match self.front.shared.config().state.on_error {
                OnJournalError::Serve => Ok(()),
                OnJournalError::Refuse => Err(GatewayError::NotSavedUnmarked),
            },
        }
    }

    /// It is over. Returns the copies that its writer had, and that are not good any more.
    fn ends(&mut self) -> Vec<CacheKey> {
        self.is_over = true;
        let stale = self.front.stale_cache.written(&self.key, self.outcome);
        self.front.copies.write_ends(&self.server, &self.key.changes(), self.outcome);
        stale
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if !self.is_over {
            let _nobody_reads_anew = self.ends();
        }
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
    let asked = Asked::now(front, &home.backend, from);
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
    let home = front.shared.records.home_server()?;
    let writes = front.writes.number();
    let (at, mut whole) = front.copies.get(&home, key).await?;
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
