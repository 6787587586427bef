//! Copies a file that a prompt or a mask needs to its backend (promise R4).
//!
//! A copy is streamed from one backend to the other and never overwrites a file. If the name is
//! used by other content, ComfyUI gives the copy another name (`server.py`, `image_upload`). If it
//! is used by the same content, nothing changes.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::info;

use super::Front;
use super::error::GatewayError;
use crate::body::wrapped::Wrapped;
use crate::body::{CollectLimits, OnEnd as _, RequestBody, collect};
use crate::comfy::names::{NameKey, told_in};
use crate::comfy::{files, multipart};
use crate::fleet::backend::Backend;
use crate::fleet::pool::Lease;
use crate::net::new_id;
use crate::records::files::for_people;
use crate::routing::files::ToBring;
use crate::routing::ids::{FileRef, Located};

/// The largest answer to an upload.
const ANSWER_MAX: u64 = 64 << 10;

/// Returns the name that `target` uses for a file, and that the user may get who asks for it.
/// Copies the file there if necessary.
///
/// # Errors
/// The file is gone or too large, its backend is down, or the copy failed or made no progress.
pub async fn bring(
    front: &Front,
    (original, asker): (&Located, Option<&str>),
    target: &Arc<Backend>,
) -> Result<FileRef, GatewayError> {
    let to_bring = look_up(front, (original, asker), target);
    bring_known(front, (original, asker, to_bring), target).await
}

/// The same for a file that was looked up just now.
///
/// # Errors
/// Those of [`bring`].
pub async fn bring_known(
    front: &Front,
    (original, asker, to_bring): (&Located, Option<&str>, ToBring),
    target: &Arc<Backend>,
) -> Result<FileRef, GatewayError> {
    let name = &to_bring.name.clone();
    Copying { front, original, asker, target, name, is_exact: Exact::No }.run(to_bring).await
}

fn look_up(
    front: &Front,
    (original, asker): (&Located, Option<&str>),
    target: &Backend,
) -> ToBring {
    front.shared.records.files_of(&original.file).to_bring(original, asker, target.id)
}

/// The same under a given name. The name of the result shows whether that name was free.
///
/// # Errors
/// Those of [`bring`].
pub async fn bring_as(
    front: &Front,
    (original, name): (&Located, &FileRef),
    target: &Arc<Backend>,
) -> Result<FileRef, GatewayError> {
    let to_bring = look_up(front, (original, None), target);
    let (asker, is_exact) = (None, Exact::Yes);
    Copying { front, original, asker, target, name, is_exact }.run(to_bring).await
}

/// One file that is being copied.
struct Copying<'a> {
    front: &'a Front,
    original: &'a Located,
    asker: Option<&'a str>,
    target: &'a Arc<Backend>,
    /// The name that the copy should have.
    name: &'a FileRef,
    is_exact: Exact,
}

/// Whether a copy under another name is not useful.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Exact {
    Yes,
    No,
}

