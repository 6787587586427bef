//! Recognises paths of files with a hash of their content in their name. Pure.
//!
//! Vite names the files that it builds `NAME-HASH.ext`, with eight characters of base64url
//! (`index-azSeANjR.js`). Such a file is cached for ever, so a doubtful name does not count:
//! `/assets/my-pictures.png` of a node pack has eight characters after its dash too, and may have
//! another content tomorrow.

use super::types::{self, Kind};

/// The default length of a hash with Vite and Rolldown.
const HASH: usize = 8;

/// The longest hash that can be configured.
const HASH_MAX: usize = 64;

/// The kind of a file with a hash in its name. `None` for every other path.
#[must_use]
pub fn hashed(path: &str) -> Option<Kind> {
    // A path with dots or escapes may be normalised on its way, and is another path then.
    let name = path.strip_prefix("/assets/").filter(|name| name.bytes().all(is_plain_or_dot))?;
    let (stem, end) = name.rsplit_once('.')?;
    let kind = types::of_end(end)?;
    let has_hash = stem.split('.').all(|part| !part.is_empty())
        && (has_hash(stem, HASH, kind) || has_longer_hash(stem, kind));
    has_hash.then_some(kind)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn is_plain_or_dot(byte: u8) -> bool {
    is_plain(byte) || byte == b'.'
}

/// True if the last `len` characters are a hash after a dash and a name.
fn has_hash(stem: &str, len: usize, kind: Kind) -> bool {
    let Some(dash) = stem.len().checked_sub(len + 1) else { return false };
    0 < dash && stem.as_bytes()[dash] == b'-' && is_hash(&stem[dash + 1..], kind)
}

/// A longer hash is found by its beginning, so it must not contain a dash. For a picture it may be
/// the end of a UUID.
fn has_longer_hash(stem: &str, kind: Kind) -> bool {
    let Some((name, hash)) = stem.rsplit_once('-') else { return false };
    kind.is_code
        && !name.is_empty()
        && (HASH + 1..=HASH_MAX).contains(&hash.len())
        && is_hash(hash, kind)
}

/// True for what nobody would write as a name. One hash in 250 looks like a name; such a file is
/// passed on unchanged.
fn is_hash(text: &str, kind: Kind) -> bool {
    let is_of_hash = |byte: u8| is_plain(byte);
    let mut parts = text.split(['-', '_']);
    let is_name = match kind.is_code {
        // This folder contains only scripts that were built.
        true => parts.all(is_word),
        false => parts.all(is_word_with_number),
    };
    text.bytes().all(is_of_hash) && !is_name
}

/// `word`, `Word`, or empty.
fn is_word(part: &str) -> bool {
    part.bytes().skip(1).all(|byte| byte.is_ascii_lowercase())
        && part.bytes().next().is_none_or(|byte| byte.is_ascii_alphabetic())
}

/// The same, and also `word2`, `WORD2`, `2024`.
fn is_word_with_number(part: &str) -> bool {
    let word = part.trim_end_matches(|letter: char| letter.is_ascii_digit());
    is_word(word) || word.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_name_is_told_from_others() {
        for path in [
            "/assets/index-azSeANjR.js",
            "/assets/a-b-Dl5_1v-6.css",
            "/assets/primeicons-C6QP2o4f.woff2",
            "/assets/video-BvOHf4P9.mp4",
            "/assets/vue.esm-bundler-B1C3YRTk.js",
            "/assets/none-12345678.js",
            "/assets/CL-CL--DGXU.js",
            "/assets/index-0a1b2c3d4e5f.js",
        ] {
            assert!(hashed(path).is_some(), "{path}");
        }
        for path in [
            "/assets/index.js",
            "/assets/-azSeANjR.js",
            "/assets/x-azSeANjR",
            "/assets/x-azSeANjR.exe",
            "/assets/x-azSeANjR.js.map",
            "/assets/x-azSeANj.js",
            "/assets/../x-azSe/NjR.js",
            "/assets/..x-azSeANjR.js",
            "/assets/../userdata/x-azSeANjR.json",
            "/assets/%2e%2e/userdata/x-azSeANjR.json",
            "/assets//x-azSeANjR.js",
            "/assets/images/x-azSeANjR.js",
            "/assets/x-azSe%2fjR.js",
            "/scripts/x-azSeANjR.js",
            "/api/assets/x-azSeANjR.js",
            "/assets/550e8400-e29b-41d4-a716-446655440000",
            "/assets/550e8400-e29b-41d4-a716-44a6554b00c0.png",
            "/assets/list",
        ] {
            assert!(hashed(path).is_none(), "{path}");
        }
    }

    #[test]
    fn what_somebody_may_have_written_is_no_hash() {
        for path in [
            "/assets/my-picture.png",
            "/assets/my-pictures.png",
            "/assets/my-new-logo.png",
            "/assets/photo-20240131.jpg",
            "/assets/my-Pictures.png",
            "/assets/my-version2.png",
            "/assets/my-NEW_LOGO.png",
            "/assets/my-handlers.js",
            "/assets/my-Handlers.js",
            "/assets/my-internationalization.js",
            "/assets/sorted-custom-node-map.json",
        ] {
            assert!(hashed(path).is_none(), "{path}");
        }
    }
}
