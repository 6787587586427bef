//! Writes the form of an upload anew, so that its file goes to the folder of its user.
//!
//! All of it is written anew, with a boundary of ours: a backend reads the same parts and names as
//! we do, and nobody gets a file past us by a form that two programs read in two ways. The content
//! of files passes in pieces, as it comes.
//!
//! # Invariant
//!
//! Nothing in a head that goes on is text of the client's, but a type of letters and the name of
//! the file, and that is escaped until only letters, digits, `.`, `-` and `_` are left.
//! aiohttp cuts a head at each `;`, also inside of quotes, and takes slashes off the begin
//! of a name.

use http::HeaderValue;

use super::{parameter, part_value};
use crate::comfy::query::encode;
use crate::routing::ids::ends_in_annotation;
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
    #[error(
        "an upload has the fields `image`, `type`, `overwrite`, `subfolder` and `original_ref`, \
         each at most once, and only `image` is a file"
    )]
    BadField,
    #[error("the form ends within a part")]
    CutShort,
    #[error("the subfolder of an upload is a path without `..`, and is no name of ours")]
    BadSubfolder,
    #[error("`original_ref` of a mask names a file: its `filename`, `subfolder` and `type`")]
    BadOriginal,
    #[error(
        "the name of an uploaded file has no folders and no control characters in it, and \
             does not end like `[input]`"
    )]
    BadName,
}

/// A field that ComfyUI reads in an upload (0.33 `server.py`, `image_upload` and `upload_mask`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Field {
    Image,
    Type,
    Overwrite,
    Subfolder,
    OriginalRef,
}

impl Field {
    const ALL: [Self; 5] =
        [Self::Image, Self::Type, Self::Overwrite, Self::Subfolder, Self::OriginalRef];

    fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Type => "type",
            Self::Overwrite => "overwrite",
            Self::Subfolder => "subfolder",
            Self::OriginalRef => "original_ref",
        }
    }
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
    /// The fields that have begun.
    begun: Vec<Field>,
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
            begun: Vec::new(),
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
        // Some programs begin with an empty line.
        let skipped = if self.coming.starts_with(b"\r") { 0 } else { 2 };
        let first = &self.delimiter[skipped..];
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
        self.went_by(self.delimiter.len() - skipped, State::AfterDelimiter);
        Ok(true)
    }

    fn after_delimiter(&mut self, going: &mut Vec<u8>) -> Result<bool, BadUpload> {
        if self.coming.starts_with(b"--") {
            let subfolder = self.subfolder.take().unwrap_or_default();
            let subfolder = String::from_utf8(subfolder).map_err(|_| BadUpload::BadSubfolder)?;
            let is_text = !subfolder.contains(char::is_control);
            let plain = self.folder.plain(&subfolder).filter(|_| is_text);
            let own = self.folder.own_path(&plain.ok_or(BadUpload::BadSubfolder)?);
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
        // Of two fields of one name, programs differ in which one they take.
        if self.begun.contains(&part.field) {
            return Err(BadUpload::BadField);
        }
        let written = part.written(&self.boundary, &self.folder)?;
        self.begun.push(part.field);
        let state = if part.field == Field::Subfolder {
            State::Subfolder(Vec::new())
        } else {
            going.extend_from_slice(written.as_bytes());
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
    field: Field,
    filename: Option<String>,
    kind: Option<&'a str>,
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
        let field = Field::ALL.into_iter().find(|field| field.as_str() == name);
        let field = field.ok_or(BadUpload::BadField)?;
        // RFC 5987; aiohttp prefers it too.
        let encoded = parameter(disposition, "filename*").map(|value| part_value(&value));
        let filename = match encoded {
            Some(None) => return Err(BadUpload::BadName),
            Some(decoded) => decoded,
            None => parameter(disposition, "filename"),
        };
        if filename.is_some() != (field == Field::Image) {
            return Err(BadUpload::BadField);
        }
        // aiohttp would undo any other one, and see what we have not (RFC 7578 section 4.7).
        let is_as_it_is = |it: &str| ["binary", "8bit", "7bit"].contains(&it);
        let coding = header("content-transfer-encoding").map(str::to_ascii_lowercase);
        if coding.is_some_and(|coding| !is_as_it_is(&coding)) {
            return Err(BadUpload::BadPart);
        }
        Ok(Self { field, filename, kind: header("content-type") })
    }

    fn written(&self, boundary: &str, folder: &UserFolder) -> Result<String, BadUpload> {
        let name = self.field.as_str();
        let mut head = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"");
        if let Some(filename) = &self.filename {
            let leads_out = filename.contains(['/', '\\']) || matches!(&**filename, "." | "..");
            let is_bad = leads_out || filename.contains(char::is_control);
            if is_bad || ends_in_annotation(filename) || folder.names_another(filename) {
                return Err(BadUpload::BadName);
            }
            // The type of a field would make bytes of its text.
            let kind = self.kind.filter(|kind| is_type(kind));
            head.push_str(&format!(
                "; {}\r\ncontent-type: {}",
                written_name(filename),
                kind.unwrap_or("application/octet-stream")
            ));
        }
        head.push_str("\r\n\r\n");
        Ok(head)
    }
}

