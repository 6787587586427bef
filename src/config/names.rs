//! Resolves the names of keys as they are written in files, in the environment and in flags.

use super::keys::{BACKENDS, KEYS, Key, is_named};
use super::layers::Path;
use super::suggest::nearest;

/// A name that does not exist.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum BadName {
    #[error("unknown section{}", did_you_mean(hint.as_ref()))]
    Section { hint: Option<String> },
    #[error("unknown key{}", did_you_mean(hint.as_ref()))]
    Key { hint: Option<String> },
    #[error(
        "the name of a backend has 1 to {} letters, digits or `.`, `_`, `-`, `:`",
        BACKEND_NAME_MAX
    )]
    Backend,
    #[error(
        "the name of a discovery has 1 to {} letters, digits or `.`, `_`, `-`, `:`",
        PLACE_NAME_MAX
    )]
    Place,
    #[error("names both `{first}` and `{second}`")]
    Ambiguous { first: String, second: String },
}

/// The longest name of a backend. It appears in headers, in paths and in file names.
pub(super) const BACKEND_NAME_MAX: usize = 63;

/// The longest name of a discovery. It leaves room for the address after it.
pub(super) const PLACE_NAME_MAX: usize = 23;

fn did_you_mean(hint: Option<&String>) -> String {
    hint.map_or_else(String::new, |it| format!(", did you mean `{it}`?"))
}

/// How names are written in the source of a name, so that a hint can be pasted there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notation {
    /// `server.listen`
    Dotted,
    /// `MOORING_SERVER__LISTEN`
    Environment,
}

impl Notation {
    fn write(self, section: &str, table: Option<&str>, key: &str) -> String {
        // A section may stand in another one.
        let parts = section.split('.').chain(table).chain([key]);
        let parts: Vec<&str> = parts.collect();
        match self {
            Self::Dotted => parts.join("."),
            Self::Environment => format!("{ENV_PREFIX}{}", parts.join("__").to_ascii_uppercase()),
        }
    }
}

pub(super) const ENV_PREFIX: &str = "MOORING_";

fn section_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    names.dedup();
    names
}

fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> + '_ {
    KEYS.iter().filter(move |key| key.section == section)
}

/// Finds a section by its name.
///
/// # Errors
/// It does not exist. The hint is a section with a similar name, or a key of that name.
pub(super) fn section(name: &str) -> Result<&'static str, BadName> {
    if let Some(found) = section_names().into_iter().find(|it| *it == name) {
        return Ok(found);
    }
    let of_key = || KEYS.iter().find(|key| key.name == name).map(Key::full_name);
    let hint = nearest(name, section_names()).map(str::to_owned).or_else(of_key);
    Err(BadName::Section { hint })
}

/// The section in `section` that is called `name`: `[server.tls]`.
pub(super) fn within(section: &str, name: &str) -> Option<&'static str> {
    let is_it =
        |it: &&str| it.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) == Some(name);
    section_names().into_iter().find(is_it)
}

/// The section that a name in `section` leads into, if it does, and the rest of the name.
fn deeper<'a>(section: &str, name: &'a str, separator: &str) -> Option<(&'static str, &'a str)> {
    let (inner, rest) = name.split_once(separator)?;
    Some((within(section, inner)?, rest))
}

/// Finds a key in its section. `table` is the name of the table, if the section has several.
///
/// # Errors
/// The key does not exist, or the table cannot have that name.
pub(super) fn path(
    section: &'static str,
    table: Option<&str>,
    name: &str,
    notation: Notation,
) -> Result<Path, BadName> {
    if let Some(table) = table {
        check_table_name(section, table)?;
    }
    if let Some(key) = keys_of(section).find(|key| key.name == name) {
        return Ok(Path { section, table: table.map(str::to_owned), key: key.name });
    }
    let alike = nearest(name, keys_of(section).map(|key| key.name))
        .map(|key| notation.write(section, table, key));
    let elsewhere = || {
        KEYS.iter()
            .find(|key| key.name == name && !is_named(key.section))
            .map(|key| notation.write(key.section, None, key.name))
    };
    Err(BadName::Key { hint: alike.or_else(elsewhere) })
}

