//! Where the audit log and the access log go (`log.audit`, `log.access`).

use std::path::PathBuf;

use serde_json::{Value, json};

use super::kinds::{Kind, Shape};

/// Where a log goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogTo {
    /// There is none.
    Off,
    Stdout,
    File(PathBuf),
}

/// How a line of the access log is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccessFormat {
    /// One JSON object.
    Json,
    /// As Apache's and nginx's `combined`, with what Mooring knows at its end.
    Combined,
}

/// `off`, `stdout` or a file. A file has a slash, so that a word that is misspelt is none.
#[derive(Debug)]
pub(super) struct LogTarget;

impl Kind for LogTarget {
    type Value = LogTo;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        match text {
            "off" => Ok(LogTo::Off),
            "stdout" => Ok(LogTo::Stdout),
            path if path.contains('/') => Ok(LogTo::File(PathBuf::from(path))),
            _ => Err(format!("`{text}` is not {}", self.takes())),
        }
    }

    fn takes(&self) -> String {
        "\"off\", \"stdout\" or a path with a slash".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_no_file() {
        assert_eq!(LogTarget.parse("off"), Ok(LogTo::Off));
        assert_eq!(LogTarget.parse("stdout"), Ok(LogTo::Stdout));
        assert_eq!(LogTarget.parse("./audit.log"), Ok(LogTo::File("./audit.log".into())));
        for text in ["", "stderr", "on", "audit.log"] {
            let told = LogTarget.parse(text).unwrap_err();
            assert!(told.ends_with("is not \"off\", \"stdout\" or a path with a slash"), "{told}");
        }
    }
}
