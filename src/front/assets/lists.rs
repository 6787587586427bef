//! Lists of assets and of their tags: the caller's and those without an owner, from every backend.
//!
//! A backend counts the assets of all clients. So its list is read to the end, up to [`READ_MAX`]
//! entries, and assets of other clients are left out and not counted. Models come only from the
//! caller's own backend: usually all backends have the same ones, and only those can be loaded
//! there.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tracing::debug;

use super::super::collected::{Collected, collected};
use super::super::forward::{Target, to_backend};
use super::super::history_cache::Missing;
use super::{Done, Session, Settled, servers};
use crate::body::{ClientFault, RequestBody};
use crate::comfy::assets::item::Item;
use crate::comfy::assets::merged::{Entry, Page, TagCounts, TagsAsked, merged, tags_in};
use crate::comfy::assets::query::{self, Begin, LIMIT_MAX, Window};
use crate::comfy::query::{parameter, without_parameter};
use crate::comfy::scan;
use crate::fleet::api::{ANSWER_MAX, ApiError};
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::records::assets::AssetViewer;
use crate::routing::assets::Whose;
use crate::routing::decision::Reason;

/// For how many assets of one backend the owner is checked. The rest is included in the count of
/// the backend but not shown.
const READ_MAX: usize = 20_000;

/// How many pages of tags of one backend are read.
const TAG_PAGES_MAX: usize = 10;

/// `GET /api/assets`.
///
/// # Errors
/// No backend can answer.
pub(super) async fn list(session: &Session<'_>, request: Request<Incoming>) -> Settled {
    let begun = Begun::of(session, request).await?;
    let window = Window::of(&begun.query);
    let first = clean(&begun.first.body);
    let scopes = begun.scopes();
    let read = scopes.iter().map(|(backend, query)| {
        let first = (backend.id == begun.target.backend.id).then_some(&first);
        let reading = Reading { session, backend, query, deadline: begun.deadline };
        async move { (backend.id, reading.entries(window, first).await) }
    });
    let (mut entries, mut total, mut missing) = (Vec::new(), 0, Missing::default());
    for (backend, read) in join_all(read).await {
        match read {
            Ok((found, count)) => {
                entries.extend(found);
                total += count;
            }
            Err(error) => {
                let name = &session.front.shared.fleet.get(backend).name();
                debug!(backend = %name, %error, "Assets are left out of the list.");
                missing.add(backend);
            }
        }
    }
    begun.end(session, &missing, merged(entries, window, total)).await
}

/// `GET /api/assets/tags/refine`.
///
/// # Errors
/// No backend can answer.
pub(super) async fn refine(session: &Session<'_>, request: Request<Incoming>) -> Settled {
    let begun = Begun::of(session, request).await?;
    let limit = TagsAsked::of(&begun.query).limit;
    let mut counts = TagCounts::default();
    let missing = begun.count(session, &mut counts).await;
    begun.end(session, &missing, counts.refined(limit)).await
}

/// `GET /api/tags`.
///
/// # Errors
/// No backend can answer.
pub(super) async fn tags(session: &Session<'_>, request: Request<Incoming>) -> Settled {
    let mut begun = Begun::of(session, request).await?;
    let asked = TagsAsked::of(&begun.query);
    begun.query = String::new();
    let mut counts = TagCounts::default();
    let missing = begun.count(session, &mut counts).await;
    if asked.with_unused {
        for tag in begun.unused_tags(session).await {
            counts.add_unused(tag);
        }
    }
    begun.end(session, &missing, counts.listed(&asked)).await
}

/// A list whose query was accepted by a backend.
struct Begun {
    target: Target,
    servers: Vec<Arc<Backend>>,
    query: String,
    first: Collected,
    deadline: Instant,
}

impl Begun {
    /// Sends the request to the caller's own backend, which checks the query.
    async fn of(session: &Session<'_>, request: Request<Incoming>) -> Result<Self, Done> {
        let front = session.front;
        let servers = servers::of(session).await?;
        let target = servers::nearest(session, &servers)?;
        let (mut parts, _no_body) = request.into_parts();
        // The body is needed. The server removes it from the answer to a HEAD.
        parts.method = Method::GET;
        let query = parts.uri.query().unwrap_or("").to_owned();
        let deadline = now() + front.shared.config().fleet.list_timeout;
        let sent = to_backend(&target, parts, RequestBody::Empty);
        let no_fault = ClientFault::default();
        let first = collected(&front.shared, &target, sent, &no_fault, ANSWER_MAX).await?;
        if first.parts.status != StatusCode::OK {
            let body = first.body.clone();
            return Err(Done::with(first.answer(body)));
        }
        Ok(Self { target, servers, query, first, deadline })
    }

    /// The query for each backend. Models are only requested from the caller's own backend.
    fn scopes(&self) -> Vec<(Arc<Backend>, String)> {
        let scope = |backend: &Arc<Backend>| {
            let is_own = backend.id == self.target.backend.id;
            let query =
                if is_own { Some(self.query.clone()) } else { query::without_models(&self.query) };
            Some((Arc::clone(backend), query?))
        };
        self.servers.iter().filter_map(scope).collect()
    }

