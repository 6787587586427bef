//! The fields of the login form.

use super::credentials::Said;
use crate::front::error::GatewayError;

/// What was typed, and what the page had filled in.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub token: String,
    pub next: String,
    pub name: String,
    password: Hidden,
    key: Hidden,
}

/// A text that is never logged.
#[derive(Default)]
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Fields {
    /// Reads the body of a form. Unknown fields are ignored.
    ///
    /// # Errors
    /// A field appears twice. It must not be left to a guess which one counts.
    pub(super) fn read(body: &[u8]) -> Result<Self, GatewayError> {
        let mut fields = Self::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            let field = match &*name {
                "token" => &mut fields.token,
                "next" => &mut fields.next,
                "name" => &mut fields.name,
                "password" => &mut fields.password.0,
                "key" => &mut fields.key.0,
                _ => continue,
            };
            *field = value.into_owned();
            if seen.contains(&name) {
                return Err(GatewayError::BadForm("a field of the form appears twice"));
            }
            seen.push(name);
        }
        Ok(fields)
    }

    /// The credentials that were typed. Keyboards of phones add a blank after a name, which is
    /// removed.
    ///
    /// # Errors
    /// Fields are missing.
    pub(super) fn said(&self) -> Result<Said, GatewayError> {
        let (name, key) = (self.name.trim(), self.key.0.trim());
        match (key.is_empty(), name.is_empty() || self.password.0.is_empty()) {
            (false, _) => Ok(Said::Key(key.to_owned())),
            (true, false) => {
                let password = self.password.0.clone();
                Ok(Said::Password { name: name.to_owned(), password })
            }
            (true, true) => Err(GatewayError::BadForm("give your name and password, or your key")),
        }
    }
}

/// True for the type of a form without files.
#[must_use]
pub(super) fn is_form(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or(content_type);
    kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Compares in a time that does not depend on the content.
#[must_use]
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let pairs = one.bytes().zip(other.bytes());
    one.len() == other.len() && pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> Result<String, String> {
        let said = Fields::read(body.as_bytes()).and_then(|fields| fields.said());
        said.map_err(|error| error.to_string()).map(|said| match said {
            Said::Key(key) => format!("key {key}"),
            Said::Password { name, password } => format!("{name}: {password}"),
        })
    }

    #[test]
    fn a_name_with_a_password_or_a_key_is_enough() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(said("name=ada&password=a+b%26c%C3%A4"), ok("ada: a b&cä"));
        assert_eq!(said("name=+ada%20&password=+x+"), ok("ada:  x "));
        assert_eq!(said("key=+k+&name=&password="), ok("key k"));
        assert_eq!(said("key=k&name=ada&password=x&other=1&other=2"), ok("key k"));
        for body in
            ["", "name=ada", "password=x", "name=+&password=x", "key=+", "name=ada&password="]
        {
            assert!(said(body).unwrap_err().contains("your name and password"), "{body}");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused_and_no_secret_is_shown() {
        for body in ["name=a&name=b", "key=&key=", "token=1&%74oken=1", "next=/&next=//x"] {
            assert!(said(body).unwrap_err().contains("twice"), "{body}");
        }
        let fields = Fields::read(b"name=ada&password=pw1&key=pw2").unwrap();
        assert!(!format!("{fields:?}").contains("pw"));
    }

    #[test]
    fn only_a_form_is_one() {
        for kind in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; a=b"]
        {
            assert!(is_form(kind.as_bytes()), "{kind}");
        }
        for kind in ["", "text/plain", "multipart/form-data", "application/json"] {
            assert!(!is_form(kind.as_bytes()), "{kind}");
        }
        assert!(is_same("ab", "ab") && is_same("", ""));
        assert!(!is_same("ab", "ac") && !is_same("ab", "a") && !is_same("", "a"));
    }
}
