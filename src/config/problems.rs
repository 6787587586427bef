//! Problems of a configuration: all of them, each with the place where it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Where a value was written. Reports are sorted in this order.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// `line` counts from 1; 0 stands for the whole file.
    File { path: String, line: usize },
    /// An environment variable.
    Env { name: String },
    Flag {
        /// The option's name: `--set`, `--backend`, `--listen`.
        option: &'static str,
    },
    /// A request of an operator to a running gateway.
    Request,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0 } => f.write_str(path),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Env { name } => f.write_str(name),
            Self::Flag { .. } => f.write_str("command line"),
            Self::Request => f.write_str("request"),
        }
    }
}

/// One problem. Never contains the value of a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// `None` for something that is missing.
    pub origin: Option<Origin>,
    /// A full name such as `server.listen`; empty if the problem concerns no key.
    pub key: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl Problem {
    /// For programs: `{"file", "line", "key", "problem", "hint"?, "source"?}`. `source` is set if
    /// it was not written in a file.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (what, hint) = match self.what.rsplit_once(", did you mean ") {
            Some((what, hint)) => (what, Some(format!("did you mean {hint}"))),
            None => (self.what.as_str(), None),
        };
        let (file, line, source) = match &self.origin {
            Some(Origin::File { path, line }) => (Some(path), Some(*line), None),
            Some(origin @ (Origin::Env { .. } | Origin::Flag { .. } | Origin::Request)) => {
                (None, None, Some(origin.to_string()))
            }
            None => (None, None, None),
        };
        let line = line.filter(|line| *line != 0);
        let key = Some(&self.key).filter(|key| !key.is_empty());
        let mut problem = json!({ "file": file, "line": line, "key": key, "problem": what });
        if let Some(hint) = hint {
            problem["hint"] = hint.into();
        }
        if let Some(source) = source {
            problem["source"] = source.into();
        }
        problem
    }
}

/// All problems, in the order of their origins. Never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 problem in the configuration")?,
            count => write!(f, "{count} problems in the configuration")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// The shown value of each key, and where it was written if it was, by full names.
pub(super) type Seen = BTreeMap<String, (Value, Option<Origin>)>;

/// Collects problems while the configuration is read, and remembers where each key was written, so
/// that a rule over several keys can name the right line.
#[derive(Debug, Default)]
pub(super) struct Notes {
    problems: Vec<Problem>,
    origins: BTreeMap<String, Origin>,
    bad: BTreeSet<String>,
    seen: Seen,
    /// Facts to report that are not problems.
    pub(super) warnings: Vec<Problem>,
    /// The files that are read, whether they exist or not.
    pub(super) files: Vec<PathBuf>,
}

impl Notes {
    /// Remembers that `key` was written at `origin`.
    pub(super) fn wrote(&mut self, key: &str, origin: &Origin) {
        self.origins.insert(key.to_owned(), origin.clone());
    }

    /// Remembers the value of `key` in the form that may be shown.
    pub(super) fn saw(&mut self, key: &str, value: Value, origin: Option<&Origin>) {
        self.seen.insert(key.to_owned(), (value, origin.cloned()));
    }

    /// All remembered values.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Remembers that these files are read.
    pub(super) fn needs(&mut self, files: Vec<PathBuf>) {
        self.files.extend(files);
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, origin: Origin, key: &str, what: String) {
        self.warnings.push(Problem { origin: Some(origin), key: key.to_owned(), what });
    }

    /// Adds a warning about `key`, at the place where it was written, if it was.
    pub(super) fn remark(&mut self, key: &str, what: impl Into<String>) {
        let origin = self.origins.get(key).cloned();
        self.warnings.push(Problem { origin, key: key.to_owned(), what: what.into() });
    }

    /// Reports a problem with `key`, at the place where it was written, if it was.
    pub(super) fn report(&mut self, key: &str, what: impl Into<String>) {
        let origin = self.origins.get(key).cloned();
        self.report_at(origin, key, what);
    }

    pub(super) fn report_at(&mut self, origin: Option<Origin>, key: &str, what: impl Into<String>) {
        self.bad.insert(key.to_owned());
        self.problems.push(Problem { origin, key: key.to_owned(), what: what.into() });
    }

    /// True if none of `keys` has a problem of its own. Otherwise a rule over them would report the
    /// same mistake twice.
    pub(super) fn are_good(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.bad.contains(*key))
    }

    /// True if a problem so far may be the reason why no backend was found: a file that cannot be
    /// read, or a misspelt name.
    pub(super) fn may_hide_backends(&self) -> bool {
        let about = |key: &str| {
            let key = key.trim_start_matches('-');
            key.is_empty() || key.starts_with("backend") || key.starts_with("discovery")
        };
        self.problems.iter().any(|problem| about(&problem.key))
    }

    /// True if `key` was written somewhere.
    pub(super) fn has_written(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// The one of `keys` that was written last, for a rule that they break together.
    pub(super) fn written<'a>(&self, keys: &[&'a str]) -> &'a str {
        keys.iter().max_by_key(|key| self.origins.get(**key)).copied().unwrap_or_default()
    }

    /// Returns `value` if there are no problems.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Problems> {
        if self.problems.is_empty() {
            return Ok(value);
        }
        // After a syntax error, the rest of its line is not reliable.
        let is_slip =
            |it: &&Problem| it.key.is_empty() && matches!(it.origin, Some(Origin::File { .. }));
        let slips: BTreeSet<_> =
            self.problems.iter().filter(is_slip).map(|it| it.origin.clone()).collect();
        self.problems.retain(|it| it.key.is_empty() || !slips.contains(&it.origin));
        // Missing values come last: they are often a consequence of other problems.
        self.problems.sort_by(|a, b| {
            (a.origin.is_none(), &a.origin, &a.key).cmp(&(b.origin.is_none(), &b.origin, &b.key))
        });
        Err(Problems(self.problems))
    }
}
