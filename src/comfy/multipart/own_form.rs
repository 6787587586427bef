//! Writes the form of an upload anew, so that its file goes to the folder of its user.
//!
//! All of it is written anew, with a boundary of ours: a backend reads the same parts and names as
//! we do, and nobody gets a file past us by a form that two programs read in two ways. The content
//! of files passes in pieces, as it comes.

use http::HeaderValue;

use super::{parameter, part_value};
use crate::routing::user_folder::UserFolder;

/// The longest head of a part, in bytes.
const HEAD_MAX: usize = 8 << 10;

/// The longest subfolder, in bytes.
const SUBFOLDER_MAX: usize = 1 << 10;

/// Why a form is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadUpload {
    #[error("an upload is a form of the type multipart/form-data")]
    NoForm,
    #[error("a part of the form has no name, or a head that cannot be read")]
    BadPart,
    #[error("the form ends within a part")]
    CutShort,
    #[error("the subfolder of an upload is a path without `..`, and is no name of ours")]
    BadSubfolder,
    #[error("`original_ref` of a mask names a file: its `filename`, `subfolder` and `type`")]
    BadOriginal,
    #[error("the name of an uploaded file has no folders and no control characters in it")]
    BadName,
}

/// The form of a user's upload, on its way.
#[derive(Debug)]
pub struct OwnForm {
    folder: UserFolder,
    /// What ends a part in the form as it comes.
    delimiter: Vec<u8>,
    /// The boundary of the form as it goes on.
    boundary: String,
    /// What has come and is not read yet.
    coming: Vec<u8>,
    state: State,
    /// The first one, as ComfyUI takes it.
    subfolder: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    Start,
    AfterDelimiter,
    Head,
    Content,
    /// In the field that is kept back.
    Subfolder(Vec<u8>),
    End,
}

impl OwnForm {
    /// A form whose parts end with the boundary `coming`, as one with the boundary `going`.
    #[must_use]
    pub fn new(folder: UserFolder, coming: &str, going: String) -> Self {
        Self {
            folder,
            delimiter: format!("\r\n--{coming}").into_bytes(),
            boundary: going,
            coming: Vec::new(),
            state: State::Start,
            subfolder: None,
        }
    }