impl Copying<'_> {
    async fn run(&self, mut to_bring: ToBring) -> Result<FileRef, GatewayError> {
        let will_do = |known: &FileRef| self.is_exact == Exact::No || known == self.name;
        if let Some(file) = to_bring.known.take_if(|known| will_do(known)) {
            return Ok(file);
        }
        let copying = &self.front.copying;
        let _turn = match copying.try_acquire() {
            Ok(turn) => turn,
            Err(_) => {
                let turn = copying.acquire().await.map_err(|_| GatewayError::Stopping)?;
                // Another prompt may have copied it while this one waited for its turn.
                to_bring = look_up(self.front, (self.original, self.asker), self.target);
                if let Some(file) = to_bring.known.take_if(|known| will_do(known)) {
                    return Ok(file);
                }
                turn
            }
        };
        // The file may be overwritten while it is copied.
        let ToBring { sources, began, .. } = to_bring;
        let is_up = |source: &&Located| self.front.shared.fleet.get(source.backend).is_up();
        let (mut was_asked, mut trouble) = (false, None);
        for source in sources.iter().filter(is_up) {
            was_asked = true;
            let fetched = match self.fetch(source).await {
                Ok(fetched) => fetched,
                // This backend looked available but cannot be asked. Another backend may have the
                // file.
                Err(error) => {
                    trouble.get_or_insert(error);
                    continue;
                }
            };
            if let Some((response, reading)) = fetched {
                let file = self.store(response, reading).await?;
                let copy = Located { backend: self.target.id, file: file.clone() };
                self.front.shared.records.learn_copied(self.original, copy, began);
                self.front.shared.metrics.files_copied.inc();
                info!(file = %for_people(&self.original.file), as_name = %for_people(&file),
                    from = %self.front.shared.fleet.get(source.backend).name(),
                    backend = %self.target.name(), "Copied a file.");
                return Ok(file);
            }
        }
        if let Some(error) = trouble {
            return Err(error);
        }
        let (file, backend) = (self.file(), self.backend());
        Err(match was_asked {
            true => GatewayError::InputGone { file, backend },
            false => GatewayError::InputUnavailable { file, backend },
        })
    }

    /// Begins to read the file from one of its backends. `None` if it does not exist there any
    /// more.
    async fn fetch(
        &self,
        source: &Located,
    ) -> Result<Option<(Response<Incoming>, Lease)>, GatewayError> {
        let from = self.front.shared.fleet.get(source.backend);
        let limit = self.front.shared.config().files.copy_timeout;
        let uri = format!("/view?{}", files::view_query(&source.file));
        let asked = self.request(&from, Method::GET, &uri, RequestBody::Empty)?;
        let sent = from.while_up(from.pool.send(asked, limit)).await;
        let (response, reading) = sent.map_err(|error| self.failed(&error.to_string()))?;
        match response.status() {
            StatusCode::OK => Ok(Some((response, reading))),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(self.failed(&format!("{} answered {status}", from.name()))),
        }
    }

    /// Writes the data to the target.
    async fn store(
        &self,
        response: Response<Incoming>,
        reading: Lease,
    ) -> Result<FileRef, GatewayError> {
        let limit = self.front.shared.config().files.copy_timeout;
        let max = self.front.shared.config().files.copy_bytes;
        if max < response.body().size_hint().lower() {
            return Err(GatewayError::InputTooLarge { file: self.file(), max });
        }
        let boundary = format!("mooring-{}", new_id().simple());
        let (head, tail) = multipart::upload_of(self.name, &boundary);
        // A large file takes long. The limit applies to the time without progress.
        let idle = limit;
        let body = Wrapped::new(head, response.into_body(), tail, max, idle);
        let body = RequestBody::Wrapped(body.into());
        let mut upload = self.request(self.target, Method::POST, "/upload/image", body)?;
        let kind = format!("multipart/form-data; boundary={boundary}");
        let kind = HeaderValue::try_from(kind).expect("a boundary is visible ASCII");
        upload.headers_mut().insert(CONTENT_TYPE, kind);
        let sent = self.target.while_up(self.target.pool.send(upload, limit)).await;
        let (response, writing) = sent.map_err(|error| self.failed(&error.to_string()))?;
        let status = response.status();
        let limits = CollectLimits { max: ANSWER_MAX, idle };
        let answer = collect(response.into_body(), limits, None).await;
        let answer = answer.map_err(|error| self.failed(&error.to_string()))?;
        Box::new(writing).finished();
        Box::new(reading).finished();
        self.front.shared.records.learn_copy(self.target.id, &answer);
        self.stored(status, &answer)
    }

    /// The name that the target gave the file.
    fn stored(&self, status: StatusCode, answer: &Bytes) -> Result<FileRef, GatewayError> {
        let named = told_in(answer, NameKey::Upload).into_iter().map(|told| told.file).next();
        named.filter(|_| status == StatusCode::OK).ok_or_else(|| {
            self.failed(&format!("{} answered {status} to the upload", self.target.name()))
        })
    }

    fn failed(&self, why: &str) -> GatewayError {
        GatewayError::InputNotCopied {
            file: self.file(),
            from: self.backend(),
            backend: self.target.name().to_string(),
            why: why.to_owned(),
        }
    }

    fn request(
        &self,
        of: &Backend,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, GatewayError> {
        of.request(method, path, body).map_err(|error| self.failed(&error.to_string()))
    }

    fn file(&self) -> String {
        for_people(&self.original.file).into_owned()
    }

    fn backend(&self) -> String {
        self.front.shared.fleet.get(self.original.backend).name().to_string()
    }
}
