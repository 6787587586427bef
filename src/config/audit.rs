//! Where the audit log goes (`log.audit`).

use std::path::PathBuf;

use serde_json::{Value, json};

use super::kinds::{Kind, Shape};

/// Where the audit log goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuditTo {
    /// There is none.
    Off,
    Stdout,
    File(PathBuf),
}

/// `off`, `stdout` or a file. A file has a slash, so that a word that is misspelt is none.
#[derive(Debug)]
pub(super) struct AuditTarget;

impl Kind for AuditTarget {
    type Value = AuditTo;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        match text {
            "off" => Ok(AuditTo::Off),
            "stdout" => Ok(AuditTo::Stdout),
            path if path.contains('/') => Ok(AuditTo::File(PathBuf::from(path))),
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
        assert_eq!(AuditTarget.parse("off"), Ok(AuditTo::Off));
        assert_eq!(AuditTarget.parse("stdout"), Ok(AuditTo::Stdout));
        assert_eq!(AuditTarget.parse("./audit.log"), Ok(AuditTo::File("./audit.log".into())));
        for text in ["", "stderr", "on", "audit.log"] {
            let told = AuditTarget.parse(text).unwrap_err();
            assert!(told.ends_with("is not \"off\", \"stdout\" or a path with a slash"), "{told}");
        }
    }
}
