//! Bodies of uploads. The first line is the content type, the rest the body.
//!
//! - Parts lie in the body, one after the other, and none contains the delimiter.
//! - An independent reader that takes the body finds the same bytes in the same parts.
//! - What is written for a backend is read as what it was made of.

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use mooring::comfy::multipart::{Part, boundary, parts, upload_of};
use mooring::routing::ids::{FileRef, Folder};

const LEN_MAX: usize = 32 << 10;

pub fn check(data: &[u8]) {
    let data = &data[..data.len().min(LEN_MAX)];
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(kind) = std::str::from_utf8(&data[..line]) else { return };
    let body = data.get(line + 1..).unwrap_or(&[]);
    let Some(boundary) = boundary(kind.trim_end_matches('\r')) else { return };
    assert!((1..=70).contains(&boundary.len()) && kind.contains(boundary));
    let found = parts(body, boundary);
    if let Some(found) = &found {
        check_parts(found, body, boundary);
    }
    if let (true, Some(found), Some(theirs)) =
        (begins_a_line(body, boundary), &found, read_by_library(body, boundary))
    {
        let ours = found.iter().map(|it| &body[it.content.clone()]);
        assert!(ours.eq(theirs.iter().map(|it| &it[..])), "{found:?} {theirs:?}");
    }
    check_written(kind, body, boundary);
}

/// True if the first delimiter is at the beginning of a line, as RFC 2046 (section 5.1.1) has it.
/// Within a line it is none for us and for aiohttp, and one for the library.
fn begins_a_line(body: &[u8], boundary: &str) -> bool {
    let delimiter = format!("--{boundary}");
    let first = body.windows(delimiter.len()).position(|it| it == delimiter.as_bytes());
    first.is_some_and(|at| at == 0 || body[..at].ends_with(b"\r\n"))
}

fn check_parts(found: &[Part], body: &[u8], boundary: &str) {
    let delimiter = format!("\r\n--{boundary}");
    let mut at = 0;
    for part in found {
        assert!(at <= part.content.start && part.content.start <= part.content.end);
        at = part.content.end;
        let content = &body[part.content.clone()];
        let has_delimiter = content.windows(delimiter.len()).any(|it| it == delimiter.as_bytes());
        assert!(!has_delimiter && body[at..].starts_with(delimiter.as_bytes()));
    }
    assert!(found.len() <= 65);
}

/// `None` if it is not taken whole, or a part has no name. What the names are is not compared: the
/// library finds them inside of quotes too.
fn read_by_library(body: &[u8], boundary: &str) -> Option<Vec<Bytes>> {
    let body = Bytes::copy_from_slice(body);
    let mut read = multer::Multipart::new(stream::iter([Ok::<_, std::io::Error>(body)]), boundary);
    let mut fields = Vec::new();
    // All of the body is there.
    while let Some(field) = read.next_field().now_or_never()?.ok()? {
        field.name()?;
        fields.push(field.bytes().now_or_never()?.ok()?);
    }
    Some(fields)
}

/// The same bytes as a file under the same name, as a backend is given it.
fn check_written(kind: &str, body: &[u8], boundary: &str) {
    let folder = Folder::ALL[body.len() % 3];
    let Some(file) = FileRef::of_path(folder, kind) else { return };
    let delimiter = format!("\r\n--{boundary}");
    // Whoever copies takes a boundary that is not in the file.
    let has = |bytes: &[u8]| bytes.windows(delimiter.len()).any(|it| it == delimiter.as_bytes());
    if has(body) || has(file.path().as_bytes()) {
        return;
    }
    let (head, tail) = upload_of(&file, boundary);
    let whole = [head.as_bytes(), body, tail.as_bytes()].concat();
    let found = parts(&whole, boundary).expect("what is written can be read");
    let texts: Vec<_> =
        found.iter().map(|it| (it.name.as_str(), &whole[it.content.clone()])).collect();
    let expected = [
        ("type", folder.as_str().as_bytes()),
        ("subfolder", file.subfolder().as_bytes()),
        ("image", body),
    ];
    assert_eq!(texts, expected);
}
