//! `--enable-compress-response-body`: compresses JSON and text for clients that accept gzip. Like
//! aiohttp it uses deflate if that is accepted as well, and sends no `Vary` (`server.py`,
//! `compress_body`).
//!
//! The format is that of RFC 1950 and 1952, with stored blocks only (RFC 1951, section 3.2.4). The
//! data does not get smaller, but a reader cannot tell.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response};

use super::body::SimBody;

/// The coding that the client accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Coding {
    Deflate,
    Gzip,
}

impl Coding {
    pub(super) fn taken(headers: &HeaderMap) -> Option<Self> {
        let taken = headers.get(http::header::ACCEPT_ENCODING)?.to_str().ok()?.to_lowercase();
        if !taken.contains("gzip") {
            return None;
        }
        Some(if taken.contains("deflate") { Self::Deflate } else { Self::Gzip })
    }
}

pub(super) fn compress(mut response: Response<SimBody>, coding: Coding) -> Response<SimBody> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_text = kind
        .is_some_and(|kind| kind.starts_with("application/json") || kind.starts_with("text/plain"));
    let SimBody::Whole(Some(body)) = response.body() else { return response };
    if !is_text || body.is_empty() {
        return response;
    }
    let (coded, name) = match coding {
        Coding::Deflate => (zlib(body), "deflate"),
        Coding::Gzip => (gzip(body), "gzip"),
    };
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = SimBody::Whole(Some(Bytes::from(coded)));
    response
}

/// Stored blocks of RFC 1951.
fn stored(bytes: &[u8], coded: &mut Vec<u8>) {
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        coded.push(u8::from(blocks.peek().is_none()));
        coded.extend_from_slice(&length.to_le_bytes());
        coded.extend_from_slice(&(!length).to_le_bytes());
        coded.extend_from_slice(block);
    }
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut coded = vec![0x78, 0x01];
    stored(bytes, &mut coded);
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    coded.extend_from_slice(&(b << 16 | a).to_be_bytes());
    coded
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut coded = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    stored(bytes, &mut coded);
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    coded.extend_from_slice(&(!crc).to_le_bytes());
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    coded.extend_from_slice(&length.to_le_bytes());
    coded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_standards() {
        // `zlib.compress(b"hi", 0)` and `gzip.compress(b"hi", 0, mtime=0)` of Python.
        let hi = [1, 2, 0, 0xfd, 0xff, b'h', b'i'];
        assert_eq!(zlib(b"hi"), [&[0x78, 1][..], &hi, &[1, 0x3b, 0, 0xd2]].concat());
        let tail = [0xac, 0x2a, 0x93, 0xd8, 2, 0, 0, 0];
        assert_eq!(gzip(b"hi")[10..], [&hi[..], &tail].concat());
    }

    #[test]
    fn only_who_takes_gzip_gets_a_coding() {
        let taken = |value: &'static str| {
            let header = HeaderValue::from_static(value);
            Coding::taken(&HeaderMap::from_iter([(http::header::ACCEPT_ENCODING, header)]))
        };
        assert_eq!(taken("gzip, deflate, br"), Some(Coding::Deflate));
        assert_eq!(taken("gzip"), Some(Coding::Gzip));
        assert_eq!(taken("deflate"), None);
        assert_eq!(Coding::taken(&HeaderMap::new()), None);
    }
}
