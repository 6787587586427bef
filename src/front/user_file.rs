//! Finds the user's file that a name in a path means. Pure.
//!
//! ComfyUI 0.33 (`app/user_manager.py`) decodes the name a second time and resolves it below the
//! user's folder, so one file has many names. Here all of them are one. Names that are equal on
//! some systems only are also one (case, backslashes, dots and blanks at an end, streams behind a
//! colon). So a write may end a copy more than necessary, but never one too few.

use percent_encoding::percent_decode_str;

/// The file with a user's settings.
const SETTINGS: &str = "comfy.settings.json";

/// The meaning of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    /// A file or a folder, by its path below the user's folder.
    File(Box<str>),
    /// The file with the settings.
    Settings,
    /// The user's folder.
    Root,
    /// Possibly any of these: the path leaves the folder and may return, or it has an unusual
    /// spelling.
    Odd,
}

/// Reads a name in a path.
pub(super) fn meaning(name: &str) -> Meaning {
    let decoded = decode(&decode(name)).to_lowercase().replace('\\', "/");
    let is_drive = decoded.as_bytes().get(1) == Some(&b':');
    if decoded.starts_with('/')
        || is_drive
        || decoded.contains(['\0', char::REPLACEMENT_CHARACTER])
        || decode(&decoded) != decoded
    {
        return Meaning::Odd;
    }
    let mut path: Vec<&str> = Vec::new();
    for part in decoded.split('/') {
        let stem = part.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
        match part {
            "" | "." => {}
            ".." if path.pop().is_some() => {}
            _ if stem.is_empty() => return Meaning::Odd,
            _ => path.push(stem),
        }
    }
    match path[..] {
        [] => Meaning::Root,
        [SETTINGS] => Meaning::Settings,
        _ => Meaning::File(path.join("/").into()),
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], expected: &Meaning) {
        for name in names {
            assert_eq!(meaning(name), *expected, "{name}");
        }
    }

    #[test]
    fn every_name_of_a_file_means_that_file() {
        let file = |path: &str| Meaning::File(path.into());
        check(
            &[
                "a%2Fb.json",
                "a%252Fb.json",
                "a%252fb%252Ejson",
                ".%2Fa%2F%2Fb.json",
                "x%2F..%2Fa%2Fb.json",
                "x%252Fy%2F..%2F..%2Fa%2Fb.json",
                "A%5CB.JSON",
                "a%2Fb.json%20.",
                "a%2Fb.json::$DATA",
            ],
            &file("a/b.json"),
        );
        check(&["50%25.json", "50%2525.json"], &file("50%.json"));
        check(&["%C3%A4.json", "ä.json", "%25C3%25A4.json"], &file("ä.json"));
        check(&["comfy.settings.json", ".%2FComfy.settings.json"], &Meaning::Settings);
        check(&["x%2Fcomfy.settings.json"], &file("x/comfy.settings.json"));
        check(&["", ".", "a%2F..", "%252E"], &Meaning::Root);
        check(
            &["..%2Fdefault%2Fa", "%2Fa", "%255Ca", "C:%5Ca", "%FF", "a%00", "%25252F", "...", " "],
            &Meaning::Odd,
        );
    }
}
