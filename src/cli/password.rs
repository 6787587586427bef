//! How does a verb learn a new password? From a person at a terminal, who is asked twice and sees
//! nothing of it, or from the first line of standard input.

use std::io::{self, BufRead as _, IsTerminal as _};

use crate::auth::UserName;
use crate::auth::password::check;

/// More than a password and the end of its line have; what follows is not read.
const LINE_MAX: u64 = 4 << 10;

/// The new password of a user, which he may have.
///
/// # Errors
/// There is none, it is none, or the two that were typed differ.
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
    // Before it is asked for again.
    check(&password).map_err(|bad| bad.to_string())?;
    let again = prompt("The same again: ".to_owned())?;
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
