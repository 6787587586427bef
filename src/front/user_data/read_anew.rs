//! After a write, what it has changed is read again, as far as its writer can see it. So the newest
//! workflow is available while the home is away, even if nobody has opened it since it was saved.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRAILER,
    TRANSFER_ENCODING,
};
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::body::RequestBody;
use crate::front::cache_key::CacheKey;
use crate::front::comfy_user::SentFor;
use crate::front::forward::{Target, send, to_backend};
use crate::front::home::{self, Asked};
use crate::front::{Front, failover};

/// How many answers are read again after one write.
const READ_ANEW_MAX: usize = 16;

/// How many writes may have their changes read at the same time. The others wait.
pub const READING_MAX: usize = 64;

/// How often a home is asked that breaks off.
const TRIES: usize = 3;

/// Headers that belong to the write only.
const OF_A_WRITE: [HeaderName; 12] = [
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

/// What to read after a write, and on whose behalf.
pub(super) struct ReadAnew {
    home: Target,
    /// The keys that the write itself changes.
    written: Vec<CacheKey>,
    headers: HeaderMap,
    sent_for: Option<SentFor>,
    from: IpAddr,
}

impl ReadAnew {
    pub(super) fn after<B>(
        home: &Target,
        key: &CacheKey,
        from: IpAddr,
        write: &Request<B>,
    ) -> Self {
        let written = key.written_paths().iter().map(|path| key.at(path)).collect();
        let mut headers = write.headers().clone();
        let sent_for = write.extensions().get().cloned();
        for name in OF_A_WRITE {
            headers.remove(name);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        Self { home: home.clone(), written, headers, sent_for, from }
    }

    /// Reads these keys, and the other copies that the writer had. A home that was busy with the
    /// write may still look down: it may take as long to come up as an answer may take.
    pub(super) async fn read(self, front: &Arc<Front>, stale: Vec<CacheKey>) {
        if !front.stale_cache.is_on() {
            return;
        }
        // The keys of the write come first: a move ends all copies that its writer has.
        let mut keys = self.written.clone();
        keys.extend(stale.into_iter().filter(|key| !self.written.contains(key)));
        keys.truncate(READ_ANEW_MAX);
        let within = front.shared.config().server.answer_timeout;
        let reading = async {
            for key in keys {
                self.read_one(front, &key).await;
            }
        };
        tokio::select! {
            biased;
            () = front.shared.tasks.stopping() => {}
            // What fails is not copied; nothing else happens.
            _all_or_too_late = timeout(within, reading) => {}
        }
    }

    async fn read_one(&self, front: &Arc<Front>, key: &CacheKey) {
        for _ in 0..TRIES {
            self.home.backend.is_up_again().await;
            let Ok(_turn) = front.reading_anew.acquire().await else { return };
            // Somebody may have read it in the meantime.
            if front.stale_cache.knows(key) || self.is_answered(front, key).await {
                return;
            }
        }
    }

    /// False if it must be asked again.
    async fn is_answered(&self, front: &Arc<Front>, key: &CacheKey) -> bool {
        let Ok(mut request) = Request::builder().uri(key.target()).body(()) else { return true };
        request.headers_mut().clone_from(&self.headers);
        if let Some(sent_for) = &self.sent_for {
            request.extensions_mut().insert(sent_for.clone());
        }
        let (parts, ()) = request.into_parts();
        let (writes, home) = front.writes.number_before(|| front.shared.home());
        if home.is_none_or(|home| home.id != self.home.backend.id) {
            return true;
        }
        let asked = Asked::of(&self.home.backend, self.from, writes);
        let request = to_backend(&self.home, parts, RequestBody::Empty);
        let response = match send(&front.shared, &self.home, request).await {
            Ok(response) => response,
            Err(error) => return !failover::is_for_another(&error),
        };
        let mut body = home::passed(front, key.clone(), &asked, response).into_body();
        while let Some(Ok(_frame)) = body.frame().await {}
        true
    }
}
