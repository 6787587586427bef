//! Reads a new password: from a person at a terminal, who types it twice without seeing it, or from
//! the first line of standard input.

use std::io::{self, BufRead as _, IsTerminal as _};

use crate::auth::UserName;
use crate::auth::password::check;

/// More than a password and its line end can have. Nothing after that is read.
const LINE_MAX: u64 = 4 << 10;

/// Reads a new password for a user and checks it.
///
/// # Errors
/// There is no password, it is not valid, or the two that were typed differ.
pub(super) fn ask(name: &UserName) -> Result<String, String> {
    let stdin = io::stdin();
    if stdin.is_terminal() { of_terminal(name) } else { of_line(stdin.lock()) }
}

fn of_terminal(name: &UserName) -> Result<String, String> {
    let prompt = |text: String| {
        let typed = rpassword::prompt_password(text);
        typed.map_err(|error| format!("the password could not be read: {error}"))
    };
    let password = prompt(format!("New password of {name}: "))?;
    // Checked before it is asked for again.
    check(&password).map_err(|bad| bad.to_string())?;
    let again = prompt("Type it again: ".to_owned())?;
    if again == password { Ok(password) } else { Err("the two passwords differ".to_owned()) }
}

fn of_line(input: impl io::BufRead) -> Result<String, String> {
    let mut line = Vec::new();
    let read = input.take(LINE_MAX).read_until(b'\n', &mut line);
    read.map_err(|error| format!("the password could not be read: {error}"))?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let password = String::from_utf8(line.to_vec())
        .map_err(|_| "the password is not UTF-8 text".to_owned())?;
    if password.is_empty() {
        return Err("there is no password in the first line of standard input".to_owned());
    }
    check(&password).map_err(|bad| bad.to_string())?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        for text in ["a good one", "a good one\n", "a good one\r\n", "a good one\nand more\n"] {
            assert_eq!(of_line(text.as_bytes()).as_deref(), Ok("a good one"), "{text:?}");
        }
        assert_eq!(of_line(&b"  with blanks  \n"[..]).as_deref(), Ok("  with blanks  "));
    }

    #[test]
    fn a_line_that_is_none_says_why() {
        let long = "x".repeat(5_000);
        for (text, why) in [
            (&b""[..], "no password in the first line"),
            (b"\nsecond line", "no password in the first line"),
            (b"short\n", "at least 8 characters"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\n", "not UTF-8"),
            (b"with\ta tab\n", "no other control characters"),
            (long.as_bytes(), "at most 1024 bytes"),
        ] {
            let told = of_line(text).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
