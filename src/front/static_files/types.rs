//! The type of a file by its name, and the types of servers that are equivalent. Pure.

use http::header::{CONTENT_TYPE, HeaderMap};

use crate::front::accept_encoding::Worth;

/// Files with the same ending of their name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kind {
    /// The value that we send in `Content-Type`.
    pub mime: &'static str,
    pub worth: Worth,
    /// True for text that the page runs or reads.
    pub is_code: bool,
}

const fn code(mime: &'static str) -> Kind {
    Kind { mime, worth: Worth::Compressing, is_code: true }
}

const fn large(mime: &'static str) -> Kind {
    Kind { mime, worth: Worth::Compressing, is_code: false }
}

const fn packed(mime: &'static str) -> Kind {
    Kind { mime, worth: Worth::Nothing, is_code: false }
}

/// The kinds, by the ending of the name.
const KINDS: [(&str, Kind); 30] = [
    ("js", code("text/javascript; charset=utf-8")),
    ("mjs", code("text/javascript; charset=utf-8")),
    ("css", code("text/css; charset=utf-8")),
    ("json", code("application/json; charset=utf-8")),
    ("map", code("application/json; charset=utf-8")),
    ("wasm", large("application/wasm")),
    ("svg", large("image/svg+xml")),
    ("txt", large("text/plain; charset=utf-8")),
    ("md", large("text/markdown; charset=utf-8")),
    ("xml", large("application/xml")),
    ("ico", large("image/vnd.microsoft.icon")),
    ("ttf", large("font/ttf")),
    ("otf", large("font/otf")),
    ("eot", large("application/vnd.ms-fontobject")),
    ("gltf", large("model/gltf+json")),
    ("glb", large("model/gltf-binary")),
    ("woff", packed("font/woff")),
    ("woff2", packed("font/woff2")),
    ("png", packed("image/png")),
    ("jpg", packed("image/jpeg")),
    ("jpeg", packed("image/jpeg")),
    ("gif", packed("image/gif")),
    ("webp", packed("image/webp")),
    ("avif", packed("image/avif")),
    ("mp3", packed("audio/mpeg")),
    ("ogg", packed("audio/ogg")),
    ("wav", packed("audio/wav")),
    ("mp4", packed("video/mp4")),
    ("webm", packed("video/webm")),
    ("pdf", packed("application/pdf")),
];

/// Types that servers send instead: older names, and those of other registries.
const ALIASES: [(&str, &str); 16] = [
    ("application/javascript", "text/javascript"),
    ("application/x-javascript", "text/javascript"),
    ("text/ecmascript", "text/javascript"),
    ("application/ecmascript", "text/javascript"),
    ("text/json", "application/json"),
    ("application/manifest+json", "application/json"),
    ("text/xml", "application/xml"),
    ("image/x-icon", "image/vnd.microsoft.icon"),
    ("application/font-woff", "font/woff"),
    ("application/x-font-woff", "font/woff"),
    ("application/font-woff2", "font/woff2"),
    ("application/x-font-ttf", "font/ttf"),
    ("font/sfnt", "font/ttf"),
    ("application/x-font-otf", "font/otf"),
    ("audio/x-wav", "audio/wav"),
    ("application/ogg", "audio/ogg"),
];

/// The kind of the files with this ending.
#[must_use]
pub fn of_end(end: &str) -> Option<Kind> {
    let found = KINDS.iter().find(|(known, _)| end.eq_ignore_ascii_case(known));
    found.map(|(_, kind)| *kind)
}

/// True if a server's type for a file is equivalent to the type of its name, or says nothing. If
/// its registry does not know the file, a server sends `application/octet-stream`, and on Windows
/// `text/plain` for scripts (ComfyUI #12911).
#[must_use]
pub fn is_expected(kind: Kind, headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(CONTENT_TYPE).iter();
    let (Some(first), None) = (said.next(), said.next()) else {
        return !headers.contains_key(CONTENT_TYPE);
    };
    let Ok(text) = first.to_str() else { return false };
    let said = essence(text);
    let said = ALIASES.iter().find(|(alias, _)| *alias == said).map_or(&*said, |(_, same)| same);
    let is_unknown = said == "application/octet-stream";
    let is_text = said == "text/plain" && kind.worth == Worth::Compressing;
    said == essence(kind.mime) || is_unknown || is_text
}

/// The type without parameters.
fn essence(mime: &str) -> String {
    mime.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_that_of_the_name() {
        assert_eq!(of_end("JS").unwrap().mime, "text/javascript; charset=utf-8");
        assert_eq!(of_end("woff2").unwrap(), packed("font/woff2"));
        assert_eq!(of_end("unknown"), None);
        for (_, same) in ALIASES {
            assert!(KINDS.iter().any(|(_, kind)| essence(kind.mime) == same), "{same}");
        }
    }

    #[test]
    fn what_a_server_says_must_not_contradict_the_name() {
        let expected = |end: &str, mime: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, mime.parse().unwrap());
            is_expected(of_end(end).unwrap(), &headers)
        };
        for (end, mime) in [
            ("js", "text/javascript"),
            ("js", "Application/JavaScript; charset=utf-8"),
            ("js", "text/plain"),
            ("css", "text/css"),
            ("ico", "image/x-icon"),
            ("woff2", "application/octet-stream"),
            ("json", "application/json"),
        ] {
            assert!(expected(end, mime), "{end} {mime}");
        }
        for (end, mime) in [
            ("js", "text/html; charset=utf-8"),
            ("js", "application/json"),
            ("css", "text/javascript"),
            ("png", "text/plain"),
            ("png", "image/svg+xml"),
            ("json", ""),
        ] {
            assert!(!expected(end, mime), "{end} {mime}");
        }
        assert!(is_expected(of_end("js").unwrap(), &HeaderMap::new()));
        let mut twice = HeaderMap::new();
        for mime in ["text/javascript", "text/html"] {
            twice.append(CONTENT_TYPE, mime.parse().unwrap());
        }
        assert!(!is_expected(of_end("js").unwrap(), &twice));
    }
}