/// The parameter for the name of a file, which all programs read alike.
fn written_name(filename: &str) -> String {
    let is_clear = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if filename.bytes().all(is_clear) {
        return format!("filename=\"{filename}\"");
    }
    format!("filename*=UTF-8''{}", encode(filename).replace('~', "%7E"))
}

/// True for a plain type of a single content.
fn is_type(kind: &str) -> bool {
    let is_clear = |byte: u8| byte.is_ascii_alphanumeric() || b"/.+-".contains(&byte);
    kind.bytes().all(is_clear) && !kind.to_ascii_lowercase().starts_with("multipart")
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
            // What he is told is without his folder, so it is in there once.
            [
                (None, own.path("")),
                (Some("x/"), own.path("x")),
                (Some("./a\\b"), own.path("a/b")),
                (Some(own.as_str()), own.path("")),
                (Some(&*own.path(&own.path("x"))), own.path("x")),
            ]
        {
            let folder = subfolder.map_or_else(String::new, |it| field("subfolder", it));
            for body in [
                format!("\r\n{}{folder}{}--b--\r\n", image("a.png"), field("overwrite", "true")),
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
    fn a_field_stands_there_once_under_the_name_that_comfyui_reads() {
        let bobs = UserFolder::of("bob");
        for name in
            ["/subfolder", "\\\\subfolder", "Subfolder", "_charset_", "/original_ref", "x", ""]
        {
            let body = [field(name, bobs.as_str()), image("a.png"), "--b--".to_owned()].concat();
            assert_eq!(passed(body.as_bytes(), 64), Err(BadUpload::BadField), "{name}");
        }
        for name in ["subfolder", "overwrite", "type", "original_ref"] {
            let body = [field(name, "x"), field(name, "y"), "--b--".to_owned()].concat();
            assert_eq!(passed(body.as_bytes(), 64), Err(BadUpload::BadField), "{name}");
            let file = image("a.png").replace("\"image\"", &format!("\"{name}\""));
            assert_eq!(passed(file.as_bytes(), 64), Err(BadUpload::BadField), "{name}");
        }
        let no_file = field("image", "x");
        assert_eq!(passed(no_file.as_bytes(), 64), Err(BadUpload::BadField));
        let coded =
            field("type", "x").replace("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        assert_eq!(passed(coded.as_bytes(), 64), Err(BadUpload::BadPart));
    }

    /// aiohttp cuts at each `;`, so none of a name's may be left.
    #[test]
    fn no_name_of_a_file_is_a_parameter() {
        for (name, written) in [
            (
                "x\\\"; filename*=UTF-8''..%2Fa.png; [=z",
                "filename*=UTF-8''x%22%3B%20filename%2A%3DUTF-8%27%27..%252Fa.png%3B%20%5B%3Dz",
            ),
            ("a;b (1)~.png", "filename*=UTF-8''a%3Bb%20%281%29%7E.png"),
            ("a-b_1.png", "filename=\"a-b_1.png\""),
        ] {
            let body = image(name).replace("image/png", "multipart/mixed; boundary=b") + "--b--";
            let going = String::from_utf8(passed(body.as_bytes(), 64).unwrap()).unwrap();
            let head = "content-disposition: form-data; name=\"image\"; ";
            let expected = format!(
                "--ours\r\n{head}{written}\r\ncontent-type: application/octet-stream\r\n\r\n"
            );
            assert!(going.starts_with(&expected), "{going}");
        }
    }

    #[test]
    fn no_subfolder_and_no_name_leads_elsewhere() {
        let bobs = UserFolder::of("bob");
        for bad in ["..", "x/../y", bobs.as_str(), &"x".repeat(2_000), "a\nb"] {
            let body = format!("{}{}--b--\r\n", field("subfolder", bad), image("a.png"));
            assert_eq!(passed(body.as_bytes(), 64), Err(BadUpload::BadSubfolder), "{bad}");
        }
        for bad in ["../a.png", "x/a.png", "x\\\\a.png", "..", "a.png [input]", &bobs.path("a.png")]
        {
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
            ("--b\r\nContent-Disposition: form-data; name=type\r\n\r\nx", BadUpload::CutShort),
        ] {
            assert_eq!(passed(body.as_bytes(), 5), Err(why), "{body:?}");
        }
        let encoded = "--b\r\nContent-Disposition: form-data; name=image; \
            filename*=UTF-8''%E2%82%AC%2E%2E%2Fa\r\n\r\nx\r\n--b--";
        assert_eq!(passed(encoded.as_bytes(), 64), Err(BadUpload::BadName));
        let encoded = encoded.replace("%2E%2E%2F", "");
        let going = String::from_utf8(passed(encoded.as_bytes(), 64).unwrap()).unwrap();
        assert!(going.contains("; filename*=UTF-8''%E2%82%ACa\r\n"), "{going}");
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
