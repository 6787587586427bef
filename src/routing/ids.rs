//! Ids of clients, prompts, backends, files and assets: parsed once at the edge, trusted inside.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Identifies a backend. Ids are never reused: a backend that joins later may get the slot of one
/// that left, but not its id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId {
    slot: u16,
    generation: u16,
}

impl BackendId {
    #[must_use]
    pub const fn new(slot: u16, generation: u16) -> Self {
        Self { slot, generation }
    }

    /// The id of the first backend in this slot.
    #[must_use]
    pub const fn nth(slot: u16) -> Self {
        Self::new(slot, 0)
    }

    /// Where the fleet keeps the backend.
    #[must_use]
    pub fn slot(self) -> u16 {
        self.slot
    }

    /// The id of the next backend in the same slot.
    #[must_use]
    pub fn next(self) -> Self {
        Self { generation: self.generation.wrapping_add(1), ..self }
    }
}

/// A client: whose it is, and its own name for itself ([`super::realm`]). This is the id that
/// backends know it by.
///
/// Cheap to clone. Invariant: its name has 1 to [`ClientId::LEN_MAX`] bytes without control
/// characters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The longest name of a client, in bytes.
    pub const LEN_MAX: usize = 256;

    /// The id of this text, which was looked at.
    pub(super) fn of_text(text: Arc<str>) -> Self {
        Self(text)
    }

    /// What backends call it. What it is told itself is its [`ClientId::name`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadClientId {
    #[error("the client id is empty")]
    Empty,
    #[error("the client id has {len} bytes, at most {max} are allowed", max = ClientId::LEN_MAX)]
    TooLong { len: usize },
    #[error("the client id has a control character at byte {index}")]
    Control { index: usize },
}

/// The id of one prompt. Cheap to clone.
///
/// Invariant: 1 to [`PromptId::LEN_MAX`] bytes of printable ASCII.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PromptId(Arc<str>);

impl PromptId {
    pub const LEN_MAX: usize = 128;

    /// Parses an untrusted string.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadPromptId> {
        if text.is_empty() {
            return Err(BadPromptId::Empty);
        }
        if Self::LEN_MAX < text.len() {
            return Err(BadPromptId::TooLong { len: text.len() });
        }
        match text.bytes().position(|byte| !matches!(byte, b' '..=b'~')) {
            Some(index) => Err(BadPromptId::NotPrintable { index }),
            None => Ok(Self(text.into())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Allows looking up the text of an event in a map without making an id. This is valid because the
/// derived hash and order are those of the text.
impl Borrow<str> for PromptId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PromptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadPromptId {
    #[error("the prompt id is empty")]
    Empty,
    #[error("the prompt id has {len} bytes, at most {max} are allowed", max = PromptId::LEN_MAX)]
    TooLong { len: usize },
    #[error("the prompt id has a byte at {index} that is not printable ASCII")]
    NotPrintable { index: usize },
}

/// The longest path of a file, in bytes: the limit of most file systems.
const PATH_MAX: usize = 1_024;

/// One of ComfyUI's three folders of files: the `type` of a name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Folder {
    Input,
    Output,
    Temp,
}

impl Folder {
    pub const ALL: [Self; 3] = [Self::Input, Self::Output, Self::Temp];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Temp => "temp",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|folder| folder.as_str() == text)
    }
}

/// A file as ComfyUI names it: folder, subfolder and file name. Cheap to clone.
///
/// Invariant: the path has no slash at its ends, only `/` between its parts, no control characters,
/// and at most 1,024 bytes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileRef {
    pub folder: Folder,
    path: Arc<str>,
}

/// True if ComfyUI reads a folder at the end of this name, and not the name itself (0.33
/// `folder_paths.py`, `annotated_filepath`). No file can be asked for under such a name.
#[must_use]
pub fn ends_in_annotation(name: &str) -> bool {
    name.ends_with(']')
        && Folder::ALL.iter().any(|folder| {
            let rest = name.strip_suffix(']').and_then(|rest| rest.strip_suffix(folder.as_str()));
            rest.is_some_and(|rest| rest.ends_with('['))
        })
}

impl FileRef {
    /// `None` if it cannot be a file name. A backend on Windows writes `\` between folders.
    #[must_use]
    pub fn new(folder: Folder, subfolder: &str, filename: &str) -> Option<Self> {
        let subfolder = subfolder.trim_matches(['/', '\\']).replace('\\', "/");
        let path: Arc<str> = match subfolder.as_str() {
            "" => filename.into(),
            subfolder => format!("{subfolder}/{filename}").into(),
        };
        let is_name = !filename.is_empty() && !filename.contains(['/', '\\']);
        let is_path = path.len() <= PATH_MAX && !path.contains(char::is_control);
        // ComfyUI would read another name in it.
        let is_name = is_name && !ends_in_annotation(filename);
        (is_name && is_path).then_some(Self { folder, path })
    }