    /// Counts the tags of the assets that match the query.
    async fn count(&self, session: &Session<'_>, counts: &mut TagCounts) -> Missing {
        let mut missing = Missing::default();
        let scopes = self.scopes();
        let read = scopes.iter().map(|(backend, query)| {
            let reading = Reading { session, backend, query, deadline: self.deadline };
            async move {
                let mut tags: Vec<Vec<String>> = Vec::new();
                let take = |item: Item, _: &str| {
                    tags.push(item.tags);
                    Go::On
                };
                let read = reading.walk(None, None, take).await;
                (backend.id, read.map(|_| tags))
            }
        });
        for (backend, read) in join_all(read).await {
            match read {
                Ok(found) => found.iter().for_each(|tags| counts.add(tags)),
                Err(error) => {
                    let name = &session.front.shared.fleet.get(backend).name();
                    debug!(backend = %name, %error, "Assets are left out of the tags.");
                    missing.add(backend);
                }
            }
        }
        missing
    }

    /// Existing tags that no asset has. A tag of another client's assets only is not included.
    async fn unused_tags(&self, session: &Session<'_>) -> Vec<String> {
        let read = self.servers.iter().map(|backend| async move {
            let mut unused = Vec::new();
            for page in 0..TAG_PAGES_MAX {
                let left = self.deadline.saturating_duration_since(now());
                let path = format!("/api/tags?limit=1000&order=name_asc&offset={}", page * 1000);
                let asked = session.ask(backend, Method::GET, &path, left).await;
                let Ok((200, body)) = asked else { break };
                let Some((tags, has_more)) = tags_in(&body) else { break };
                unused.extend(tags.into_iter().filter(|(_, count)| *count == 0));
                if !has_more {
                    break;
                }
            }
            unused.into_iter().map(|(tag, _)| tag)
        });
        join_all(read).await.into_iter().flatten().collect()
    }

    /// The answer, with headers about what is missing.
    async fn end(self, session: &Session<'_>, missing: &Missing, body: String) -> Settled {
        if matches!(self.target.reason, Reason::Placed | Reason::Moved) {
            // The answer reveals a binding, which must survive a restart.
            let _ = session.front.shared.records.journal.durable().await;
        }
        Ok(missing.name(&session.front.shared, Ok(self.first.answer(body.into())))?)
    }
}

/// Whether more pages are needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Go {
    On,
    Enough,
}

/// A list of one backend that is being read.
struct Reading<'a> {
    session: &'a Session<'a>,
    backend: &'a Arc<Backend>,
    query: &'a str,
    deadline: Instant,
}

impl Reading<'_> {
    /// The entries that the window needs, and the total number. `first` is the first page, if it
    /// was already read.
    async fn entries(
        &self,
        window: Window,
        first: Option<&Bytes>,
    ) -> Result<(Vec<Entry>, usize), ApiError> {
        let (front, backend) = (self.session.front, self.backend.id);
        let mut entries = Vec::new();
        // Without a cursor each list is read from its beginning, because the window is that of the
        // merged list.
        let begin = parameter(self.query, "after").map(Begin::After);
        // With an offset, the page that was read is not the first one.
        let first = first.filter(|_| window.offset == 0);
        let take = |item: Item, text: &str| {
            if entries.len() < window.needed() {
                let json = front.shared.records.name_asset(backend, Some(&item), text.as_bytes());
                let json = String::from_utf8_lossy(&json).into_owned();
                entries.push(Entry::new(&item, window.sort, json));
            }
            // Without a cursor the same pass also counts the entries.
            if window.has_cursor && window.needed() <= entries.len() { Go::Enough } else { Go::On }
        };
        let mut count = self.walk(begin, first, take).await?;
        if window.has_cursor {
            count = self.walk(None, None, |_, _| Go::On).await?;
        }
        Ok((entries, count))
    }

    /// Reads page by page, and passes on what the caller may see. Returns the number of these
    /// entries.
    async fn walk(
        &self,
        begin: Option<Begin>,
        first: Option<&Bytes>,
        mut take: impl FnMut(Item, &str) -> Go,
    ) -> Result<usize, ApiError> {
        let query = query::whole(self.query);
        let query = without_parameter(&query, "limit");
        let path = "/api/assets";
        let (mut from, mut first) = (begin, first.cloned());
        let (mut read, mut visible) = (0, 0);
        loop {
            let body = match first.take() {
                Some(body) => body,
                None => {
                    let uri = format!("{path}?{}", query::page(&query, from.as_ref(), LIMIT_MAX));
                    let left = self.deadline.saturating_duration_since(now());
                    let (status, body) =
                        self.session.ask(self.backend, Method::GET, &uri, left).await?;
                    if status != 200 {
                        return Err(ApiError::Status(status));
                    }
                    clean(&body)
                }
            };
            let page = Page::read(&body)?;
            let (next, total) = (page.next(from.as_ref()), page.total);
            read += page.items.len();
            for (item, text) in page.items {
                self.session.front.shared.records.learn_item(
                    self.backend.id,
                    &item,
                    &AssetViewer::default(),
                );
                let whose = self.session.front.shared.records.whose_asset(
                    self.backend.id,
                    &item,
                    &self.session.viewer,
                );
                if whose == Whose::Anothers {
                    continue;
                }
                visible += 1;
                if take(item, text) == Go::Enough {
                    return Ok(visible);
                }
            }
            from = match next {
                Some(next) if read < READ_MAX => Some(next),
                Some(_) => return Ok(visible + total.saturating_sub(read)),
                None => return Ok(visible),
            };
        }
    }
}

/// Removes what Python writes and JSON does not allow. The unusual metadata of one asset must not
/// make the whole list unreadable.
fn clean(body: &Bytes) -> Bytes {
    let has = |odd: &[u8]| memchr::memmem::find(body, odd).is_some();
    if has(b"NaN") || has(b"Infinity") { scan::without_nan(body).into() } else { body.clone() }
}
