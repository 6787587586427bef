//! The keys of the logs.

use super::super::audit::AuditTarget;
use super::super::choices::Format;
use super::super::key::{Applied, Key};
use super::super::kinds::Kind;
use super::super::raw::{Section, Setting};
use super::super::values::LogLevel;

sections! { LOG_SECTIONS, LOG_KEYS:
    /// The log, on standard error.
    ["log"] RawLog log {
        /// `text` writes lines for people, `json` one JSON object per line.
        format: Format = "text", Restart;
        /// What is logged. `RUST_LOG` overrides it.
        level: LogLevel = "info", Live;
        /// Where the audit log goes (who changed what): `off`, `stdout`, or a file with a slash.
        audit: AuditTarget = "off", Restart;
    }
}