    /// The content type of the form as it goes on.
    #[must_use]
    pub fn content_type(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("multipart/form-data; boundary={}", self.boundary)).ok()
    }

    /// Takes the next piece; returns what can go on now.
    ///
    /// # Errors
    /// The form is refused: nothing more of it may go on.
    pub fn pass(&mut self, data: &[u8]) -> Result<Vec<u8>, BadUpload> {
        self.coming.extend_from_slice(data);
        let mut going = Vec::with_capacity(self.coming.len() + 128);
        while self.step(&mut going)? {}
        Ok(going)
    }

    /// The form has ended.
    ///
    /// # Errors
    /// It has not: its last part is cut.
    pub fn end(&self) -> Result<(), BadUpload> {
        if self.state == State::End { Ok(()) } else { Err(BadUpload::CutShort) }
    }

    /// Reads one thing more. False if more has to come for that.
    fn step(&mut self, going: &mut Vec<u8>) -> Result<bool, BadUpload> {
        match &self.state {
            State::Start => self.start(),
            State::AfterDelimiter => self.after_delimiter(going),
            State::Head => self.head(going),
            State::Content => self.content(going),
            State::Subfolder(_) => self.kept_back(),
            State::End => {
                self.coming.clear();
                Ok(false)
            }
        }
    }

    fn start(&mut self) -> Result<bool, BadUpload> {
        let first = &self.delimiter[2..];
        if self.coming.len() < first.len() {
            return if first.starts_with(&self.coming) {
                Ok(false)
            } else {
                Err(BadUpload::NoForm)
            };
        }
        if !self.coming.starts_with(first) {
            return Err(BadUpload::NoForm);
        }
        self.went_by(self.delimiter.len() - 2, State::AfterDelimiter);
        Ok(true)
    }

    fn after_delimiter(&mut self, going: &mut Vec<u8>) -> Result<bool, BadUpload> {
        if self.coming.starts_with(b"--") {
            let subfolder = self.subfolder.take().unwrap_or_default();
            let subfolder = String::from_utf8(subfolder).map_err(|_| BadUpload::BadSubfolder)?;
            let is_text = !subfolder.contains(char::is_control);
            let plain = self.folder.plain(&subfolder).filter(|_| is_text);
            let own = self.folder.path(&plain.ok_or(BadUpload::BadSubfolder)?);
            let (boundary, field) = (&self.boundary, "content-disposition: form-data; name");
            let last =
                format!("--{boundary}\r\n{field}=\"subfolder\"\r\n\r\n{own}\r\n--{boundary}--\r\n");
            going.extend_from_slice(last.as_bytes());
            self.went_by(2, State::End);
            return Ok(true);
        }
        let Some(end) = memchr::memmem::find(&self.coming, b"\r\n") else { return self.more() };
        if !self.coming[..end].iter().all(|byte| b" \t".contains(byte)) {
            return Err(BadUpload::BadPart);
        }
        self.went_by(end + 2, State::Head);
        Ok(true)
    }

    fn head(&mut self, going: &mut Vec<u8>) -> Result<bool, BadUpload> {
        if self.coming.starts_with(b"\r\n") {
            return Err(BadUpload::BadPart);
        }
        let Some(end) = memchr::memmem::find(&self.coming, b"\r\n\r\n") else { return self.more() };
        let head = std::str::from_utf8(&self.coming[..end]).map_err(|_| BadUpload::BadPart)?;
        let part = PartHead::read(head)?;
        let state = if part.name == "subfolder" {
            if part.filename.is_some() || part.coding.is_some() {
                return Err(BadUpload::BadSubfolder);
            }
            State::Subfolder(Vec::new())
        } else {
            going.extend_from_slice(part.written(&self.boundary, &self.folder)?.as_bytes());
            State::Content
        };
        self.went_by(end + 4, state);
        Ok(true)
    }

    fn content(&mut self, going: &mut Vec<u8>) -> Result<bool, BadUpload> {
        let (content, is_over) = self.next_content();
        going.extend_from_slice(&self.coming[..content]);
        if is_over {
            going.extend_from_slice(b"\r\n");
            self.went_by(content + self.delimiter.len(), State::AfterDelimiter);
        } else {
            self.went_by(content, State::Content);
        }
        Ok(is_over)
    }

    fn kept_back(&mut self) -> Result<bool, BadUpload> {
        let (content, is_over) = self.next_content();
        let State::Subfolder(mut value) = self.state.clone() else { return Ok(true) };
        value.extend_from_slice(&self.coming[..content]);
        if SUBFOLDER_MAX < value.len() {
            return Err(BadUpload::BadSubfolder);
        }
        if is_over {
            self.subfolder.get_or_insert(value);
            self.went_by(content + self.delimiter.len(), State::AfterDelimiter);
        } else {
            self.went_by(content, State::Subfolder(value));
        }
        Ok(is_over)
    }

    /// How much of what has come is content of the part, and whether the part ends there.
    fn next_content(&self) -> (usize, bool) {
        match memchr::memmem::find(&self.coming, &self.delimiter) {
            Some(end) => (end, true),
            // The rest may be the begin of a delimiter.
            None => ((self.coming.len() + 1).saturating_sub(self.delimiter.len()), false),
        }
    }

    fn more(&self) -> Result<bool, BadUpload> {
        if HEAD_MAX < self.coming.len() { Err(BadUpload::BadPart) } else { Ok(false) }
    }

    fn went_by(&mut self, many: usize, state: State) {
        self.coming.drain(..many);
        self.state = state;
    }
}

/// What the head of a part says, as far as it goes on.
struct PartHead<'a> {
    name: String,
    filename: Option<String>,
    kind: Option<&'a str>,
    /// `Content-Transfer-Encoding`, which aiohttp undoes.
    coding: Option<&'a str>,
}

impl<'a> PartHead<'a> {
    fn read(head: &'a str) -> Result<Self, BadUpload> {
        let header = |wanted: &str| {
            head.split("\r\n").find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
            })
        };
        let disposition = header("content-disposition").ok_or(BadUpload::BadPart)?;
        let name = parameter(disposition, "name").ok_or(BadUpload::BadPart)?;
        // RFC 5987; aiohttp prefers it too.
        let encoded = parameter(disposition, "filename*").map(|value| part_value(&value));
        let filename = match encoded {
            Some(None) => return Err(BadUpload::BadName),
            Some(decoded) => decoded,
            None => parameter(disposition, "filename"),
        };
        let coding = header("content-transfer-encoding")
            .filter(|it| !["binary", "8bit", "7bit"].iter().any(|no| it.eq_ignore_ascii_case(no)));
        Ok(Self { name, filename, kind: header("content-type"), coding })
    }

    fn written(&self, boundary: &str, folder: &UserFolder) -> Result<String, BadUpload> {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        if self.name.contains(char::is_control) {
            return Err(BadUpload::BadPart);
        }
        let name = quoted(&self.name);
        let mut head = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"");
        if let Some(filename) = &self.filename {
            let leads_out = filename.contains(['/', '\\']) || filename == "..";
            let is_bad = leads_out || filename.contains(char::is_control);
            if is_bad || folder.names_another(filename) {
                return Err(BadUpload::BadName);
            }
            head.push_str(&format!("; filename=\"{}\"", quoted(filename)));
            // The type of a field would make bytes of its text.
            head.push_str(&self.kind.map_or_else(String::new, |it| line("content-type", it)));
        }
        head.push_str(
            &self.coding.map_or_else(String::new, |it| line("content-transfer-encoding", it)),
        );
        head.push_str("\r\n\r\n");
        Ok(head)
    }
}

