//! Decompresses request bodies that Mooring must read (RFC 9110 section 8.4).

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, HeaderValue};

use super::budget::BodyShare;
use super::{CollectError, CollectLimits};

/// The accepted codings, as the value of `Accept-Encoding`.
pub(crate) const TAKEN: HeaderValue = HeaderValue::from_static("gzip, deflate");

/// The bytes to inflate before other tasks get a turn.
const CHUNK: usize = 64 << 10;
const TURN: usize = 1 << 20;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Coding {
    Plain,
    Gzip,
    Deflate,
}

/// A coding that is not supported, or several codings on top of each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Unknown;

impl Coding {
    /// The coding that a request names.
    ///
    /// # Errors
    /// The coding is not supported.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Unknown> {
        let mut found = Self::Plain;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.to_str().map_err(|_| Unknown)?.split(',').map(str::trim) {
                let coding = match name.to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    _ => return Err(Unknown),
                };
                if found != Self::Plain {
                    return Err(Unknown);
                }
                found = coding;
            }
        }
        Ok(found)
    }
}

/// Why a body could not be inflated.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error("the body does not match its Content-Encoding")]
    Corrupt,
}

/// Inflates a body. The result may not be larger than an uncompressed body may be. The compressed
/// bytes count against the budget too, because both are held at the same time.
///
/// # Errors
/// The result is too large, the budget is used up, or the body is not valid in its coding.
pub(crate) async fn inflated(
    body: Bytes,
    coding: Coding,
    limits: CollectLimits,
    mut share: Option<&mut BodyShare>,
) -> Result<Bytes, InflateError> {
    if coding == Coding::Plain || body.is_empty() {
        return Ok(body);
    }
    let mut reader = reader(&body, coding);
    let mut plain = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = reader.read(&mut chunk).map_err(|_| InflateError::Corrupt)?;
        if read == 0 {
            return Ok(plain.into());
        }
        let len = (plain.len() + read) as u64;
        if limits.max < len {
            return Err(CollectError::TooLarge { max: limits.max }.into());
        }
        let held = len + body.len() as u64;
        if !share.as_mut().is_none_or(|share| share.grow_to(held)) {
            return Err(CollectError::Busy.into());
        }
        let turns = plain.len() / TURN;
        plain.extend_from_slice(&chunk[..read]);
        if turns < plain.len() / TURN {
            tokio::task::yield_now().await;
        }
    }
}

fn reader(body: &Bytes, coding: Coding) -> Box<dyn Read + Send + '_> {
    match coding {
        Coding::Plain => Box::new(&body[..]),
        Coding::Gzip => Box::new(MultiGzDecoder::new(&body[..])),
        Coding::Deflate if has_zlib_header(body) => Box::new(ZlibDecoder::new(&body[..])),
        // Raw deflate without a zlib header: not what the RFC says, but many clients send it.
        Coding::Deflate => Box::new(DeflateDecoder::new(&body[..])),
    }
}

/// RFC 1950 section 2.2.
fn has_zlib_header(body: &[u8]) -> bool {
    match body {
        [cmf, flags, ..] => {
            cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flags)).is_multiple_of(31)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::super::budget::BodyBudget;
    use super::*;

    const LIMITS: CollectLimits = CollectLimits { max: 1 << 20, idle: Duration::from_secs(1) };

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn all_that_is_taken_comes_out_as_it_was() {
        let plain = b"{\"prompt\": {}}".repeat(1_000);
        let two = [gzip(&plain[..7]), gzip(&plain[7..])].concat();
        for (packed, coding) in [
            (plain.clone(), Coding::Plain),
            (gzip(&plain), Coding::Gzip),
            (two, Coding::Gzip),
            (zlib(&plain), Coding::Deflate),
            (raw(&plain), Coding::Deflate),
        ] {
            let came = inflated(packed.into(), coding, LIMITS, None).await.unwrap();
            assert_eq!(came, plain);
        }
        assert_eq!(inflated(Bytes::new(), Coding::Gzip, LIMITS, None).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_little_that_becomes_much_is_too_large() {
        let bomb = Bytes::from(gzip(&vec![0; 2 << 20]));
        assert!(bomb.len() < 10_000);
        let refused = inflated(bomb.clone(), Coding::Gzip, LIMITS, None).await;
        assert!(matches!(
            refused,
            Err(InflateError::Collect(CollectError::TooLarge { max: 1_048_576 }))
        ));
        let (budget, limits) = (BodyBudget::new(1 << 20), CollectLimits { max: 8 << 20, ..LIMITS });
        let mut share = budget.share();
        let refused = inflated(bomb, Coding::Gzip, limits, Some(&mut share)).await;
        assert!(matches!(refused, Err(InflateError::Collect(CollectError::Busy))));
    }

    #[tokio::test]
    async fn what_is_cut_or_is_something_else_is_corrupt() {
        let plain = b"some text that is packed";
        for (packed, coding) in [
            (gzip(plain)[..20].to_vec(), Coding::Gzip),
            (zlib(plain)[..12].to_vec(), Coding::Deflate),
            (plain.to_vec(), Coding::Gzip),
            (gzip(plain), Coding::Deflate),
        ] {
            let refused = inflated(packed.into(), coding, LIMITS, None).await;
            assert!(matches!(refused, Err(InflateError::Corrupt)), "{coding:?}");
        }
    }

    #[test]
    fn a_request_names_one_coding_that_is_taken() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            Coding::of(&headers)
        };
        assert_eq!(of(&[]), Ok(Coding::Plain));
        assert_eq!(of(&["", "Identity"]), Ok(Coding::Plain));
        assert_eq!(of(&["identity, X-GZip"]), Ok(Coding::Gzip));
        assert_eq!(of(&["DEFLATE"]), Ok(Coding::Deflate));
        for refused in [&["br"][..], &["gzip, gzip"], &["gzip", "deflate"], &["zstd, identity"]] {
            assert_eq!(of(refused), Err(Unknown), "{refused:?}");
        }
    }
}