/// Checks the name of a table in this section.
///
/// # Errors
/// [`BadName::Backend`] or [`BadName::Place`].
pub(super) fn check_table_name(section: &str, name: &str) -> Result<(), BadName> {
    if section == BACKENDS {
        return check_backend_name(name);
    }
    // Names of backends begin with it.
    let is_short = name.len() <= PLACE_NAME_MAX;
    check_backend_name(name).ok().filter(|()| is_short).ok_or(BadName::Place)
}

/// Checks the name of a backend.
///
/// # Errors
/// [`BadName::Backend`].
pub(super) fn check_backend_name(name: &str) -> Result<(), BadName> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if (1..=BACKEND_NAME_MAX).contains(&name.len()) && name.bytes().all(is_good) {
        Ok(())
    } else {
        Err(BadName::Backend)
    }
}

/// Resolves a name in dotted notation: `server.listen`, `backends.gpu.a.url`.
///
/// # Errors
/// The part of it that does not exist.
pub(super) fn dotted(name: &str) -> Result<Path, BadName> {
    let Some((first, rest)) = name.split_once('.') else {
        return Err(match section(name) {
            Ok(_) => BadName::Key { hint: None },
            Err(bad) => bad,
        });
    };
    let section = section(first)?;
    if !is_named(section) {
        let (section, rest) = deeper(section, rest, ".").unwrap_or((section, rest));
        return path(section, None, rest, Notation::Dotted);
    }
    match rest.rsplit_once('.') {
        Some((table, key)) => path(section, Some(table), key, Notation::Dotted),
        None => {
            let hint = Notation::Dotted.write(section, Some(rest), main_key(section));
            Err(BadName::Key { hint: Some(hint) })
        }
    }
}

/// The key that makes a named table.
fn main_key(section: &str) -> &'static str {
    if section == BACKENDS { "url" } else { "dns" }
}

/// The meaning of an environment variable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Variable {
    Key(Path),
    /// Not a key, and not meant as one. Kubernetes sets `MOORING_SERVICE_HOST` and similar
    /// variables in every pod beside a service that is called `mooring`.
    Other,
}

/// Resolves the name of a variable; `known` are the existing tables of a section.
///
/// # Errors
/// It is meant as a key, but is none.
pub(super) fn variable<'a>(
    name: &str,
    known: impl Fn(&'static str) -> Vec<&'a str>,
) -> Result<Variable, BadName> {
    let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
        return Ok(Variable::Other);
    };
    let rest = rest.to_ascii_lowercase();
    let Some((first, rest)) = rest.split_once("__") else {
        return single_underscore(&rest);
    };
    let section = section(first)?;
    if !is_named(section) {
        let (section, rest) = deeper(section, rest, "__").unwrap_or((section, rest));
        return path(section, None, rest, Notation::Environment).map(Variable::Key);
    }
    let Some((table, key)) = rest.rsplit_once("__") else {
        let hint = Notation::Environment.write(section, Some(rest), main_key(section));
        return Err(BadName::Key { hint: Some(hint) });
    };
    let mut alike = known(section).into_iter().filter(|it| folded(it) == folded(table));
    let found = alike.next();
    if let (Some(first), Some(second)) = (found, alike.next()) {
        return Err(BadName::Ambiguous { first: first.to_owned(), second: second.to_owned() });
    }
    path(section, Some(found.unwrap_or(table)), key, Notation::Environment).map(Variable::Key)
}

/// Without this check `MOORING_SERVER_WORKERS` would be ignored silently. Names that are less like
/// a key are not ours.
fn single_underscore(rest: &str) -> Result<Variable, BadName> {
    let meant = KEYS
        .iter()
        .filter(|key| !is_named(key.section))
        .find(|key| rest == format!("{}_{}", key.section.replace('.', "_"), key.name));
    match meant {
        Some(key) => {
            let hint = Notation::Environment.write(key.section, None, key.name);
            Err(BadName::Key { hint: Some(hint) })
        }
        None => Ok(Variable::Other),
    }
}

