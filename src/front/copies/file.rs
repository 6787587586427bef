//! A copy as a file: the facts of an answer, its body, and a code that authenticates both. Pure.
//!
//! The file names no person and contains no credential: it keeps only headers that describe the
//! body.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG,
    LAST_MODIFIED, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::name::Name;
use crate::front::conditional::Whole;
use crate::front::cookie_signer::CookieSigner;

/// The beginning of every copy, with the version of the format.
const MAGIC: &[u8] = b"MOORING COPY 1\n";

/// The size of the beginning of a file, which is different for different copies.
pub(super) const HEAD: usize = MAGIC.len() + CODE;

/// The code that authenticates a copy, and the length of the facts in bytes.
pub(super) type Code = [u8; 32];
const CODE: usize = size_of::<Code>();
const LENGTH: usize = 4;

/// The headers that are kept.
const KEPT: [HeaderName; 8] = [
    CACHE_CONTROL,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_TYPE,
    ETAG,
    LAST_MODIFIED,
    VARY,
];

#[derive(Debug, Deserialize, Serialize)]
struct Facts {
    headers: Vec<(String, String)>,
}

/// The content of a file. The code also covers the name, so that no file can be taken for another.
#[must_use]
pub(super) fn encode(signer: &CookieSigner, name: &Name, whole: &Whole) -> Vec<u8> {
    let (facts, body) = (Facts { headers: described(&whole.headers) }, &whole.body[..]);
    let facts = serde_json::to_vec(&facts).expect("facts are plain data");
    let length = u32::try_from(facts.len()).unwrap_or(u32::MAX).to_be_bytes();
    let code = signer.digest(&[b"copy", name.to_string().as_bytes(), &facts, body]);
    [MAGIC, &code, &length, &facts, body].concat()
}

/// The code of a copy, read from the [`HEAD`] of its file. Copies with the same code are equal.
#[must_use]
pub(super) fn code_of(file: &[u8]) -> Option<Code> {
    file.strip_prefix(MAGIC)?.get(..CODE)?.try_into().ok()
}

fn described(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = KEPT.iter().flat_map(|name| headers.get_all(name).iter().map(move |it| (name, it)));
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    kept.filter_map(text).collect()
}

/// Reads a file. `None` if it is damaged or not ours.
#[must_use]
pub(super) fn decode(signer: &CookieSigner, name: &Name, file: &Bytes) -> Option<Whole> {
    let rest = file.strip_prefix(MAGIC)?;
    let (code, rest) = rest.split_at_checked(CODE)?;
    let (length, rest) = rest.split_at_checked(LENGTH)?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let (facts, body) = rest.split_at_checked(length)?;
    if signer.digest(&[b"copy", name.to_string().as_bytes(), facts, body])[..] != *code {
        return None;
    }
    let facts: Facts = serde_json::from_slice(facts).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in facts.headers {
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    Some(Whole { headers, body: file.slice(file.len() - body.len()..) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::SET_COOKIE;

    const NAME: Name = Name { group: 1, key: 2 };

    fn whole() -> Whole {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(SET_COOKIE, HeaderValue::from_static("a=s3cret"));
        headers.insert("x-token", HeaderValue::from_static("s3cret"));
        Whole { headers, body: Bytes::from_static(b"{\"a\":1}") }
    }

    #[test]
    fn a_copy_is_read_as_it_was_written_but_for_headers_that_describe_no_body() {
        let signer = CookieSigner::new();
        let file = Bytes::from(encode(&signer, &NAME, &whole()));
        assert!(memchr::memmem::find(&file, b"s3cret").is_none());
        let read = decode(&signer, &NAME, &file).unwrap();
        assert_eq!((read.headers.len(), &read.body[..]), (1, &b"{\"a\":1}"[..]));
        let again = encode(&signer, &NAME, &read);
        assert_eq!((code_of(&again), &again[..]), (code_of(&file[..HEAD]), &file[..]));
    }

    #[test]
    fn a_file_with_any_byte_changed_or_cut_off_is_none() {
        let signer = CookieSigner::new();
        let file = encode(&signer, &NAME, &whole());
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert!(decode(&signer, &NAME, &bad.into()).is_none(), "byte {at}");
            assert!(decode(&signer, &NAME, &file[..at].to_vec().into()).is_none(), "{at} bytes");
        }
        let file = Bytes::from(file);
        assert!(decode(&signer, &Name { key: 3, ..NAME }, &file).is_none(), "another's name");
        assert!(decode(&CookieSigner::new(), &NAME, &file).is_none(), "another's key");
    }
}
