//! `multipart/form-data` (RFC 7578), as far as uploads need it: finds the parts of a collected
//! body, and builds the body that uploads a file to a backend.

mod own_form;

use std::ops::Range;

use crate::routing::ids::FileRef;
pub use own_form::{BadUpload, OwnForm};

/// The most parts; no upload has more.
const PARTS_MAX: usize = 64;

/// One part of a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    pub name: String,
    /// Where its content is.
    pub content: Range<usize>,
}

/// The boundary in a content type.
#[must_use]
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    });
    value.filter(|boundary| !boundary.is_empty() && boundary.len() <= 70)
}

/// The parts of a whole body; `None` if it is invalid or has too many.
#[must_use]
pub fn parts(body: &[u8], boundary: &str) -> Option<Vec<Part>> {
    let delimiter = format!("\r\n--{boundary}");
    let first = delimiter.as_bytes().strip_prefix(b"\r\n")?;
    let mut at = if body.starts_with(first) {
        first.len()
    } else {
        // aiohttp, and so ComfyUI, reads what comes before the first part line by line: there, and
        // only there, a line feed alone ends a line.
        let line = delimiter.as_bytes().strip_prefix(b"\r")?;
        memchr::memmem::find(body, line)? + line.len()
    };
    let mut parts = Vec::new();
    while !body.get(at..)?.starts_with(b"--") {
        let head = at + memchr::memmem::find(&body[at..], b"\r\n")? + 2;
        // A part without headers begins with the empty line itself.
        let end_of_head = memchr::memmem::find(&body[head - 2..], b"\r\n\r\n")? + head - 2;
        let content = end_of_head + 4;
        let end = content + memchr::memmem::find(&body[content..], delimiter.as_bytes())?;
        let headers = std::str::from_utf8(body.get(head..end_of_head)?).ok()?;
        parts.push(Part { name: name_of(headers)?, content: content..end });
        if PARTS_MAX < parts.len() {
            return None;
        }
        at = end + delimiter.len();
    }
    Some(parts)
}

/// The name of a part, from `Content-Disposition`.
fn name_of(headers: &str) -> Option<String> {
    let line = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    parameter(line, "name")
}

/// The value of a parameter. A quoted value may contain semicolons and escapes (RFC 9110 section
/// 5.6.4), so that a file's name cannot be mistaken for the name of its part.
fn parameter(line: &str, wanted: &str) -> Option<String> {
    let (_kind, mut rest) = line.split_once(';')?;
    loop {
        let (names, after) = rest.split_once('=')?;
        // A parameter without a value may come before it.
        let name = names.rsplit(';').next().unwrap_or(names).trim();
        let (value, more) = value(after.trim_start());
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = more;
    }
}

/// The value at the beginning of `text`, and the rest.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            _ => value.push(character),
        }
    }
    (value, characters.as_str())
}

/// The value of an extended parameter (RFC 5987): `UTF-8''a%20b`. `None` in any other charset.
fn part_value(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, text) = rest.split_once('\'')?;
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
    charset.eq_ignore_ascii_case("utf-8").then(|| decoded.into_owned())
}

/// Looks for a field with a short value in a body that passes in pieces, wherever it is cut.
#[derive(Debug)]
pub struct FieldSearch {
    name: &'static str,
    values: &'static [&'static str],
    /// The end of what has passed.
    carried: Vec<u8>,
}

/// The longest text from a field's name to the end of its value: a few headers may be between.
const FIELD_MAX: usize = 512;

impl FieldSearch {
    /// For a field `name` that has one of `values`.
    #[must_use]
    pub fn new(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values, carried: Vec::new() }
    }

    /// True if the field stands in what has passed, and ends in `data` or just before.
    pub fn finds(&mut self, data: &[u8]) -> bool {
        self.carried.extend_from_slice(&data[..data.len().min(FIELD_MAX)]);
        let found = self.is_in(&self.carried) || self.is_in(data);
        if FIELD_MAX <= data.len() {
            self.carried.clear();
            self.carried.extend_from_slice(&data[data.len() - FIELD_MAX..]);
        } else {
            self.carried.drain(..self.carried.len().saturating_sub(FIELD_MAX));
        }
        found
    }

    fn is_in(&self, text: &[u8]) -> bool {
        memchr::memmem::find_iter(text, self.name).any(|at| self.is_at(text, at))
    }

    /// True if the name at this place is that of a part, and the part has one of the values.
    fn is_at(&self, text: &[u8], at: usize) -> bool {
        let before = text[..at].strip_suffix(b"\"").unwrap_or(&text[..at]);
        let after = &text[at + self.name.len()..];
        let after = &after[..after.len().min(FIELD_MAX)];
        let Some(end) = memchr::memmem::find(after, b"\r\n\r\n") else { return false };
        let content = &after[end + 4..];
        let ends = |value: &&str| {
            content.strip_prefix(value.as_bytes()).is_some_and(|rest| rest.starts_with(b"\r\n--"))
        };
        is_after_name(before) && self.values.iter().any(ends)
    }
}

/// True if what follows is the name of a part, and not that of a file.
fn is_after_name(before: &[u8]) -> bool {
    let Some((before, name)) = before.split_last_chunk::<5>() else { return false };
    name.eq_ignore_ascii_case(b"name=") && before.last().is_some_and(|it| b" \t;".contains(it))
}