    /// The same, from a path that ends with the file name.
    #[must_use]
    pub fn of_path(folder: Folder, path: &str) -> Option<Self> {
        let (subfolder, filename) = path.rsplit_once(['/', '\\']).unwrap_or(("", path));
        Self::new(folder, subfolder, filename)
    }

    /// The file of the same path in another folder.
    #[must_use]
    pub fn in_folder(&self, folder: Folder) -> Self {
        Self { folder, path: Arc::clone(&self.path) }
    }

    /// Subfolder and file name, with `/` between.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path, for keeping.
    #[must_use]
    pub fn shared_path(&self) -> &Arc<str> {
        &self.path
    }

    /// The subfolder; empty for the folder itself.
    #[must_use]
    pub fn subfolder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(subfolder, _)| subfolder)
    }

    #[must_use]
    pub fn filename(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(_, filename)| filename)
    }
}

/// One file on one backend.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Located {
    pub backend: BackendId,
    pub file: FileRef,
}

/// The id of an asset: a UUID. It names one asset of one server.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AssetId(u128);

impl AssetId {
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// `None` unless it is a UUID with its four hyphens, as ComfyUI's routes require.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const HYPHENS: [usize; 4] = [8, 13, 18, 23];
        let is_one = |(at, byte): (usize, u8)| match byte {
            b'-' => HYPHENS.contains(&at),
            digit => digit.is_ascii_hexdigit() && !HYPHENS.contains(&at),
        };
        if text.len() != 36 || !text.bytes().enumerate().all(is_one) {
            return None;
        }
        u128::from_str_radix(&text.replace('-', ""), 16).ok().map(Self)
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        f.write_str(&parts.join("-"))
    }
}

/// The hash of a file's content, as ComfyUI writes it: `blake3:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContentHash([u8; 32]);

/// The prefix of a name that is a hash.
const BLAKE3: &str = "blake3:";

impl ContentHash {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses a hash by the rules of ComfyUI's `validate_blake3_hash`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let algorithm = text.get(..BLAKE3.len())?;
        let digits = text.get(BLAKE3.len()..)?;
        if !algorithm.eq_ignore_ascii_case(BLAKE3) || digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = digits.get(2 * at..2 * at + 2)?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(BLAKE3)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn an_asset_is_named_by_a_uuid_and_its_bytes_by_their_hash() {
        let text = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let id = AssetId::parse(text).unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(AssetId::parse(&text.to_uppercase()), Some(id));
        for junk in ["", &text.replace('-', ""), &text[1..], &text.replace('f', "g")] {
            assert_eq!(AssetId::parse(junk), None, "{junk}");
        }
        let text = format!("blake3:{}", "0a".repeat(32));
        let hash = ContentHash::parse(&text).unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(ContentHash::parse(&format!(" {} ", text.to_uppercase())), Some(hash));
        let odd = format!("blake3:{}", "é".repeat(32));
        for junk in ["", "blake3:", "blake3:0a", &text.replace("0a", "0g"), &text[1..], &odd] {
            assert_eq!(ContentHash::parse(junk), None, "{junk}");
        }
    }

    #[test]
    fn a_prompt_id_is_printable_ascii() {
        assert!(PromptId::parse("my job 7").is_ok());
        assert_eq!(PromptId::parse("é"), Err(BadPromptId::NotPrintable { index: 0 }));
        assert_eq!(PromptId::parse(&"x".repeat(129)), Err(BadPromptId::TooLong { len: 129 }));
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_or_is_refused_and_an_id_says_what_it_was_made_from(
            text in any::<String>(),
        ) {
            let is_prompt = !text.is_empty()
                && text.len() <= 128
                && text.chars().all(|it| it == ' ' || it.is_ascii_graphic());
            let prompt = PromptId::parse(&text).map(|id| id.to_string()).ok();
            prop_assert_eq!(prompt, is_prompt.then_some(text));
        }

        #[test]
        fn printable_ascii_of_allowed_length_is_an_id_of_either_kind(text in "[ -~]{1,128}") {
            let prompt = PromptId::parse(&text).unwrap();
            let client = ClientId::parse(&text).unwrap();
            prop_assert_eq!((prompt.as_str(), client.as_str()), (&*text, &*text));
        }
    }

    #[test]
    fn a_path_is_the_same_however_its_subfolder_is_written() {
        let same = ["/a\\b/", "a/b", "a\\b"];
        for subfolder in same {
            let file = FileRef::new(Folder::Temp, subfolder, "x.png").unwrap();
            assert_eq!((file.subfolder(), file.filename()), ("a/b", "x.png"));
        }
        assert_eq!(FileRef::new(Folder::Temp, "", "a/b"), None);
        assert_eq!(FileRef::new(Folder::Temp, "", ""), None);
        assert_eq!(FileRef::of_path(Folder::Temp, "a\nb"), None);
    }
}
