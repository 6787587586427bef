//! The key of a cached answer: a path, the parameters that matter, and the caller if the answer is
//! personal.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};

use super::headers::other_cookies;

const COMFY_USER: HeaderName = HeaderName::from_static("comfy-user");

/// What a copy answers.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CacheKey {
    /// Without `/api`.
    path: Box<str>,
    query: Box<str>,
    /// Whatever a backend may tell users by.
    asker: Box<[u8]>,
}

impl CacheKey {
    /// A file of the page. It is the same for everyone, whatever the query.
    #[must_use]
    pub fn asset(path: &str) -> Self {
        Self { path: bare(path), query: Box::default(), asker: Box::default() }
    }

    /// What a caller is given: told from others by ComfyUI's own `Comfy-User`, and by what
    /// plug-ins for a login go by.
    #[must_use]
    pub fn own(path: &str, query: &str, headers: &HeaderMap) -> Self {
        let mut asker = Vec::new();
        for name in [COMFY_USER, AUTHORIZATION, COOKIE] {
            for value in headers.get_all(&name) {
                let value = value.as_bytes();
                let value =
                    if name == COOKIE { other_cookies(value) } else { Cow::Borrowed(value) };
                if !value.is_empty() {
                    asker.extend_from_slice(&value);
                    asker.push(b'\n');
                }
            }
            asker.push(b'\n');
        }
        Self { path: bare(path), query: query.into(), asker: asker.into() }
    }

    /// Its path, without `/api`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// About how much it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.path.len() + self.query.len() + self.asker.len()
    }
}

/// Without `/api`.
pub(super) fn bare(path: &str) -> Box<str> {
    path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(path).into()
}