/// The bytes before and after the content of a file that is uploaded as `file`. An existing file
/// with the same name and other content is not overwritten: ComfyUI gives the new one another name.
#[must_use]
pub fn upload_of(file: &FileRef, boundary: &str) -> (String, String) {
    let field = |name: &str, value: &str| {
        format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        )
    };
    // Escaped as aiohttp reads it; there are no control characters.
    let filename = file.filename().replace('\\', "\\\\").replace('"', "\\\"");
    let head = field("type", file.folder.as_str())
        + &field("subfolder", file.subfolder())
        + &format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"image\"; \
             filename=\"{filename}\"\r\ncontent-type: application/octet-stream\r\n\r\n"
        );
    (head, format!("\r\n--{boundary}--\r\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;
    use crate::routing::ids::Folder;

    /// aiohttp reads what comes before the first part in this way.
    #[test]
    fn a_preamble_ends_with_any_line() {
        let part = "content-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n";
        for before in ["", "pre\r\n", "pre\n", "--xx\npre\r\n\n"] {
            let body = format!("{before}--x\r\n{part}");
            let found = parts(body.as_bytes(), "x").map(|all| all.len());
            assert_eq!(found, Some(1), "{before:?}");
        }
    }

    #[test]
    fn a_part_has_its_own_name_whatever_its_file_is_called() {
        for (line, name) in [
            (r#"form-data; filename="a;name=z;b"; name="image""#, Some("image")),
            (r#"form-data; filename="a\"; name=z"; NAME = image ; x"#, Some("image")),
            (r#"form-data; flag; name="a\"b""#, Some("a\"b")),
            (r#"form-data; name="open"#, Some("open")),
            (r#"form-data; filename="name=z""#, None),
            ("form-data", None),
        ] {
            let headers = format!("X: y\r\nContent-Disposition: {line}");
            assert_eq!(name_of(&headers).as_deref(), name, "{line}");
        }
    }

    #[test]
    fn a_field_is_found_wherever_the_body_is_cut() {
        let picture = vec![b'x'; 3 * FIELD_MAX];
        let file = b"--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\n";
        let field = |text: &str| format!("--b\r\nContent-Disposition: form-data; {text}\r\n");
        let found = |field: &str, size: usize| {
            let body = [field.as_bytes(), file, &picture, b"\r\n--b--\r\n"].concat();
            let last = [file, &picture[..], b"\r\n", field.as_bytes(), b"--b--\r\n"].concat();
            [body, last].map(|body| {
                let mut search = FieldSearch::new("overwrite", &["true", "1"]);
                body.chunks(size).filter(|data| search.finds(data)).count() != 0
            })
        };
        for size in (1..200).chain([500, 511, 512, 513, 1_000, 10_000]) {
            for yes in ["name=\"overwrite\"\r\n\r\ntrue", "NAME=overwrite\r\nX: y\r\n\r\n1"] {
                assert_eq!(found(&field(yes), size), [true; 2], "{yes} in {size}");
            }
            for no in [
                "name=\"overwrite\"\r\n\r\nfalse",
                "name=\"overwrite\"\r\n\r\ntrues",
                "name=\"other\"\r\n\r\ntrue",
                "name=\"image\"; filename=\"overwrite\"\r\n\r\n1",
            ] {
                assert_eq!(found(&field(no), size), [false; 2], "{no} in {size}");
            }
        }
    }

    fn contents(body: &[u8], boundary: &str) -> Option<Vec<(String, Vec<u8>)>> {
        let parts = parts(body, boundary)?;
        Some(parts.into_iter().map(|it| (it.name, body[it.content].to_vec())).collect())
    }

    #[test]
    fn what_is_made_is_read_back() {
        let file = FileRef::of_path(Folder::Input, "x/a \"b\".png").unwrap();
        let (head, tail) = upload_of(&file, "xyz");
        let body = [head.as_bytes(), b"\r\n--xy\r\n", tail.as_bytes()].concat();
        let read = contents(&body, "xyz").unwrap();
        let expected = [("type", &b"input"[..]), ("subfolder", b"x"), ("image", b"\r\n--xy\r\n")];
        assert_eq!(read, expected.map(|(name, content)| (name.to_owned(), content.to_vec())));
    }

    #[test]
    fn bodies_as_others_write_them() {
        let body =
            b"preamble\r\n--b  \r\nContent-Type: text/plain\r\nContent-Disposition: form-data;\
            name=original_ref; charset=x\r\n\r\n{}\r\n--b--\r\nepilogue";
        let expected = [("original_ref".to_owned(), b"{}".to_vec())];
        assert_eq!(contents(body, "b"), Some(expected.to_vec()));
        assert_eq!(contents(b"--b--", "b"), Some(Vec::new()));
        for broken in
            [&b""[..], b"--b", b"--b\r\n", b"--b\r\n\r\nx", b"--c--", b"--b\r\n\r\nx\r\n--b--"]
        {
            assert_eq!(contents(broken, "b"), None, "{:?}", broken.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_boundary_stands_in_the_content_type() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("Multipart/Form-Data; charset=x; Boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary("multipart/mixed; boundary=abc"), None);
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in any::<Vec<u8>>(), marks in "(--b|\r\n|--|:|x){0,32}") {
            for body in [&body[..], marks.as_bytes()] {
                for part in parts(body, "b").unwrap_or_default() {
                    prop_assert!(part.content.end <= body.len());
                }
            }
        }
    }
}