/// Folds letter case and punctuation, because names in the environment have only letters of one
/// case and underscores.
pub(super) fn folded(name: &str) -> String {
    let fold = |it: char| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '_' };
    name.chars().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variable_name: &str, backends: &[&str], expected: &str) {
        let known = |section| if section == BACKENDS { backends.to_vec() } else { vec!["far-a"] };
        let shown = match variable(variable_name, known) {
            Ok(Variable::Other) => "other".to_owned(),
            Ok(Variable::Key(path)) => {
                Notation::Dotted.write(path.section, path.table.as_deref(), path.key)
            }
            Err(bad) => bad.to_string(),
        };
        assert_eq!(shown, expected, "{variable_name}");
    }

    #[test]
    fn a_variable_names_a_key() {
        check("MOORING_SERVER__WORKERS", &[], "server.workers");
        check("MOORING_SERVER__TLS__CERT", &[], "server.tls.cert");
        check("MOORING_BACKENDS__GPU_A__URL", &[], "backends.gpu_a.url");
        check("MOORING_BACKENDS__GPU_A__URL", &["GPU-a", "gpu-b"], "backends.GPU-a.url");
        check("MOORING_BACKENDS__A__B__URL", &[], "backends.a__b.url");
        check("MOORING_DISCOVERY__FAR_A__DNS", &[], "discovery.far-a.dns");
        check("MOORING_DISCOVERY__B__KUBERNETES", &[], "discovery.b.kubernetes");
        check("MOORING_BACKENDS__A_8188__WEIGHT", &["a:8188"], "backends.a:8188.weight");
    }

    #[test]
    fn a_variable_of_somebody_else_is_left_alone() {
        check("PATH", &[], "other");
        check("MOORING_CONFIG", &[], "other");
        check("MOORING_ADMIN_URL", &[], "other");
        check("MOORING_SERVICE_HOST", &[], "other");
        check("MOORING_PORT_8180_TCP_ADDR", &[], "other");
    }

    #[test]
    fn a_variable_that_was_meant_for_us_is_not_ignored() {
        check(
            "MOORING_SERVER_WORKERS",
            &[],
            "unknown key, did you mean `MOORING_SERVER__WORKERS`?",
        );
        check(
            "MOORING_SERVER_TLS_KEY",
            &[],
            "unknown key, did you mean `MOORING_SERVER__TLS__KEY`?",
        );
        check(
            "MOORING_ADMIN__TLS__CERD",
            &[],
            "unknown key, did you mean `MOORING_ADMIN__TLS__CERT`?",
        );
        check(
            "MOORING_SERVER__WORKER",
            &[],
            "unknown key, did you mean `MOORING_SERVER__WORKERS`?",
        );
        check("MOORING_SERVER__LEASE", &[], "unknown key, did you mean `MOORING_AFFINITY__LEASE`?");
        check("MOORING_SEVER__WORKERS", &[], "unknown section, did you mean `server`?");
        check("MOORING_BACKENDS__A", &[], "unknown key, did you mean `MOORING_BACKENDS__A__URL`?");
        check(
            "MOORING_DISCOVERY__A",
            &[],
            "unknown key, did you mean `MOORING_DISCOVERY__A__DNS`?",
        );
        check(
            "MOORING_BACKENDS____URL",
            &[],
            "the name of a backend has 1 to 63 letters, digits or `.`, `_`, `-`, `:`",
        );
        check("MOORING_BACKENDS__A_B__URL", &["a-b", "a.b"], "names both `a-b` and `a.b`");
    }

    #[test]
    fn a_dotted_name_may_have_dots_in_the_backend() {
        let path = dotted("backends.10.0.0.7:8188.url").unwrap();
        assert_eq!(path.table.as_deref(), Some("10.0.0.7:8188"));
        assert_eq!(dotted("admin.tls.key").unwrap().full_name(), "admin.tls.key");
        assert_eq!(
            dotted("listen").unwrap_err().to_string(),
            "unknown section, did you mean `server.listen`?"
        );
        assert_eq!(dotted("server").unwrap_err().to_string(), "unknown key");
        assert_eq!(
            dotted("backends.a").unwrap_err().to_string(),
            "unknown key, did you mean `backends.a.url`?"
        );
    }
}