/// A further line of a head; none if it has odd characters.
fn line(name: &str, value: &str) -> String {
    let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_plain { format!("\r\n{name}: {value}") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::super::parts;
    use super::*;

    fn ada() -> UserFolder {
        UserFolder::of("ada")
    }

    fn passed(body: &[u8], size: usize) -> Result<Vec<u8>, BadUpload> {
        let mut form = OwnForm::new(ada(), "b", "ours".to_owned());
        let mut going = Vec::new();
        for data in body.chunks(size) {
            going.extend(form.pass(data)?);
        }
        form.end().map(|()| going)
    }

    fn contents(body: &[u8]) -> Vec<(String, String)> {
        let found = parts(body, "ours").unwrap().into_iter();
        let text = |part: super::super::Part| {
            (part.name, String::from_utf8_lossy(&body[part.content]).into_owned())
        };
        found.map(text).collect()
    }

    fn field(name: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    fn image(filename: &str) -> String {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{filename}\"\r\n\
             Content-Type: image/png\r\n\r\n\r\n--other\r\n"
        )
    }

    #[test]
    fn the_file_goes_to_its_users_folder_whatever_the_order_and_the_pieces() {
        let own = ada();
        for (subfolder, expected) in
            [(None, own.path("")), (Some("x/"), own.path("x")), (Some("./a\\b"), own.path("a/b"))]
        {
            let folder = subfolder.map_or_else(String::new, |it| field("subfolder", it));
            for body in [
                format!("{}{folder}{}--b--\r\n", image("a.png"), field("overwrite", "true")),
                format!("{folder}{}{}--b--\r\n", field("overwrite", "true"), image("a.png")),
            ] {
                for size in [1, 2, 3, 7, 50, 4_096] {
                    let going = passed(body.as_bytes(), size).unwrap();
                    let mut found = contents(&going);
                    let last = found.pop().unwrap();
                    assert_eq!(last, ("subfolder".to_owned(), expected.clone()));
                    found.sort();
                    let parts = [("image", "\r\n--other"), ("overwrite", "true")];
                    assert_eq!(found, parts.map(|(name, it)| (name.to_owned(), it.to_owned())));
                    let text = String::from_utf8(going).unwrap();
                    assert!(text.contains("filename=\"a.png\"\r\ncontent-type: image/png"));
                }
            }
        }
    }

    #[test]
    fn the_first_subfolder_counts_and_none_leads_elsewhere() {
        let two = [field("subfolder", "x"), field("subfolder", "y"), image("a.png")].concat();
        let going = passed(format!("{two}--b--").as_bytes(), 9).unwrap();
        assert_eq!(contents(&going).pop().unwrap().1, ada().path("x"));
        let bobs = UserFolder::of("bob");
        for bad in ["..", "x/../y", bobs.as_str(), &"x".repeat(2_000), "a\nb"] {
            let body = format!("{}{}--b--\r\n", field("subfolder", bad), image("a.png"));
            assert_eq!(passed(body.as_bytes(), 64), Err(BadUpload::BadSubfolder), "{bad}");
        }
        for bad in ["../a.png", "x/a.png", "x\\\\a.png", "..", &bobs.path("a.png")] {
            let body = format!("{}--b--\r\n", image(bad));
            assert_eq!(passed(body.as_bytes(), 64), Err(BadUpload::BadName), "{bad}");
        }
    }

    #[test]
    fn what_is_no_form_goes_nowhere() {
        for (body, why) in [
            ("", BadUpload::CutShort),
            ("preamble\r\n--b--", BadUpload::NoForm),
            ("--c--", BadUpload::NoForm),
            ("--b\r\n\r\nx\r\n--b--", BadUpload::BadPart),
            ("--b\r\nX: y\r\n\r\nx\r\n--b--", BadUpload::BadPart),
            ("--bc\r\n", BadUpload::BadPart),
            ("--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx", BadUpload::CutShort),
        ] {
            assert_eq!(passed(body.as_bytes(), 5), Err(why), "{body:?}");
        }
        let encoded = "--b\r\nContent-Disposition: form-data; name=image; \
            filename*=UTF-8''%E2%82%AC%2E%2E%2Fa\r\n\r\nx\r\n--b--";
        assert_eq!(passed(encoded.as_bytes(), 64), Err(BadUpload::BadName));
        let encoded = encoded.replace("%2E%2E%2F", "");
        let going = String::from_utf8(passed(encoded.as_bytes(), 64).unwrap()).unwrap();
        assert!(going.contains("filename=\"\u{20ac}a\""), "{going}");
    }

    proptest! {
        #[test]
        fn no_form_makes_it_panic(body in any::<Vec<u8>>(), marks in "(--b|\r\n|--|:|x){0,32}") {
            for body in [&body[..], marks.as_bytes()] {
                let at_once = passed(body, 1 << 20);
                prop_assert!(at_once.is_err() == passed(body, 3).is_err());
            }
        }
    }
}
