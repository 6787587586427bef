//! Compresses files: each once, in the background, a few at the same time.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::front::Front;
use crate::front::accept_encoding::Coding;
use crate::front::asset_cache::{AssetKey, Look, Making, Outcome};
use crate::front::conditional::Whole;
use crate::front::page::{hash, insert_tag};
use crate::net::now;

/// How many files are compressed at the same time.
const AT_ONCE: usize = 2;

/// How long a caller waits for a coding if it also accepts the uncompressed file. Most are ready in
/// a few milliseconds, and the largest in less time than it takes to send it uncompressed over 50
/// Mbit/s. With a shorter time the whole page would come uncompressed on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a caller waits that does not accept the uncompressed file.
const PATIENCE_WITHOUT_CHOICE: Duration = Duration::from_secs(60);

/// Limits how many files are compressed at the same time. There is one for the gateway.
#[derive(Debug)]
pub struct Press(Semaphore);

impl Default for Press {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

/// How long a caller waits for a coding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Patience {
    Short,
    Long,
}

/// A file in a coding. The work begins at the first request. `None` if it takes too long.
pub async fn coded(
    front: &Arc<Front>,
    key: &AssetKey,
    coding: Coding,
    plain: &Whole,
    patience: Patience,
) -> Option<Whole> {
    let mut outcome = match front.asset_cache.look(&key.coded(coding)) {
        Look::Kept(whole) => return Some(whole),
        Look::Others(outcome) => outcome,
        Look::Mine(making) => {
            let outcome = making.outcome();
            let task = make(Arc::clone(front), making, key.clone(), coding, plain.clone());
            front.shared.tasks.spawn(task);
            outcome
        }
    };
    let patience = match patience {
        Patience::Short => PATIENCE,
        Patience::Long => PATIENCE_WITHOUT_CHOICE,
    };
    let waiting = outcome.wait_for(|outcome| !matches!(outcome, Outcome::Underway));
    let outcome = timeout(patience, waiting).await.ok()?.ok()?;
    match &*outcome {
        Outcome::Made(_, whole) => Some(whole.clone()),
        Outcome::Underway | Outcome::Nothing => None,
    }
}

/// The first caller may be gone; the next one gets the result.
async fn make(front: Arc<Front>, making: Making, key: AssetKey, coding: Coding, plain: Whole) {
    let Ok(_turn) = front.press.0.acquire().await else { return making.nothing() };
    let body = plain.body.clone();
    let pressed = tokio::task::spawn_blocking(move || press(&body, coding)).await;
    let Ok(Ok(pressed)) = pressed else { return making.nothing() };
    let mut headers = plain.headers;
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    headers.remove(ACCEPT_RANGES);
    // Each coding has a tag of its own (RFC 9110 section 8.8.3.3).
    insert_tag(&mut headers, &hash(&pressed));
    making.made(&key.coded(coding), Whole { headers, body: pressed.into() }, now());
    super::count_bytes(&front);
}

/// The best compression that takes a few hundred milliseconds for the whole page.
fn press(plain: &Bytes, coding: Coding) -> io::Result<Vec<u8>> {
    let room = Vec::with_capacity(plain.len() / 3);
    let mut pressed = match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(room, flate2::Compression::new(6));
            encoder.write_all(plain)?;
            encoder.finish()?
        }
        Coding::Brotli => {
            let mut encoder = brotli::CompressorWriter::new(room, 64 << 10, 5, 22);
            encoder.write_all(plain)?;
            encoder.flush()?;
            encoder.into_inner()
        }
    };
    pressed.shrink_to_fit();
    Ok(pressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pressed_can_be_read_again() {
        use std::io::Read as _;
        let plain = Bytes::from("function f() { return 1; }\n".repeat(1000));
        let mut read = String::new();
        let gzip = press(&plain, Coding::Gzip).unwrap();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut read).unwrap();
        assert_eq!(read.as_bytes(), plain);
        let brotli = press(&plain, Coding::Brotli).unwrap();
        let mut read = Vec::new();
        brotli::Decompressor::new(&brotli[..], 4096).read_to_end(&mut read).unwrap();
        assert!(read == plain && gzip.len() < plain.len() / 10 && brotli.len() < plain.len() / 10);
    }
}
