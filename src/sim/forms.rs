//! Reads the form of an upload as aiohttp does, with what it makes of odd heads
//! (3.14 `multipart.py`, `parse_content_disposition`).

use std::convert::Infallible;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

/// The fields of an upload's form.
#[derive(Default)]
pub(super) struct Form {
    pub(super) image: Option<(String, Bytes)>,
    pub(super) kind: Option<String>,
    pub(super) subfolder: Option<String>,
    pub(super) overwrites: Option<bool>,
    pub(super) original: Option<String>,
}

/// Of two fields with one name the first counts, as with `post.get`.
pub(super) async fn read_form(headers: &HeaderMap, body: Bytes) -> Option<Form> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multer::parse_boundary(content_type).ok()?;
    let stream = futures_util::stream::iter([Ok::<_, Infallible>(body)]);
    let mut parts = multer::Multipart::new(stream, boundary);
    let mut form = Form::default();
    while let Ok(Some(field)) = parts.next_field().await {
        let head = field.headers().get(CONTENT_DISPOSITION).cloned();
        let head = head.map(|head| String::from_utf8_lossy(head.as_bytes()).into_owned());
        let parameters = head.and_then(|head| disposition(&head)).unwrap_or_default();
        let bytes = field.bytes().await.ok()?;
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        let filename = parameters.get("filename*").or_else(|| parameters.get("filename"));
        match (parameters.get("name").unwrap_or_default(), filename) {
            ("image", Some(name)) if form.image.is_none() => {
                form.image = Some((name.to_owned(), bytes));
            }
            ("type", _) => drop(form.kind.get_or_insert_with(text)),
            ("subfolder", _) => drop(form.subfolder.get_or_insert_with(text)),
            ("overwrite", _) => {
                form.overwrites.get_or_insert_with(|| matches!(&*text(), "true" | "1"));
            }
            ("original_ref", _) => drop(form.original.get_or_insert_with(text)),
            (_, _) => {}
        }
    }
    Some(form)
}

#[derive(Debug, Default)]
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn get(&self, wanted: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }
}

/// It cuts at each `;` first, and looks at quotes then.
fn disposition(head: &str) -> Option<Parameters> {
    let mut parts = head.split(';').peekable();
    parts.next().filter(|kind| is_token(kind.trim()))?;
    let mut found = Parameters::default();
    while let Some(part) = parts.next() {
        if part.is_empty() {
            continue;
        }
        let (name, value) = part.split_once('=')?;
        let (name, value) = (name.trim().to_lowercase(), value.trim());
        if found.get(&name).is_some() {
            return None;
        }
        if !is_token(&name) {
            continue;
        }
        let value = if name.ends_with('*') {
            let Some(value) = extended(value) else { continue };
            value
        } else if let Some(text) = quoted(value) {
            text
        } else if is_token(value) {
            value.to_owned()
        } else {
            let both = format!("{value};{}", parts.next()?);
            quoted(&both)?
        };
        found.0.push((name, value));
    }
    Some(found)
}

fn is_token(text: &str) -> bool {
    let is_separator = |it: char| "()<>@,;:\\\"/[]?={} \t".contains(it);
    !text.is_empty() && text.chars().all(|it| it.is_ascii_graphic() && !is_separator(it))
}

fn quoted(text: &str) -> Option<String> {
    let text = text.strip_prefix('"')?.strip_suffix('"')?.trim_start_matches(['\\', '/']);
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.extend(letters.next()),
            _ => plain.push(letter),
        }
    }
    Some(plain)
}

fn extended(text: &str) -> Option<String> {
    let mut parts = text.split('\'');
    let (_charset, _language, value) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !is_token(text) {
        return None;
    }
    Some(percent_encoding::percent_decode_str(value).decode_utf8().ok()?.into_owned())
}

/// A path as `os.path.abspath` makes it, below where it begins; `None` if it leads out of there.
pub(super) fn normal(path: &str) -> Option<String> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            _ => segments.push(segment),
        }
    }
    Some(segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as aiohttp 3.14.5 reads it.
    #[test]
    fn heads_are_read_as_aiohttp_reads_them() {
        for (head, name, filename) in [
            ("form-data; name=\"/subfolder\"", "subfolder", ""),
            ("form-data; name=\"\\\\type\"", "type", ""),
            ("form-data; name=image; filename=\"a;b.png\"", "image", "a;b.png"),
            (
                "form-data; name=\"image\"; filename=\"x\\\"; filename*=UTF-8''..%2Fa.png; [=z\"",
                "image",
                "../a.png",
            ),
        ] {
            let found = disposition(head).unwrap();
            let read = found.get("filename*").or_else(|| found.get("filename")).unwrap_or("");
            assert_eq!((found.get("name").unwrap(), read), (name, filename), "{head}");
        }
        for bad in ["form-data; name", "form-data; name=a; name=b", "form data; name=a"] {
            assert!(disposition(bad).is_none(), "{bad}");
        }
        assert_eq!(normal("./a//b/../c").as_deref(), Some("a/c"));
        assert_eq!(normal("a/../../b"), None);
    }
}
